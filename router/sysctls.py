"""The kernel settings that a router needs, in the network namespace of this thread."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from errno import EROFS
from pathlib import Path

from router import late
from router.nfnetlink import FirewallError

NEEDED = {"ip_forward": "1", "icmp_echo_ignore_broadcasts": "0"}
"""Without the first nothing is routed; the second lets a node find its neighbours by pinging the broadcast address."""
WANTED = {
    "accept_redirects": "0",
    "send_redirects": "0",
    "arp_ignore": "1",
    "rp_filter": "2",
}
"""For each leg. No VLAN can change routes; ARP is answered for the leg's own address only; and the kernel's source
check is loose, because the rules have a strict one, which lets a client that changed its VLAN speak DHCP."""

_NUMBERS = {"accept_redirects": 4, "send_redirects": 6, "rp_filter": 8, "arp_ignore": 19}
"""``IPV4_DEVCONF_...``"""

_ROOT = Path("/proc/sys/net/ipv4")


def prepare(legs: Iterable[str], root: Path = _ROOT) -> list[str]:
    """Set and verify the kernel's settings. Returns a line for each of `WANTED` that could not be set.

    Raises `FirewallError` when one of `NEEDED` cannot be set. Writes what differs, so that a read-only ``/proc/sys``
    with the right values is fine.
    """
    for name, value in NEEDED.items():
        if why := _set(root / name, value):
            option = f"net.ipv4.{name}={value}"
            raise FirewallError(f"cannot set {option} ({why}): start the container with --sysctl {option}")
    settings = [(leg, name, value) for leg in legs for name, value in WANTED.items()]
    return [
        f"net.ipv4.conf.{leg}.{name} is not {value}: {why}"
        for leg, name, value in settings
        if (why := _set(root / "conf" / leg / name, value))
    ]


def _set(path: Path, value: str) -> str | None:
    """Why the setting does not have the value, None when it has."""
    try:
        if path.read_text().strip() != value:
            _write(path, value)
        found = path.read_text().strip()
    except OSError as error:
        return error.strerror or str(error)
    return None if found == value else f"it stays {found}"


def _write(path: Path, value: str) -> None:
    """A leg's setting also where a container shows them to be read only."""
    try:
        path.write_text(value)
    except OSError as error:
        if error.errno != EROFS or path.name not in _NUMBERS:
            raise
        netns = late("leasebroker.netns")
        netns.set_conf(socket.if_nametoindex(path.parent.name), _NUMBERS[path.name], int(value))
