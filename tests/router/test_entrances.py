"""Where containers are measured from: pure on views of namespaces, thin on real ones."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from leasebroker.plan import Address, Link, Route, View
from router.entrances import Entrance, Shown, locate, opened, running
from router.policy import ICMP, ROUTER, End, Row, internet, node
from router.probe import measure
from router.settings import Kind
from tests.lab import netns

MAC1, MAC2 = bytes.fromhex("020000000101"), bytes.fromhex("020000000201")
LANDING = 240


def number(address: str) -> int:
    return int(IPv4Address(address))


WEB, WEB2 = node("vlan1", "web", number("10.0.1.100")), node("vlan2", "web", number("10.0.2.100"))
DEVICE1, DEVICE2 = node("vlan1", "device1", number("10.0.1.20")), node("vlan2", "device2", number("10.0.2.20"))
LEG1, LEG2 = (End(Kind.ROUTER, number(f"10.0.{n}.1"), f"vlan{n}") for n in (1, 2))
INTERNET = internet(number("198.51.100.9"))


def shown(address: str = "10.0.1.100", mac: bytes = MAC1, state: str = "running", **more: Any) -> dict[str, Any]:
    vlan = f"vlan{address.split('.')[2]}"
    return {"vlan": vlan, "address": address, "mac": mac.hex(":") or None, "state": state} | more


def link(ifindex: int, mac: bytes) -> Link:
    return Link(ifindex, f"eth{ifindex}", mac, 1500, is_up=True, promotes=True)


def view(*ends: tuple[bytes, End], ways: tuple[int, ...] = (1,)) -> View:
    """A namespace whose links 1, 2, ... have these MACs and addresses and one of Docker's, with default routes."""
    links = tuple(link(n, mac) for n, (mac, _) in enumerate(ends, 1))
    addresses = [Address(n, end.address, 24, "") for n, (_, end) in enumerate(ends, 1)]
    landed = [Address(n, end.address & ~255 | LANDING, 24, "") for n, (_, end) in enumerate(ends, 1)]
    return View(links, (*addresses, *landed), tuple(Route(n, 1, 0, metric) for metric, n in enumerate(ways)))


def asked(end: End, place: Entrance) -> set[End]:
    targets = [WEB, WEB2, DEVICE1, DEVICE2, LEG1, LEG2, INTERNET]
    return {one for one in targets if one != end and place.asks(Row(end, one, ICMP, expected=True))}


def test_a_container_is_a_node_by_its_lease() -> None:
    found = [shown(), shown("10.0.2.100", state="exited"), shown("10.0.1.101"), shown() | {"address": None}]
    assert running([WEB, WEB2, DEVICE1], found) == {WEB: found[0]}
    assert running([WEB], [shown(state="paused")])
    assert running([WEB], [shown(state="restarting")]) == {}


@pytest.mark.parametrize("turn", [1, -1])
def test_of_two_containers_with_one_lease_the_running_one_is_meant(turn: int) -> None:
    new, old = shown(id="new"), shown(state="exited", id="old")
    assert running([WEB], [new, old][::turn]) == {WEB: new}


def test_a_container_is_where_its_mac_and_its_lease_are_on_one_link() -> None:
    views = {7: view((MAC2, WEB2)), 8: view((MAC1, WEB))}
    assert locate({WEB: shown()}, views) == {WEB: Entrance(8, 1)}


@pytest.mark.parametrize(
    ("container", "there"),
    [
        pytest.param(shown(mac=MAC2), view((MAC1, WEB)), id="another's link has its lease"),
        pytest.param(shown(), view((MAC1, DEVICE1)), id="its link has no lease"),
        pytest.param(shown(), view((MAC1, WEB2), (MAC2, WEB)), id="they are on two links"),
        pytest.param(shown(mac=b""), view((bytes(6), WEB)), id="its MAC is not known"),
        pytest.param(shown(), View(), id="nothing is there"),
    ],
)
def test_a_container_that_is_not_certainly_found_is_nowhere(container: Shown, there: View) -> None:
    assert locate({WEB: container}, {7: there}) == {}


def test_a_container_on_one_vlan_asks_everything() -> None:
    (place,) = locate({WEB: shown()}, {7: view((MAC1, WEB))}).values()
    assert place.is_alone
    assert asked(WEB, place) == {WEB2, DEVICE1, DEVICE2, LEG1, LEG2, INTERNET}


def test_a_container_without_a_default_route_asks_everything_in_vain() -> None:
    (place,) = locate({WEB: shown()}, {7: view((MAC1, WEB), ways=())}).values()
    assert place.is_way_out


