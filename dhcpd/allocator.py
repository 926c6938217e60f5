"""Which address of a VLAN is whose: decided by reservations, the lease book, offers and the free addresses."""

from __future__ import annotations

from collections.abc import Iterable

from dhcpd.identity import BY_CONTAINER, Directory, Node, reserved_key
from dhcpd.leases import BOUND, DECLINED, DECLINER, Binding, Book, Columns
from dhcpd.offers import Offers
from dhcpd.pool import RangeSet, Supply
from dhcpd.probe import Prober
from dhcpd.settings import Scope


class Allocator:
    """What devices and containers get comes out of the same tables. Addresses are integers."""

    def __init__(self, scope: Scope, rows: Iterable[Columns], now: float) -> None:
        self._scope = scope
        self.directory = Directory(scope.reservations, scope.match_client_id)
        self.book = Book()
        self.book.load(rows, self.directory.owner_of, now)
        self.pool = RangeSet(scope.pools)
        self.offers = Offers(scope.max_offers)
        self.prober = Prober(Supply(self.pool), self.is_free, enabled=scope.probe)

    # -- what a node gets

    def rightful(self, node: Node) -> int | None:
        """The address that this node has, or had, or is written down to have."""
        reservation = node.reservation
        if reservation is not None and reservation.address is not None:
            held = self.book.by_address.get(reservation.address)
            if held is None or held.state != DECLINED or _is_of_its_own(held, node):
                return reservation.address
        binding = self.book.by_owner.get(node.owner)
        if binding is not None and (self.is_dynamic(binding.address) or self._is_fixed(binding)):
            return binding.address
        return None

    def choose(self, wanted: int, node: Node, now: float) -> tuple[int | None, bool]:
        """An address for a newcomer: the one it asks for when that is free or in use by itself, else the next free one,
        else the one whose lease ended longest ago. With it, whether it needs a probe."""
        if wanted and self.is_grantable(wanted, node):
            return wanted, self.prober.watch(wanted, now)
        if wanted and self.is_in_use_by(wanted, node):
            return wanted, False
        address, probe = self.prober.take(now)
        idle = self.book.idle
        while address is None and idle:
            oldest, _ = idle.popitem(last=False)
            if self.is_dynamic(oldest) and self.offers.owner(oldest) is None:
                address, probe = oldest, self.prober.watch(oldest, now)
        return address, probe

    def place_container(self, node: Node, wanted: int | None, now: float) -> tuple[int | None, bool]:
        """The address for a container, which may ask for one outside the pools, and whether it needs a probe."""
        rightful = self.rightful(node)
        if node.reservation is not None and rightful == node.reservation.address is not None:
            return rightful, False
        if wanted is not None and wanted != rightful and self._is_askable(wanted) and self._is_nobodys(wanted, node):
            return wanted, self.prober.watch(wanted, now)
        return (rightful, False) if rightful is not None else self.choose(0, node, now)

    # -- offers

    def hold(self, node: Node, address: int, now: float, lease_time: bytes | None) -> None:
        """Keep an address for a client while its offer stands; an older one makes room where there are too many."""
        offers = self.offers
        self.clear(node.owner, address)
        if (oldest := offers.surplus(node.mac)) is not None:
            self.withdraw(oldest)
        offers.put(node.owner, address, node.mac, now, lease_time)
        self.book.idle.pop(address, None)

    def clear(self, owner: bytes, address: int) -> None:
        """``owner`` is about to have ``address``, which is free no more: end the offer of either."""
        self.prober.taken(address)
        offers = self.offers
        offer = offers.get(owner)
        if offer is not None and offer.address != address:
            self.withdraw(owner)
        if (rival := offers.owner(address)) is not None:
            offers.pop(rival)

    def withdraw(self, owner: bytes) -> None:
        """End an offer: its address is free again, or idle again when it is another's old one."""
        offer = self.offers.pop(owner)
        if offer is None:
            return
        binding = self.book.by_address.get(offer.address)
        if binding is None:
            self.give_back(offer.address)
        elif binding.state == BOUND and self.is_dynamic(offer.address):
            self.book.idle[offer.address] = None
            self.book.idle.move_to_end(offer.address, last=binding.owner == owner)

    def give_back(self, address: int) -> None:
        """An address is nobody's any more: it is free when it is one that newcomers get."""
        if self.is_dynamic(address):
            self.prober.give_back(address)

    def leave(self, old: Binding, now: float) -> None:
        """Its holder has another address from now on, and may answer for this one a moment longer."""
        self.give_back(old.address)
        self.prober.left(old.address, old.mac, now)

    # -- questions about an address

    def is_dynamic(self, address: int) -> bool:
        """In the pool and reserved for nobody."""
        return address in self.pool and address not in self.directory.by_address

    def is_free(self, address: int) -> bool:
        """In no book, on offer to nobody, reserved for nobody; ``address`` is in the pool."""
        return (
            address not in self.book.by_address
            and self.offers.owner(address) is None
            and address not in self.directory.by_address
        )

    def is_grantable(self, address: int, node: Node) -> bool:
        """Free, or on offer to this very node: a client may keep an address that we have no record of."""
        if address not in self.pool:
            return False
        return self.is_free(address) or (
            self.offers.owner(address) == node.owner and address not in self.directory.by_address
        )

    def is_in_use_by(self, address: int, node: Node) -> bool:
        """Quarantined because this very station answers for it: a client from before a loss of state."""
        held = self.book.by_address.get(address)
        return held is not None and _is_of_its_own(held, node) and self.is_dynamic(address)

    def is_anothers(self, owner: bytes, address: int) -> bool:
        """Whether an address is leased to or reserved for somebody else than that key."""
        if address in self.directory.by_address:
            return owner != reserved_key(address)
        binding = self.book.by_address.get(address)
        return binding is not None and binding.state == BOUND and binding.owner != owner

    def fits(self, binding: Binding) -> bool:
        """Whether the configuration would grant this binding's address to its holder now."""
        if binding.state != BOUND:
            return True
        if binding.address in self.book.ownerless:
            return False
        if binding.address in self.directory.by_address:
            return binding.owner == reserved_key(binding.address)
        return binding.address in self.pool or self._is_fixed(binding)

    def strays(self, now: float) -> list[int]:
        """The addresses of live leases that the configuration has no place for, ascending: their holders are refused at
        the next renewal and get another address."""
        book = self.book.by_address
        reserved = book.keys() & self.directory.by_address.keys()
        suspects = {*self.pool.without(book), *reserved, *self.book.ownerless}
        return sorted(one for one in suspects if book[one].is_live(now) and not self.fits(book[one]))

    def usage(self, outside: int = 0) -> tuple[int, int]:
        """(addresses of the pools that newcomers cannot have, all addresses of the pools): leased, in quarantine or
        reserved, or somebody's old one that is on offer. Leases outside all pools count as well, but for so many that
        are known to be ``outside``."""
        pool, book = self.pool, self.book
        taken = len(book) - len(book.idle) - outside
        for address in self.directory.by_address:
            is_taken = address in book.by_address and address not in book.idle
            taken += (address in pool and not is_taken) - (address not in pool and is_taken)
        return max(0, min(taken, pool.size)), pool.size

    def _is_fixed(self, binding: Binding) -> bool:
        """Whether it is a container's that asked for an address outside the pools."""
        return binding.client[:1] == BY_CONTAINER and self._is_askable(binding.address)

    def _is_askable(self, address: int) -> bool:
        """Whether a container may ask for it: any of the subnet that is not the router's, Docker's or reserved."""
        subnet, landing = self._scope.subnet, self._scope.landing
        is_host = int(subnet.network_address) < address < int(subnet.broadcast_address)
        is_taken = address == self._scope.router or (landing is not None and address in landing)
        return is_host and not is_taken and address not in self.directory.by_address

    def _is_nobodys(self, address: int, node: Node) -> bool:
        """In no book and on offer to nobody but this node."""
        return address not in self.book.by_address and self.offers.owner(address) in (None, node.owner)


def _is_of_its_own(held: Binding, node: Node) -> bool:
    """Whether an address is in quarantine because this very station answers for it."""
    return held.state == DECLINED and held.client != DECLINER and held.mac == node.mac
