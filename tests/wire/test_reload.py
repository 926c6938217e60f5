"""A running service is given another configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import netns
from tests.lab.netns import wait_until
from tests.wire import control
from tests.wire.segment import Segment, reservation, vlan
from tests.wire.station import Lan

CONFIG = vlan(pools=["10.1.1.0-10.1.1.9"])
MOVED = vlan(pools=["10.1.2.0-10.1.2.9"])


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path, vlans=2) as built:
        yield built


Reload = Callable[[Segment, str], dict[str, Any]]


def by_signal(segment: Segment, config: str) -> dict[str, Any]:
    """Reload by SIGHUP; the log line about it."""

    def told() -> list[dict[str, Any]]:
        return [*segment.service.events("reloaded"), *segment.service.events("reload_refused")]

    before = len(told())
    segment.service.reload(config)
    wait_until(lambda: len(told()) > before, 5, "the reload")
    return max(told(), key=lambda line: str(line["time"]))


def by_socket(segment: Segment, config: str) -> dict[str, Any]:
    """Reload by the control socket; its answer."""
    segment.service.config.write_text(config)
    answer = control.ask(segment.service.state, "POST", "/reload")
    told: dict[str, Any] = json.loads(answer.body)
    assert answer.status == (409 if told["errors"] else 200)
    return told


each_way = pytest.mark.parametrize("reload", [by_signal, by_socket], ids=["SIGHUP", "POST /reload"])


@each_way
def test_a_bad_file_keeps_the_running_configuration(segment: Segment, reload: Reload) -> None:
    segment.service.start(CONFIG)
    with Lan(segment) as lan:
        lan.device(1).join()
        bad = CONFIG.replace("10.1.1.9", "10.2.1.9").replace("tag = 1", "tag = 5000")
        told = reload(segment, bad)
        assert [error.split(": ")[0] for error in told["errors"]] == ["vlan[0].tag", "vlan[0].pools[0]"]
        assert lan.device(2).join() == "10.1.1.1"
    assert not segment.service.events("reloaded")


@each_way
def test_a_file_that_is_gone_keeps_the_running_configuration(segment: Segment, reload: Reload) -> None:
    segment.service.start(CONFIG)
    assert reload(segment, "\0")["errors"]
    with Lan(segment) as lan:
        assert lan.device(1).join() == "10.1.1.0"


@each_way
def test_a_good_file_says_what_changed_and_keeps_the_leases(segment: Segment, reload: Reload) -> None:
    segment.service.start(CONFIG)
    with Lan(segment) as lan:
        devices = [lan.device(number) for number in range(1, 4)]
        for one in devices:
            one.join()
        before = segment.states()
        told = reload(segment, vlan(pools=["10.1.1.0-10.1.1.99"], lease_time="1h"))
        assert told["changes"] == [
            "vlan1: pool 10.1.1.0-10.1.1.9 is now 10.1.1.0-10.1.1.99",
            "vlan1: lease_time 12h is now 1h",
        ]
        assert segment.states() == before
        assert {one.renew().kind for one in devices} == {"ack"}
        assert lan.device(9).join() == "10.1.1.3"
    assert segment.status()["received"] == {"discover": 4, "request": 7}


def test_a_lease_outside_the_new_pool_is_shown_and_its_holder_moves(segment: Segment) -> None:
    segment.service.start(CONFIG)
    with Lan(segment) as lan:
        device = lan.device(1)
        assert device.join() == "10.1.1.0"
        by_signal(segment, MOVED)
        (row,) = segment.service.leases()
        assert (row["address"], row["state"], row["fits"]) == ("10.1.1.0", "bound", False)
        assert "10.1.1.0" in segment.service.ask("leases").splitlines()[1]
        assert "outside the configuration" in segment.service.ask("leases")
        (stray,) = segment.service.events("leases_outside_configuration")
        assert (stray["leases"], stray["addresses"]) == (1, ["10.1.1.0"])
        assert device.renew().kind == "nak"
        assert device.join() == "10.1.2.0"
    assert [(row["address"], row["fits"]) for row in segment.service.leases()] == [("10.1.2.0", True)]


def test_a_reservation_for_an_active_client_moves_it(segment: Segment) -> None:
    segment.service.start(CONFIG)
    with Lan(segment) as lan:
        device = lan.device(1)
        device.join()
        told = by_signal(segment, CONFIG + reservation(name="camera", mac=device.mac.hex(":"), address="10.1.0.20"))
        assert told["changes"] == ["vlan1: reservation camera added (10.1.0.20)"]
        assert device.renew().kind == "nak"
        assert device.join() == "10.1.0.20"
        assert lan.device(2).join() == "10.1.1.0"


def test_a_vlan_that_is_removed_and_added_again_has_its_leases(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    with Lan(segment, 1) as one, Lan(segment, 2) as two:
        staying, leaving = one.device(1), two.device(2)
        staying.join()
        leaving.join()
        assert by_signal(segment, vlan(1))["changes"] == ["vlan2: removed"]
        assert leaving.renew(timeout=0.2).kind == "silence"
        assert (staying.renew().kind, list(segment.states())) == ("ack", ["10.1.1.0"])
        assert by_signal(segment, vlan(1) + vlan(2))["changes"] == ["vlan2: added (10.2.0.0/16, tag 2)"]
        assert segment.states() == {"10.1.1.0": "bound", "10.2.1.0": "bound"}
        assert leaving.renew().kind == "ack"


@each_way
def test_a_vlan_without_its_interface_is_refused(segment: Segment, reload: Reload) -> None:
    segment.service.start(CONFIG)
    (error,) = reload(segment, CONFIG + vlan(2, interface="nowhere"))["errors"]
    assert "nowhere" in error
    (error,) = reload(segment, CONFIG + vlan(3))["errors"]
    assert "10.3.0.0/16" in error
    with Lan(segment) as lan:
        assert lan.device(1).join() == "10.1.1.0"
    assert "10.2" not in segment.service.ask("status")


def test_reloads_under_load_lose_no_exchange(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    load = segment.start_load("direct", count=6000, rate=2000, window=512, seconds=20, timeout=2)
    rounds = 0
    while load.poll() is None:
        rounds += 1
        by_signal(segment, vlan(1, lease_time=f"{rounds}h") + vlan(2))
    figures = json.loads(load.communicate()[0])
    assert rounds > 5
    assert (figures["exchanges"], figures["lost"], figures["retransmits"], figures["naks"]) == (6000, 0, 0, 0)
    assert segment.status(1)["leases"]["bound"] + segment.status(2)["leases"]["bound"] == 6000


def test_a_reload_while_an_interface_is_lost_keeps_the_others_served(segment: Segment) -> None:
    segment.service.start(vlan(1, interface="leg1") + vlan(2, interface="leg2"))
    segment.unplug(2)
    wait_until(lambda: segment.service.events("interface_lost"), 4, "the loss to be noticed")
    told = by_signal(segment, vlan(1, interface="leg1", lease_time="1h") + vlan(2, interface="leg2"))
    assert "vlan1: lease_time" in str(told["changes"])
    with Lan(segment) as lan:
        assert lan.device(1).join() == "10.1.1.0"
    segment.plug(2)
    wait_until(lambda: segment.service.events("interface_back"), 4, "the interface to be served again")
    assert by_signal(segment, vlan(1, lease_time="2h") + vlan(2))["changes"]
    with Lan(segment, 2) as lan:
        assert lan.device(2).join() == "10.2.1.0"


def test_a_vlan_whose_interface_is_lost_can_be_removed(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    netns.batch(["link del leg2"], segment.server)
    wait_until(lambda: segment.service.events("interface_lost"), 4, "the loss to be noticed")
    assert by_signal(segment, vlan(1))["changes"] == ["vlan2: removed"]
    with Lan(segment) as lan:
        assert lan.device(1).join() == "10.1.1.0"
    assert segment.service.stop() == 0


def test_where_the_page_is_follows_what_listens(segment: Segment) -> None:
    """The address of [api] is taken at the start only."""
    api = '[api]\nlisten = "10.1.0.1:8067"\ntoken = "secret"\n'
    segment.service.start(CONFIG)
    by_signal(segment, CONFIG + api)
    assert "Nothing listens on 10.1.0.1:8067" in segment.service.ask("page")
    segment.service.stop()
    segment.service.start()
    assert segment.service.ask("page").startswith("http://10.1.0.1:8067/, with the token")
