"""The router's own addresses: planned on paper, and taken in a namespace that looks like a container's."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Network

import pytest

from dhcpd.decision import Note
from dhcpd.link import LinkError
from leasebroker.containers import Network
from leasebroker.docker_feed import Engine, EngineError
from leasebroker.netns import GoneError, own_macs
from leasebroker.plan import AddAddress, Address, Announce, Link, Route, SetDefault, SetDetour, SetMac, View
from router import legs
from router.config import parse
from router.legs import Legs, Uplink, leave, router_mac, take
from router.settings import Config
from tests.lab import netns
from tests.lab.inside import inside
from tests.lab.service import REPOSITORY

ROUTER, LANDING, WAN, GATEWAY = 0x0A000101, 0x0A0001F0, 0xCB007102, 0xCB007101
DOCKERS_MAC = bytes.fromhex("1e0000000001")
LAN = Link(2, "eth0", DOCKERS_MAC, 1500, is_up=True, promotes=True)
OUT = Link(3, "eth1", bytes.fromhex("1e0000000002"), 1500, is_up=True, promotes=True)
ADDRESSES = (Address(2, LANDING, 24, "eth0"), Address(3, WAN, 24, "eth1"))
VIEW = View((LAN, OUT), ADDRESSES, (Route(2, ROUTER, 0),))
UPLINK = Uplink(IPv4Network("203.0.113.0/24"), GATEWAY)
_numbers = itertools.count(1)


def test_the_mac_follows_from_the_address() -> None:
    assert router_mac(ROUTER).hex(":") == "02:42:0a:00:01:01"


def test_the_address_is_taken_with_its_mac_and_announced() -> None:
    mac = router_mac(ROUTER)
    steps = take(VIEW, "eth0", mac, ROUTER, 24)
    assert steps[:2] == [SetMac(2, DOCKERS_MAC, mac), AddAddress(Address(2, ROUTER, 24, "eth0:lw"))]
    assert steps[-1] == Announce(2, mac, ROUTER)
    assert AddAddress(ADDRESSES[0]) in steps  # Docker's own stays, behind it


def test_what_is_as_it_should_be_stays_untouched() -> None:
    there = VIEW._replace(
        links=(LAN._replace(mac=router_mac(ROUTER)),),
        addresses=(Address(2, ROUTER, 24, "eth0:lw"), ADDRESSES[0]),
    )
    assert take(there, "eth0", router_mac(ROUTER), ROUTER, 24) == []


def test_a_leg_that_is_not_there_or_not_up_waits() -> None:
    assert take(VIEW, "eth7", None, ROUTER, 24) == []
    assert take(VIEW._replace(links=(LAN._replace(is_up=False),)), "eth0", None, ROUTER, 24) == []


def test_the_way_to_the_wan_goes_in_front_of_dockers_default_route() -> None:
    assert leave(VIEW, "eth1", UPLINK) == [SetDetour(Route(3, GATEWAY, WAN))]
    assert leave(VIEW._replace(detour=Route(3, GATEWAY, WAN), is_detour_left=True), "eth1", UPLINK) == []
    assert leave(VIEW._replace(defaults=()), "eth1", UPLINK) == [SetDefault(Route(3, GATEWAY, WAN))]


def test_without_a_gateway_or_an_address_there_is_no_way_to_the_wan() -> None:
    assert leave(VIEW, "eth1", UPLINK._replace(gateway=0)) == []
    assert leave(VIEW._replace(addresses=ADDRESSES[:1]), "eth1", UPLINK) == []


@pytest.fixture
def router(needs_root: None) -> Iterator[str]:  # noqa: ARG001
    """A namespace as Docker leaves it to a router: legs with addresses of the landing ranges, and the default route by
    the router's own address. What is at the other end of each leg is called after it."""
    name = f"{netns.prefix(os.getpid())}{next(_numbers)}-legs"
    netns.batch([f"netns add {name}"])
    lines = ["link set lo up"]
    for leg, address in {"eth0": "10.0.1.240/24", "eth1": "203.0.113.2/24", "eth2": "10.0.2.240/24"}.items():
        lines += [f"link add {leg} type veth peer name far-{leg}", f"link set far-{leg} up", f"link set {leg} up"]
        lines += [f"addr add {address} dev {leg}"]
    netns.batch([*lines, "route add default via 10.0.1.1 dev eth0 onlink"], name)
    yield name
    netns.delete([name])


