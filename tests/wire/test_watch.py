"""What may do harm is seen: other servers, addresses that two have, full pools, floods; and what is wrong is told."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dhcpd.wire import BROADCAST_FLAG, BROADCAST_MAC, Message, Type, arp_announcement, encode, udp_frame
from router.warnings import KINDS
from tests.lab import netns
from tests.lab.netns import wait_until
from tests.lab.service import Service
from tests.wire.control import ask
from tests.wire.foreign import SERVERS, Dnsmasq, ForeignServer, Kea, Site
from tests.wire.segment import Segment, reservation, vlan
from tests.wire.station import Lan, Station
from tests.wire.test_disk import fill, on_small_disk

RIVAL = "10.1.0.9"
STRANGER = b"\x02\xee\0\0\0\1"


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path) as built:
        yield built


def warnings(segment: Segment, kind: str = "") -> list[dict[str, str]]:
    """Those that stand; each must have all that the operator needs."""
    found: list[dict[str, str]] = json.loads(ask(segment.service.state, "GET", "/warnings").body)
    for one in found:
        assert set(one) == {"id", "since", "subject", "what", "cure"}
        assert len(one["cure"].split()) > 3, one
        assert one["id"].split(":")[0] in KINDS
    return [one for one in found if one["id"].startswith(f"{kind}:") or not kind]


def wait_for(segment: Segment, kind: str, seconds: float = 10) -> dict[str, str]:
    wait_until(lambda: warnings(segment, kind), seconds, f"a warning of the kind {kind}")
    return warnings(segment, kind)[0]


def told(segment: Segment, event: str) -> list[dict[str, Any]]:
    return segment.service.events(event)


def over(segment: Segment, kind: str, seconds: float = 10) -> None:
    wait_until(lambda: not warnings(segment, kind), seconds, f"the warning {kind} to be over")
    assert [one["id"].split(":")[0] for one in told(segment, "warning_over")].count(kind) == 1


def metric(segment: Segment, name: str) -> float:
    text = ask(segment.service.state, "GET", "/metrics").body.decode()
    found = re.search(rf"^{re.escape(name)} (.*)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


# -- another server


@pytest.fixture(params=[Dnsmasq, Kea], ids=lambda one: one.name)
def rival(segment: Segment, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ForeignServer]:
    """A DHCP server of somebody else, on the clients' side of the VLAN; not running yet."""
    kind: type[ForeignServer] = request.param
    assert kind in SERVERS
    if kind.path() is None:
        pytest.skip(f"{kind.name} is not there: make servers")
    netns.batch([f"address add {RIVAL}/16 dev lan1"], segment.clients)
    router = segment.router(1)
    first = router.ip + 0xC900
    site = Site(segment.clients, "lan1", router.network, router.ip, type(router.ip)(RIVAL), first, first + 50)
    home = tmp_path / "rival"
    home.mkdir()
    server = kind(site, home)
    yield server
    server.stop()


def test_another_server_is_found_by_asking(
    segment: Segment, rival: ForeignServer, record_property: Callable[[str, object], None]
) -> None:
    rival.start()
    segment.service.start(vlan(probe=True))
    began = time.monotonic()
    one = wait_for(segment, "dhcp_rival")
    record_property("figure", f"{rival.name} found {time.monotonic() - began:.1f} s after the service was ready")
    assert RIVAL in one["what"]
    assert one["id"] == f"dhcp_rival:vlan1/{RIVAL}/{lan_mac(segment)}"
    assert metric(segment, 'lanward_warnings{kind="dhcp_rival"}') == 1
    assert f"warning: {one['what']}; {one['cure']}" in segment.service.ask("status")
    time.sleep(2.5)  # two more looks, which must not log it again
    assert len(told(segment, "dhcp_rival")) == 1
    with Lan(segment) as lan:
        assert lan.device(1).discover().kind == "offer"


def lan_mac(segment: Segment) -> str:
    command = ["ip", "-n", segment.clients, "-json", "link", "show", "lan1"]
    shown = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    mac: str = shown[0]["address"]
    return mac


def test_another_server_is_heard_when_it_answers_others(segment: Segment, rival: ForeignServer) -> None:
    segment.service.start(vlan(probe=False))
    rival.start()
    message = Message(xid=7, flags=BROADCAST_FLAG, chaddr=STRANGER, options={53: bytes((Type.DISCOVER,))})
    with Station(segment.server, "leg1") as elsewhere:  # a port of the same switch, as far as the rival can tell
        assert not warnings(segment, "dhcp_rival")
        deadline = time.monotonic() + 15
        while not warnings(segment, "dhcp_rival") and time.monotonic() < deadline:
            elsewhere.send(udp_frame(STRANGER, BROADCAST_MAC, 0, 0xFFFFFFFF, 67, encode(message), 68))
            list(elsewhere.frames(0.5))
    assert RIVAL in wait_for(segment, "dhcp_rival")["what"]


