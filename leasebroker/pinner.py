"""Namespaces: who their links belong to, and the lease on each of them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from ipaddress import IPv4Address

from leasebroker.containers import STARTED, Container, Member, Wish, gateway_choice
from leasebroker.docker_feed import Line, RefusedError
from leasebroker.known import Known, Leg, Record
from leasebroker.netns import GoneError, own_id
from leasebroker.plan import LABEL, Address, Link, Pin, View, plan
from leasebroker.repairs import LOOK
from leasebroker.source import Source
from leasebroker.spaces import Spaces, Tracked

MAX_PASSES = 5
"""Looks at one namespace in a row: what was changed is looked at again."""

EXPECT_TRIES, EXPECT_PAUSE = 10, 0.005
"""Some engines make the namespace before they tell who it is for, by 8 ms."""

Lease = Callable[[Leg, Container, Wish, bytes], Awaitable[Record]]
"""Gets the lease of a container whose link has that MAC."""


class Pinner:
    """`visit` makes a namespace as it shall be. Only one visit to each at a time."""

    def __init__(self, known: Known, engine: Line, source: Source, lease: Lease) -> None:
        self._known = known
        self._engine = engine
        self._source = source
        self._lease = lease
        self._expected: dict[tuple[str, bytes], str] = {}
        """(network, MAC) of links that are about to come -> the id of their container."""

    async def visit(self, spaces: Spaces, one: Tracked, path: str) -> None:
        """``path`` says what made us look. A change during the visit makes for one pass more. Raises `EngineError`."""
        one.is_changed = True
        if one.is_busy:
            return
        one.is_busy = True
        try:
            for _ in range(MAX_PASSES):
                if not one.is_changed:
                    break
                one.is_changed = False
                if await self._pass(spaces, one, path):
                    one.is_changed = True
            one.is_visited = not one.is_changed
        except GoneError:
            one.is_visited = False
        finally:
            one.is_busy = False

    async def _pass(self, spaces: Spaces, one: Tracked, path: str) -> bool:
        """One look and what follows from it; True when there was something to do."""
        began = time.monotonic()
        one.repairs.note(began, LOOK)
        view = await spaces.look(one)
        found = await self._pins(one, view)
        operations = plan(view, [pin for pin, _ in found])
        if operations:
            one.repairs.note(began)
            await spaces.apply(one, operations)
        for _, record in found:
            if record.address is not None:
                self._note(one, record, path, began if operations else None)
        one.is_settled = not operations and all(pin.is_started for pin, _ in found)
        return bool(operations or one.guessed)

    def _note(self, one: Tracked, record: Record, path: str, began: float | None) -> None:
        """What was right once, and is not any more, has drifted. ``began``: when the look began that led to a change,
        None when there was none."""
        is_changed = began is not None
        if record.pinned_at is None:
            record.pinned_at = time.time()
            record.path = path if record.state in STARTED else "namespace"
            self._known.counts[record.path if is_changed else "kept"] += 1
            if began is not None:
                self._known.pin_seconds.observe(time.monotonic() - began)
            self._known.note("info", "pinned", record, path=record.path)
        elif is_changed and one.is_settled:
            self._known.counts["drift"] += 1
            if not one.repairs.is_fought(time.monotonic()):  # that is one warning, not one for each
                self._known.note("warning", "pin_repaired", record)

    async def _pins(self, one: Tracked, view: View) -> list[tuple[Pin, Record]]:
        """What the links of a namespace shall have."""
        there = {(link.ifindex, link.mac) for link in view.links}
        one.members = {key: id_ for key, id_ in one.members.items() if key in there}
        one.guessed &= there
        found = []
        for link in view.links:
            here = [address for address in view.addresses if address.ifindex == link.ifindex]
            leg = self._leg(one, link, here)
            if leg is None or not link.is_up:
                continue
            container = await self._owner(one, leg, link)
            if container is not None and (pin := await self._pin(leg, container, link, here)) is not None:
                found.append(pin)
        self._unpin(one, view, [record for _, record in found])
        return found

    def _leg(self, one: Tracked, link: Link, here: Sequence[Address]) -> Leg | None:
        """The VLAN of a link with these addresses. One that has lost all of its VLAN is known by its container."""
        addresses = [IPv4Address(each.address) for each in here]
        if found := next((leg for leg in self._known.legs if any(each in leg.subnet for each in addresses)), None):
            return found
        id_ = one.members.get((link.ifindex, link.mac), "")
        records = [self._known.records.get((id_, leg.network)) for leg in self._known.legs]
        return next((record.leg for record in records if record is not None and record.mac == link.mac), None)

    def _unpin(self, one: Tracked, view: View, pinned: Sequence[Record]) -> None:
        """A lease that is not on a link any more, and will not be by this look, is not shown as if it were."""
        ids, there = set(one.members.values()), {each.address for each in view.addresses}
        for record in self._known.records.values():
            if record.container in ids and record.address not in there and record not in pinned:
                record.pinned_at = None

    async def expect(self, spaces: Spaces, one: Tracked) -> None:
        """A namespace is new: learn who is coming, and have the lease ready, while the link is not there yet."""
        for _ in range(EXPECT_TRIES):
            known = {mac for space in spaces for _, mac in space.members}
            coming = [
                (leg, member)
                for leg in self._known.legs
                for member in await self._members(leg)
                if member.mac not in known
            ]
            for leg, member in coming:
                container = await self._introduce(leg, member)
                if container is not None and container.state not in STARTED:
                    self._expected[leg.network, member.mac] = container.id
            if coming or one.members or not spaces.is_there(one):
                return
            await asyncio.sleep(EXPECT_PAUSE)

    def announce(self, started: Iterable[Container]) -> None:
        """Containers that run, as the engine shows them just now: it need not be asked again whose links these are."""
        for one in started:
            for leg in self._known.legs:
                if (end := one.endpoints.get(leg.network)) is not None and end.mac:
                    self._expected[leg.network, end.mac] = one.id

    def forget(self, id_: str) -> None:
        """Nothing more is to come of a container: on some engines the next one has the same MAC."""
        self._expected = {key: one for key, one in self._expected.items() if one != id_}

    async def _members(self, leg: Leg) -> Sequence[Member]:
        """Who the engine shows on a network now; nobody on one that it does not tell apart, or that cannot be read."""
        try:
            network = await self._engine.ask(lambda engine: engine.network(leg.network))
        except RefusedError:
            return ()
        if network is None:
            return ()
        self._known.networks[network.name] = network
        return [one for one in network.members if one.id != own_id()]

    async def _introduce(self, leg: Leg, member: Member) -> Container | None:
        """The container behind a member of a network, with its lease."""
        pattern = f"^/{re.escape(member.name)}$"
        found = await self._engine.ask(lambda engine: engine.containers(name=pattern))
        found = [one for one in found if one.id != own_id()]
        self._known.take(found)
        container = next((one for one in found if one.name == member.name and leg.network in one.endpoints), None)
        if container is not None and (wish := self._known.wishes(leg).get(container.id)) is not None:
            await self._lease(leg, container, wish, member.mac)
        return container

    async def _owner(self, one: Tracked, leg: Leg, link: Link) -> Container | None:
        """The container that a link belongs to.

        For a new link the engine is asked anew: it gives an address, and the MAC that some versions make of it, to one
        container after the other. When somebody was expected, it is asked after the lease is on the link.
        """
        key = (link.ifindex, link.mac)
        expected = self._expected.pop((leg.network, link.mac), None)
        if key not in one.members and expected is not None:
            one.members[key], one.guessed = expected, one.guessed | {key}
            self._begin(one, leg, expected)
        elif key not in one.members or key in one.guessed:
            one.guessed -= {key}
            members = await self._members(leg)
            member = next((each for each in members if each.mac == link.mac), None)
            container = None if member is None else await self._introduce(leg, member)
            if container is None:
                one.members.pop(key, None)
                return None
            id_ = container.id
            if id_ != one.members.get(key):
                one.members[key] = id_
                self._begin(one, leg, id_)
        return self._known.containers.get(one.members.get(key, ""))

    def _begin(self, one: Tracked, leg: Leg, id_: str) -> None:
        """A container's link is new."""
        one.is_settled = False
        if (record := self._known.records.get((id_, leg.network))) is not None:
            record.pinned_at = None

    async def _pin(
        self, leg: Leg, container: Container, link: Link, here: Sequence[Address]
    ) -> tuple[Pin, Record] | None:
        """What one link shall have, None when there is no lease for it and was none. ``here`` are its addresses.

        A link whose lease is over has what Docker gave.
        """
        wish = self._known.wishes(leg).get(container.id)
        if wish is None:
            return None
        record = await self._lease(leg, container, wish, link.mac)
        record.docker = self._known.docker_address(leg, container)
        suspects = {record.docker, *(one.address for one in here)} - {0}
        not_its = frozenset(one for one in suspects if self._source.is_anothers(leg.vlan, record.identity, one))
        if record.address is None and not self._is_over(record, here, not_its):
            return None
        gateway = gateway_choice(container, [(leg.vlan, leg.network) for leg in self._known.legs])
        return Pin(
            link.mac,
            record.address or record.docker,
            leg.subnet.prefixlen,
            leg.router if gateway == leg.network else 0,
            leg.mtu or self._source.mtu(leg.vlan, record.identity),
            record.docker,
            is_alone=len(container.endpoints) == 1,
            is_started=container.state in STARTED,
            not_its=not_its,
        ), record

    def _is_over(self, record: Record, here: Sequence[Address], not_its: Collection[int]) -> bool:
        """Whether a lease that the container has no more is still on its link: another server's, or one that is
        another's now. Where Docker's address is another's too, there is nothing to fall back to."""
        former = {one.address for one in here if one.label.endswith(LABEL)} - {record.docker}
        is_lost = record.leg.is_external and not self._source.is_waiting(record.leg.vlan, record.identity)
        is_left = bool(former) and (is_lost or not former.isdisjoint(not_its))
        return bool(record.docker) and record.docker not in not_its and is_left
