"""Reading TOML tables so that every error is found, and each says its place in the file."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, overload

from dhcpd.values import shown, suggestion

T = TypeVar("T")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]{1,60}")


class Errors:
    """All that is wrong with a file: ``place: message`` for each, in the order of discovery."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._claims: dict[Hashable, dict[Hashable, str]] = defaultdict(dict)
        self._made: list[tuple[Hashable, Hashable]] = []

    def add(self, place: str, message: object) -> None:
        self.lines.append(f"{place}: {message}" if place else str(message))

    def claim(self, kind: Hashable, value: Hashable, owner: str, place: str, what: object) -> None:
        """Take a value for ``owner`` (a place); at ``place``, report that another has it among those of this kind."""
        claims = self._claims[kind]
        if value not in claims:
            claims[value] = owner
            self._made.append((kind, value))
        elif claims[value] != owner:
            self.add(place, f"{what} is taken already by {claims[value]}")

    @contextmanager
    def trial(self) -> Iterator[list[str]]:
        """Read what may be left out: its errors are in the list and not among the others, and with any of them it has
        claimed nothing."""
        lines, self.lines, self._made = self.lines, [], []
        trial = self.lines
        try:
            yield trial
        finally:
            self.lines = lines
            for kind, value in self._made if trial else ():
                del self._claims[kind][value]


class Table:
    """One table of the file. A key that is asked for is known; `finish` reports the others.

    A value that cannot be read is reported and then treated as absent, so that reading goes on.
    """

    def __init__(self, place: str, values: dict[str, Any], errors: Errors) -> None:
        self.place = place
        self.errors = errors
        self._values = values
        self._known: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        """The keys, for a table in which the operator chooses them; all of them count as known."""
        self._known.update(self._values)
        return iter(self._values)

    def at(self, key: str) -> str:
        """The place of a key: ``vlan[1].pools``."""
        written = key if _BARE_KEY.fullmatch(key) else shown(key)
        return f"{self.place}.{written}" if self.place else written

    def error(self, key: str, message: object) -> None:
        self.errors.add(self.at(key), message)

    @overload
    def get(self, key: str, read: Callable[[object], T]) -> T | None: ...
    @overload
    def get(self, key: str, read: Callable[[object], T], default: T) -> T: ...
    def get(self, key: str, read: Callable[[object], T], default: T | None = None) -> T | None:
        """The value of a key by a reader that raises ValueError, ``default`` when it is absent or wrong."""
        self._known.add(key)
        if key not in self._values:
            return default
        found = self._read(self.at(key), self._values[key], read)
        return found[0] if found else default

    def need(self, key: str, read: Callable[[object], T], why: str = "") -> T | None:
        """`get`, and an error when the key is absent."""
        if key not in self._values:
            self.error(key, f"is missing{why and ': ' + why}")
        return self.get(key, read)

    def each(self, key: str, read: Callable[[object], T], *, some: bool = False) -> list[tuple[str, T]]:
        """The (place, value) of each entry of a list that can be read. With ``some`` there has to be an entry, and a
        bare value is a list of one."""
        self._known.add(key)
        if key not in self._values:
            return []
        values, place = self._values[key], self.at(key)
        if some and not isinstance(values, list):
            return [(place, value) for value in self._read(place, values, read)]
        if not isinstance(values, list) or (some and not values):
            self.errors.add(place, "expected at least one value" if some else f"expected a list, not {shown(values)}")
            return []
        placed = [(f"{place}[{index}]", value) for index, value in enumerate(values)]
        return [(here, value) for here, raw in placed for value in self._read(here, raw, read)]

    def table(self, key: str) -> Table | None:
        """The table ``[key]``, None when there is none."""
        self._known.add(key)
        values = self._values.get(key)
        if values is not None and not isinstance(values, dict):
            self.error(key, f"expected a table [{key}], not {shown(values)}")
        return Table(self.at(key), values, self.errors) if isinstance(values, dict) else None

    def tables(self, key: str) -> list[Table]:
        """The tables ``[[key]]``."""
        self._known.add(key)
        values = self._values.get(key, [])
        if not isinstance(values, list) or not all(isinstance(one, dict) for one in values):
            self.error(key, f"expected tables, each written [[{key}]]")
            return []
        return [Table(f"{self.at(key)}[{index}]", one, self.errors) for index, one in enumerate(values)]

    def finish(self) -> None:
        """Report the keys that nobody asked for."""
        for key in [key for key in self._values if key not in self._known]:
            self.error(key, f"unknown key{suggestion(key, self._known)}")

    def _read(self, place: str, value: object, read: Callable[[object], T]) -> list[T]:
        """The value, or nothing after an error."""
        try:
            return [read(value)]
        except ValueError as error:
            self.errors.add(place, error)
            return []
