"""What the containers of one VLAN have of another server's leases, as a pure object: who has one, who waits for one,
and whose new address may be somebody else's. ``now`` is service time in seconds (``dhcpd.clock``)."""

from __future__ import annotations

from collections.abc import Collection

from leasebroker.effects import Bound, Changed, Lease, Lost

PATIENCE_SECONDS = 10.0
"""After so long without a lease something is wrong."""
CONFLICT_SECONDS = 3.0
"""After a new address was asked for by ARP, an answer of anybody but its container is a conflict for so long."""


class Granted:
    """By the containers' identities, bounded by those that `keep` names."""

    def __init__(self) -> None:
        self._leases: dict[str, Lease] = {}
        self._macs: dict[str, bytes] = {}
        self._waiting: dict[str, float] = {}
        """Those without a lease, until when that is nothing unusual."""
        self._late: set[str] = set()
        self._suspects: dict[int, tuple[str, float]] = {}
        """New addresses -> whose they are, and until when an answer for them is a conflict."""

    def lease(self, identity: str) -> Lease | None:
        return self._leases.get(identity)

    def wait(self, identity: str, now: float) -> None:
        """A container asks for a lease, and has none yet."""
        if identity not in self._late:
            self._waiting.setdefault(identity, now + PATIENCE_SECONDS)

    def see(self, identity: str, mac: bytes) -> None:
        """A container's link has that hardware address."""
        self._macs[identity] = mac

    def is_waiting(self, identity: str, now: float) -> bool:
        """Whether a container asks for a lease since a short while."""
        return now < self._waiting.get(identity, now)

    def overdue(self, now: float) -> list[str]:
        """Those whose patience has ended since the last call."""
        late = [identity for identity, until in self._waiting.items() if until <= now]
        for identity in late:
            del self._waiting[identity]
        self._late.update(late)
        return late

    def tell(self, effect: Bound | Changed | Lost, now: float) -> int | None:
        """What the client decided is on the disk. Returns an address that is to be asked for by ARP, before anybody
        uses it (RFC 2131 section 4.4.1)."""
        name, lease = effect.name, effect.lease
        self._waiting.pop(name, None)
        if isinstance(effect, Lost):
            self._leases.pop(name, None)
            self._late.add(name)
            return None
        self._leases[name] = lease
        self._late.discard(name)
        is_known = isinstance(effect, Changed) and effect.previous.address == lease.address
        if not lease.server or is_known:
            return None
        self._suspects = {address: one for address, one in self._suspects.items() if one[1] > now}
        self._suspects[lease.address] = (name, now + CONFLICT_SECONDS)
        return lease.address

    def heard(self, address: int, mac: bytes, now: float) -> str | None:
        """Somebody answers for an address: the container that has to decline it, None when there is none."""
        name, until = self._suspects.get(address, ("", now))
        if now >= until or mac == self._macs.get(name):
            return None
        del self._suspects[address]
        return name

    def keep(self, identities: Collection[str]) -> None:
        """There are no other containers."""
        for table in (self._leases, self._macs, self._waiting):
            for identity in table.keys() - set(identities):
                del table[identity]
        self._late.intersection_update(identities)

    def step(self, seconds: int) -> None:
        """The clock was set by so much."""
        self._waiting = {identity: until + seconds for identity, until in self._waiting.items()}
        self._suspects = {address: (name, until + seconds) for address, (name, until) in self._suspects.items()}
