"""Reservations that were made on the running service: in the state folder, beside the operator's file, which nobody
but the operator writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from dhcpd.decision import Note
from dhcpd.values import address
from router.nodes import node_name, vlan_name
from router.settings import Entry, Kept
from router.text import harmless, quoted

FILE = "reservations.json"
MAX_KEPT = 1024
"""Entries, those that are set aside too. All are read again at every change, 17 ms for so many."""

MAX_TOLD = 20
"""Entries named in one line of the log."""

_KEYS = ("name", "mac", "client_id", "container", "address")
_DAMAGED = 5
"""Damaged files that are kept for inspection."""


def read(state: Path) -> tuple[tuple[Entry, ...], str | None]:
    """The entries in the order in which they were made, and what is wrong with the file, None when nothing is. A file
    with something wrong has no entries."""
    path = state / FILE
    try:
        entries = json.loads(path.read_bytes())["reservations"]
    except FileNotFoundError:
        return (), None
    except OSError as error:
        return (), f"{path}: {error.strerror or error}"
    except (ValueError, LookupError, TypeError, RecursionError):
        entries = None
    if not isinstance(entries, list) or not all(isinstance(one, dict) for one in entries):
        return (), f'{path}: damaged, expected {{"reservations": [...]}}'
    return tuple(entries), None


def write(state: Path, entries: Sequence[Entry]) -> None:
    """On the disk when this returns. Raises OSError, and then the file is as it was."""
    from leasebroker.files import replace  # noqa: PLC0415 - it brings the database, which only the service has

    replace(state / FILE, json.dumps({"reservations": entries}, indent=1) + "\n")


def set_aside(state: Path) -> str:
    """Have a damaged file out of the way, and return the name under which it is kept; the oldest such files go. Raises
    OSError."""
    from dhcpd.database import sync  # noqa: PLC0415

    path = state / FILE
    for old in sorted(state.glob(f"{FILE}.bad-*"))[: 1 - _DAMAGED]:
        with suppress(OSError):
            old.unlink()
    aside = path.with_name(f"{FILE}.bad-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    path.rename(aside)
    sync(state)
    return aside.name


class Keeper:
    """The entries of a running service, and the file behind them. ``lock`` is held by who changes them, from the first
    look on."""

    def __init__(self, state: Path, log: Callable[[Note], None]) -> None:
        from asyncio import Lock  # noqa: PLC0415 - the commands do without it

        self.lock = Lock()
        self.entries, self._damage = read(state)
        self._state = state
        self._log = log
        self._told: list[str] = []

    def tidy(self, kept: Sequence[Kept]) -> None:
        """At the start: have what is damaged out of the way, and what the file has as well."""
        try:
            if self._damage is not None:
                aside = set_aside(self._state)
                what = f"{self._damage}; set aside as {aside}, and no reservation in it is in force"
                self._log(Note("error", "reservations_damaged", {"what": what}))
                self._damage = None
            if self.take(self.entries, kept):
                write(self._state, self.entries)
        except OSError as error:
            self._failed(error)

    def take(self, entries: Sequence[Entry], kept: Sequence[Kept]) -> bool:
        """These are in force from now on, as far as ``kept`` says. Tell what is set aside, unless that was told before,
        and leave out what the file has as well; True when there was such: it is still on the disk."""
        self.entries = tuple(entries)
        told, self._told = self._told, problems(kept)
        if self._told and self._told != told:
            fields = {"reservations": len(self._told), "problems": self._told[:MAX_TOLD]}
            self._log(Note("warning", "reservations_set_aside", fields))
        redundant = [f"{one.entry['vlan']}/{one.entry['name']}" for one in kept if one.is_redundant]
        if redundant:
            self.entries = tuple(one.entry for one in kept if not one.is_redundant)
            fields = {"reservations": len(redundant), "names": redundant[:MAX_TOLD]}
            self._log(Note("info", "reservations_in_file", fields))
        return bool(redundant)

    async def write(self, entries: Sequence[Entry]) -> list[str]:
        """Have these on the disk when it returns; the errors, and then the file is as it was."""
        from asyncio import to_thread  # noqa: PLC0415

        if self._damage is not None:
            return [f"{self._damage}; nothing can be kept until it is moved away and the service started again"]
        try:
            await to_thread(write, self._state, entries)
        except OSError as error:
            return [self._failed(error)]
        return []

    async def write_the_rest(self) -> None:
        async with self.lock:
            await self.write(self.entries)

    def _failed(self, error: OSError) -> str:
        what = self._damage or f"{self._state / FILE}: {error.strerror or error}"
        self._log(Note("error", "reservations_not_written", {"what": what}))
        return what


def called(entries: Iterable[Entry], vlan: str, handle: str) -> list[Entry]:
    """The entries of a VLAN that have that address or, when it is none, that name. A name may look like an address:
    then it is meant where the entry has no other."""
    found = [one for one in entries if one.get("vlan") == vlan]
    named = [one for one in found if one.get("name") == handle]
    if not _is_address(handle):
        return named
    by_address = [one for one in found if one.get("address") == handle]
    return by_address or [one for one in named if one.get("address") is None]


def _is_address(text: object) -> bool:
    try:
        address(text)
    except ValueError:
        return False
    return True


def problems(kept: Iterable[Kept]) -> list[str]:
    """One line for each entry that is set aside, with its place and the cure."""
    return [problem(one) for one in kept if one.why]


def problem(one: Kept) -> str:
    """Why an entry is set aside, and what to do."""
    try:
        vlan, name, where = (one.entry.get(key) for key in ("vlan", "name", "address"))
        handle = where if _is_address(name) and where is not None else name
        cure = f"lanward unreserve {vlan_name(vlan)} {node_name(handle)}"
    except ValueError:
        cure = f"edit {FILE} while the service does not run"
    return harmless(f"{one.why}; it is set aside in {FILE}: change the configuration file, or: {cure}")


def export(kept: Iterable[Kept]) -> str:
    """The entries as TOML to paste into the configuration file; what is set aside is there as comments, with the
    reason."""
    by_vlan: dict[str, list[Kept]] = {}
    for one in kept:
        if not one.is_redundant:
            by_vlan.setdefault(str(one.entry.get("vlan")), []).append(one)
    return "\n".join(line for vlan, found in by_vlan.items() for line in _section(vlan, found))


def _section(vlan: str, kept: Sequence[Kept]) -> Iterator[str]:
    yield f"# Of the [[vlan]] with the name {quoted(vlan)}: paste it below that, and before the next [[vlan]].\n"
    for one in kept:
        block = ["[[vlan.reservation]]", *_settings(one.entry)]
        if one.why is not None:
            block = [f"# {line}" for line in (f"left out: {harmless(one.why)}", *block)]
        yield "\n".join([*block, ""])


def _settings(entry: Entry) -> Iterator[str]:
    for key in _KEYS:
        if key in entry:
            yield f"{key} = {quoted(str(entry[key]))}"
