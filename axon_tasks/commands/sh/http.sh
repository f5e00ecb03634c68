# shellcheck shell=sh disable=SC2034,SC2154,SC2016  # results are read by the caller; bash -c expands its own $1

# wget_answer: wget -S tells the header indented and without an empty line behind it (busybox: nothing but one
# sentence where the status is an error); turns that into the form of an answer.
wget_answer() {
    awk '/^wget: server returned error: / { sub(/^wget: server returned error: /, "  ") }
        !body && /^  *HTTP\// { seen = 1 }
        !body && seen && /^  / { sub(/^ */, ""); sub(/\r$/, ""); if ($0 != "") printf "%s\r\n", $0; next }
        seen && !body { body = 1; printf "\r\n" }
        { print }
        END { if (seen && !body) printf "\r\n" }'
}

# http_get ADDRESS PORT PATH HOST TIMEOUT: one GET that follows no redirect. Sets http_status (empty without an
# answer), http_head, http_body (64 KiB at most) and http_error. Uses what the server has: curl, bash or wget.
http_get() {
    http_status='' http_head='' http_body='' http_error=''
    http_bare=${1#[} http_bare=${http_bare%]} http_url=$1
    case $http_bare in *:*) http_url="[$http_bare]" ;; esac
    if command -v curl >/dev/null 2>&1; then
        http_raw=$(curl -sS -i --http1.1 -m "$5" --noproxy '*' -A axon-tasks -H "Host: $4" "http://$http_url:$2$3" 2>&1 | head -c 65536)
    elif command -v bash >/dev/null 2>&1; then
        http_raw=$(timeout "$5" bash -c 'exec 3<>"/dev/tcp/$1/$2" || exit 7
            printf "GET %s HTTP/1.0\r\nHost: %s\r\nUser-Agent: axon-tasks\r\nConnection: close\r\n\r\n" "$3" "$4" >&3
            head -c 65536 <&3' probe "$http_bare" "$2" "$3" "$4" 2>&1) || http_error="no answer within $5 s"
    elif command -v wget >/dev/null 2>&1; then
        http_raw=$(timeout "$5" wget -q -S -O - --header "Host: $4" "http://$http_url:$2$3" 2>&1 | wget_answer | head -c 65536)
    else
        http_error='no HTTP client: install curl, bash or wget on this server'
        return 1
    fi
    case $http_raw in
        HTTP/*) ;;
        *)
            http_error=${http_raw:-${http_error:-an empty answer}}
            return 1
            ;;
    esac
    http_error=''
    http_status=${http_raw#* }
    http_status=${http_status%%[!0-9]*}
    http_gap=$(printf '\r\n\r\nx')
    http_gap=${http_gap%x}
    http_head=${http_raw%%"$http_gap"*}
    case $http_raw in
        *"$http_gap"*) http_body=${http_raw#*"$http_gap"} ;;
    esac
}

# http_header NAME: the value of a header of the last answer, on stdout; NAME in lower case.
http_header() {
    printf '%s\n' "$http_head" | tr -d '\r' | while IFS= read -r http_line; do
        http_name=$(printf '%s' "${http_line%%:*}" | tr '[:upper:]' '[:lower:]')
        if [ "$http_name" = "$1" ]; then
            printf '%s' "${http_line#*: }"
            break
        fi
    done
}

# http_expected: whether the last answer has one of the statuses in $expect_status and contains $expect_body.
http_expected() {
    case " $expect_status " in
        *" $http_status "*) ;;
        *) return 1 ;;
    esac
    [ -z "$expect_body" ] && return 0
    case $http_body in
        *"$expect_body"*) return 0 ;;
    esac
    return 1
}

# http_told: the last answer in one line for people.
http_told() {
    if [ -z "$http_status" ]; then
        printf '%s' "$http_error" | head -n 1
    else
        printf 'HTTP %s' "$http_status"
    fi
}