EXAMPLE = (REPOSITORY / "lanward.toml").read_text()
WRITTEN = (
    'network = "wan"\nparent = "wlan0"\nsubnet = "203.0.113.0/24"\ngateway = "203.0.113.1"\nlanding = "203.0.113.8/29" '
)
CONFIG = parse(EXAMPLE.replace('network = "wan" ', WRITTEN, 1))


async def taken(config: Config) -> tuple[list[str], str | None]:
    notes: list[object] = []
    made = Legs(notes.append)
    names = [made.interface(vlan) for vlan in config.vlans]
    await made.start(lambda: config)
    await made.close()
    return names, made.uplink()


def ip(router: str, *arguments: str) -> str:
    return subprocess.run(["ip", "-n", router, *arguments], capture_output=True, text=True, check=True).stdout


def test_in_a_container_the_router_takes_its_addresses_and_its_way(router: str) -> None:
    with inside(router):
        before = own_macs()
        assert asyncio.run(taken(CONFIG)) == (["eth0", "eth2"], "eth1")
        assert asyncio.run(taken(CONFIG)) == (["eth0", "eth2"], "eth1")
        after = own_macs()
    assert {router_mac(vlan.scope.router) for vlan in CONFIG.vlans} | before <= after
    assert [line.split()[3] for line in ip(router, "-o", "-4", "addr", "show", "eth0").splitlines()] == [
        "10.0.1.1/24", "10.0.1.240/24",
    ]  # fmt: skip
    assert "via 203.0.113.1 dev eth1 table 27767 src 203.0.113.2" in ip(router, "route", "get", "198.51.100.9")
    assert "default via 10.0.1.1 dev eth0" in ip(router, "route")  # the engine fails when it does not find its own


def test_a_wan_that_comes_later_is_found_and_one_that_goes_is_given_up(
    router: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legs, "ASK_SECONDS", 0.1)
    netns.batch(["addr flush dev eth1"], router)

    async def follow() -> None:
        made = Legs(lambda note: None)  # noqa: ARG005
        await made.start(lambda: CONFIG)
        assert made.uplink() == "eth0"  # Docker's default route, for want of a better one
        netns.batch(["addr add 203.0.113.2/24 dev eth1"], router)
        await asyncio.to_thread(netns.wait_until, lambda: "via 203.0.113.1 dev eth1" in way(), 5, "the way to the WAN")
        netns.batch(["addr flush dev eth1"], router)
        await asyncio.to_thread(netns.wait_until, lambda: "eth1" not in way(), 5, "the way to go")
        netns.batch(["addr add 203.0.113.2/24 dev eth1"], router)
        await asyncio.to_thread(netns.wait_until, lambda: "via 203.0.113.1 dev eth1" in way(), 5, "it to come back")
        await made.close()

    def way() -> str:
        return ip(router, "route", "get", "198.51.100.9")

    with inside(router):
        asyncio.run(follow())


def test_an_address_that_went_away_is_taken_again(router: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legs, "ASK_SECONDS", 0.1)

    async def keep() -> None:
        made = Legs(lambda note: None)  # noqa: ARG005
        made.interface(CONFIG.vlans[0])
        netns.batch(["addr del 10.0.1.1/24 dev eth0"], router)
        await made.start(lambda: CONFIG)
        await asyncio.to_thread(netns.wait_until, lambda: "10.0.1.1/24" in shown(), 5, "the address")
        await made.close()

    def shown() -> str:
        return ip(router, "-o", "-4", "addr", "show", "eth0")

    with inside(router):
        asyncio.run(keep())


