# shellcheck shell=sh disable=SC2154  # set by the caller: wanted service include user login keys groups product directory

# What a server lacks to be deployed to, and what mends it. Each part has a question, which changes nothing and writes a
# line `todo=…` for each thing that is to be done, and an answer, which does these things and may be run again at any time.

# os_release KEY: what the system says of itself (os-release(5)), without quotes.
os_release() {
    sed -n "s/^$1=//p" /etc/os-release 2>/dev/null | head -n 1 | tr -d "\"'"
}

# setup_system: which system this is, and whether packages can be installed.
setup_system() {
    tell id "$(os_release ID)"
    tell like "$(os_release ID_LIKE)"
    tell name "$(os_release PRETTY_NAME)"
    if command -v apt-get >/dev/null 2>&1; then tell apt yes; else tell apt no; fi
}

# dpkg_states PATTERN: the packages whose state begins like that.
dpkg_states() {
    dpkg-query -W -f '${db:Status-Status} ${Package}\n' 2>/dev/null | sed -n "s/^\\($1\\)[a-z-]* //p"
}

# missing_packages: the Debian packages of what is not there; `wanted` has words `PROGRAM=PACKAGE`, and `/FILE?PROGRAM=PACKAGE`
# where it is needed only if that file is there, or `/FILE=PACKAGE` for a file itself. A program that dpkg is still at work
# on is not there yet: it may lack its settings.
missing_packages() {
    missing_halves=" $(dpkg_states 'half-\|unpacked\|triggers-' | tr '\n' ' ')"
    for missing_one in $wanted; do
        case $missing_one in
            *\?*)
                [ -e "${missing_one%%\?*}" ] || continue
                missing_one=${missing_one#*\?}
                ;;
        esac
        case $missing_one$missing_halves in
            *" ${missing_one#*=} "*) ;;
            /*) [ ! -e "${missing_one%%=*}" ] || continue ;;
            *) ! command -v "${missing_one%%=*}" >/dev/null 2>&1 || continue ;;
        esac
        printf '%s\n' "${missing_one#*=}"
    done | sort -u | tr '\n' ' '
}

# dpkg_works: whether somebody installs something just now, such as an unattended upgrade.
dpkg_works() {
    dpkg_lock=$(stat -c %i /var/lib/dpkg/lock-frontend 2>/dev/null) || return 1
    grep -q ":$dpkg_lock " /proc/locks
}

# interrupted: whether dpkg has begun something and not ended it; apt-get refuses to work then.
interrupted() {
    ! dpkg_works || return 1
    set -- /var/lib/dpkg/updates/[0-9]*
    [ ! -e "$1" ] || return 0
    [ -n "$(dpkg_states 'half-\|unpacked\|triggers-')" ]
}

setup_packages() {
    ! interrupted || tell todo 'complete what dpkg was interrupted in'
    setup_missing=$(missing_packages)
    [ -z "$setup_missing" ] || tell todo "install with apt-get: ${setup_missing% }"
}

# patiently COMMAND...: runs it, again and again for five minutes while somebody else has one of the locks of apt or dpkg:
# whoever looks at a new server often meets its first unattended upgrade. apt's own DPkg::Lock::Timeout does not cover the
# lists of packages. What it says goes to a file: nobody may be listening any more.
patiently() {
    patiently_left=300
    until LC_ALL=C "$@" >"$setup_log" 2>&1; do
        grep -qE 'Could not get lock|Unable to (lock|acquire)|lock was locked|is locked' "$setup_log" &&
            [ "$patiently_left" -gt 0 ] || return 1
        sleep 2
        patiently_left=$((patiently_left - 2))
    done
}

# install_packages PACKAGES...: of what is there, nothing is removed, and no service of somebody else is restarted. The
# lists of packages are fetched where they are missing, or too old for what is asked for.
install_packages() {
    set -- apt-get install -q -y --no-install-recommends --no-remove -o Dpkg::Options::=--force-confold "$@"
    patiently "$@" || { patiently apt-get update -q && patiently "$@"; } && return
    tail -n 6 "$setup_log" >&2
    exit 60
}

make_packages() {
    export DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l NEEDRESTART_SUSPEND=1
    setup_log=$(mktemp) || exit 60
    trap 'rm -f "$setup_log"' EXIT
    if interrupted; then
        patiently dpkg --configure -a --force-confold || { tail -n 6 "$setup_log" >&2 && exit 60; }
        # shellcheck disable=SC2046  # words
        [ -z "$(dpkg_states half-installed)" ] || install_packages --reinstall $(dpkg_states half-installed)
    fi
    setup_missing=$(missing_packages)
    # shellcheck disable=SC2086  # words
    [ -z "$setup_missing" ] || install_packages $setup_missing
    hash -r
    # Since Debian 13 the client has a package of its own, which docker.io only recommends.
    case " $(missing_packages)" in *' docker.io '*) install_packages docker-cli && hash -r ;; esac
    setup_missing=$(missing_packages)
    [ -z "$setup_missing" ] || fail 61 "apt-get has ended well, and these are still missing: $setup_missing"
}

# serves: whether the program of the service answers, whoever has started it.
serves() {
    case $service in
        docker) docker info >/dev/null 2>&1 ;;
        *) command -v nginx >/dev/null 2>&1 && nginx_pid >/dev/null ;;
    esac
}

has_systemd() {
    [ -d /run/systemd/system ]
}

# at_boot: whether the service comes with the machine; whoever runs it without a unit of that name has seen to it.
at_boot() {
    ! has_systemd || ! systemctl cat "$service.service" >/dev/null 2>&1 || systemctl is-enabled -q "$service" 2>/dev/null
}

setup_service() {
    serves || tell todo "start $service"
    at_boot || tell todo "have $service started at each boot"
}

make_service() {
    at_boot || systemctl enable -q "$service" >&2 || fail 62 "$service could not be enabled"
    serves && return
    if has_systemd; then systemctl start "$service" >&2; else service "$service" start >&2; fi ||
        fail 62 "$service could not be started"
    setup_left=60
    until serves; do
        [ "$setup_left" -gt 0 ] || fail 62 "$service was started and does not answer within 60 s"
        sleep 1
        setup_left=$((setup_left - 1))
    done
}

# Asked of nginx itself, because a file that is there may not be read.
setup_nginx() {
    for setup_place in upstreams sites; do
        [ -d "$nginx_directory/$setup_place" ] || tell todo "make the directory $nginx_directory/$setup_place"
    done
    nginx_includes || tell todo "have nginx read it: $include"
}

make_nginx() {
    (umask 022 && mkdir -p "$nginx_directory/upstreams" "$nginx_directory/sites") || exit 63
    nginx_includes && return 0
    setup_said=$(nginx -t -q -c "$nginx_config" 2>&1) ||
        fail 63 "nginx's own test fails before anything was changed: $setup_said"
    [ ! -e "$include" ] || grep -q '^# Written by axon-tasks' "$include" ||
        fail 63 "$include is there and does not include $nginx_directory"
    (umask 022 && mkdir -p "${include%/*}") || exit 63
    printf '# Written by axon-tasks: where deploys put their files.\ninclude %s/upstreams/*.conf;\ninclude %s/sites/*.conf;\n' \
        "$nginx_directory" "$nginx_directory" | replace_file "$include" 644 || exit 63
    setup_said=$(nginx -t -q -c "$nginx_config" 2>&1)
    if ! nginx_includes; then
        rm -f "$include"
        fail 63 "${setup_said:-"$nginx_config does not include ${include%/*}/*.conf: add \`include ${include%/*}/*.conf;\` inside of http { }"}"
    fi
    if nginx_pid >/dev/null; then nginx -s reload -c "$nginx_config" >&2 || exit 63; fi
}

home_of() {
    getent passwd "$1" | cut -d: -f6
}

# plain_keys FILE: its keys without options: a forced command is meant for one account alone (sshd(8), AUTHORIZED_KEYS).
plain_keys() {
    grep -E '^(ssh-|ecdsa-|sk-)[^ ]+ [A-Za-z0-9+/=]+' "$1" 2>/dev/null
}

# has_keys: whether the user can log in; whoever has just done so can, also with a certificate. Options that restrict a key
# are somebody's decision; only one with a forced command is none to deploy with.
has_keys() {
    [ "$login" = "$user" ] || grep -v 'command=' "$(home_of "$user")/.ssh/authorized_keys" 2>/dev/null |
        grep -qE '^[^#]*(ssh-|ecdsa-|sk-)[^ ]+ [A-Za-z0-9+/=]+'
}

# new_keys: the keys that the user is to have and has not: those that were given, else, for who has none, those of `login`.
new_keys() {
    new_file=$(home_of "$user")/.ssh/authorized_keys
    if [ -n "$keys" ]; then
        printf '%s\n' "$keys"
    elif ! has_keys; then
        plain_keys "$(home_of "$login")/.ssh/authorized_keys"
    fi | while read -r new_kind new_key new_rest; do
        plain_keys "$new_file" | cut -d ' ' -f 1,2 | grep -qxF "$new_kind $new_key" ||
            printf '%s %s %s\n' "$new_kind" "$new_key" "$new_rest"
    done
}

# lacking_groups: the groups of `groups` in which the user is not.
lacking_groups() {
    for lacking_one in $groups; do
        case " $(id -nG "$user" 2>/dev/null) " in *" $lacking_one "*) ;; *) printf '%s ' "$lacking_one" ;; esac
    done
}

setup_user() {
    id -u "$user" >/dev/null 2>&1 || tell todo "create the user $user"
    setup_keys=$(($(new_keys | wc -l)))
    if [ -n "$keys" ]; then setup_whose='the given'; else setup_whose="$login's"; fi
    if [ "$setup_keys" -gt 0 ]; then
        tell todo "let $user log in with $setup_keys of $setup_whose keys"
    elif ! has_keys; then
        tell todo "let $user log in, for which $login has no plain key: give some with --authorized-keys=FILE"
    fi
    setup_groups=$(lacking_groups)
    [ -z "$setup_groups" ] || tell todo "add $user to the group ${setup_groups% }"
}

make_user() {
    setup_added=$(new_keys)
    # No password fits `*`; with the usual `!` sshd would take the account for locked where it does without PAM (sshd(8)).
    id -u "$user" >/dev/null 2>&1 ||
        useradd --create-home --shell /bin/sh --user-group --password '*' "$user" >&2 || exit 64
    setup_home=$(home_of "$user")
    [ -n "$setup_home" ] || fail 64 "$user has no home directory"
    setup_file=$setup_home/.ssh/authorized_keys
    if [ -n "$setup_added" ]; then
        # What a link leads to may be somebody else's.
        if [ -L "$setup_home/.ssh" ] || [ -L "$setup_file" ]; then fail 65 "$setup_file is a link: add the key by hand"; fi
        [ -d "$setup_home/.ssh" ] || install -d -m 700 -o "$user" -g "$(id -gn "$user")" "$setup_home/.ssh" || exit 64
        # awk ends the last line, which may have no end.
        { awk 1 "$setup_file" 2>/dev/null; printf '%s\n' "$setup_added"; } | replace_file "$setup_file" 600 &&
            chown "$user:$(id -gn "$user")" "$setup_file" || exit 64
    fi
    has_keys || fail 65 "there is no key with which $user could log in: give some with --authorized-keys=FILE"
    for setup_group in $(lacking_groups); do
        getent group "$setup_group" >/dev/null || groupadd --system "$setup_group" >&2 || exit 64
        usermod -a -G "$setup_group" "$user" >&2 || exit 64
    done
}

# may_become_root: as deploys do it.
may_become_root() {
    runuser -u "$user" -- sudo -n sh -s </dev/null >/dev/null 2>&1
}

setup_sudo() {
    may_become_root || tell todo "let $user become root with \`sudo sh -s\`: $sudoers"
}

make_sudo() {
    may_become_root && return 0
    printf '%s ALL=(root) NOPASSWD: /usr/bin/sh -s, /bin/sh -s\n' "$user" >"$sudoers.new~" || exit 66
    # A file with a mistake would lock everybody out of sudo; one whose name ends in ~ is not read (sudoers(5)).
    { chmod 440 "$sudoers.new~" && visudo -q -c -f "$sudoers.new~" >&2 && mv -f "$sudoers.new~" "$sudoers"; } || {
        rm -f "$sudoers.new~"
        exit 66
    }
    may_become_root || fail 66 "$sudoers is written, and $user may still not: does a later file in ${sudoers%/*} forbid it?"
}

# owned DIRECTORY: whether it is the user's.
owned() {
    [ "$(stat -L -c %U "$1" 2>/dev/null)" = "$user" ]
}

# Ports are chosen among those of all products, so that the whole tree is one user's; what root has made there is given
# away, and what somebody else has made is not.
setup_state() {
    for setup_place in "$tree" "$directory" "$tree/ports.lock"; do
        case $setup_place in */ports.lock) [ -e "$setup_place" ] || continue ;; esac
        owned "$setup_place" || tell todo "give $user $setup_place"
    done
}

make_state_of_user() {
    (umask 022 && mkdir -p "$directory") || exit 67
    for setup_place in "$tree" "$directory"; do
        owned "$setup_place" || [ "$(stat -L -c %u "$setup_place")" = 0 ] ||
            fail 67 "$setup_place belongs to $(stat -L -c %U "$setup_place"): have all deploys on a server done by one user"
    done
    setup_owner=$user:$(id -gn "$user")
    [ ! -e "$tree/ports.lock" ] || chown "$setup_owner" "$tree/ports.lock" || exit 67
    chown -R "$setup_owner" "$directory" && chown "$setup_owner" "$tree" || exit 67
}

# The directory of an env file may hold others' files: one that is there stays as it is.
setup_place() {
    [ -d "$directory" ] || tell todo "make the directory $directory for $user"
}

make_place() {
    [ -d "$directory" ] || { (umask 022 && mkdir -p "${directory%/*}/") && install -d -m 750 -o "$user" -g "$(id -gn "$user")" "$directory"; } || exit 67
}
