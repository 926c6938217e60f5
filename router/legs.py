"""The router's own addresses: its interfaces found by their networks, never by name, and made what they shall be.

Docker gives a leg of the router's container an address of the landing range, for it keeps the gateway's to itself; some
engines give it another MAC at every start, and the default route of another network. So the router takes its address in
each VLAN itself, as the first of the leg, with a MAC that follows from it, and announces both; and goes to the WAN by a
route of its own, in front of Docker's.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from dhcpd.decision import Note
from dhcpd.link import LinkError, default_interface, find_interface
from dhcpd.pool import dotted
from dhcpd.wire import arp_announcement
from router import late
from router.settings import Config, Vlan

if TYPE_CHECKING:
    from leasebroker.plan import Operation, View

ANNOUNCE_SECONDS = 2.0
"""Between two announcements (RFC 5227 section 2.3): one frame may be lost."""
ASK_SECONDS = 5.0
"""Between two questions to the engine which network the WAN is, and two looks at the routes without a cause."""
FIRST_LOOK_SECONDS = 2.0
_ARP = 0x0806
_WAN = "[wan]"
_OWN = Path("/proc/thread-self/ns/net")


class Uplink(NamedTuple):
    """The WAN's network; ``gateway`` is 0 when it has none."""

    subnet: IPv4Network
    gateway: int


def router_mac(address: int) -> bytes:
    """The MAC of the leg with that address: the same on every start, and on the machine that replaces this one. As
    Docker's older engines derive them, of which none is a container's, for the address is none's."""
    return b"\x02\x42" + address.to_bytes(4, "big")


def take(view: View, interface: str, mac: bytes | None, address: int, prefix: int) -> list[Operation]:
    """What makes ``address`` the first of an interface, with that MAC unless it is None; it is announced when it is
    new. Nothing when it is so already, or the interface is not there or not up."""
    from leasebroker.plan import Pin, SetMac, plan  # noqa: PLC0415 - not needed where the address is there

    links = [one for one in view.links if one.name == interface and one.is_up]
    if not links:
        return []
    link = links[0]
    operations: list[Operation] = []
    if mac is not None and link.mac != mac:
        operations.append(SetMac(link.ifindex, link.mac, mac))
        link = link._replace(mac=mac)
    return operations + plan(view._replace(links=(link,)), [Pin(link.mac, address, prefix)])


def leave(view: View, interface: str, uplink: Uplink) -> list[Operation]:
    """What makes an interface the way to the WAN, with its own address there as the source."""
    from leasebroker.plan import Pin, plan  # noqa: PLC0415

    links = [one for one in view.links if one.name == interface and one.is_up]
    own = [one for one in view.addresses if links and one.ifindex == links[0].ifindex]
    own = [one for one in own if one.address >> (32 - one.prefix) == uplink.gateway >> (32 - one.prefix)]
    if not own or not uplink.gateway:
        return []
    is_alone = not view.defaults
    pin = Pin(links[0].mac, own[0].address, own[0].prefix, uplink.gateway, is_alone=is_alone)
    return plan(view._replace(links=(links[0],)), [pin])


