"""The client's socket on a leg of the router, in a network namespace of its own."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from struct import pack

import pytest

from dhcpd import opt
from dhcpd.link import LinkError
from dhcpd.wire import BROADCAST, BROADCAST_MAC, Message, Type, decode, encode, udp_frame
from leasebroker import wire
from leasebroker.client import Clients
from leasebroker.effects import Bound, Effect, Note
from leasebroker.wire import MAX_DRAIN, Frames, Leg, Wire, load_frames
from tests.dhcpd.script import ip, packed
from tests.lab import netns
from tests.leasebroker.script import SERVER, VLAN, seconds
from tests.wire.broker import eventually
from tests.wire.segment import inside

WIRES = ["link add leg1 type veth peer name lan1", "link set leg1 up", "link set lan1 up"]
SERVER_MAC = b"\2\0\0\0\0\2"
FIFTY = "10.0.1.50"
HEADERS = 42


@pytest.fixture
def here() -> Iterator[str]:
    """A namespace with leg1 joined to lan1; the test runs inside it."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    name = f"{netns.prefix(os.getpid())}0-client"
    netns.batch([f"netns add {name}"])
    netns.write_sysctls(name, dict.fromkeys(("ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"), 1))
    netns.batch(WIRES, name)
    with inside(name):
        yield name
    netns.delete([name])


@pytest.fixture
def peer(here: str) -> Iterator[socket.socket]:
    """The server's end of the wire, ``lan1``."""
    del here
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as one:
        one.bind(("lan1", 0x0800))
        one.settimeout(10)
        yield one


class Router:
    """A `Wire` on leg1, and all that it delivered."""

    def __init__(self, frames: Frames) -> None:
        self.effects: list[Effect] = []
        clients = Clients(VLAN, [], time.time(), random.Random())
        self.wire = Wire(clients, Leg("leg1"), frames, time.time, self._deliver)

    def _deliver(self, effects: Sequence[Effect]) -> None:
        self.effects += effects

    @property
    def dropped(self) -> dict[str, int]:
        return dict(self.wire.clients.dropped)

    def events(self) -> list[str]:
        return [one.event for one in self.effects if isinstance(one, Note)]


def play(scenario: Callable[[Router], Awaitable[None]]) -> Router:
    """Run a scenario with a router that is started before and stopped after it."""

    async def whole() -> Router:
        router = Router(await load_frames())
        router.wire.start()
        try:
            await scenario(router)
        finally:
            router.wire.stop()
            router.wire.leg.close()
        return router

    return asyncio.run(whole())


async def hear(peer: socket.socket) -> tuple[bytes, Message]:
    """The next frame of the client, and the message in it."""
    frame = await asyncio.to_thread(peer.recv, 2048)
    return frame, decode(frame[HEADERS:])


def answer(asked: Message, kind: int, address: str = FIFTY) -> bytes:
    options = {opt.MESSAGE_TYPE: bytes((kind,)), opt.SERVER_ID: packed(SERVER), opt.LEASE_TIME: seconds(3600)}
    return encode(Message(op=2, xid=asked.xid, chaddr=asked.chaddr, yiaddr=ip(address), options=options))


def broadcast(payload: bytes, mac: bytes = BROADCAST_MAC, address: int = BROADCAST, port: int = 68) -> bytes:
    return udp_frame(SERVER_MAC, mac, ip(SERVER), address, port, payload)


def words(data: bytes) -> int:
    """The sum of RFC 1071; 0xFFFF over data with a right checksum in it."""
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    return total % 0xFFFF or 0xFFFF


def test_a_message_is_a_broadcast_from_the_containers_hardware_address(peer: socket.socket) -> None:
    async def scenario(router: Router) -> None:
        router.wire.want("web", "web")
        frame, discover = await hear(peer)
        who = router.wire.clients.station("web")
        assert frame[:14] == BROADCAST_MAC + who.mac + b"\x08\x00"
        assert (discover.chaddr, discover.options[opt.CLIENT_ID]) == (who.mac, who.client_id)
        source, target, ports = frame[26:30], frame[30:34], frame[34:38]
        assert (source, target, ports) == (bytes(4), b"\xff" * 4, pack("!HH", 68, 67))
        assert words(frame[14:34]) == 0xFFFF
        assert words(frame[26:34] + pack("!HH", 17, len(frame) - 34) + frame[34:]) == 0xFFFF

    play(scenario)


