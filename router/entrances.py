"""The containers that ``lanward verify`` can measure from: where they are, and what is asked from there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from dhcpd.pool import dotted
from leasebroker.containers import STARTED
from leasebroker.plan import Link, View
from router.policy import End, Row
from router.probe import Enter

Shown = Mapping[str, Any]
"""An object of ``GET /containers``."""


def running(nodes: Iterable[End], containers: Iterable[Shown]) -> dict[End, Shown]:
    """The nodes that are containers and run; of two with one lease, where one replaces the other, the one that runs."""
    found = {(one["vlan"], one["address"]): one for one in containers if one["state"] in STARTED}
    there = {end: found.get((end.vlan or "", dotted(end.address))) for end in nodes}
    return {end: one for end, one in there.items() if one is not None}


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where a node is: an open network namespace, and the link there that has the node's address.

    A container in several VLANs is several nodes. Each asks its own VLAN; what is in none of these is asked by the one
    on whose link the default route is.
    """

    descriptor: int
    ifindex: int
    is_way_out: bool = True
    """Whether the default route is on this link; without any there is no other way either."""
    others: frozenset[str | None] = frozenset()
    """The VLANs of its container's other nodes."""

    @property
    def is_alone(self) -> bool:
        """Whether the container sends everything by this link."""
        return self.is_way_out and not self.others

    def asks(self, row: Row) -> bool:
        """Whether what the container sends for this row leaves by this link. The row's source is the node."""
        vlan = row.target.vlan
        return vlan == row.source.vlan or (self.is_way_out and vlan not in self.others)


def locate(containers: Mapping[End, Shown], views: Mapping[int, View]) -> dict[End, Entrance]:
    """Each node whose MAC and lease are on one link. ``views``: what the kernel shows in each open namespace."""
    found = {end: place for end, one in containers.items() if (place := _place(end, one, views)) is not None}
    vlans: dict[int, set[str | None]] = {}
    for end, place in found.items():
        vlans.setdefault(place.descriptor, set()).add(end.vlan)
    return {end: replace(place, others=frozenset(vlans[place.descriptor] - {end.vlan})) for end, place in found.items()}


def _place(end: End, container: Shown, views: Mapping[int, View]) -> Entrance | None:
    mac = bytes.fromhex((container["mac"] or "").replace(":", ""))
    for descriptor, view in views.items():
        holders = {one.ifindex for one in view.addresses if one.address == end.address}
        for link in view.links:
            if link.mac == mac and link.ifindex in holders:
                return Entrance(descriptor, link.ifindex, _is_way_out(view, link))
    return None


def _is_way_out(view: View, link: Link) -> bool:
    way = view.detour or min(view.defaults, key=lambda one: one.metric, default=None)
    return way is None or way.ifindex == link.ifindex


@dataclass(frozen=True, slots=True)
class Entrances:
    """What is open. ``problem``: why a container that runs is not among the ``places``, if one is not."""

    places: Mapping[End, Entrance]
    problem: str = ""

    @property
    def enter(self) -> Enter:
        from leasebroker.netns import inside  # noqa: PLC0415

        return {end: partial(inside, one.descriptor) for end, one in self.places.items()}

    def asks(self, row: Row) -> bool:
        """Whether the row can be measured from its source."""
        place = self.places.get(row.source)
        return place is not None and place.asks(row)


@contextmanager
def opened(containers: Mapping[End, Shown], folder: Path) -> Iterator[Entrances]:
    """The entrances of these containers, for the length of the block. ``folder``: the engine's namespace files."""
    if not containers:
        yield Entrances({})
        return
    with ExitStack() as stack:
        views, problem = _look(folder, stack)
        yield Entrances(locate(containers, views), problem)


def _look(folder: Path, stack: ExitStack) -> tuple[dict[int, View], str]:
    """What each namespace shows, by its descriptor, which ``stack`` closes; and why any would be missing."""
    from leasebroker.netns import GoneError, look  # noqa: PLC0415 - for those who have containers

    views: dict[int, View] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        return views, f"{folder}: {error.strerror}; mount the engine's folder here, or correct [docker] netns"
    problem = f"no network namespace in {folder} has its lease on its link; see lanward status"
    for path in paths:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            views[descriptor] = look(descriptor)
        except (OSError, GoneError) as error:  # the engine leaves files behind that are no namespaces
            if "not permitted" in str(error):
                problem = "not permitted to enter network namespaces; run as root or with SYS_ADMIN"
    return views, problem
