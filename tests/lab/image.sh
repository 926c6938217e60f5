#!/bin/sh
# What the tests run as it is shipped: the image of this checkout, on a base of the machine's own Debian release, and
# Compose. All of it below .cache/lab: base.tar, lanward.tar, compose-1.29, compose-2. Where that cannot be, one line says
# why, and .cache/lab/missing keeps it for the tests that are skipped.
set -eu

engine=$PWD/.cache/engines/20.10
lab=$PWD/.cache/lab
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Codename: bookworm' 'Component: main' | head -n 1)

private_apt() {
    apt-get -qq -o "Dir::Etc::SourceList=$lab/apt/sources" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State::Lists=$lab/apt/lists" -o "Dir::State::Status=$lab/apt/status" -o "Dir::Cache=$lab/apt/cache" \
        -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}

# compose SUITE FOLDER PACKAGE...: unpacked, not installed.
compose() {
    suite=$1 folder=$2
    shift 2
    [ ! -d "$lab/$folder" ] || return 0
    rm -rf "$lab/apt" && mkdir -p "$lab/apt/lists" "$lab/apt/cache" "$lab/apt/tree" && : >"$lab/apt/status"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$lab/apt/sources"
    (cd "$lab/apt" && private_apt update && private_apt download "$@") || return 1
    for package in "$lab"/apt/*.deb; do dpkg -x "$package" "$lab/apt/tree" || return 1; done
    mv "$lab/apt/tree" "$lab/$folder"
    rm -rf "$lab/apt"
}

# As debian:bookworm-slim, with the certificates by which this machine reaches its registries.
base() {
    [ ! -f "$lab/base.tar" ] || return 0
    command -v mmdebstrap >/dev/null || apt-get -qq install --no-install-recommends mmdebstrap >/dev/null || return 1
    mmdebstrap --quiet --variant=minbase --mode=root --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='cp /etc/ssl/certs/ca-certificates.crt "$1/etc/pip-ca.crt"' \
        --customize-hook='printf "[global]\ncert = /etc/pip-ca.crt\n" >"$1/etc/pip.conf"' \
        bookworm "$lab/base.part.tar" "$mirror" && mv "$lab/base.part.tar" "$lab/base.tar"
}

# Also when interrupted: no engine, no mount, no folder stays.
ended() {
    trap '' INT TERM HUP
    [ -z "${pid-}" ] || { kill "$pid" && wait "$pid"; } 2>/dev/null || true
    awk -v at="$work/" 'index($2, at) == 1 { print $2 }' /proc/self/mounts | sort -r | xargs -r umount -l
    rm -rf "$work"
}

# The engine of the build is in the machine's own network, for the registries, and touches nothing there.
build() {
    work=$(mktemp -d /tmp/lw-build.XXXXXX)
    trap ended EXIT
    trap 'exit 130' INT TERM HUP
    PATH=$engine/usr/bin:$engine/usr/sbin:$PATH
    LD_LIBRARY_PATH=$(find "$engine" -name '*-linux-gnu' -type d | tr '\n' ':')
    export PATH LD_LIBRARY_PATH DOCKER_BUILDKIT=0 DOCKER_HOST="unix://$work/socket"
    echo '{}' >"$work/daemon.json"
    dockerd --config-file "$work/daemon.json" --data-root "$work/root" --exec-root "$work/exec" --pidfile "$work/pid" \
        --host "$DOCKER_HOST" --bridge none --iptables=false --ip-masq=false --ip-forward=false >"$work/log" 2>&1 &
    pid=$!
    for _ in $(seq 100); do docker version >/dev/null 2>&1 && break; sleep 0.2; done
    docker import "$lab/base.tar" lab/base >/dev/null &&
        docker build --quiet --network host --build-arg BASE=lab/base --tag lanward . >"$lab/log" 2>&1 &&
        docker save --output "$lab/lanward.part.tar" lanward && mv "$lab/lanward.part.tar" "$lab/lanward.tar" &&
        docker image inspect --format '{{.Size}}' lanward >"$lab/size"
}

# Of what the image does; README.md is only told by pip.
digest() {
    find Dockerfile pyproject.toml dhcpd leasebroker router -type f -not -name '*.pyc' | sort | xargs sha256sum | sha256sum
}

mkdir -p "$lab"
failed() {
    echo "there is no image: $1" | tee "$lab/missing"
    exit 0
}
[ "$(id -u)" = 0 ] || failed "it needs root"
[ -x "$engine/usr/sbin/dockerd" ] || failed "engine 20.10 is not there"
python="python3-docker python3-dockerpty python3-docopt python3-dotenv python3-jsonschema python3-texttable
    python3-websocket python3-yaml python3-requests python3-distutils python3-attr python3-pyrsistent python3-six
    python3-urllib3 python3-idna python3-chardet python3-certifi python3-pkg-resources"
# shellcheck disable=SC2086
compose bookworm compose-1.29 docker-compose $python || failed "docker-compose 1.29 cannot be fetched"
compose trixie compose-2 docker-compose || failed "Compose 2 cannot be fetched"
base || failed "no base image can be made"
wanted=$(digest)
if ! [ -f "$lab/lanward.tar" ] || [ "$(cat "$lab/source" 2>/dev/null)" != "$wanted" ]; then
    build || failed "the image cannot be built: $(tail -n 1 "$lab/log")"
    echo "$wanted" >"$lab/source"
fi
rm -f "$lab/missing"
