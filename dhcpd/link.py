"""One VLAN's interface: where it is, and the sockets on it."""

from __future__ import annotations

import socket
from array import array
from errno import EACCES, EADDRINUSE, ENODEV, ENXIO, EPERM
from ipaddress import IPv4Network
from pathlib import Path
from struct import Struct, pack

from dhcpd.wire import SERVER_PORT, arp_probe, udp_frame

RECEIVE_BUFFER = 4 << 20
"""Bytes; the kernel's default holds about 166 datagrams, a storm of devices that boot together is larger."""
MAX_DATAGRAM = 4096

BPF = Struct("HBBI")
ATTACH_FILTER = 26
"""``SO_ATTACH_FILTER``: the program as `BPF` instructions."""

_ETH_P_ARP = 0x0806
_SO_MEMINFO, _SO_RCVBUFFORCE = 55, 33
_MEMINFO = Struct("9I")
_MEMINFO_DROPS = 8
_ONLY_ARP_REPLIES = (
    (0x28, 0, 0, 20),  # load the 16-bit operation code of the ARP packet
    (0x15, 0, 1, 2),  # a reply: go on, else skip one
    (0x06, 0, 0, 0x40000),  # accept
    (0x06, 0, 0, 0),  # drop
)


class LinkError(Exception):
    """An interface cannot be served; ``str()`` is one sentence that says which, why, and what to do."""


def find_interface(subnet: IPv4Network) -> str:
    """The name of the interface with an address in ``subnet``, by the kernel's table of connected routes.

    Raises `LinkError` when there is none or more than one.
    """
    wanted = (_proc_hex(int(subnet.network_address)), _proc_hex(int(subnet.netmask)))
    rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    names = sorted({row[0] for row in rows if (row[1], row[7]) == wanted and int(row[3], 16) & 1 and row[2] == "0" * 8})
    if not names:
        raise LinkError(
            f"no interface has an address in {subnet}: give the router its address there "
            f"(ip address add ... dev ...), or name the interface in the configuration"
        )
    if len(names) > 1:
        raise LinkError(f"{', '.join(names)} all have an address in {subnet}: name one in the configuration")
    return names[0]


def default_interface() -> str | None:
    """The interface of the kernel's default route, the one with the lowest metric."""
    rows = [line.split() for line in Path("/proc/net/route").read_text().splitlines()[1:]]
    found = [(int(row[6]), row[0]) for row in rows if row[1] == row[7] == "0" * 8 and int(row[3], 16) & 1]
    return min(found)[1] if found else None


def _proc_hex(address: int) -> str:
    """An address as the kernel prints it in ``/proc/net/route``: in the machine's byte order."""
    return f"{int.from_bytes(address.to_bytes(4, 'big'), 'little'):08X}"


class Link:
    """The sockets of one VLAN: a UDP socket bound to the interface for what is addressed to the server, a packet
    socket for replies to clients without an address, and one for the answers to ARP probes.

    All are non-blocking. Opening raises `LinkError`.
    """

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._sockets: list[socket.socket] = []
        try:
            socket.if_nametoindex(interface)
            self.udp = self._open(socket.AF_INET, socket.SOCK_DGRAM)
            self.udp.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
            self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            self.udp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
            self.udp.bind(("0.0.0.0", SERVER_PORT))
            self.raw = self._open_packet(0)
            self.mac: bytes = self.raw.getsockname()[4]
            self.arp = self._open_arp()
        except OSError as error:
            self.close()
            raise LinkError(_explain(interface, error)) from error

    def _open(self, family: int, kind: int) -> socket.socket:
        one = socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._sockets.append(one)
        return one

    def _open_packet(self, protocol: int) -> socket.socket:
        one = self._open(socket.AF_PACKET, socket.SOCK_RAW)
        one.bind((self.interface, protocol))
        return one

    def _open_arp(self) -> socket.socket:
        """Only replies reach it: what else is said by ARP on a busy VLAN must not wake the process."""
        one = self._open(socket.AF_PACKET, socket.SOCK_RAW)
        program = array("B", b"".join(BPF.pack(*instruction) for instruction in _ONLY_ARP_REPLIES))
        one.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, pack("HP", len(_ONLY_ARP_REPLIES), program.buffer_info()[0]))
        one.bind((self.interface, _ETH_P_ARP))
        return one

    def send(self, mac: bytes, source: int, address: int, port: int, payload: bytes) -> None:
        """A UDP datagram in a raw frame. Raises `OSError`."""
        self.raw.send(udp_frame(self.mac, mac, source, address, port, payload))

    def ask(self, address: int) -> None:
        """An ARP probe for ``address``. Raises `OSError`."""
        self.raw.send(arp_probe(self.mac, address))

    def lost_datagrams(self) -> int:
        """Datagrams that the kernel dropped because the receive buffer was full; 0 on a closed link."""
        if self.udp.fileno() < 0:
            return 0
        drops: int = _MEMINFO.unpack(self.udp.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))[_MEMINFO_DROPS]
        return drops

    def is_there(self) -> bool:
        """Whether the link is open and its interface still the one that it was opened on, with that name and MAC.

        The socket is asked, not the name: an interface that left the namespace and came back has its old name and
        index, and no longer our sockets.
        """
        try:
            name, *_, mac = self.raw.getsockname()
        except OSError:
            return False
        return (name, mac) == (self.interface, self.mac)

    def close(self) -> None:
        for one in self._sockets:
            one.close()


_CURES = {
    ENODEV: "interface {0} does not exist: connect the router to the VLAN's network, or correct the name",
    EPERM: "no permission for sockets on {0}: run as root, or with NET_ADMIN, NET_RAW and NET_BIND_SERVICE",
    EADDRINUSE: "UDP port 67 on {0} is in use: stop the other DHCP server (ss -lunp 'sport = :67')",
}
_CURES |= {ENXIO: _CURES[ENODEV], EACCES: _CURES[EPERM]}


def _explain(interface: str, error: OSError) -> str:
    """One sentence; ``if_nametoindex`` reports a missing interface without an error number."""
    cure = _CURES.get(error.errno or ENODEV, "cannot open sockets on {0}: {1}")
    return cure.format(interface, error.strerror or error)