# -- addresses that two have


def test_an_address_that_two_stations_have(segment: Segment) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan:
        holder = lan.device(1, hostname="gps")
        address = holder.join()
        claim = arp_announcement(STRANGER, int.from_bytes(bytes(map(int, address.split("."))), "big"))
        own = arp_announcement(holder.mac, int.from_bytes(bytes(map(int, address.split("."))), "big"))
        deadline = time.monotonic() + 10
        while not warnings(segment, "duplicate_address") and time.monotonic() < deadline:
            lan.send(claim)
            lan.send(own)
            time.sleep(0.3)
        one = wait_for(segment, "duplicate_address")
        assert one["id"] == f"duplicate_address:vlan1/{address}/{STRANGER.hex(':')}"
        assert all(word in one["what"] for word in (address, STRANGER.hex(":"), holder.mac.hex(":"), "gps"))
        assert len(warnings(segment, "duplicate_address")) == 1
        holder.release()
        over(segment, "duplicate_address")
    assert len(told(segment, "duplicate_address")) == 1


def test_somebody_claims_the_routers_address(segment: Segment) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan:
        deadline = time.monotonic() + 10
        while not warnings(segment, "duplicate_address") and time.monotonic() < deadline:
            lan.send(arp_announcement(STRANGER, 0x0A010001))
            time.sleep(0.3)
    assert "the router's address" in wait_for(segment, "duplicate_address")["what"]


def test_two_routers_with_one_configuration(segment: Segment, tmp_path: Path) -> None:
    """The second has the first one's addresses and MACs, as a spare does that was switched on."""
    mac = segment.server_mac().hex(":")
    netns.batch([f"link set lan1 address {mac}", f"address add {segment.router()} dev lan1"], segment.clients)
    home = tmp_path / "spare"
    home.mkdir()
    spare = Service(netns.enter(segment.clients), home)
    spare.start(vlan())
    try:
        segment.service.start(vlan(probe=True))
        one = wait_for(segment, "duplicate_address")
        assert one["what"] == f"another station claims 10.1.0.1 with this router's own MAC {mac}"
    finally:
        spare.kill9()


def test_a_network_that_sends_back_what_is_sent(segment: Segment) -> None:
    """Docker without its proxy of ports has a bridge do that."""
    switch = ["link add switch type bridge", "link set switch up", "link set lan1 master switch"]
    netns.batch([*switch, "link set lan1 type bridge_slave hairpin on"], segment.clients)
    segment.service.start(vlan(probe=True))
    with Station(segment.server, "leg1") as own:
        claim = arp_announcement(segment.server_mac(), int(segment.router().ip))
        seen = []
        for _ in range(12):
            own.send(claim)
            seen += [frame for frame in own.frames(0.3) if frame == claim]
    assert len(seen) > 8, "the bridge sends nothing back"
    assert not warnings(segment)


def test_what_a_node_says_of_itself_is_no_duplicate(segment: Segment) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan:
        device = lan.device(1)
        address = device.join()
        for _ in range(10):
            lan.send(arp_announcement(device.mac, int.from_bytes(bytes(map(int, address.split("."))), "big")))
            lan.send(arp_announcement(STRANGER, 0x0A01FFF0))
            time.sleep(0.2)
    assert not warnings(segment)


# -- pools


def test_a_pool_that_is_nearly_full(segment: Segment) -> None:
    segment.service.start(vlan(pools=["10.1.1.0-10.1.1.9"]))
    with Lan(segment) as lan:
        devices = [lan.device(number) for number in range(1, 10)]
        for device in devices[:8]:
            device.join()
        time.sleep(1.5)
        assert not warnings(segment)
        devices[8].join()
        assert wait_for(segment, "pool_nearly_full")["what"] == "vlan1 has 1 of 10 addresses left for new nodes"
        devices[0].release()
        wait_until(lambda: "2 of 10" in warnings(segment)[0]["what"], 5, "the new count")
        devices[1].release()
        over(segment, "pool_nearly_full")


def test_a_pool_that_is_full(segment: Segment) -> None:
    segment.service.start(vlan(pools=["10.1.1.0-10.1.1.0"]))
    with Lan(segment) as lan:
        lan.device(1).join()
        assert lan.device(2).discover(timeout=0.3).kind == "silence"
    assert "went without" in wait_for(segment, "pool_full")["what"]


# -- floods


def test_a_node_that_asks_far_too_often(segment: Segment) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan:
        broken, other = lan.device(1, hostname="broken"), lan.device(2)
        broken.join()
        other.join()
        for _ in range(400):
            broken.discover(timeout=0)
        one = wait_for(segment, "asks_too_often")
        assert broken.mac.hex(":") in one["what"]
        assert "broken" in one["what"]
        assert other.renew().kind == "ack"
        assert broken.renew(timeout=2).kind == "ack", "it has a lease, so it is served in any case"
    assert len(warnings(segment)) == 1
    assert len(told(segment, "asks_too_often")) == 1


