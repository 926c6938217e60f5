#!/bin/sh
# Unpack Docker engines for the tests: engines.sh VERSION...  Each becomes .cache/engines/VERSION, out of the Debian
# suite that carries it; nothing is installed and no service started. Where that cannot be, one line says why, and
# .cache/engines/VERSION.missing keeps it for the tests that are skipped.
set -eu

suites() {
    case $1 in
        20.10) echo bookworm ;;
        26.1) echo bookworm trixie ;;
        28.5) echo bookworm forky sid ;;
    esac
}

# runc and the libraries are Debian 12's for each engine: those of newer suites want a newer C library.
runtime="runc=1.1.5* libdevmapper1.02.1=2:1.02.185* libseccomp2=2.5.4* busybox-static=1:1.35.*"
packages() {
    case $1 in
        20.10) echo "docker.io=20.10.* containerd=1.6.* tini=0.19.* $runtime" ;;
        26.1) echo "docker.io=26.1.* docker-cli=26.1.* containerd=1.7.* $runtime" ;;
        28.5) echo "docker.io=28.5.* docker-cli=28.5.* containerd=2.* $runtime" ;;
    esac
}

# Packages come from where this machine has its own from.
sources() {
    codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
    mirror=$(apt-get indextargets --format '$(REPO_URI)' \
        'Created-By: Packages' 'Origin: Debian' "Codename: $codename" 'Component: main' | head -n 1)
    for suite in $(suites "$1"); do
        [ -z "$mirror" ] || echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
    done
}

private_apt() {
    apt-get -qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State::Lists=$work/lists" -o "Dir::State::Status=$work/status" -o "Dir::Cache=$work/cache" \
        -o Acquire::Languages=none -o APT::Sandbox::User=root -o APT::Update::Error-Mode=any "$@"
}

fetch() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || { echo "this is no Debian machine"; return 1; }
    sources "$1" >"$work/sources.list"
    [ -s "$work/sources.list" ] || { apt-get -qq update && sources "$1" >"$work/sources.list"; } # a machine without lists
    [ -s "$work/sources.list" ] || { echo "apt has no source for this machine's release"; return 1; }
    # shellcheck disable=SC2046
    { private_apt update && (cd "$work" && private_apt download $(packages "$1")); } >"$work/log" 2>&1 ||
        { grep -m 1 '^E:' "$work/log" || echo "apt failed"; return 1; }
    for package in "$work"/*.deb; do dpkg -x "$package" "$work/tree" || return 1; done
}

[ "$(id -u)" = 0 ] || exit 0 # nobody else can run an engine
mkdir -p .cache/engines
cd .cache/engines
for version; do
    ! [ -d "$version" ] || continue
    [ "$(packages "$version")" ] || { echo "no Debian suite is known to carry engine $version"; exit 2; }
    work=$(mktemp -d "$PWD/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM HUP
    mkdir "$work/lists" "$work/cache" "$work/tree"
    : >"$work/status"
    echo "fetching Docker Engine $version"
    if fetch "$version" >"$version.missing"; then
        mv "$work/tree" "$version"
        rm -f "$version.missing"
    else
        echo "engine $version cannot be fetched, so its tests are skipped: $(cat "$version.missing")"
    fi
    rm -rf "$work"
done
