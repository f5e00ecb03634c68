#!/bin/sh
# What is there of one product and environment on this host: one fact a line. Looks only, and judges nothing.
# Usage: observe.sh ROLE PRODUCT ENVIRONMENT, as root; ROLE is system or app.

role=$1 product=$2 environment=$3
state=/var/lib/axon/$product/$environment

# first FILE: its first line, or nothing.
first() {
    first_line=''
    [ ! -e "$1" ] || IFS= read -r first_line <"$1"
    printf '%s' "$first_line"
}

# Everything below the product's own directory, and what stands beside its nginx files under its name.
find "/var/lib/axon/$product" -mindepth 1 -printf 'file %y %p\n' 2>/dev/null
find /etc/nginx/axon.d -name "*$product-*" -printf 'file %y %p\n' 2>/dev/null
# What belongs to nobody in particular.
find /var/lib/axon -maxdepth 1 -name '.*' -printf 'shared %y %p\n' 2>/dev/null
find /tmp /var/tmp /run/lock -maxdepth 1 -name '*axon*' -printf 'shared %y %p\n' 2>/dev/null

printf 'ports %s\n' "$(first "$state/ports")"
if [ -e "$state/lock" ]; then
    # Not through the product's own code: this is what its promise is held against.
    if flock -n "$state/lock" true; then echo 'lock free'; else echo 'lock held'; fi
fi

# Shells that wait for a script or run one: what a deployer leaves when it is killed. Not this one.
for process in /proc/[0-9]*; do
    words=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null)
    case $words in
        'sh -s ' | 'sudo -n sh -s ' | '/usr/bin/sh -s ' | '/bin/sh -s ')
            [ "${process#/proc/}" = "$$" ] || printf 'shell %s %s\n' "${process#/proc/}" "$words"
            ;;
    esac
done

# Ports on which somebody listens.
cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | while read -r _ where _ listening _; do
    [ "$listening" = 0A ] && printf 'listen %d\n' "$((0x${where##*:}))"
done

if [ "$role" = system ]; then
    if [ -e "$state/slot_b" ]; then echo 'slot b'; else echo 'slot a'; fi
    current=$(first "$state/current")
    printf 'current %s\n' "$current"
    [ -z "$current" ] || printf 'record %s\n' "$(first "$state/releases/$current.json")"
    sed -n 's/^[[:space:]]*server[[:space:]]\{1,\}\([^ ;]*\).*/upstream \1/p' \
        "/etc/nginx/axon.d/upstreams/$product-$environment.conf" 2>/dev/null
    if said=$(nginx -t 2>&1); then
        echo 'nginx valid'
    else
        printf 'nginx %s\n' "$(printf '%s' "$said" | tr '\n' ' ')"
    fi
else
    # By label, and by name for what has lost its labels.
    ids=$(docker ps -aq --no-trunc --filter "label=axon.product=$product" &&
        docker ps -aq --no-trunc --filter "name=^/?$product-") || exit 1
    ids=$(printf '%s\n' "$ids" | sort -u)
    # One that goes away meanwhile is no failure: whoever looks, looks again.
    # shellcheck disable=SC2086  # ids are words
    [ -z "$ids" ] || docker inspect --type container --format \
        'container {"id":{{json .Id}},"name":{{json .Name}},"status":{{json .State.Status}},"restart":{{json .HostConfig.RestartPolicy.Name}},"bindings":{{json .HostConfig.PortBindings}},"labels":{{json .Config.Labels}}}' \
        $ids 2>/dev/null
    docker network ls --filter "label=axon.product=$product" --format 'network {{.Name}}' || exit 1
fi
exit 0
