"""The paths of the forwarding benchmark, client to router to server, and what is measured on them."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path

from tests.lab import netns
from tests.lab.inside import inside

from .lab import SERVER_CPU
from .loadgen import CACHE, LoadError

SOURCE = Path(__file__).with_name("packets.c")
CLIENT, CLIENT_MAC, LEG_MAC = "10.0.1.20", "02:fd:00:00:01:14", "02:fd:00:00:01:01"
SERVER, PORT, FIRST_PORT = "203.0.113.9", 9_000, 10_000
NOWHERE = "198.51.100.9"
"""Behind the server, which does not forward: packets to it end there without an answer."""
PACKETS, CONNECTIONS, STREAM_SECONDS = 500, 250, 0.005
"""Of each path in a turn."""
FLOWS = 25_000
"""Connections of each path in a round at most."""
LEAST_FORWARDED = 0.999
CPU = int(SERVER_CPU)
_CHUNK = 1 << 18

Rates = list[float]
"""Units per second of processor time, one for each turn."""


@dataclass(frozen=True)
class Hops:
    """The namespaces of a path."""

    client: str
    router: str
    server: str


@contextmanager
def paths(count: int) -> Iterator[list[Hops]]:
    """Build so many paths; removed at the end, with what is inside."""
    start = netns.prefix(os.getpid())
    all_hops = [Hops(*(f"{start}{n}-{node}" for node in ("client", "router", "server"))) for n in range(count)]
    try:
        for hops in all_hops:
            _build(hops)
        yield all_hops
    finally:
        netns.delete([name for hops in all_hops for name in (hops.client, hops.router, hops.server)])


def _build(hops: Hops) -> None:
    names = (hops.client, hops.router, hops.server)
    netns.batch(f"netns add {name}" for name in names)
    for name in names:
        netns.write_sysctls(name, {"ipv6/conf/default/disable_ipv6": 1})
    netns.write_sysctls(hops.router, {"ipv4/ip_forward": 1})
    leg = f"link add leg1 address {LEG_MAC} type veth peer name vlan1 address {CLIENT_MAC} netns {hops.client}"
    router = [leg, "address add 10.0.1.1/24 dev leg1", "link set leg1 up"]
    wan = [f"link add wan type veth peer name isp netns {hops.server}", "address add 203.0.113.2/24 dev wan"]
    netns.batch([*router, *wan, "link set wan up", f"route add default via {SERVER}"], hops.router)
    client = [f"address add {CLIENT}/24 dev vlan1", "link set vlan1 up", "route add default via 10.0.1.1"]
    netns.batch(client, hops.client)
    netns.batch([f"address add {SERVER}/24 dev isp", "link set isp up"], hops.server)


def _on(namespace: str, kind: socket.SocketKind, family: int = socket.AF_INET) -> socket.socket:
    with inside(namespace):
        return socket.socket(family, kind)


# -- measurements: for each path the rates of its turns


def build() -> Path:
    """The compiled generator, newer than its source. Raises `subprocess.CalledProcessError`."""
    binary = CACHE / "packets"
    if not binary.exists() or binary.stat().st_mtime < SOURCE.stat().st_mtime:
        CACHE.mkdir(exist_ok=True)
        subprocess.run(["cc", "-O2", "-Wall", "-o", str(binary), str(SOURCE)], check=True)
    return binary


def packet_rates(all_hops: Sequence[Hops], binary: Path, turns: int) -> list[Rates]:
    """Small packets of one UDP connection that the server has answered, so that it is established."""
    with ExitStack() as stack:
        for hops in all_hops:
            client = stack.enter_context(_on(hops.client, socket.SOCK_DGRAM))
            server = stack.enter_context(_on(hops.server, socket.SOCK_DGRAM))
            _greet(client, server)
        return _send(all_hops, binary, SERVER, (PACKETS, turns, 1))


def _greet(client: socket.socket, server: socket.socket) -> None:
    client.settimeout(1)
    server.settimeout(1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # what comes later is dropped
    client.bind((CLIENT, FIRST_PORT))
    server.bind((SERVER, PORT))
    client.sendto(b"?", (SERVER, PORT))
    server.sendto(b"!", server.recvfrom(16)[1])
    client.recv(16)


def connection_rates(all_hops: Sequence[Hops], binary: Path, turns: int) -> list[Rates]:
    """Small packets, each the first and only one of its UDP connection."""
    return _send(all_hops, binary, NOWHERE, (CONNECTIONS, min(turns, FLOWS // CONNECTIONS), FLOWS))


def _send(all_hops: Sequence[Hops], binary: Path, target: str, load: tuple[int, int, int]) -> list[Rates]:
    count, turns, _ = load
    with ExitStack() as stack:
        links = [stack.enter_context(_on(hops.client, socket.SOCK_RAW, socket.AF_PACKET)) for hops in all_hops]
        for link in links:
            link.bind(("vlan1", 0))
        files = [link.fileno() for link in links]
        words = ["taskset", "-c", str(CPU), str(binary), frame(target).hex(), *map(str, load), str(_schedstat())]
        before = [_forwarded(hops) for hops in all_hops]
        done = subprocess.run([*words, *map(str, files)], pass_fds=files, check=True, capture_output=True, text=True)
        forwarded = [_forwarded(hops) - one for hops, one in zip(all_hops, before, strict=True)]
    if min(forwarded) < LEAST_FORWARDED * count * turns:
        raise LoadError(f"of {count * turns} packets to {target} were forwarded: {forwarded}")
    by_turn = [[count * 1e9 / int(used) for used in turn.split()] for turn in done.stdout.splitlines()]
    return [list(rates) for rates in zip(*by_turn, strict=True)]


def frame(target: str) -> bytes:
    """An Ethernet frame to the router: IPv4 (RFC 791), UDP without a checksum (RFC 768), 18 bytes of data."""
    data = struct.pack("!HHHH18x", FIRST_PORT, PORT, 26, 0)
    ends = IPv4Address(CLIENT).packed + IPv4Address(target).packed
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 0, 0, 64, socket.IPPROTO_UDP, 0) + ends
    total = sum(struct.unpack("!10H", head))
    checksum = struct.pack("!H", ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF)
    macs = bytes.fromhex((LEG_MAC + CLIENT_MAC).replace(":", ""))
    return macs + b"\x08\x00" + head[:10] + checksum + head[12:] + data


def _forwarded(hops: Hops) -> int:
    """Packets sent to the WAN so far."""
    with inside(hops.router):
        shown = Path("/proc/thread-self/net/dev").read_text()
    return int(shown.partition("wan:")[2].split()[9])


@cache
def _schedstat() -> Path:
    """Where the kernel shows the run time of the processor's thread for postponed network work."""
    name = f"ksoftirqd/{CPU}\n"
    return next(p.with_name("schedstat") for p in Path("/proc").glob("[0-9]*/comm") if p.read_text() == name)