def test_a_flood_of_strangers_does_not_reach_those_that_are_known(
    segment: Segment, record_property: Callable[[str, object], None]
) -> None:
    segment.service.start(vlan() + reservation(name="camera", mac="02:00:00:00:00:02", address="10.1.0.20"))
    with Lan(segment) as lan:
        known, reserved = lan.device(1), lan.device(2)
        known.join()
        flood = segment.start_load("flood", count=40_000, rate=10_000, seconds=30)
        took = []
        while flood.poll() is None:
            reply = known.renew()
            assert reply.kind == "ack"
            took.append(reply.seconds)
            assert reserved.join() == "10.1.0.20"
        flood.communicate()
        assert warnings(segment, "strangers_crowd")
        took.sort()
        record_property(
            "figure",
            f"{len(took)} renewals while 10,000 invented MACs a second asked: "
            f"median {took[len(took) // 2] * 1e3:.1f} ms, worst {took[-1] * 1e3:.1f} ms",
        )
        time.sleep(0.2)
        assert lan.device(3).join(), "a newcomer is served as soon as the flood is over"
    shown = segment.status()
    assert shown["dropped"]["too_many_strangers"] > 20_000
    assert shown["sent"]["offer"] < 20_000
    assert shown["lost_datagrams"] == 0


# -- health


def health(segment: Segment, target: str = "/healthz") -> tuple[int, str]:
    found = ask(segment.service.state, "GET", target)
    return found.status, found.body.decode()


def test_a_service_that_serves_is_healthy_and_ready(segment: Segment) -> None:
    segment.service.start(vlan())
    assert health(segment) == (200, "ok\n")
    assert health(segment, "/readyz") == (200, "ok\n")
    assert segment.service.ask("health") == "ok\n"
    assert segment.service.ask("health", "--ready") == "ok\n"
    assert segment.service.ask("warnings") == ""


def test_a_vlan_without_its_interface_is_not_ready(segment: Segment) -> None:
    segment.service.start(vlan())
    segment.unplug()
    wait_until(lambda: health(segment, "/readyz")[0] == 503, 5, "the service not to be ready")
    assert "vlan1 is not served" in health(segment, "/readyz")[1]
    assert wait_for(segment, "interface_lost")["subject"] == "vlan1"
    segment.plug()
    wait_until(lambda: health(segment, "/readyz")[0] == 200, 5, "the service to be ready")
    over(segment, "interface_lost")


def test_a_full_disk_is_no_health(segment: Segment, tmp_path: Path) -> None:
    service = segment.service = on_small_disk(segment, tmp_path / "small")
    service.start(vlan())
    assert service.process is not None
    state = Path(f"/proc/{service.process.pid}/root{service.state}")
    segment.service.state = state
    with Lan(segment) as lan:
        lan.device(1).join()
        assert health(segment) == (200, "ok\n")
        full = fill(state)
        assert refuses_newcomers(lan)
        assert "full" in wait_for(segment, "leases_not_written")["what"]
        wait_until(lambda: health(segment)[0] == 503, 10, "the service to be unwell")
        assert "leases cannot be written" in health(segment)[1]
        assert wait_for(segment, "history_not_written", 20)
        full.unlink()
        wait_until(lambda: health(segment)[0] == 200, 10, "the service to be well")
        lan.device(3).join(timeout=5)
        over(segment, "leases_not_written")
        over(segment, "history_not_written", 20)


def refuses_newcomers(lan: Lan) -> bool:
    """Whether one of many newcomers hears nothing: what room the database's file has is used up first."""
    for number in range(100, 3000):
        device = lan.device(number)
        offer = device.discover()
        if offer.kind == "offer" and device.select(offer, timeout=0.5).kind == "silence":
            return True
    return False


# -- metrics


def test_times_are_told_as_histograms(segment: Segment) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan:
        for number in range(20):
            lan.device(number + 1).join()
    assert metric(segment, "lanward_offer_duration_seconds_count") == 20
    assert metric(segment, "lanward_ack_duration_seconds_count") == 20
    assert 0 < metric(segment, "lanward_ack_duration_seconds_sum") < 20
    assert 1 <= metric(segment, "lanward_commit_duration_seconds_count") <= 20
    assert metric(segment, 'lanward_ack_duration_seconds_bucket{le="+Inf"}') == 20
    assert metric(segment, 'lanward_leases{vlan="vlan1",state="bound"}') == 20
    assert metric(segment, 'lanward_packets_received_total{vlan="vlan1",type="discover"}') == 20
    assert metric(segment, "lanward_rules_as_configured") == 1
    assert metric(segment, "process_resident_memory_bytes") > 1 << 20
    assert abs(metric(segment, "process_start_time_seconds") - time.time()) < 60
