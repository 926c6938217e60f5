"""The addresses on offer: in memory only, one for each client, never more than the table takes."""

from __future__ import annotations

from typing import NamedTuple

OFFER_TIME = 60
"""Seconds for which an offered address is kept for its client."""


class Offer(NamedTuple):
    address: int
    mac: bytes
    until: float


class Offers:
    """Offers by the key of their client and by address, in the order in which they end."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._by_owner: dict[bytes, Offer] = {}
        self._owners: dict[int, bytes] = {}

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

    def surplus(self) -> bytes | None:
        """Whose offer has to go before another one is put into a full table: a flood makes the oldest give way."""
        return next(iter(self._by_owner)) if len(self._by_owner) >= self._limit else None

    def put(self, owner: bytes, address: int, mac: bytes, now: float) -> None:
        """Neither the owner nor the address has another offer."""
        self._by_owner[owner] = Offer(address, mac, now + OFFER_TIME)
        self._owners[address] = owner

    def restore(self, owner: bytes, offer: Offer) -> None:
        """Put an offer of another table into this one, after those that end before it."""
        self._by_owner[owner] = offer
        self._owners[offer.address] = owner

    def items(self) -> list[tuple[bytes, Offer]]:
        return list(self._by_owner.items())

    def pop(self, owner: bytes) -> Offer | None:
        offer = self._by_owner.pop(owner, None)
        if offer is not None:
            del self._owners[offer.address]
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
