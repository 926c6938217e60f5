"""The addresses on offer: in memory only, one for each client, never more than the table takes."""

from __future__ import annotations

from typing import NamedTuple

OFFER_TIME = 60
"""Seconds for which an offered address is kept for its client."""
MAX_OFFERS_PER_MAC = 4
"""A device that boots in stages has one client identifier for each; a station with more of them invents them."""


class Offer(NamedTuple):
    address: int
    mac: bytes
    until: float
    lease_time: bytes | None
    """Option 51 of the DISCOVER: what was offered on it is granted to a REQUEST without."""


class Offers:
    """Offers by the key of their client and by address, in the order in which they end."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_owner: dict[bytes, Offer] = {}
        self._owners: dict[int, bytes] = {}
        self._counts: dict[bytes, int] = {}
        """Of the stations that have offers."""

    def __len__(self) -> int:
        return len(self._by_owner)

    def get(self, owner: bytes) -> Offer | None:
        return self._by_owner.get(owner)

    def owner(self, address: int) -> bytes | None:
        """To whom an address is on offer."""
        return self._owners.get(address)

    def of(self, address: int) -> Offer | None:
        """The offer of an address."""
        owner = self._owners.get(address)
        return None if owner is None else self._by_owner[owner]

    def surplus(self, mac: bytes) -> bytes | None:
        """Whose offer has to go before one for ``mac`` is put into the table: the oldest of that station when it has
        too many, the oldest of all when the table is full."""
        if self._counts.get(mac, 0) >= MAX_OFFERS_PER_MAC and mac:  # without one (RFC 4390) nobody knows whose it is
            return next(owner for owner, offer in self._by_owner.items() if offer.mac == mac)
        return next(iter(self._by_owner)) if len(self._by_owner) >= self._limit else None

    def put(self, owner: bytes, address: int, mac: bytes, now: float, lease_time: bytes | None) -> None:
        """Neither the owner nor the address has another offer."""
        self._by_owner[owner] = Offer(address, mac, now + OFFER_TIME, lease_time)
        self._owners[address] = owner
        self._counts[mac] = self._counts.get(mac, 0) + 1

    def restore(self, owner: bytes, offer: Offer) -> None:
        """Put an offer of another table into this one, after those that end before it."""
        self._by_owner[owner] = offer
        self._owners[offer.address] = owner
        self._counts[offer.mac] = self._counts.get(offer.mac, 0) + 1

    def items(self) -> list[tuple[bytes, Offer]]:
        return list(self._by_owner.items())

    def pop(self, owner: bytes) -> Offer | None:
        offer = self._by_owner.pop(owner, None)
        if offer is not None:
            del self._owners[offer.address]
            if rest := self._counts.pop(offer.mac) - 1:
                self._counts[offer.mac] = rest
        return offer

    def lapsed(self, now: float) -> list[bytes]:
        """The owners of the offers that ended, oldest first."""
        owners = []
        for owner, offer in self._by_owner.items():
            if offer.until > now:
                break
            owners.append(owner)
        return owners

    def deadline(self) -> float | None:
        """When the next offer ends."""
        first = next(iter(self._by_owner.values()), None)
        return None if first is None else first.until

    def shift(self, seconds: int) -> None:
        """The clock was set by so much."""
        self._by_owner = {owner: one._replace(until=one.until + seconds) for owner, one in self._by_owner.items()}
