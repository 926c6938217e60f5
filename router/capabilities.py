"""What the process may do, compared with what a router has to: said at the start, before anything fails."""

from __future__ import annotations

from pathlib import Path

from leasebroker.containers import Problem
from router.settings import Config

_STATUS = Path("/proc/self/status")
_NEEDED = {
    "NET_ADMIN": (12, "no rules are applied, no address is taken, and nothing is forwarded safely"),
    "NET_RAW": (13, "devices without an address get no answer, and addresses are not probed"),
    "NET_BIND_SERVICE": (10, "UDP port 67 cannot be opened, so no VLAN is served"),
}
_FOR_CONTAINERS = {"SYS_ADMIN": (21, "containers cannot be entered, so they keep the address that Docker gave")}


def effective(status: Path = _STATUS) -> int:
    """The capabilities of this process, one bit for each."""
    line = next(line for line in status.read_text().splitlines() if line.startswith("CapEff:"))
    return int(line.split()[1], 16)


def missing(capabilities: int, config: Config) -> dict[str, Problem]:
    """By name those that a configuration needs and the process has not: what will not work, and the cure."""
    needed = _NEEDED | (_FOR_CONTAINERS if any(vlan.network for vlan in config.vlans) else {})
    return {
        name: Problem(f"the capability {name} is missing: {consequence}", f"run as root with --cap-add {name}")
        for name, (bit, consequence) in needed.items()
        if not capabilities >> bit & 1
    }
