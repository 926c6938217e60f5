"""``lanward explain``: why a device has its address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.wire.control import ask
from tests.wire.segment import Segment, reservation, vlan
from tests.wire.station import Lan


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path) as built:
        yield built


def explained(segment: Segment, node: str) -> list[dict[str, Any]]:
    found = ask(segment.service.state, "GET", f"/explain?node={quote(node)}")
    assert found.status == 200, found.body
    answer: list[dict[str, Any]] = json.loads(found.body)
    return answer


def test_why_a_device_has_its_address(segment: Segment) -> None:
    camera = {"name": "camera", "mac": "02:00:00:00:00:02", "address": "10.1.0.20"}
    segment.service.start(
        vlan(pools=["10.1.1.0-10.1.1.9"], landing="10.1.255.0/24", network=None) + reservation(**camera)
    )
    with Lan(segment) as lan:
        device = lan.device(1, hostname="gps", client_id=b"\1gps")
        address = device.join()
        lan.device(2).join()
        lan.device(3).discover()
        for name in (address, "gps", "vlan1/gps", device.mac.hex(":"), device.mac.hex("-").upper()):
            (one,) = explained(segment, name)
            assert (one["address"], one["lease"]["state"]) == (address, "bound")
            assert one["identity"] == {"kind": "client identifier", "value": "01:67:70:73"}
            assert one["pool"] == {"range": "10.1.1.0-10.1.1.9", "offered": False}
            assert one["why"] == "it was free when this node first asked, and is kept for it"
        (one,) = explained(segment, "camera")
        assert one["reservation"]["macs"] == ["02:00:00:00:00:02"]
        assert one["why"] == "the configuration reserves it for camera"
        whys = {
            name: explained(segment, name)[0]["why"]
            for name in ("10.1.0.1", "10.1.1.1", "10.1.1.5", "10.1.9.9", "10.1.255.7")
        }
        device.release()
        assert "the lease has ended" in explained(segment, address)[0]["why"]
    assert whys == {
        "10.1.0.1": "it is the router's own address",
        "10.1.1.1": "it is on offer to a node that has not taken it yet",
        "10.1.1.5": "it is nobody's",
        "10.1.9.9": "it is nobody's, and in no pool",
        "10.1.255.7": "it is in the landing range, which Docker hands out by itself; no lease is ever there",
    }
    text = segment.service.ask("explain", "camera")
    assert text.startswith("vlan1  10.1.0.20: the configuration reserves it for camera\n")
    assert "  lease      bound, 02:00:00:00:00:02" in text
    assert json.loads(segment.service.ask("explain", "camera", "--json"))[0]["address"] == "10.1.0.20"


def test_a_reserved_name_is_not_that_of_who_calls_itself_so(segment: Segment) -> None:
    segment.service.start(
        vlan(pools=["10.1.1.0-10.1.1.9"], network=None) + reservation(name="camera", mac="02:00:00:00:00:02")
    )
    with Lan(segment) as lan:
        impostor, camera = lan.device(1, hostname="camera"), lan.device(2, hostname="x")
        wrong, address = impostor.join(), camera.join()
        (one,) = explained(segment, "camera")
        assert (one["address"], one["reservation"]["macs"]) == (address, [camera.mac.hex(":")])
        assert one["why"] == "it was free when this node first asked, and is kept for it"
        (other,) = explained(segment, wrong)
        assert (other["lease"]["hostname"], other["reservation"]) == ("camera", None)


def test_what_is_reserved_without_an_address(segment: Segment) -> None:
    phone = {"name": "phone", "mac": ["02:00:00:00:00:02", "02:00:00:00:00:12"]}
    named = {"name": "web", "container": "web1"}
    segment.service.start(vlan(pools=["10.1.1.0-10.1.1.9"]) + reservation(**phone) + reservation(**named))
    for name in ("phone", "02:00:00:00:00:02"):
        (one,) = explained(segment, name)
        assert (one["address"], one["lease"], one["reservation"]["name"]) == (None, None, "phone")
        assert one["why"] == "the configuration knows it and fixes no address: it gets one of the pools when it asks"
    (one,) = explained(segment, "web1")
    assert one["identity"] == {"kind": "container", "value": "web1"}
    text = segment.service.ask("explain", "phone")
    assert "  reserved   no fixed address for phone (02:00:00:00:00:02, 02:00:00:00:00:12)" in text
    with Lan(segment) as lan:
        address = lan.device(2).join()
        for name in ("phone", "02:00:00:00:00:02", "02:00:00:00:00:12", address):
            (one,) = explained(segment, name)
            assert (one["address"], one["reservation"]["name"]) == (address, "phone")
            assert one["why"] == "it was free when this node first asked, and is kept for it"


@pytest.mark.parametrize(
    ("target", "status"), [("/explain", 400), ("/explain?node=nobody", 404), ("/explain?node=9.9.9.9", 404)]
)
def test_a_node_that_nobody_knows(segment: Segment, target: str, status: int) -> None:
    segment.service.start(vlan())
    found = ask(segment.service.state, "GET", target)
    assert found.status == status
    assert json.loads(found.body)["error"].isprintable()
