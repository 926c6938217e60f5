"""An interface goes away and comes back under a running service."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab import netns
from tests.lab.netns import wait_until
from tests.wire.segment import Segment, vlan
from tests.wire.station import Lan

WITHIN = 3.0
"""Seconds in which a VLAN whose interface is back is served again."""


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path, vlans=2) as built:
        yield built


def replace(segment: Segment) -> None:
    """Another interface of the same name, as after a reconnect of a Docker network."""
    segment.unplug(2)
    wait_until(lambda: segment.service.events("interface_lost"), WITHIN, "the loss to be noticed")
    segment.plug(2)


def replace_at_once(segment: Segment) -> None:
    """So fast that nobody sees it missing."""
    segment.unplug(2)
    segment.plug(2)


def rename(segment: Segment) -> None:
    netns.batch(["link set leg2 down", "link set leg2 name other2", "link set other2 up"], segment.server)


def travel(segment: Segment) -> None:
    """Out of the namespace and in again: its name and index are as they were, the sockets on it are dead."""
    netns.batch([f"link set leg2 netns {segment.clients}"], segment.server)
    netns.batch([f"link set leg2 netns {segment.server}"], segment.clients)
    netns.batch(["address add 10.2.0.1/16 dev leg2", "link set leg2 up"], segment.server)
    netns.batch(["link set lan2 up"], segment.clients)


def bounce(segment: Segment) -> None:
    netns.batch(["link set leg2 down", "link set leg2 up"], segment.server)


def served_again(segment: Segment) -> None:
    with Lan(segment, 2) as lan:
        device = lan.device(7)
        wait_until(lambda: device.discover(timeout=0.1).kind == "offer", WITHIN, "an offer on the interface")
        assert device.join() == "10.2.1.0"
        wait_until(lambda: device.renew(timeout=0.1).kind == "ack", WITHIN, "the firewall to follow")


@pytest.mark.parametrize("change", [replace, replace_at_once, rename, travel, bounce])
def test_a_vlan_is_served_again_when_its_interface_is_back(segment: Segment, change: Callable[[Segment], None]) -> None:
    segment.service.start(vlan(1) + vlan(2))
    change(segment)
    served_again(segment)
    with Lan(segment) as lan:
        assert lan.device(1).join() == "10.1.1.0"
    assert len(segment.service.events("interface_lost")) <= 1
    assert len(segment.service.events("interface_back")) == len(segment.service.events("interface_lost"))
    assert segment.service.stop() == 0


def test_a_loss_is_logged_once_and_hurts_no_other_vlan(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    segment.unplug(2)
    wait_until(lambda: segment.service.events("interface_lost"), WITHIN, "the loss to be noticed")
    with Lan(segment) as lan:
        device = lan.device(1)
        device.join()
        for _ in range(12):
            assert device.renew().kind == "ack"
            device.lan.answer(0, timeout=0.2)
    (lost,) = segment.service.events("interface_lost")
    assert (lost["level"], lost["vlan"], lost["interface"]) == ("error", "vlan2", "leg2")
    assert not segment.service.events("interface_back")
    assert segment.status(2)["interface"] == "leg2"


def test_what_waits_for_its_interface_stands_in_no_reloads_way(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    segment.unplug(2)
    wait_until(lambda: segment.service.events("interface_lost"), WITHIN, "the loss to be noticed")
    with Lan(segment) as lan:
        mac = lan.device(9).mac.hex(":")
        segment.service.ask("reserve", "vlan1", "--mac", mac, "--name", "camera", "--address", "10.1.0.20")
        assert lan.device(9).join() == "10.1.0.20"
    segment.service.reload(vlan(1) + vlan(2, lease_time="2h"))
    wait_until(lambda: segment.service.events("reloaded"), WITHIN, "the new file")
    assert not segment.service.events("interface_back")
    segment.plug(2)
    served_again(segment)
    assert segment.status(2)["interface"] == "leg2"
    segment.unplug(2)
    wait_until(lambda: len(segment.service.events("interface_lost")) == 2, WITHIN, "the second loss to be noticed")
    segment.service.reload(vlan(1) + vlan(2, interface="leg3"))
    wait_until(lambda: segment.service.events("reload_refused"), WITHIN, "the refusal")
    (refused,) = segment.service.events("reload_refused")
    assert "interface leg3 does not exist" in str(refused["errors"])


def test_a_service_that_lost_an_interface_stops_in_order(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    segment.unplug(2)
    wait_until(lambda: segment.service.events("interface_lost"), WITHIN, "the loss to be noticed")
    assert segment.service.stop() == 0
    assert "Traceback" not in segment.service.log.read_text()


def test_replies_come_from_the_interfaces_present_mac(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    netns.batch(["link set leg2 address 02:fd:00:00:00:99"], segment.server)

    with Lan(segment, 2) as lan:
        numbers = itertools.count(1)

        def source() -> bytes:  # by ever other devices: one that asks so often is not answered
            return lan.device(next(numbers)).discover(timeout=0.2).frame[6:12]

        wait_until(lambda: source() == bytes.fromhex("02fd00000099"), WITHIN, "replies from the new MAC")
