"""What stations say against addresses, as a pure object. Anybody can say it, so what is remembered is bounded."""

from __future__ import annotations

from collections.abc import Set

MAX_REPORTERS = 1024
"""Stations remembered; with more of them it starts over."""


class Reports:
    """The addresses that each station answered for by ARP, or declined."""

    def __init__(self) -> None:
        self._addresses: dict[bytes, Set[int]] = {}

    def __len__(self) -> int:
        return len(self._addresses)

    def of(self, station: bytes) -> Set[int]:
        return self._addresses.get(station, frozenset())

    def put(self, station: bytes, addresses: Set[int]) -> None:
        """In place of those of before."""
        if len(self._addresses) >= MAX_REPORTERS:
            self._addresses.clear()
        self._addresses[station] = addresses

    def stations(self, more_than: int) -> list[bytes]:
        """Those with more addresses than that."""
        return [station for station, addresses in self._addresses.items() if len(addresses) > more_than]
