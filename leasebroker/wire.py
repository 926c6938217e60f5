"""The DHCP client of one VLAN on the wire: drain the socket, decide, send. The one module that imports scapy.

Scapy makes and reads the frames; it is loaded only where a VLAN has a foreign server. Its own sockets block, compile
their filters with libpcap and make the interface promiscuous, so the socket is a plain one with a filter of our own.

What is heard: frames that reach the leg. Those are broadcasts, which the broadcast flag asks for. A server that
answers by unicast all the same is heard where the leg is a veth, as in a Docker network: it takes every frame, and a
packet socket gets those for other hosts too. On a physical interface that is not promiscuous such an answer is lost.
"""

from __future__ import annotations

import asyncio
import socket
from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from errno import EACCES, ENODEV, ENXIO, EPERM
from struct import Struct, pack

from dhcpd.link import LinkError
from dhcpd.wire import CLIENT_PORT, SERVER_PORT, WireError
from leasebroker.client import Clients
from leasebroker.effects import Effect, Note, Send

MAX_FRAME = 2048
"""Bytes; an answer fits into an Ethernet frame."""
RECEIVE_BUFFER = 1 << 20
"""Bytes; some 400 answers, when many containers start together."""
MAX_DRAIN = 64
"""Frames read in one round."""
FLOOD_PAUSE = 0.05
"""Seconds without reading after a full round. A flood of forged answers so costs a tenth of one processor, and the rest
of it is dropped by the kernel."""
MIN_PAUSE, MAX_PAUSE = 0.01, 30.0
"""Seconds between two looks at what time brings. The longest is for the loop's clock, which stands still while the
machine sleeps."""

_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_STATISTICS = Struct("II")
_BPF = Struct("HBBI")
_PACKET_TYPE, _OTHER_HOST = 0xFFFFF000 + 4, 3
_ONLY_ANSWERS = (
    (0x30, 0, 0, _PACKET_TYPE),  # a broadcast for others has lost the tag of another VLAN on its way here
    (0x15, 0, 2, _OTHER_HOST),
    (0x30, 0, 0, 0),  # target MAC
    (0x45, 12, 0, 1),
    (0x30, 0, 0, 23),  # IP protocol
    (0x15, 0, 10, 17),  # UDP
    (0x28, 0, 0, 20),  # flags and fragment offset
    (0x45, 8, 0, 0x3FFF),  # a fragment
    (0xB1, 0, 0, 14),  # X = length of the IP header
    (0x48, 0, 0, 16),  # UDP destination port
    (0x15, 0, 5, CLIENT_PORT),
    (0x50, 0, 0, 22),  # BOOTP operation
    (0x15, 0, 3, 2),  # BOOTREPLY
    (0x40, 0, 0, 258),  # the magic cookie
    (0x15, 0, 1, 0x63825363),
    (0x06, 0, 0, 0x40000),  # accept
    (0x06, 0, 0, 0),  # drop
)
_CURES = {
    ENODEV: "interface {0} does not exist: connect the router to the VLAN's network, or correct the name",
    EPERM: "no permission for a packet socket on {0}: run as root, or with NET_ADMIN and NET_RAW",
}
_CURES |= {ENXIO: _CURES[ENODEV], EACCES: _CURES[EPERM]}


class Frames:
    """Scapy, loaded: a tenth of a second to a second and about 28 MiB, so make it by `load_frames`."""

    def __init__(self) -> None:
        from scapy.layers.inet import IP, UDP  # noqa: PLC0415 - see above
        from scapy.layers.l2 import Ether  # noqa: PLC0415
        from scapy.packet import Raw  # noqa: PLC0415

        self._ether, self._udp, self._raw = Ether, UDP, Raw
        self._ip = IP(src="0.0.0.0", dst="255.255.255.255") / UDP(sport=CLIENT_PORT, dport=SERVER_PORT)

    def build(self, mac: bytes, payload: bytes) -> bytes:
        """A broadcast to the servers, from the hardware address in the message: switches with DHCP snooping drop a
        message from another."""
        frame = self._ether(src=mac.hex(":"), dst="ff:ff:ff:ff:ff:ff") / self._ip / self._raw(payload)
        return bytes(frame)

    def payload(self, frame: bytes) -> bytes:
        """The UDP payload of a frame. Raises `WireError`, and nothing else. Checksums are not looked at: those of a
        server on this machine are filled in by hardware that there is none of."""
        try:
            return bytes(self._ether(frame)[self._udp].payload)
        except Exception as error:  # scapy raises what it likes on a malformed frame
            raise WireError("bad_frame") from error


async def load_frames() -> Frames:
    """Load scapy on a thread, while the loop goes on."""
    return await asyncio.to_thread(Frames)


