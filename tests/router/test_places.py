"""Where a node is that an exception names: whose a name is, whatever others call themselves."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address

import pytest

from dhcpd.engine import Engine
from dhcpd.identity import BY_CLIENT_ID, container_key
from dhcpd.leases import BOUND, Row
from dhcpd.settings import Reservation
from router.config import Config
from router.places import Places, find, placed, unplaced
from tests.dhcpd.script import START, ip, mac, scope
from tests.router.test_rules import allow, configuration

HOUR = 3600


def lease(last: int, number: int, hostname: str = "cam", *, since: int = 0, client_id: bytes = b"") -> Row:
    """The lease of 10.0.1.`last`, whose holder has the MAC of that number, for an hour from `since` on."""
    client = BY_CLIENT_ID + client_id if client_id else mac(number)
    granted = START + since
    return Row(ip(f"10.0.1.{last}"), BOUND, client, mac(number), client_id, hostname, granted, granted + HOUR)


def container(last: int, name: str, hostname: str = "") -> Row:
    return lease(last, 90)._replace(client=container_key(name), hostname=hostname or name)


def look(
    rows: Iterable[Row], *reservations: Reservation, now: int = 1, before: Places | None = None, name: str = "cam"
) -> Places:
    engine = Engine(scope(reservations=reservations), rows, START)
    return find([("vlan1", name)], {"vlan1": engine}, before or Places(), START + now)


def where(found: Places, name: str = "cam") -> str | None:
    address = found.nodes.get(("vlan1", name))
    return None if address is None else str(IPv4Address(address))


RESERVED = [
    Reservation("cam", macs=(mac(1),)),
    Reservation("cam", client_id=b"\1cam"),
]


@pytest.mark.parametrize("reservation", RESERVED, ids=["mac", "client identifier"])
@pytest.mark.parametrize("order", [1, -1])
def test_a_reserved_name_is_that_of_the_node_it_describes(reservation: Reservation, order: int) -> None:
    own, impostor = lease(100, 1, client_id=b"\1cam"), lease(101, 2, since=60)
    assert where(look([own, impostor][::order], reservation)) == "10.0.1.100"
    assert look([own, impostor], reservation).shared == {}


@pytest.mark.parametrize("reservation", [*RESERVED, Reservation("cam", container="cam-1")])
def test_a_reserved_name_is_nobodys_while_its_node_is_away(reservation: Reservation) -> None:
    rows = [lease(101, 2), container(102, "cam"), container(103, "other", hostname="cam")]
    assert look(rows, reservation).nodes == {}


def test_a_client_identifier_of_anothers_reservation_does_not_make_it_that() -> None:
    mine, other = Reservation("cam", client_id=b"\1cam"), Reservation("door", macs=(mac(2),))
    assert look([lease(101, 2, client_id=b"\1cam")], mine, other).nodes == {}


def test_a_reserved_node_with_several_macs_is_where_it_was_last_while_that_lives() -> None:
    both = Reservation("cam", macs=(mac(1), mac(2)))
    rows = [lease(100, 1), lease(101, 2, since=60)._replace(expires=START + 120)]
    found = look(rows, both, now=61)
    assert where(found) == "10.0.1.101"
    assert found.until == START + 120
    assert where(look(rows, both, now=120, before=found)) == "10.0.1.100"


def test_a_containers_name_goes_before_a_host_name_and_a_reserved_container_has_its_own() -> None:
    rows = [lease(101, 2, since=60), container(102, "cam")]
    assert where(look(rows)) == "10.0.1.102"
    assert where(look([container(102, "cam-1", hostname="cam")], Reservation("cam", container="cam-1"))) == "10.0.1.102"


def test_a_host_name_stays_with_its_holder_while_the_lease_lives() -> None:
    first, newcomer = lease(101, 1), lease(100, 2, since=60)
    found = look([first])
    assert where(found) == "10.0.1.101"
    later = look([first, newcomer], now=61, before=found)
    assert where(later) == "10.0.1.101"
    assert later.shared == {("vlan1", "cam"): (ip("10.0.1.100"), ip("10.0.1.101"))}
    assert later.until == START + HOUR
    over = look([first, newcomer], now=HOUR, before=later)
    assert (where(over), over.shared) == ("10.0.1.100", {})
    assert where(look([first._replace(expires=START + 3 * HOUR), newcomer], now=HOUR, before=over)) == "10.0.1.100"


def test_a_host_name_of_which_nobody_knows_who_had_it_first_is_nobodys() -> None:
    rows = [lease(101, 1), lease(100, 2, since=60)]
    found = look(rows, now=61)
    assert (found.nodes, found.holders) == ({}, {})
    assert found.shared == {("vlan1", "cam"): (ip("10.0.1.100"), ip("10.0.1.101"))}
    assert found.watched == {ip("10.0.1.100"), ip("10.0.1.101")}
    assert where(look(rows[:1], now=61, before=found)) == "10.0.1.101"


def test_a_station_that_boots_in_stages_is_one() -> None:
    loader, system = lease(100, 1, client_id=b"\0loader"), lease(101, 1, since=60)
    found = look([loader, system], now=61, before=look([loader]))
    assert (where(found), found.shared) == ("10.0.1.101", {})


def test_who_had_the_name_is_remembered_when_its_lease_has_ended() -> None:
    assert where(look([lease(101, 1)], now=2 * HOUR)) == "10.0.1.101"


@pytest.fixture
def config() -> Config:
    publish = '[[publish]]\nport = "tcp/80"\nto = "vlan1/phone"\n'
    return configuration(2, allow("vlan1/phone", "vlan2/device1") + allow("vlan1", "vlan2/web") + publish)


def test_only_what_the_file_does_not_locate_is_looked_for(config: Config) -> None:
    assert unplaced(config) == {("vlan1", "phone"), ("vlan2", "web")}


def test_an_exception_with_a_node_that_is_nowhere_opens_nothing(config: Config) -> None:
    there = placed(config, {("vlan1", "phone"): ip("10.0.1.100")})
    assert [(one.source.address, one.target.address) for one in there.allow] == [(ip("10.0.1.100"), ip("10.0.2.20"))]
    assert [one.target.address for one in there.publish] == [ip("10.0.1.100")]
    nowhere = placed(config, {})
    assert (nowhere.allow, nowhere.publish) == ((), ())
