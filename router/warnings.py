"""What is wrong at the moment, in one list: each warning has an id that stays the same, and one sentence to cure it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from dhcpd.decision import Note
from router.times import iso_time

MAX_OF_A_KIND = 50
"""Warnings of one kind at a time: what thousands have in common has one cause."""


class Kind(NamedTuple):
    """``cure``: the sentence, where who finds it has none that fits better. ``is_told``: who finds it writes a line in
    the log of its own when it begins."""

    cure: str
    is_told: bool = False


KINDS: Mapping[str, Kind] = {
    "dhcp_rival": Kind('switch off the DHCP server at that MAC, or write dhcp = "external" if it is to serve the VLAN'),
    "duplicate_address": Kind("have that station take its address by DHCP, or reserve it this address by its MAC"),
    "quarantine": Kind("have that station take its address by DHCP, or leave its address out of the pools"),
    "proxy_arp": Kind("switch off proxy ARP on that station", is_told=True),
    "pool_nearly_full": Kind("enlarge the pools, or shorten lease_time so that nodes that left make room sooner"),
    "pool_full": Kind("enlarge the pools, or release what is not needed", is_told=True),
    "asks_too_often": Kind("see what is wrong with that node: its answers may not reach it, or its program is broken"),
    "strangers_crowd": Kind("find the station that invents MAC addresses, by the switch port that they come from"),
    "container": Kind("correct the container's labels or options", is_told=True),
    "container_without_lease": Kind("see that the VLAN has a free address for it", is_told=True),
    "docker": Kind("see that the engine runs, and that its socket is mounted into the router", is_told=True),
    "network": Kind("create the Docker network again, as lanward underlay up does", is_told=True),
    "netns": Kind("mount the engine's netns folder into the router, or correct [docker] netns", is_told=True),
    "adoption": Kind("make room in the state folder, or see in the engine's log why it refuses", is_told=True),
    "rules_not_applied": Kind("make the kernel take the rules: capability NET_ADMIN, nf_tables, sysctls", is_told=True),
    "relay": Kind("load the kernel's nf_tables modules for copies (nft_dup_ipv4, nft_fib_ipv4)", is_told=True),
    "no_uplink": Kind("bring the uplink up, or correct [wan]"),
    "rules_advice": Kind("change that line of the configuration, or leave it when it is meant so", is_told=True),
    "shared_name": Kind("make a reservation of that name for the node that is meant: then it is nobody else's"),
    "kernel_setting": Kind("start the router's container with --sysctl for it", is_told=True),
    "capability_missing": Kind("start the router with that capability (cap_add)", is_told=True),
    "interface_lost": Kind("plug in the VLAN's interface, or connect its Docker network to the router", is_told=True),
    "leases_not_written": Kind("make room on the disk of the state folder, or replace a disk that fails", is_told=True),
    "history_not_written": Kind("make room on the disk of the state folder; leases and service go on without it"),
    "leases_outside_configuration": Kind("give these nodes a place in the pools, or a reservation", is_told=True),
}


class Finding(NamedTuple):
    """``cure`` None: the kind's."""

    what: str
    cure: str | None = None


class Warning(NamedTuple):  # noqa: A001 - the field's word; nobody needs the built-in one here
    """``since`` is wall clock time."""

    kind: str
    subject: str
    since: float
    what: str
    cure: str

    @property
    def id(self) -> str:
        return f"{self.kind}:{self.subject}"

    def shown(self) -> dict[str, Any]:
        """As ``GET /warnings`` lists it."""
        return {
            "id": self.id,
            "since": iso_time(self.since),
            "subject": self.subject,
            "what": self.what,
            "cure": self.cure,
        }


class Warnings:
    """All that stand. Each is in the log once when it begins and once when it is over."""

    def __init__(self, log: Callable[[Note], None], clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._clock = clock
        self._standing: dict[str, dict[str, Warning]] = {kind: {} for kind in KINDS}

    def __iter__(self) -> Any:
        """The oldest first."""
        found = [one for kind in self._standing.values() for one in kind.values()]
        return iter(sorted(found, key=lambda one: (one.since, one.id)))

    def counts(self) -> Counter[str]:
        """How many of each kind stand, all kinds included."""
        return Counter({kind: len(found) for kind, found in self._standing.items()})

    def keep(self, kind: str, found: Mapping[str, Finding]) -> None:
        """These are all that there are of a kind, by their subject: what is new begins, what is missing is over."""
        standing = self._standing[kind]
        for subject in [one for one in standing if one not in found]:
            self._over(standing.pop(subject))
        for subject, problem in found.items():
            if (before := standing.get(subject)) is not None:
                if (before.what, before.cure) != (problem.what, problem.cure or KINDS[kind].cure):
                    standing[subject] = before._replace(what=problem.what, cure=problem.cure or KINDS[kind].cure)
            elif len(standing) < MAX_OF_A_KIND:
                cure = problem.cure or KINDS[kind].cure
                one = standing[subject] = Warning(kind, subject, self._clock(), problem.what, cure)
                self._begin(one)

    def _begin(self, one: Warning) -> None:
        if not KINDS[one.kind].is_told:
            self._log(Note("warning", one.kind, {"id": one.id, "what": one.what, "cure": one.cure}))

    def _over(self, one: Warning) -> None:
        seconds = round(max(0.0, self._clock() - one.since), 1)
        self._log(Note("info", "warning_over", {"id": one.id, "what": one.what, "seconds": seconds}))