def test_of_two_links_each_asks_its_vlan_and_one_all_else() -> None:
    containers = {WEB: shown(), WEB2: shown("10.0.2.100", MAC2)}
    places = locate(containers, {7: view((MAC1, WEB), (MAC2, WEB2), ways=(2, 1))})
    assert asked(WEB, places[WEB]) == {DEVICE1, LEG1}
    assert asked(WEB2, places[WEB2]) == {DEVICE2, LEG2, INTERNET}
    assert not places[WEB].is_alone
    assert not places[WEB2].is_alone


def test_a_container_whose_default_route_goes_elsewhere_asks_its_vlan_only() -> None:
    elsewhere = view((MAC1, WEB), (MAC2, node("elsewhere", "", number("172.17.0.2"))), ways=(2,))
    places = locate({WEB: shown()}, {7: elsewhere})
    assert asked(WEB, places[WEB]) == {DEVICE1, LEG1}


def test_a_detour_goes_before_a_default_route() -> None:
    docker = view((MAC1, WEB), (MAC2, WEB2), ways=(2,))
    detoured = docker._replace(detour=Route(1, 1, 0))
    assert locate({WEB: shown()}, {7: detoured})[WEB].is_way_out


# -- real namespaces


class Places:
    """Two namespaces, joined: web has `WEB` and `MAC1`, far is its router. ``folder`` is like the engine's."""

    def __init__(self, folder: Path) -> None:
        prefix = f"{netns.prefix(os.getpid())}0-e-"
        self.web, self.far = f"{prefix}web", f"{prefix}far"
        self.folder = folder
        netns.batch([f"netns add {self.far}", f"netns add {self.web}"])
        netns.batch(
            [
                f"link add eth0 address {MAC1.hex(':')} type veth peer name leg netns {self.far}",
                "addr add 10.0.1.100/24 dev eth0",
                "link set eth0 up",
            ],
            self.web,
        )
        netns.batch(["addr add 10.0.1.1/24 dev leg", "link set leg up", "link set lo up"], self.far)
        netns.batch(["route add default via 10.0.1.1"], self.web)
        (folder / "left-behind").touch()
        for name in (self.far, self.web):
            (folder / name).symlink_to(netns.FOLDER / name)

    def remove(self) -> None:
        netns.delete([self.web, self.far])


@pytest.fixture
def places(tmp_path: Path, needs_root: None) -> Iterator[Places]:  # noqa: ARG001
    built = Places(tmp_path)
    yield built
    built.remove()


def here() -> os.stat_result:
    return Path("/proc/thread-self/ns/net").stat()


def test_a_container_is_entered_and_left(places: Places) -> None:
    home = here()
    with opened({WEB: shown()}, places.folder) as entrances:
        rows = [Row(WEB, one, ICMP, expected=True) for one in (LEG1, INTERNET)]
        assert [entrances.asks(row) for row in rows] == [True, True]
        assert not entrances.asks(Row(ROUTER, WEB, ICMP, expected=True))
        assert measure(rows, entrances.enter, 0.1) == [True, False]
        with entrances.enter[WEB]():
            assert os.path.samestat(here(), (netns.FOLDER / places.web).stat())
        assert os.path.samestat(here(), home)


def test_who_is_interrupted_inside_is_home_again(places: Places) -> None:
    home = here()
    with pytest.raises(KeyboardInterrupt), opened({WEB: shown()}, places.folder) as entrances, entrances.enter[WEB]():
        raise KeyboardInterrupt
    assert os.path.samestat(here(), home)


def test_nothing_stays_open(places: Places) -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - iterating a Path keeps the folder itself open
    for _ in range(3):
        with opened({WEB: shown()}, places.folder) as entrances:
            assert entrances.places
    assert os.listdir("/proc/self/fd") == before  # noqa: PTH208


def test_a_drop_of_the_containers_own_is_no_answer(places: Places) -> None:
    rules = "table ip broken { chain out { type filter hook output priority 0; ip daddr 10.0.1.1 drop; }; }"
    netns.batch(["link set lo up"], places.web)
    subprocess.run([*netns.enter(places.web), "nft", rules], check=True)
    with opened({WEB: shown()}, places.folder) as entrances:
        assert measure([Row(WEB, LEG1, ICMP, expected=True)], entrances.enter, 0.1) == [False]


def test_why_a_container_is_not_found(places: Places, tmp_path: Path) -> None:
    with opened({WEB: shown(mac=MAC2)}, places.folder) as entrances:
        assert entrances.places == {}
        assert "has its lease on its link" in entrances.problem
    with opened({WEB: shown()}, tmp_path / "absent") as entrances:
        assert entrances.places == {}
        assert entrances.problem.endswith(
            "absent: No such file or directory; mount the engine's folder here, or correct [docker] netns"
        )


def test_where_no_container_runs_no_folder_is_needed(tmp_path: Path) -> None:
    with opened({}, tmp_path / "absent") as entrances:
        assert (entrances.places, entrances.enter) == ({}, {})
