# shellcheck shell=sh disable=SC2154  # set by the caller: image registry_user registry_server

# docker_info: version and free space, with one start of docker.
docker_info() {
    docker_told=$(docker info --format '{{.ServerVersion}} {{.DockerRootDir}}' 2>/dev/null)
    if [ -z "${docker_told%% *}" ]; then
        # Why not: `docker info` itself answers with an error of its template.
        docker version --format '{{.Server.Version}}' && echo 'docker info says nothing' >&2
        exit 40
    fi
    tell version "${docker_told%% *}"
    tell free "$(df -Pk "${docker_told#* }" | awk 'NR == 2 { print $4 }')"
}

# pull_image: the image, with a login that exists for this command alone. Lines of docker tell how far it is.
pull_image() {
    # A shell that is ended runs its EXIT trap only if the signal is trapped, too (dash).
    trap 'exit 1' HUP INT TERM PIPE
    sweep_logins
    if [ -n "$registry_user" ]; then
        DOCKER_CONFIG=$(mktemp -d /tmp/axon-login.XXXXXXXX) || exit 30
        export DOCKER_CONFIG
        trap 'rm -rf "$DOCKER_CONFIG"' EXIT
        # Held until the last process of this pull has ended, so that another pull can tell it from an abandoned one.
        exec 7>"$DOCKER_CONFIG/pull.lock" || exit 30
        flock 7 || exit 30
        docker login --username "$registry_user" --password-stdin "$registry_server" >/dev/null || exit 33
    fi
    docker pull "$image" || exit 34
}

# fetch_image: the image by its digest, from the registry only if it is not here.
fetch_image() {
    docker image inspect --format '{{.Id}}' "$image" >/dev/null 2>&1 || pull_image
}

# sweep_logins: a login that was killed together with its trap is removed by the next pull. /tmp belongs to everybody:
# only directories of this user, and only those that nobody pulls with.
sweep_logins() {
    for login_old in /tmp/axon-login.????????; do
        if [ -L "$login_old" ] || [ ! -f "$login_old/pull.lock" ]; then continue; fi
        [ "$(stat -c %u "$login_old" 2>/dev/null)" = "$(id -u)" ] || continue
        if (flock -n 7) 7<"$login_old/pull.lock"; then rm -rf -- "$login_old"; fi
    done 2>/dev/null
}

# image_digests: the names by which registries know the image.
image_digests() {
    docker image inspect --format '{{json .RepoDigests}} {{.Id}}' "$image"
}

# tell_layers: whether containerd keeps the images, which then loads no archive with layers left out, and the layers of
# every image. An image that goes away meanwhile is no failure.
tell_layers() {
    case $(docker info --format '{{json .DriverStatus}}' 2>/dev/null) in
        *io.containerd.snapshotter*) tell store containerd ;;
        '' | null)
            # Why not: `docker info` itself answers with an error of its template.
            docker version --format '{{.Server.Version}}' && echo 'docker info says nothing' >&2
            exit 40
            ;;
        *) tell store classic ;;
    esac
    layers_ids=$(docker image ls -q --no-trunc) || exit 1
    layers_ids=$(printf '%s\n' "$layers_ids" | sort -u)
    # shellcheck disable=SC2086  # ids are words
    [ -z "$layers_ids" ] || docker image inspect --format '{{.Id}} {{json .RootFS.Layers}}' $layers_ids 2>/dev/null
    return 0
}

# load_image: what comes in becomes an image; its id is what is told about it. What Docker says goes to stderr.
load_image() {
    docker load >&2 || exit 37
    docker image inspect --format '{{.Id}}' "$image" || exit 38
}