class Leg:
    """A packet socket on the router's interface in a VLAN; non-blocking. Opening raises `LinkError`."""

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._lost = 0
        try:
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise LinkError(_explain(interface, error)) from error
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
            program = array("B", b"".join(_BPF.pack(*instruction) for instruction in _ONLY_ANSWERS))
            self.socket.setsockopt(
                socket.SOL_SOCKET, _SO_ATTACH_FILTER, pack("HP", len(_ONLY_ANSWERS), program.buffer_info()[0])
            )
            self.socket.bind((interface, _ETH_P_IP))
        except OSError as error:
            self.close()
            raise LinkError(_explain(interface, error)) from error
        self._name = self.socket.getsockname()

    def receive(self) -> list[bytes]:
        """The frames that wait, up to `MAX_DRAIN`. Raises `OSError`."""
        frames: list[bytes] = []
        try:
            while len(frames) < MAX_DRAIN:
                frames.append(self.socket.recv(MAX_FRAME))
        except BlockingIOError:
            pass
        return frames

    def lost_frames(self) -> int:
        """Answers that the kernel dropped because the receive buffer was full."""
        if self.socket.fileno() >= 0:
            statistics = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
            self._lost += _STATISTICS.unpack(statistics)[1]  # reading sets the kernel's count to 0
        return self._lost

    def is_there(self) -> bool:
        """Whether the leg is open and its interface still the one that it was opened on (`dhcpd.link.Link`)."""
        try:
            return bool(self.socket.getsockname() == self._name)
        except OSError:
            return False

    def close(self) -> None:
        self.socket.close()


def _explain(interface: str, error: OSError) -> str:
    cure = _CURES.get(error.errno or ENODEV, "cannot open a packet socket on {0}: {1}")
    return cure.format(interface, error.strerror or error)


class Wire:
    """The event loop's side of a VLAN's `Clients`.

    ``clock`` gives service time. The `Send`s are carried out here; ``deliver`` is given the other effects of each
    moment, in their order and on the loop thread. It has to have the rows committed before it uses a lease, and must
    not let effects without rows overtake those that wait for a commit (`dhcpd.store.Store` takes empty batches, in
    order). Errors of the socket are counted in ``errors``, never raised.
    """

    def __init__(
        self,
        clients: Clients,
        leg: Leg,
        frames: Frames,
        clock: Callable[[], float],
        deliver: Callable[[Sequence[Effect]], None],
    ) -> None:
        self.clients = clients
        self.leg = leg
        self.errors: Counter[str] = Counter()
        self._frames = frames
        self._clock = clock
        self._deliver = deliver
        self._timer: asyncio.TimerHandle | None = None
        self._pause: asyncio.TimerHandle | None = None
        self._is_running = False

    def start(self) -> None:
        """Read from the leg, and do what is due from now on."""
        self._is_running = True
        self._listen()
        self._arm()

    def stop(self) -> None:
        """Neither read nor send any more; nothing is released, and the leg stays open."""
        self._is_running = False
        asyncio.get_running_loop().remove_reader(self.leg.socket)
        for handle in (self._timer, self._pause):
            if handle is not None:
                handle.cancel()

    def want(self, name: str, hostname: str = "", wish: int | None = None) -> None:
        """See `Clients.want`."""
        self._carry_out(self.clients.want(name, hostname, wish, self._clock()))

    def forget(self, name: str) -> None:
        """See `Clients.forget`."""
        self.clients.forget(name)

    def decline(self, name: str) -> None:
        """See `Clients.decline`."""
        self._carry_out(self.clients.decline(name, self._clock()))

    def step(self, seconds: int) -> None:
        """The clock was set by so much."""
        self._carry_out(self.clients.step(seconds, self._clock()))

    def _listen(self) -> None:
        asyncio.get_running_loop().add_reader(self.leg.socket, self._drain)

    def _drain(self) -> None:
        now = self._clock()
        try:
            frames = self.leg.receive()
        except OSError as error:
            self._failed("receive", error)
            frames = []
        effects = [effect for frame in frames for effect in self._decide(frame, now)]
        loop = asyncio.get_running_loop()
        if len(frames) == MAX_DRAIN:
            loop.remove_reader(self.leg.socket)
            self._pause = loop.call_later(FLOOD_PAUSE, self._listen)
        self._carry_out(effects)

    def _decide(self, frame: bytes, now: float) -> list[Effect]:
        try:
            return self.clients.handle(self._frames.payload(frame), now)
        except WireError as error:
            self.errors[error.args[0]] += 1
            return []

    def _tick(self) -> None:
        self._carry_out(self.clients.tick(self._clock()))

    def _carry_out(self, effects: Sequence[Effect]) -> None:
        """What is due next may have changed, whatever the receiver of the rest does."""
        self._arm()
        for effect in effects:
            if isinstance(effect, Send) and self._is_running:
                self._send(effect)
        if rest := [effect for effect in effects if not isinstance(effect, Send)]:
            self._deliver(rest)

    def _send(self, send: Send) -> None:
        try:
            self.leg.socket.send(self._frames.build(send.mac, send.payload))
        except OSError as error:
            self._failed("send", error)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        deadline = self.clients.deadline()
        if self._is_running and deadline is not None:
            pause = min(max(deadline - self._clock(), MIN_PAUSE), MAX_PAUSE)
            self._timer = asyncio.get_running_loop().call_later(pause, self._tick)

    def _failed(self, what: str, error: OSError) -> None:
        """A full queue or an interface that is going away: the client asks again."""
        self.errors[what] += 1
        if self.errors[what] == 1:
            fields = {"vlan": self.clients.vlan.name, "interface": self.leg.interface, "error": str(error)}
            self._deliver([Note("warning", f"{what}_failed", fields)])
