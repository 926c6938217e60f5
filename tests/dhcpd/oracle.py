"""What scapy makes of our bytes, and bytes that scapy makes: a second opinion on the codec."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether
from scapy.utils import RawPcapReader

from tests.dhcpd.script import ROUTER

Options = Sequence[Any]


def bootp(payload: bytes) -> Any:
    """The header of a message, by attribute."""
    return BOOTP(payload)


def options(payload: bytes) -> dict[str, Any]:
    """The options of a message by scapy's names; one with several values is a tuple."""
    found = [one for one in BOOTP(payload)[DHCP].options if isinstance(one, tuple)]
    return {name: values[0] if len(values) == 1 else tuple(values) for name, *values in found}


def message(options: Options, **header: Any) -> bytes:
    return bytes(BOOTP(**header) / DHCP(options=[*options, "end"]))


def datagram(frame: bytes) -> Any:
    """A frame that carries UDP in IP, by attributes of both: ``(ether, ip, udp)``."""
    seen = Ether(frame)
    return seen, seen[IP], seen[UDP]


def checksums(frame: bytes) -> tuple[int, int]:
    """The IP and UDP checksums that the frame should have."""
    seen = Ether(frame)
    del seen[IP].chksum, seen[UDP].chksum
    again = Ether(bytes(seen))
    return again[IP].chksum, again[UDP].chksum


def arp(frame: bytes) -> Any:
    return Ether(frame)[ARP]


def arp_answer(address: str, mac: str) -> bytes:
    return bytes(Ether() / ARP(op=2, hwsrc=mac, psrc=address, pdst=ROUTER))


def frames(path: Path) -> list[bytes]:
    """The packets of a capture (pcap or pcapng) as they were on the wire."""
    with RawPcapReader(str(path)) as reader:
        return [data for data, _ in reader]
