#!/bin/sh
# Unpack Kea and ISC dhcpd for the tests of the containers' DHCP client, with the libraries they need, into
# .cache/servers, where the machine does not have them. Not installed: a package would start its server on the machine.
set -u
cd "$(dirname "$0")/../.." || exit 1
folder=$PWD/.cache/servers

absent() {
    for server in kea-dhcp4:kea-dhcp4-server dhcpd:isc-dhcp-server; do
        [ -x "/usr/sbin/${server%:*}" ] || [ -x "$folder/usr/sbin/${server%:*}" ] || echo "${server#*:}"
    done
}

unpack() {
    # shellcheck disable=SC2046
    apt-get -qq --simulate --no-install-recommends install $(absent) 2>/dev/null |
        sed -n 's/^Inst \([^ ]*\) .*/\1/p' | xargs -r apt-get -qq download >/dev/null 2>&1
    for package in *.deb; do [ ! -f "$package" ] || { dpkg -x "$package" . && rm "$package"; }; done
}

[ "$(absent)" ] && command -v apt-get >/dev/null || exit 0
mkdir -p "$folder" && cd "$folder" || exit 0
unpack
[ ! "$(absent)" ] || { apt-get -qq update && unpack; }
[ ! "$(absent)" ] || echo "cannot be fetched, so some tests are skipped:" $(absent)
