# shellcheck shell=sh disable=SC2154  # set by the caller: tools state ports product environment certificate key

# doctor_host: the time, who we are, and which programs are missing.
doctor_host() {
    tell epoch "$(date +%s)"
    tell user "$(id -un)"
    for doctor_tool in $tools; do
        command -v "$doctor_tool" >/dev/null 2>&1 || tell missing "$doctor_tool"
    done
    for doctor_tool in curl bash wget none; do
        if command -v "$doctor_tool" >/dev/null 2>&1; then break; fi
    done
    tell client "$doctor_tool"
}

# doctor_state: whether this user may keep the state of the environment here, and choose its ports among those of others.
doctor_state() {
    doctor_lock=${state%/*/*}/ports.lock
    for doctor_place in "$state" "$doctor_lock"; do
        while [ ! -e "$doctor_place" ]; do doctor_place=${doctor_place%/*}; [ -n "$doctor_place" ] || doctor_place=/; done
        if [ ! -w "$doctor_place" ]; then
            tell writable "$doctor_place"
            return
        fi
    done
    tell writable yes
}

# listener PORT: the inode of the socket that listens on a port, or nothing.
listener() {
    listener_hex=$(printf ':%04X' "$1")
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$listener_hex" \
        '$4 == "0A" && substr($2, length($2) - 4) == port { print $10; exit }'
}

# doctor_listens: by which program each port is listened on, as root.
doctor_listens() {
    for doctor_port in $ports; do
        doctor_inode=$(listener "$doctor_port")
        [ -n "$doctor_inode" ] || continue
        doctor_name='a program that cannot be seen from here'
        for doctor_process in /proc/[0-9]*; do
            case $(ls -l "$doctor_process/fd" 2>/dev/null) in
                *"socket:[$doctor_inode]"*)
                    read -r doctor_name <"$doctor_process/comm"
                    break
                    ;;
            esac
        done
        tell listens "$doctor_port $doctor_name"
    done
}

# doctor_ports: whether somebody else has one of the environment's own ports.
doctor_ports() {
    [ -s "$state/ports" ] || return 0
    read -r doctor_first doctor_second <"$state/ports"
    for doctor_port in $doctor_first $doctor_second; do
        [ -n "$(listener "$doctor_port")" ] || continue
        doctor_ours=$(docker ps -q --filter "publish=$doctor_port" --filter "label=axon.product=$product" \
            --filter "label=axon.environment=$environment") || exit 41
        [ -n "$doctor_ours" ] || tell taken "$doctor_port"
    done
}

# doctor_certificate: the certificates of the file, which everybody may read, and nothing else: a key may stand beside them.
doctor_certificate() {
    [ -r "$key" ] || tell missing "$key"
    if [ ! -r "$certificate" ]; then
        tell missing "$certificate"
        return
    fi
    sed -n '/-----BEGIN CERTIFICATE-----/,/-----END CERTIFICATE-----/p' "$certificate" | head -c 65536
}
