"""What is asked of the running service: by whom a lease's holder is known, what he is called, and what is refused."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhcpd.engine import Engine
from dhcpd.leases import BOUND, Row
from dhcpd.settings import Reservation
from router import RefusedError
from router.config import parse
from router.steer import already, checked, identity, lease_of, name_for, rows
from tests.dhcpd.script import START, Vlan, ip, mac, scope
from tests.router.good import GOOD
from tests.router.test_api import FakeApp, FakeServer, answer
from tests.router.test_kept import BY_ID, CAMERA, anything, entry

FIRST = ip("10.0.1.100")


def known_by(vlan: Vlan, address: int = FIRST) -> dict[str, str]:
    return identity(vlan.engine, vlan.engine.book.by_address[address])


def named(vlan: Vlan, address: int = FIRST, *entries: dict[str, str]) -> str:
    """What the holder of an address is called by default."""
    return name_for(vlan.engine, known_by(vlan, address), entries)


def refusal(call: Any, *arguments: Any) -> tuple[int, str]:
    with pytest.raises(RefusedError) as error:
        call(*arguments)
    return error.value.status, error.value.why


# -- by what the holder of a lease is known


def test_a_device_is_known_by_its_mac() -> None:
    vlan = Vlan()
    vlan.client(1).join()
    assert known_by(vlan) == {"mac": "02:00:00:00:00:01"}


def test_a_device_is_known_by_its_mac_through_all_stages_of_its_boot() -> None:
    vlan = Vlan()
    vlan.client(1, client_id=b"\1pxe").join()
    reserved = Reservation("pi", (mac(1),), address=FIRST)
    assert known_by(vlan) == {"mac": "02:00:00:00:00:01"}
    vlan.reload(reservations=(reserved,))
    assert {vlan.client(1, client_id=one).join() for one in (b"\1pxe", b"\1os", None)} == {"10.0.1.100"}


def test_who_shares_a_mac_is_known_by_his_client_identifier() -> None:
    vlan = Vlan()
    for number in range(3):
        vlan.client(1, client_id=bytes((0, number))).join()
    assert [known_by(vlan, FIRST + number) for number in range(3)] == [
        {"client_id": f"hex:00:0{number}"} for number in range(3)
    ]


def test_an_identifier_that_counts_for_nothing_is_not_used() -> None:
    vlan = Vlan(match_client_id=False)
    vlan.client(1, client_id=b"\0\1").join()
    vlan.reload(match_client_id=True)
    vlan.client(1, client_id=b"\0\2").join()
    vlan.reload(match_client_id=False)
    assert known_by(vlan) == {"mac": "02:00:00:00:00:01"}


def test_a_device_without_a_mac_is_known_by_its_client_identifier() -> None:
    vlan = Vlan()
    device = vlan.client(1, client_id=b"\xffinfiniband", htype=32)
    device.mac = b""
    device.join()
    assert known_by(vlan) == {"client_id": "hex:" + b"\xffinfiniband".hex(":")}


def test_a_container_is_known_by_its_name() -> None:
    vlan = Vlan()
    vlan.container("web", station=mac(9))
    assert known_by(vlan) == {"container": "web"}


def test_who_shows_nothing_cannot_be_known() -> None:
    row = Row(FIRST, BOUND, b"m\x06\1\2\3", b"\1\2\3", b"", "", START, START + 60)
    engine = Engine(scope(), [row], START)
    status, why = refusal(identity, engine, engine.book.by_address[FIRST])
    assert (status, why) == (409, "who has 10.0.1.100 shows neither a MAC nor a client identifier")


# -- what he is called


def test_a_node_is_called_as_it_calls_itself() -> None:
    vlan = Vlan()
    vlan.client(1, hostname="gps").join()
    vlan.container("web")
    assert (named(vlan), named(vlan, FIRST + 1)) == ("gps", "web")


def test_a_node_without_a_name_gets_one() -> None:
    vlan = Vlan()
    vlan.client(1).join()
    assert named(vlan) == "device-020000000001"
    assert name_for(vlan.engine, {"client_id": "hex:ff:01"}, ()) == "device-ff01"
    assert len(name_for(vlan.engine, {"client_id": "x" * 255}, ())) < 64


@pytest.mark.parametrize("hostname", ["\x1b[2J", "<script>", "a b", "_x", "\u202eevil", 'a"\n', "", "10.0.1.50"])
def test_a_name_that_cannot_be_one_is_not_taken(hostname: str) -> None:
    row = Row(FIRST, BOUND, mac(1), mac(1), b"", hostname, START, START + 60)
    engine = Engine(scope(), [row], START)
    assert name_for(engine, {"mac": mac(1).hex(":")}, ()) == "device-020000000001"


def test_a_name_that_another_has_is_not_taken() -> None:
    vlan = Vlan(reservations=(Reservation("android", (mac(7),), address=ip("10.0.1.20")),))
    vlan.client(1, hostname="android").join()
    vlan.client(2, hostname="tablet").join()
    kept = {"vlan": "vlan1", "name": "tablet"}
    assert named(vlan) == "device-020000000001"
    assert named(vlan, FIRST + 1, kept) == "device-020000000002"
    assert named(vlan, FIRST + 1, kept | {"vlan": "vlan2"}) == "tablet"


def test_a_name_that_is_wanted_is_taken() -> None:
    assert name_for(Vlan().engine, {"mac": "02:00:00:00:00:01", "name": "cam"}, ()) == "cam"


# -- which lease


def test_a_lease_is_found_by_its_address_and_by_its_holders_name() -> None:
    vlan = Vlan()
    vlan.client(1, hostname="gps").join()
    vlan.container("web")
    found = [lease_of(vlan.engine, one).address - FIRST for one in ("10.0.1.100", "gps", "web", "10.0.1.101")]
    assert found == [0, 0, 1, 1]


def test_a_name_of_several_is_refused_with_their_addresses() -> None:
    vlan = Vlan()
    for number in range(7):
        vlan.client(number, hostname="android").join()
    status, why = refusal(lease_of, vlan.engine, "android")
    assert (status, why.count("10.0.1.10")) == (409, 5)


@pytest.mark.parametrize("handle", ["10.0.1.105", "gps", "", "10.0.9.9", "\x1b"])
def test_a_lease_that_is_not_there(handle: str) -> None:
    assert refusal(lease_of, Vlan().engine, handle)[0] == 404


def test_a_quarantined_address_is_nobodys_lease() -> None:
    vlan = Vlan()
    vlan.fill(1)[0].decline()
    assert refusal(lease_of, vlan.engine, "10.0.1.100") == (
        409, "10.0.1.100 is quarantined, nobody has it: lanward clear vlan1 10.0.1.100",
    )  # fmt: skip


# -- what is asked for


def test_what_is_asked_for_is_kept_in_one_way_of_writing() -> None:
    assert checked({"mac": "02-00-00-00-00-0A", "address": "10.0.1.50"}) == {
        "mac": "02:00:00:00:00:0a", "address": "10.0.1.50",
    }  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        {}, {"name": "a"}, {"mac": "02:00:00:00:00:01", "container": "web"}, {"mac": "02:00:00:00:00:01", "dns": "1"},
        {"mac": ["02:00:00:00:00:01"]}, {"mac": 7}, {"mac": "ff:ff:ff:ff:ff:ff"}, {"client_id": ""},
        {"client_id": "hex:zz"}, {"client_id": "\u202e"}, {"container": "../x"},
        {"mac": "02:00:00:00:00:01", "name": "-"},
        {"mac": "02:00:00:00:00:01", "address": "10.0.1"}, {"mac": "02:00:00:00:00:01", "address": "10.0.1.01"},
        {"mac": "02:00:00:00:00:01", "address": 7}, {"container": {"a": []}},
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_line(values: dict[str, Any]) -> None:
    status, why = refusal(checked, values)
    assert status == 400
    assert why.isprintable()


@given(st.dictionaries(st.sampled_from(["name", "mac", "client_id", "container", "address", "dns"]), anything))
def test_whatever_is_asked_for_is_refused_or_can_be_kept(values: dict[str, Any]) -> None:
    status, why, wanted = 200, "", {}
    try:
        wanted = checked(values)
    except RefusedError as error:
        status, why = error.status, error.why
    assert status in (200, 400)
    assert why.isprintable()
    assert all(isinstance(one, str) and one.isprintable() for one in wanted.values())


def test_what_is_so_already_is_found() -> None:
    config = parse(GOOD)
    reservations = config.vlans[0].scope.reservations
    device = {"mac": "02:00:00:00:01:06"}
    found = [
        already(reservations, one)
        for one in (
            device,
            device | {"address": "10.0.1.20", "name": "device1"},
            {"client_id": "hex:01:02:00:00:00:01:07"},
            {"container": "container1"},
            device | {"address": "10.0.1.21"},
            device | {"name": "other"},
            {"mac": "02:00:00:00:01:99"},
            {"container": "container1", "address": "10.0.1.77"},
        )
    ]
    assert [one and one.name for one in found] == ["device1", "device1", "ip_phone", "web", None, None, None, None]


def test_a_list_says_where_each_was_made_and_what_is_wrong() -> None:
    aside = entry(vlan="gone", mac=["a"], name=None)
    same = {"vlan": "vlan1", "name": "web", "container": "container1"}
    shown = rows(parse(GOOD, [CAMERA, BY_ID, same, aside]))
    assert [(one["name"], one["origin"], one["problem"] is None) for one in shown] == [
        ("device1", "file", True), ("ip_phone", "file", True), ("web", "file", True), ("camera", "state", True),
        ("plc", "state", True), (None, "state", False),
    ]  # fmt: skip
    assert (shown[0]["mac"], shown[0]["macs"]) == ("02:00:00:00:01:05", ["02:00:00:00:01:05", "02:00:00:00:01:06"])
    assert (shown[4]["client_id"], shown[4]["mac"], shown[4]["macs"]) == ("01:ff", None, [])
    assert {key for one in shown for key in one} == set(shown[0])


# -- by HTTP, with a disk and an engine that are the test's


class SteeredServer(FakeServer):
    """A server whose disk takes what it is given, or nothing."""

    takes = True

    async def commit(self, _decision: object) -> bool:
        return self.takes


class SteeredContainers:
    def __init__(self, *containers: dict[str, str], connected: bool = True) -> None:
        self.shown = {"connected": connected, "containers": list(containers)}

    def status(self) -> dict[str, Any]:
        return self.shown


def app(*engines: Engine, containers: SteeredContainers | None = None) -> FakeApp:
    """VLANs with a Docker network each."""
    made = FakeApp()
    made.servers = {one.scope.name: SteeredServer(one) for one in engines}
    vlans = tuple(SimpleNamespace(scope=one.scope, network="br0net") for one in engines)
    made.config = SimpleNamespace(api=None, vlans=vlans, kept=())
    made.kept = SimpleNamespace(lock=asyncio.Lock(), entries=())  # type: ignore[attr-defined]
    made.containers = containers or SteeredContainers()  # type: ignore[assignment]
    return made


def asked(one: FakeApp, folder: Path, method: str, target: str, body: object = None) -> tuple[int, dict[str, str]]:
    found = answer(one, folder, method, target, None if body is None else json.dumps(body))
    (folder / "lanward.sock").unlink()
    return found.status, json.loads(found.body)


def with_container() -> Engine:
    vlan = Vlan()
    vlan.container("web")
    return vlan.engine


LEASE = "/leases/vlan1/10.0.1.100"


def test_the_lease_of_a_container_that_is_there_is_not_dropped(tmp_path: Path) -> None:
    there = {"vlan": "vlan1", "identity": "web", "container": "web-1", "state": "exited"}
    one = app(with_container(), containers=SteeredContainers(there))
    status, said = asked(one, tmp_path, "DELETE", LEASE)
    assert status == 409
    assert said["error"] == "container web-1 is there (exited): its lease goes after docker rm web-1"
    assert one.servers["vlan1"].engine.book.by_address


@pytest.mark.parametrize("other", [{"vlan": "vlan2", "identity": "web"}, {"vlan": "vlan1", "identity": "db"}])
def test_the_lease_of_a_container_that_is_gone_is_dropped(tmp_path: Path, other: dict[str, str]) -> None:
    containers = SteeredContainers({"container": "x", "state": "running"} | other)
    one = app(with_container(), containers=containers)
    assert asked(one, tmp_path, "DELETE", LEASE) == (200, {"vlan": "vlan1", "address": "10.0.1.100"})
    assert not one.servers["vlan1"].engine.book.by_address


def test_without_docker_no_container_is_known_to_be_gone(tmp_path: Path) -> None:
    one = app(with_container(), containers=SteeredContainers(connected=False))
    status, said = asked(one, tmp_path, "DELETE", LEASE)
    assert (status, "Docker does not answer" in said["error"]) == (409, True)


def test_a_device_is_dropped_without_docker(tmp_path: Path) -> None:
    vlan = Vlan()
    vlan.fill(1)
    one = app(vlan.engine, containers=SteeredContainers(connected=False))
    assert asked(one, tmp_path, "DELETE", LEASE)[0] == 200


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    vlan = Vlan()
    vlan.fill(1)
    one = app(vlan.engine)
    cast(SteeredServer, one.servers["vlan1"]).takes = False
    status, said = asked(one, tmp_path, "DELETE", LEASE)
    assert (status, said["error"]) == (500, "the disk refuses, see the log: after a restart 10.0.1.100 is as it was")


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("POST", "/reservations", {"vlan": "vlan1", "mac": "02:00:00:00:00:01"}),
        ("POST", "/leases/vlan1/10.0.1.100/reserve", None),
        ("DELETE", LEASE, None),
        ("DELETE", "/quarantine/vlan1/10.0.1.100", None),
    ],
)
def test_where_another_server_serves_nothing_is_steered(tmp_path: Path, method: str, target: str, body: object) -> None:
    one = app(Engine(replace(scope(), pools=(), is_external=True), (), START))
    assert asked(one, tmp_path, method, target, body) == (
        409, {"error": "another DHCP server serves vlan1 (dhcp is external): do it there"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", "/leases/vlan7/10.0.1.1/reserve"), ("DELETE", "/leases/vlan7/10.0.1.1"),
     ("DELETE", "/quarantine/vlan7/10.0.1.1"), ("POST", "/reservations")],
)  # fmt: skip
def test_an_unknown_vlan_names_those_that_are_known(tmp_path: Path, method: str, target: str) -> None:
    body = {"vlan": "vlan7", "mac": "02:00:00:00:00:01"} if target == "/reservations" else None
    assert asked(app(Vlan().engine), tmp_path, method, target, body) == (
        400, {"error": "no VLAN has the name vlan7: there are vlan1"},
    )  # fmt: skip


BROKEN = ["{", "[]", "7", "null", '"\\ud800"', "[" * 50_000, "9" * 5000]


@pytest.mark.parametrize(
    ("target", "body"),
    [("/reservations", ""), *((one, body) for one in ("/reservations", LEASE + "/reserve") for body in BROKEN)],
)
def test_a_body_that_is_none(tmp_path: Path, target: str, body: str) -> None:
    found = answer(app(with_container()), tmp_path, "POST", target, body)
    assert (found.status, json.loads(found.body)) == (400, {"error": "expected a JSON object"})


def test_to_make_permanent_wants_nothing_but_a_name(tmp_path: Path) -> None:
    body = {"address": "10.0.1.1"}
    status, said = asked(app(with_container()), tmp_path, "POST", "/leases/vlan1/10.0.1.100/reserve", body)
    assert (status, said["error"]) == (400, 'expected {"name": NAME}, or nothing')


@pytest.mark.parametrize("target", ["/leases/vlan1/web", "/quarantine/vlan1/web", "/leases/vlan1/10.0.1"])
def test_what_is_no_address_is_not_dropped(tmp_path: Path, target: str) -> None:
    assert asked(app(with_container()), tmp_path, "DELETE", target)[0] == 400


@pytest.mark.parametrize(
    "target",
    ["/reservations", "/leases/vlan1/10.0.1.100", "/leases/vlan1/10.0.1.100/reserve", "/quarantine/vlan1/10.0.1.100",
     "/reservations/vlan1/web", "/config/export"],
)  # fmt: skip
def test_a_question_changes_nothing(tmp_path: Path, target: str) -> None:
    one = app(with_container())
    before = one.servers["vlan1"].engine.rows()
    assert answer(one, tmp_path, "GET", target).status in (200, 404, 405)
    assert one.servers["vlan1"].engine.rows() == before