def byte_rates(all_hops: Sequence[Hops], _: Path, turns: int) -> list[Rates]:
    """TCP connections with large writes."""
    rates: list[Rates] = [[] for _ in all_hops]
    with ExitStack() as stack:
        stack.enter_context(pinned())
        streams = [_connected(hops, stack) for hops in all_hops]
        for _turn in range(turns):
            for (sender, receiver), found in zip(streams, rates, strict=True):
                found.append(_stream(sender, receiver))
    return rates


def _connected(hops: Hops, stack: ExitStack) -> tuple[socket.socket, socket.socket]:
    with _on(hops.server, socket.SOCK_STREAM) as listener:
        listener.bind((SERVER, PORT))
        listener.listen()
        sender = stack.enter_context(_on(hops.client, socket.SOCK_STREAM))
        sender.settimeout(1)
        sender.connect((SERVER, PORT))
        receiver = stack.enter_context(listener.accept()[0])
    sender.setblocking(False)
    receiver.setblocking(False)
    return sender, receiver


def _stream(sender: socket.socket, receiver: socket.socket) -> float:
    """Send and receive for a moment; the bytes received per second of processor time."""
    chunk, buffer, total = bytes(_CHUNK), bytearray(2 * _CHUNK), 0
    end, begin = time.monotonic() + STREAM_SECONDS, _processor_time()
    while time.monotonic() < end or not total:
        with suppress(BlockingIOError):
            sender.send(chunk)
        with suppress(BlockingIOError):
            total += receiver.recv_into(buffer)
    return total * 1e9 / (_processor_time() - begin)


def _processor_time() -> int:
    """Nanoseconds of this thread and of ksoftirqd."""
    return time.thread_time_ns() + int(_schedstat().read_text().split()[0])


@contextmanager
def pinned() -> Iterator[None]:
    """The block runs on the processor that is measured."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {CPU})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
