"""The kernel settings that a router needs, in the network namespace of this thread."""

from __future__ import annotations

import socket
from collections.abc import Collection
from contextlib import suppress
from errno import EROFS
from pathlib import Path

from router import late
from router.nfnetlink import FirewallError

NEEDED = {"icmp_echo_ignore_broadcasts": "0"}
"""A node finds its neighbours by pinging the broadcast address."""
FASTER = {"ip_early_demux": "0"}
"""No socket is looked for before a packet's route is known: most have none here (the kernel's ip-sysctl.rst)."""
WANTED = {
    "accept_redirects": "0",
    "send_redirects": "0",
    "arp_ignore": "1",
}
"""For each leg. No VLAN can change routes, and ARP is answered for the leg's own address only."""

_NUMBERS = {"forwarding": 1, "accept_redirects": 4, "send_redirects": 6, "rp_filter": 8, "arp_ignore": 19}
"""``IPV4_DEVCONF_...``"""

_ROOT = Path("/proc/sys/net/ipv4")


def prepare(legs: Collection[str], wan: str | None, root: Path = _ROOT) -> list[str]:
    """Set and verify the kernel's settings, when the rules are there. Returns a line for each of the legs' that could
    not be set.

    Raises `FirewallError` when nothing would be routed, or one of `NEEDED` cannot be set. Writes what differs, so that
    a read-only ``/proc/sys`` with the right values is fine.
    """
    for name, value in NEEDED.items():
        if why := _set(root / name, value):
            raise _option_missing(name, value, why)
    if _set(root / "ip_forward", "1") is not None:
        folders = [root / "conf" / one for one in (*legs, *([wan] if wan else [])) if (root / "conf" / one).exists()]
        for folder in folders:
            if why := _set(folder / "forwarding", "1"):
                raise _option_missing("ip_forward", "1", why)
    wanted = WANTED | {"rp_filter": _source_check(root)}
    settings = FASTER | {f"conf/{leg}/{name}": value for leg in legs for name, value in wanted.items()}
    return [
        f"net.ipv4.{name.replace('/', '.')} is not {value}: {why}"
        for name, value in settings.items()
        if (why := _set(root / name, value))
    ]


def _option_missing(name: str, value: str, why: str) -> FirewallError:
    option = f"net.ipv4.{name}={value}"
    return FirewallError(f"cannot set {option} ({why}): start the container with --sysctl {option}")


def _source_check(root: Path) -> str:
    """None, for the rules have a strict one, and the kernel's takes a look at the routes for each packet. Where it is
    strict for all interfaces it becomes loose: a client that changed its VLAN would get no answer to its DHCP."""
    with suppress(OSError):
        if (root / "conf/all/rp_filter").read_text().strip() != "0":
            return "2"
    return "0"


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