@pytest.mark.parametrize("is_unicast", [False, True], ids=["broadcast", "unicast"])
def test_an_answer_is_heard(peer: socket.socket, is_unicast: bool) -> None:
    """By unicast too, for a server that knows no flag: a veth takes frames for any hardware address."""

    def frame(asked: Message, kind: int) -> bytes:
        to = (asked.chaddr, ip(FIFTY)) if is_unicast else (BROADCAST_MAC, BROADCAST)
        return broadcast(answer(asked, kind), *to)

    async def scenario(router: Router) -> None:
        router.wire.want("web")
        _, discover = await hear(peer)
        peer.send(frame(discover, Type.OFFER))
        _, request = await hear(peer)
        peer.send(frame(request, Type.ACK))
        await eventually(lambda: any(isinstance(one, Bound) for one in router.effects), 5, "the lease")

    play(scenario)


def others(asked: Message) -> list[bytes]:
    """Frames that the kernel keeps from the client, each an OFFER but for one thing."""
    payload = answer(asked, Type.OFFER)
    frame = broadcast(payload)
    return [
        broadcast(payload, port=67),
        broadcast(b"\1" + payload[1:]),
        broadcast(payload[:236] + b"\1\2\3\4" + payload[240:]),
        broadcast(payload[:200]),
        frame[:12] + b"\x81\x00\0\5" + frame[12:],
        frame[:20] + b"\x20\x00" + frame[22:],
        frame[:20] + b"\x00\x10" + frame[22:],
        frame[:23] + b"\x06" + frame[24:],
        frame[:12] + b"\x86\xdd" + frame[14:],
        frame[:40],
    ]


def test_what_is_no_answer_does_not_wake_the_process(peer: socket.socket) -> None:
    async def scenario(router: Router) -> None:
        router.wire.want("web")
        _, discover = await hear(peer)
        for frame in others(discover):
            peer.send(frame)
        peer.send(broadcast(answer(discover, Type.ACK)))
        await eventually(lambda: router.dropped, 5, "the answer behind the others")
        assert (router.dropped, router.wire.errors) == ({"unexpected": 1}, {})

    play(scenario)


def test_an_answer_with_options_in_the_ip_header_is_heard(peer: socket.socket) -> None:
    async def scenario(router: Router) -> None:
        router.wire.want("web")
        _, discover = await hear(peer)
        frame = broadcast(answer(discover, Type.OFFER))
        length = int.from_bytes(frame[16:18], "big") + 4
        peer.send(frame[:14] + b"\x46\x00" + pack("!H", length) + frame[18:34] + b"\1\1\1\0" + frame[34:])
        _, request = await hear(peer)
        assert request.options[opt.REQUESTED_ADDRESS] == packed(FIFTY)

    play(scenario)


def test_garbage_is_counted(peer: socket.socket) -> None:
    """Headers that lie about their lengths, as far as the filter lets them through."""

    async def scenario(router: Router) -> None:
        router.wire.want("web")
        _, discover = await hear(peer)
        good = broadcast(answer(discover, Type.OFFER))
        numbers = random.Random(1)
        for _ in range(300):
            frame = bytearray(good)
            for _ in range(3):
                frame[numbers.choice((14, 16, 17, 24, 25, 38, 39, 40, *range(282, len(frame))))] = numbers.getrandbits(
                    8
                )
            peer.send(frame)
            await asyncio.sleep(0)
        peer.send(
            broadcast(encode(Message(op=2, chaddr=SERVER_MAC, options={53: b"\5", 54: b"\1" * 4, 51: b"\1" * 4})))
        )
        await eventually(lambda: router.dropped.get("another_client"), 10, "the last answer")

    router = play(scenario)
    assert sum(router.dropped.values()) + sum(router.wire.errors.values()) > 200


def test_a_frame_that_scapy_cannot_read_is_counted(here: str) -> None:
    del here

    async def scenario(router: Router) -> None:
        assert router.wire._decide(b"\xff" * 13, 0) == []

    router = play(scenario)
    assert router.wire.errors == {"bad_frame": 1}


