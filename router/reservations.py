"""Reading ``[[vlan.reservation]]``, and the settings that a VLAN and a reservation have in common: options and boot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address

from dhcpd import opt
from dhcpd import options as dhcp
from dhcpd.pool import dotted
from dhcpd.settings import Boot, Options, Reservation
from dhcpd.values import address, client_id, domain, mac, text
from leasebroker.identity import container_name
from router.nodes import node_name, vlan_name
from router.plan import Plan
from router.settings import Entry, Kept
from router.tables import Errors, Table

SHORT_NAMES: dict[str, int] = {"dns": 6, "domain": 15, "mtu": 26, "ntp": 42, "domain_search": 119, "routes": 121}
"""Settings of their own for the usual options."""


@dataclass(frozen=True, slots=True)
class Offered:
    """What a VLAN offers to a node that has nothing of its own."""

    written: Options
    """As the operator wrote it, with what follows from the address plan."""
    options: Options
    """As it is sent."""
    boot: Boot


def read_reservation(table: Table, vlan: str, plan: Plan, offered: Offered) -> Reservation:
    """The reservation of a table. ``vlan`` is the place of its VLAN, in which nothing may be reserved twice.

    Its options are those that differ from what the VLAN offers.
    """
    name = table.need("name", node_name) or ""
    reserved = table.get("address", address)
    if reserved is not None and (why := plan.taken(reserved)):
        table.error("address", why)
    macs = _read_macs(table, vlan)
    client, container = table.get("client_id", client_id), table.get("container", container_name)
    _check_identity(table)
    where = "" if reserved is None else dotted(reserved)
    identifier = "" if client is None else client.hex(":")
    for key, value in {"name": name, "address": where, "client_id": identifier, "container": container}.items():
        if value:
            table.errors.claim((vlan, key), value, table.place, table.at(key), value)
    written = _host_name(name) | read_options(table, plan, SHORT_NAMES | {"hostname": opt.HOST_NAME})
    sent = dhcp.complete_routes({**offered.written, **written})
    boot = read_boot(table, offered.boot)
    table.finish()
    return Reservation(
        name,
        macs,
        client,
        container,
        reserved,
        {code: data for code, data in sent.items() if offered.options.get(code) != data},
        None if boot == offered.boot else boot,
    )


class Additions:
    """The reservations that are kept beside the file, while it is read: the file wins over each of them, and an earlier
    one over a later."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self._places = [_place(number, one) for number, one in enumerate(entries)]
        self.kept = [
            Kept(one, f"{place}: the file has no VLAN of this name")
            for place, one in zip(self._places, entries, strict=True)
        ]

    def without_effect(self, vlan: str) -> None:
        """Another server serves that VLAN."""
        for number, entry in self._of(vlan):
            why = f"{self._places[number]}: another server serves {vlan} (dhcp is external)"
            self.kept[number] = Kept(entry, why)

    def read(
        self, vlan: str, table: Table, plan: Plan, offered: Offered, written: Sequence[Reservation]
    ) -> Iterator[Reservation]:
        """Those of a VLAN that find a place beside what is ``written`` in its table."""
        errors = table.errors
        names = {one.name: one for one in written}
        places: set[str] = set()
        for number, entry in self._of(vlan):
            place, values = self._places[number], {key: one for key, one in entry.items() if key != "vlan"}
            if same := names.get(str(entry.get("name"))):
                alone = Errors()
                made = read_reservation(Table(place, values, alone), table.place, plan, offered)
                if not alone.lines and covers(same, made):
                    self.kept[number] = Kept(entry, is_redundant=True)
                    continue
            with errors.trial() as lines:
                made = read_reservation(Table(place, values, errors), table.place, plan, offered)
                if place in places:
                    errors.add(place, "the name is taken already by an earlier one")
            self.kept[number] = Kept(entry, "; ".join(lines) or None)
            if not lines:
                places.add(place)
                yield made

    def _of(self, vlan: str) -> list[tuple[int, Entry]]:
        return [(number, one.entry) for number, one in enumerate(self.kept) if one.entry.get("vlan") == vlan]


