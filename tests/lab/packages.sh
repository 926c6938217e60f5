#!/bin/sh
# Install the Debian packages that the demo and the tests need, and with the argument `bench` those of the benchmark.
set -eu

wanted() {
    cat <<-EOF
	python3-venv        the virtual environment
	iproute2            ip and bridge build the virtual truck
	nftables            the router's rules
	udhcpc              client: most small devices
	isc-dhcp-client     client: dhclient
	dhcpcd-base         client: dhcpcd
	systemd             client: systemd-networkd
	gcc                 compiles the load generator
	libc6-dev           compiles the load generator
	dnsmasq-base        another server on the port
	iptables            the article's rules, compared with
	chromium            the page, as a browser shows it
	chromium-driver     drives it
	EOF
    [ "${1-}" = bench ] || return 0
    cat <<-EOF
	kea-dhcp4-server    compared with
	kea-admin           perfdhcp
	isc-dhcp-server     compared with
	EOF
}

missing() {
    wanted "$@" | while read -r package _; do
        dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || echo "$package"
    done
}

# Unpacked, not installed: the package would start a relay agent on the machine's own interface.
unpack_relay() {
    command -v apt-get >/dev/null && ! [ -x "$relay/usr/sbin/dhcrelay" ] || return 0
    mkdir -p "$relay" && cd "$relay" || return 0
    apt-get -qq download isc-dhcp-relay >/dev/null 2>&1 || { apt-get -qq update && apt-get -qq download isc-dhcp-relay; } ||
        echo "isc-dhcp-relay cannot be fetched, so its tests are skipped"
    for package in isc-dhcp-relay*.deb; do [ ! -f "$package" ] || dpkg -x "$package" .; done
    cd - >/dev/null
}

command -v dpkg-query >/dev/null || exit 0
relay=$PWD/.cache/dhcrelay
unpack_relay
packages=$(missing "$@" | tr '\n' ' ')
[ "$packages" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed, so some tests are skipped: $packages"
    exit 0
fi
echo "installing: $packages"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
apt-get -qq update && apt-get -qq install --no-install-recommends $packages >/dev/null ||
    { echo "cannot be installed, so some tests are skipped: $packages"; exit 0; }

# As packaged these serve no interface, but a machine that only measures should not run them at all.
for service in kea-dhcp4-server isc-dhcp-server; do
    case " $packages" in *" $service "*) ;; *) continue ;; esac
    [ ! -d /run/systemd/system ] || systemctl --quiet disable --now "$service" || true
done