def test_a_flood_leaves_the_loop_time_for_others(peer: socket.socket) -> None:
    """The client reads a part of it, and gets its lease behind it."""

    async def scenario(router: Router) -> None:
        router.wire.want("web")
        _, discover = await hear(peer)
        flood = broadcast(answer(Message(xid=1, chaddr=discover.chaddr), Type.OFFER))
        began = time.monotonic()
        turns = 0
        while time.monotonic() < began + 1:
            for _ in range(2 * MAX_DRAIN):
                peer.send(flood)
            turns += 1
            await asyncio.sleep(0.002)
        rounds = (time.monotonic() - began) / wire.FLOOD_PAUSE
        assert turns > 10
        assert 0 < router.dropped["another_exchange"] <= (rounds + 1) * MAX_DRAIN
        while router.wire.clients.states()["web"] == "selecting":
            _, discover = await hear(peer)
            peer.send(broadcast(answer(discover, Type.OFFER)))
            await asyncio.sleep(0.2)

    play(scenario)


def test_lost_frames_are_counted(here: str, peer: socket.socket) -> None:
    del here
    leg = Leg("leg1")
    frame = broadcast(answer(Message(xid=1, chaddr=SERVER_MAC), Type.OFFER))
    for _ in range(20_000):
        peer.send(frame)
    lost = leg.lost_frames()
    assert lost > 10_000
    assert leg.lost_frames() == lost
    leg.close()
    assert leg.lost_frames() == lost


# -- the interface


def test_an_interface_that_does_not_exist_is_named(here: str) -> None:
    del here
    with pytest.raises(LinkError, match="interface nowhere does not exist"):
        Leg("nowhere")


def test_a_replaced_interface_is_noticed_and_served_again(here: str, peer: socket.socket) -> None:
    async def scenario(router: Router) -> None:
        router.wire.want("web")
        await hear(peer)
        assert router.wire.leg.is_there()
        netns.batch(["link del leg1"], here)
        assert not router.wire.leg.is_there()
        router.wire.want("db")
        router.wire.want("cache")
        await asyncio.sleep(0.1)
        assert router.wire.errors["send"] >= 2
        assert router.events().count("send_failed") == 1
        router.wire.stop()
        router.wire.leg.close()
        netns.batch(WIRES, here)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as again:
            again.bind(("lan1", 0x0800))
            again.settimeout(10)
            router.wire.leg = Leg("leg1")
            router.wire.start()
            names = {(await hear(again))[1].options[opt.CLIENT_ID][-2:] for _ in range(3)}
        assert names == {b"eb", b"db", b"he"}

    play(scenario)


def test_a_lost_interface_does_not_spin(here: str, peer: socket.socket) -> None:
    """The error of a socket whose interface is gone is read once."""
    del peer

    async def scenario(router: Router) -> None:
        netns.batch(["link del leg1"], here)
        before = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - before < 0.25
        assert router.wire.errors["receive"] <= 2

    play(scenario)


def test_a_stopped_wire_says_nothing(peer: socket.socket) -> None:
    async def scenario(router: Router) -> None:
        router.wire.stop()
        router.wire.want("web")
        await asyncio.sleep(0)
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            peer.recv(2048)
        peer.settimeout(10)
        router.wire.start()
        await hear(peer)

    play(scenario)


def test_a_set_clock_moves_what_waits(peer: socket.socket) -> None:
    async def scenario(router: Router) -> None:
        router.wire.want("web")
        await hear(peer)
        deadline = router.wire.clients.deadline()
        router.wire.step(-5000)
        assert deadline is not None
        assert router.wire.clients.deadline() == deadline - 5000
        router.wire.decline("web")
        router.wire.forget("web")
        assert router.wire.clients.deadline() is None

    play(scenario)


# -- what it costs those who do not need it

FOREIGN = ("aiohttp", "asyncio", "scapy", "socket", "sqlite3", "structlog")
LOADING = """
import asyncio, leasebroker.wire
async def main():
    loading = asyncio.create_task(leasebroker.wire.load_frames())
    turns = 0
    while not loading.done():
        await asyncio.sleep(0.002)
        turns += 1
    print(turns)
asyncio.run(main())
"""


def output(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_the_client_imports_no_shell() -> None:
    program = f"import leasebroker.client, sys; print(sorted(sys.modules.keys() & {set(FOREIGN)!r}))"
    assert output(program) == "[]"


def test_scapy_waits_until_it_is_needed() -> None:
    assert output("import leasebroker.wire, sys; print('scapy' in sys.modules)") == "False"


def test_the_loop_turns_while_scapy_is_loaded() -> None:
    assert int(output(LOADING)) >= 5
