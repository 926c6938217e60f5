"""What an operator decides about one VLAN's DHCP service: plain values, already checked.

Addresses are integers (``int(ipaddress.IPv4Address(...))``), times are seconds, hardware addresses are raw bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from dhcpd.pool import Range

INFINITE = 0xFFFFFFFF
"""A lease time that never ends (RFC 2131 section 3.3)."""

Options = Mapping[int, bytes]
"""Option code -> encoded value, of any length (RFC 3396 splitting is the codec's concern)."""


@dataclass(frozen=True, slots=True)
class Boot:
    """Network boot: ``siaddr``/option 66 and ``sname``, ``file``/option 67 (RFC 2132 sections 9.4 and 9.5)."""

    next_server: int = 0
    server_name: str = ""
    file: str = ""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What the operator wrote down for one node. Exactly one of ``macs``, ``client_id``, ``container`` is set.

    ``address`` None: the node is known (see ``Scope.known_only``) and has its own name and options, and its address
    comes from the pools.
    """

    name: str
    macs: tuple[bytes, ...] = ()
    client_id: bytes | None = None
    container: str | None = None
    address: int | None = None
    options: Options = field(default_factory=dict)
    boot: Boot | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """One VLAN as its DHCP server sees it."""

    name: str
    subnet: IPv4Network
    router: int
    pools: tuple[Range, ...]
    landing: Range | None = None
    lease_time: int = 12 * 3600
    min_lease_time: int = 120
    max_lease_time: int = 7 * 86400
    t1: float = 0.5
    """Renewal time T1 as a fraction of the lease time (RFC 2131 section 4.4.5)."""
    t2: float = 0.875
    options: Options = field(default_factory=dict)
    """Everything to offer, the subnet mask (1) and the router (3) included."""
    boot: Boot = field(default_factory=Boot)
    reservations: tuple[Reservation, ...] = ()
    authoritative: bool = True
    match_client_id: bool = True
    known_only: bool = False
    always_broadcast: frozenset[bytes] = frozenset()
    probe: bool = True
    """ARP-probe free addresses ahead of need (RFC 2131 section 2.2)."""
    quarantine: int = 3600
    """Seconds for which a declined or squatted address is not given to anybody."""
    is_external: bool = False
    """Another server serves the VLAN: here is only the book of what it leases to our containers."""
    max_offers: int = 4096
    """Offers remembered at once; a flood of DISCOVERs evicts the oldest instead of growing the table."""
