"""Leases, status and metrics as plain values."""

from __future__ import annotations

from typing import Any, cast

from dhcpd.engine import Engine
from dhcpd.identity import container_key
from dhcpd.leases import BOUND, DECLINED, Row
from dhcpd.server import Server
from dhcpd.settings import Reservation
from router import view
from tests.dhcpd.script import START, ip, mac, scope

CAMERA = Reservation("camera", macs=(mac(9),), address=ip("10.0.1.20"))
WEB = Reservation("web", container="web", address=ip("10.0.1.21"))
NOW = START + 10


def row(address: str, number: int = 1, **changes: Any) -> Row:
    """A lease of device ``number``, for an hour."""
    key = b"m\1" + mac(number)
    return Row(ip(address), BOUND, key, mac(number), b"", "gps", START, START + 3600)._replace(**changes)


def engine(*rows: Row, **changes: Any) -> Engine:
    return Engine(scope(**changes), rows, NOW)


def lease(book: Engine, address: str, offset: float = 0.0) -> dict[str, Any]:
    found = view.lease(book, ip(address), NOW, offset)
    assert found is not None
    return found


def test_a_bound_lease_has_all_fields_of_the_contract() -> None:
    assert lease(engine(row("10.0.1.100", client_id=b"\1ab")), "10.0.1.100") == {
        "vlan": "vlan1",
        "address": "10.0.1.100",
        "kind": "device",
        "state": "bound",
        "mac": "02:00:00:00:00:01",
        "client_id": "01:61:62",
        "hostname": "gps",
        "container": None,
        "expires": "2027-01-15T09:00:00Z",
        "fits": True,
    }


def test_expiry_is_told_by_the_wall_clock() -> None:
    assert lease(engine(row("10.0.1.100")), "10.0.1.100", offset=-60)["expires"] == "2027-01-15T08:59:00Z"


def test_an_infinite_lease_never_expires() -> None:
    assert lease(engine(row("10.0.1.100", expires=None)), "10.0.1.100")["expires"] is None


def test_states() -> None:
    book = engine(row("10.0.1.100", expires=START + 5), row("10.0.1.101", 2, state=DECLINED), reservations=(CAMERA,))
    states = {address: lease(book, address)["state"] for address in ("10.0.1.100", "10.0.1.101", "10.0.1.20")}
    assert states == {"10.0.1.100": "expired", "10.0.1.101": "declined", "10.0.1.20": "reserved"}
    assert view.lease_counts(book, NOW) == {"bound": 0, "expired": 1, "declined": 1, "reserved": 1}


def test_a_reservation_shows_whose_it_is() -> None:
    book = engine(reservations=(CAMERA, WEB))
    device, container = lease(book, "10.0.1.20"), lease(book, "10.0.1.21")
    assert (device["hostname"], device["mac"], device["kind"]) == ("camera", "02:00:00:00:00:09", "device")
    assert (container["container"], container["kind"], container["expires"]) == ("web", "container", None)


def test_the_lease_of_a_container_is_told_by_its_key() -> None:
    book = engine(row("10.0.1.100", client=container_key("web"), hostname=""))
    shown = lease(book, "10.0.1.100")
    assert (shown["kind"], shown["container"]) == ("container", "web")


def test_a_lease_outside_the_pools_does_not_fit() -> None:
    assert not lease(engine(row("10.0.1.50")), "10.0.1.50")["fits"]


def test_the_list_has_leases_and_reservations_in_ascending_order() -> None:
    book = engine(row("10.0.1.105"), row("10.0.1.100", 2), reservations=(CAMERA,))
    assert view.lease_addresses(book) == [ip("10.0.1.20"), ip("10.0.1.100"), ip("10.0.1.105")]


def test_an_address_that_is_nobodys_is_no_lease() -> None:
    assert view.lease(engine(), ip("10.0.1.100"), NOW, 0) is None


class _Link:
    interface = "leg1"

    def lost_datagrams(self) -> int:
        return 3


class _Server:
    """As much of a `Server` as `vlan_status` looks at."""

    def __init__(self, book: Engine) -> None:
        self.engine = book
        self.link = _Link()
        self.errors = {"send": 2}


def status(book: Engine) -> dict[str, Any]:
    return view.vlan_status(cast(Server, _Server(book)), NOW)


def test_free_counts_the_pool_addresses_that_nobody_has_or_had() -> None:
    book = engine(row("10.0.1.100"), row("10.0.1.101", 2, expires=START + 1), row("10.0.1.50", 3))
    assert status(book)["pool"] == {"size": 10, "free": 8}
