"""Containers that do not run: their leases go into Docker's own record, and what keeps them from starting is mended."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from dhcpd.decision import Note
from leasebroker import adoption
from leasebroker.containers import AT_REST, Problem
from leasebroker.docker_feed import EngineError, Line
from leasebroker.known import Key, Known, Record

QUIET_SECONDS = 3.0
"""A container at rest for so long is not being moved about by somebody else."""
RETRY_SECONDS = 30.0
"""After a change that failed, before it is tried again."""
_VERBS = ("healed", "adopted")


class _Done(NamedTuple):
    """When the record of a container at rest is to be looked at, on the loop's clock, and the address that it was
    looked at for."""

    due: float
    address: int | None = None


class Caretaker:
    """`tend` is to be called after every look at the engine."""

    def __init__(self, known: Known, engine: Line, state: Path) -> None:
        self._known = known
        self._engine = engine
        self._journal = adoption.Journal(state / "adoption.json")
        self._resting: dict[Key, _Done] = {}
        self._failed: set[str] = set()
        """The titles of the warnings about changes that failed."""

    def forget(self) -> None:
        """Look at every record again."""
        self._resting.clear()

    async def repair(self) -> None:
        """Give containers their network back that lost it when a former router died."""
        if not self._journal:
            return
        problem = None
        names: list[str] = []
        try:
            names, failures = await self._engine.ask(partial(adoption.repair, journal=self._journal))
            if failures:
                problem = Problem("; ".join(failures), "it is tried again, or do it by hand: docker network connect")
        except OSError as error:
            what = f"the journal of adoptions cannot be written: {error}"
            problem = Problem(what, "make room, or make the state folder writable")
        self._known.warn("adoption", problem)
        for name in names:
            self._known.counts["repaired"] += 1
            self._known.log(Note("warning", "network_restored", {"container": name}))

    async def tend(self, now: float) -> float | None:
        """Adopt and heal; returns the seconds after which there is more to do, if there is."""
        rested = {key: one for key, one in self._known.records.items() if one.state in AT_REST}
        self._resting = {key: self._resting.get(key, _Done(now + QUIET_SECONDS)) for key in rested}
        self._forgive({f"{verb} {record.title}" for record in rested.values() for verb in _VERBS})
        waiting: list[float] = []
        for key, record in rested.items():
            due, address = self._resting[key]
            if record.address is None or address == record.address:
                continue
            if due <= now:
                is_done = await self._settle(record, record.address)
                self._resting[key] = _Done(due, record.address) if is_done else _Done(now + RETRY_SECONDS)
            if self._resting[key].due > now:
                waiting.append(self._resting[key].due - now)
        return min(waiting, default=None)

    async def _settle(self, record: Record, address: int) -> bool:
        """Heal a container, or adopt its lease; False when that failed."""
        is_healed = await self._change("healed", adoption.heal, record)
        if is_healed is False:
            return await self._change("adopted", partial(adoption.adopt, address=address), record) is not None
        return is_healed is not None

    def _forgive(self, wanted: set[str]) -> None:
        """What failed with a container that is gone, or runs, is wrong no more; ``wanted`` are the others' titles."""
        for title in self._failed - wanted:
            self._known.warn(title, None)
        self._failed &= wanted

    async def _change(self, verb: str, change: Callable[..., bool], record: Record) -> bool | None:
        """One change to Docker's record; True when it was made, None when it failed."""
        is_made, problem = None, None
        call = partial(change, journal=self._journal, container=record.container, network=record.leg.network)
        try:
            is_made = await self._engine.ask(call)
        except (EngineError, OSError) as error:
            problem = f"container {record.name} could not be {verb} on {record.leg.network}: {error}"
            self._failed.add(f"{verb} {record.title}")
        self._known.warn(f"{verb} {record.title}", problem)
        if is_made:
            self._known.counts[verb] += 1
            self._known.note("info", verb, record)
        return is_made