def test_an_address_that_cannot_be_taken_is_said_once(router: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse(*_: object) -> None:
        asked.append(1)
        raise GoneError("no")

    monkeypatch.setattr(legs, "ASK_SECONDS", 0.05)
    monkeypatch.setattr("leasebroker.netns.look", refuse)
    notes: list[Note] = []

    async def keep() -> None:
        made = Legs(notes.append)
        await made.start(lambda: CONFIG)
        await asyncio.to_thread(netns.wait_until, lambda: len(asked) > 8, 5, "it to be tried again")
        await made.close()

    with inside(router):
        asyncio.run(keep())
    assert [one.event for one in notes].count("address_not_taken") == 2  # once for each VLAN


def test_without_sys_admin_the_router_takes_its_addresses_all_the_same(router: str) -> None:
    script = """if True:
        import asyncio
        from pathlib import Path
        from router.config import load
        from router.legs import Legs
        async def take() -> None:
            print(Legs(print).interface(load(Path("lanward.toml")).vlans[0]))
        asyncio.run(take())"""
    drop = ["setpriv", "--bounding-set=-sys_admin"]
    command = [*netns.enter(router), *drop, sys.executable, "-c", script]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["eth0"], done.stderr
    assert "10.0.1.1/24" in ip(router, "-o", "-4", "addr", "show", "eth0"), done.stdout


def test_the_address_is_announced_at_once_and_again(router: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(legs, "ANNOUNCE_SECONDS", 0.1)

    async def heard() -> list[bytes]:
        Legs(lambda note: None).interface(CONFIG.vlans[0])  # noqa: ARG005
        await asyncio.sleep(0.5)
        frames: list[bytes] = []
        with suppress(BlockingIOError):
            while True:
                frames.append(ear.recv(200))
        return frames

    with (
        inside(router),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.htons(0x806)) as ear,
    ):
        ear.bind(("far-eth0", 0x806))
        frames = asyncio.run(heard())
    claims = [(frame[22:28], struct.unpack("!I", frame[28:32])[0]) for frame in frames]
    assert claims.count((router_mac(ROUTER), ROUTER)) == 2


def test_a_leg_with_the_routers_address_keeps_its_mac(router: str) -> None:
    netns.batch(["addr add 10.0.1.1/24 dev eth0"], router)
    before = ip(router, "link", "show", "eth0")
    with inside(router):
        asyncio.run(taken(CONFIG))
    assert ip(router, "link", "show", "eth0") == before


def test_a_vlan_without_an_interface_is_refused(router: str) -> None:
    netns.batch(["addr flush dev eth2"], router)
    with inside(router), pytest.raises(LinkError, match=r"no interface has an address in 10\.0\.2\.0/24"):
        asyncio.run(taken(CONFIG))


def test_the_engine_is_asked_for_the_wan_where_the_file_says_nothing(
    router: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(_: Engine, name: str) -> Network:
        asked.append(name)
        return Network("0", name, "ipvlan", UPLINK.subnet, GATEWAY, None, internal=False, options={}, members=())

    monkeypatch.setattr(Engine, "network", answer)
    with inside(router):
        assert asyncio.run(taken(parse(EXAMPLE)))[1] == "eth1"
    assert asked == ["wan"]


def test_without_an_answer_the_default_route_is_as_good_as_it_gets(
    router: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Engine, name: str) -> Network:
        raise EngineError(name)

    monkeypatch.setattr(Engine, "network", refuse)
    with inside(router):
        assert asyncio.run(taken(parse(EXAMPLE)))[1] == "eth0"


def test_what_is_said_of_the_uplink_is_said_on_the_loops_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Engine, name: str) -> Network:
        raise EngineError(name)

    monkeypatch.setattr(Engine, "network", refuse)
    said: list[tuple[str, threading.Thread]] = []

    async def follow() -> None:
        one = Legs(lambda note: said.append((note.event, threading.current_thread())))
        await one.start(lambda: parse(EXAMPLE))
        await one.close()

    asyncio.run(follow())
    assert said == [("uplink_unknown", threading.current_thread())]


def test_settings_of_a_leg_are_made_where_the_kernel_shows_them_read_only(router: str) -> None:
    """As in a container, forwarding among them."""
    netns.write_sysctls(router, {"ipv4/ip_forward": 0, "ipv4/icmp_echo_ignore_broadcasts": 0, "ipv4/ip_early_demux": 0})
    script = (
        "mount --bind -o ro /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && "
        f'{sys.executable} -c \'from router.sysctls import prepare; print(prepare(["eth0"], "eth1"))\' && '
        "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/eth[01]/forwarding"
    )
    command = [*netns.enter(router), "unshare", "--mount", "sh", "-c", script]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["[]", "0", "1", "1"], "")