def _place(number: int, entry: Entry) -> str:
    try:
        return f"{vlan_name(entry.get('vlan'))}/{node_name(entry.get('name'))}"
    except ValueError:
        return f"reservations.json[{number}]"


def covers(one: Reservation, other: Reservation) -> bool:
    """Whether a reservation says all that another of that name says."""
    return (
        (one.name, one.client_id, one.container, one.address)
        == (other.name, other.client_id, other.container, other.address)
        and set(other.macs) <= set(one.macs)
        and other.options.items() <= dict(one.options).items()
        and other.boot in (None, one.boot)
    )


def _read_macs(table: Table, vlan: str) -> tuple[bytes, ...]:
    macs = table.each("mac", mac, some=True)
    for place, one in macs:
        table.errors.claim((vlan, "mac"), one, table.place, place, one.hex(":"))
    return tuple(one for _, one in macs)


def _check_identity(table: Table) -> None:
    """Exactly one way to know the node."""
    written = [key for key in ("mac", "client_id", "container") if key in table]
    if not written:
        table.errors.add(table.place, "expected mac, client_id or container")
    for key in written[1:]:
        table.error(key, f"a reservation with {written[0]} cannot have {key} as well")


def _host_name(name: str) -> dict[int, bytes]:
    """The host name that follows from a reservation's name; none when no host can have it."""
    try:
        return {opt.HOST_NAME: domain(name.replace("_", "-").strip("-.")).encode()}
    except ValueError:
        return {}


def read_options(table: Table, plan: Plan, short_names: Mapping[str, int] = SHORT_NAMES) -> dict[int, bytes]:
    """The options of a VLAN or a reservation as written: by their short names and in its table ``options``."""
    found: dict[int, bytes] = {}
    places: dict[int, str] = {}
    for key, code in short_names.items():
        _add_option(table, key, partial(dhcp.encode, code), found, places)
    if (inner := table.table("options")) is not None:
        for key in inner:
            _add_option(inner, key, partial(dhcp.encode, key), found, places)
    _check_routes(table, found, plan)
    return found


def _add_option(
    table: Table,
    key: str,
    encode: Callable[[object], tuple[int, bytes]],
    found: dict[int, bytes],
    places: dict[int, str],
) -> None:
    if (option := table.get(key, encode)) is None:
        return
    code, data = option
    if places.setdefault(code, table.at(key)) != table.at(key):
        table.error(key, f"{dhcp.name_of(code)} is set already by {places[code]}")
    found[code] = data


def _check_routes(table: Table, options: dict[int, bytes], plan: Plan) -> None:
    """Each route leaves by a router in the subnet; an option that is no list of routes is taken out."""
    place = table.at("routes" if "routes" in table else "options")
    try:
        routes = dhcp.decode_routes(options.get(dhcp.CLASSLESS_ROUTES, b""))
    except ValueError as error:
        table.errors.add(place, error)
        del options[dhcp.CLASSLESS_ROUTES]
        return
    for destination, router in routes:
        if router and plan.subnet is not None and IPv4Address(router) not in plan.subnet:
            table.errors.add(place, f"{dotted(router)}, the router to {destination}, is outside {plan.subnet}")


def _limited(length: int) -> Callable[[object], str]:
    def read(value: object) -> str:
        if len(text(value).encode()) > length:
            raise ValueError(f"expected at most {length} bytes")
        return text(value)

    return read


def read_boot(table: Table, default: Boot) -> Boot:
    """Network boot settings; what is absent is as in ``default``. ``sname`` holds 63 bytes (RFC 2131 section 2)."""
    return Boot(
        table.get("next_server", address, default.next_server),
        table.get("server_name", _limited(63), default.server_name),
        table.get("boot_file", _limited(255), default.file),
    )