class Legs:
    """The router's interfaces, in the network namespace of the loop's thread."""

    def __init__(self, log: Callable[[Note], None]) -> None:
        self._log = log
        self._wan: str | None = None
        self._known: tuple[object, Uplink | None] | None = None
        self._said: dict[str, Note] = {}
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def interface(self, vlan: Vlan) -> str:
        """The VLAN's interface, which has the router's address. Raises `LinkError` when there is no such interface."""
        name = vlan.interface or find_interface(vlan.scope.subnet)
        if not _is_own(vlan.scope.router):
            mac = router_mac(vlan.scope.router) if vlan.network else None
            self._take(name, mac, vlan.scope.router, vlan.scope.subnet.prefixlen)
        return name

    def uplink(self) -> str | None:
        """The interface of the WAN's network, else that of the default route."""
        return self._wan or default_interface()

    async def start(self, config: Callable[[], Config]) -> None:
        """Keep the addresses, and the way to the WAN; returns when that is there, or after `FIRST_LOOK_SECONDS`."""
        self._task = asyncio.create_task(self._follow(config))
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._looked.wait()

    async def close(self) -> None:
        """Leave all as it is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _take(self, name: str, mac: bytes | None, address: int, prefix: int) -> None:
        try:
            with ThreadPoolExecutor(1, "legs") as thread:  # the kernel's library wants no running loop
                if not thread.submit(_change, lambda view: take(view, name, mac, address, prefix)).result():
                    return
        except _netns().GoneError as error:
            text = f"cannot give {name} the address {dotted(address)}: {error}; the capability NET_ADMIN is needed"
            self._say(name, Note("error", "address_not_taken", {"what": text}))
            return
        self._said.pop(name, None)
        self._log(Note("info", "address_taken", {"interface": name, "address": dotted(address)}))
        asyncio.get_running_loop().call_later(ANNOUNCE_SECONDS, _announce, name, address)

    async def _follow(self, config: Callable[[], Config]) -> None:
        while True:
            for vlan in config().vlans:
                with suppress(LinkError):  # the VLAN's server says so
                    self.interface(vlan)
            wan = config().wan
            if wan is None or wan.network is None:
                self._wan = None
            else:
                try:
                    await asyncio.to_thread(self._keep, config())
                except Exception as error:  # noqa: BLE001 - a defect in one look must not end all later ones
                    self._say(_WAN, Note("warning", "uplink_unknown", {"what": str(error) or repr(error)}))
            self._looked.set()
            await asyncio.sleep(ASK_SECONDS)

    def _keep(self, config: Config) -> None:
        """On a thread of its own: the engine may be slow. Raises `leasebroker.docker_feed.EngineError`."""
        uplink = self._uplink(config)
        if uplink is None:
            return
        try:
            name = find_interface(uplink.subnet)
        except LinkError:
            self._wan = self._known = None
            return
        self._wan = name
        _change(lambda view: leave(view, name, uplink))
        self._said.pop(_WAN, None)

    def _uplink(self, config: Config) -> Uplink | None:
        """What the file says of the WAN's network, else what the engine does."""
        wan = config.wan
        if wan is None or wan.network is None:
            return None
        if wan.uplink is not None:
            return Uplink(wan.uplink.subnet, wan.uplink.gateway)
        key = (wan.network, config.docker.socket)
        if self._known is None or self._known[0] != key or self._known[1] is None:
            self._known = (key, self._ask(wan.network, config.docker.socket))
        return self._known[1]

    def _ask(self, network: str, path: str) -> Uplink | None:
        """Raises `leasebroker.docker_feed.EngineError`."""
        with closing(late("leasebroker.docker_feed").Engine(path)) as engine:
            found = engine.network(network)
        return Uplink(found.subnet, found.gateway) if found is not None and found.subnet is not None else None

    def _say(self, subject: str, note: Note) -> None:
        """Once for each cause."""
        if self._said.get(subject) != note:
            self._log(note)
        self._said[subject] = note


def _is_own(address: int) -> bool:
    """Whether an interface has the address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, suppress(OSError):
        one.bind((dotted(address), 0))
        return True
    return False


def _change(plan: Callable[[View], list[Operation]]) -> bool:
    """Look, and do what the plan says, if anything. Raises `leasebroker.netns.GoneError`."""
    netns = _netns()
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if operations := plan(netns.look(own)):
            netns.apply(own, operations)
        return bool(operations)
    finally:
        os.close(own)


def _announce(interface: str, address: int) -> None:
    with suppress(OSError), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as one:
        one.bind((interface, _ARP))
        one.send(arp_announcement(one.getsockname()[4], address))


def _netns() -> Any:
    return late("leasebroker.netns")
