"""The host below the router, seen and changed: ``lanward underlay``, in the host's network namespace."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from errno import EACCES, ENODEV, EOPNOTSUPP, EPERM
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from dhcpd.pool import dotted
from leasebroker.docker_feed import Engine, EngineError, RefusedError
from router import NotRunningError, underlay
from router.settings import Config
from router.underlay import Host, HostLink, Step, UnderlayError

REMOVE_SECONDS, REMOVE_PAUSE = 5.0, 0.1
"""A busy engine counts a container on its network for a moment after it was removed."""

_BR_NETFILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
_NO_IPV6 = "/proc/sys/net/ipv6/conf/{}/disable_ipv6"
_NONE = 1
_NO_LINK_LOCAL = {"attrs": [["AF_INET6", {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _NONE]]}]]}
"""The kernel gives an interface that comes up an IPv6 address of its own, by which the VLAN would reach the host."""
_LINK_SCOPE, _DOCKERS = 253, "fe80::1"
"""The scope of such an address, and the one that Docker gives to a bridge of a network with IPv6."""


def run(action: str, config: Config) -> int:
    """Do ``up``, ``down`` or ``show`` and print what was done or is there. 1 when ``up`` or ``down`` cannot be, or
    ``show`` finds that ``up`` would change something; else 0. Raises `NotRunningError` without the permission."""
    with closing(Engine(config.docker.socket)) as engine, IPRoute() as kernel:
        hand = Hand(kernel, engine)
        try:
            host = observe(config, kernel, engine)
            steps = underlay.down(host) if action == "down" else underlay.up(config, host)
            if action != "show":
                hand.carry_out(steps)
        except (UnderlayError, EngineError) as error:
            print(error, file=sys.stderr)
            return 1
        print(*_lines(action, steps), sep="\n")
        if action == "up":
            host = observe(config, kernel, engine)
        for warning in underlay.warnings(config, host) if action != "down" else ():
            print(f"warning: {warning}", file=sys.stderr)
    return int(action == "show" and bool(steps))


def _lines(action: str, steps: Sequence[Step]) -> Iterator[str]:
    if not steps:
        yield "nothing to do: there is nothing of ours" if action == "down" else "nothing to do: the underlay is there"
    elif action == "show":
        yield "lanward underlay up would:"
    yield from (f"  {step}" if action == "show" else str(step) for step in steps)


def observe(config: Config, kernel: Any, engine: Engine) -> Host:
    """What is there. Raises `EngineError` when the configuration has Docker networks and the engine does not answer."""
    names = [vlan.network for vlan in config.vlans if vlan.network]
    names += [config.wan.network] if config.wan and config.wan.network and config.wan.uplink else []
    networks = [engine.network(name) for name in names]
    return Host(
        _links(kernel),
        {one.name: one for one in networks if one is not None},
        frozenset(_programs()),
        _BR_NETFILTER.exists() and _BR_NETFILTER.read_text().strip() == "1",
    )


def _links(kernel: Any) -> dict[str, HostLink]:
    found = list(kernel.get_links())
    names = {one["index"]: one.get("IFLA_IFNAME") for one in found}
    addresses: dict[int, list[str]] = {}
    for one in kernel.get_addr(family=socket.AF_INET):
        addresses.setdefault(one["index"], []).append(f"{one.get('IFA_LOCAL')}/{one['prefixlen']}")
    links: dict[str, HostLink] = {}
    for one in found:
        info = one.get("IFLA_LINKINFO")
        kind = (info and info.get("IFLA_INFO_KIND")) or ""
        data = info.get("IFLA_INFO_DATA") if kind == "vlan" else None
        links[one.get("IFLA_IFNAME")] = HostLink(
            one.get("IFLA_IFNAME"),
            kind,
            one.get("IFLA_IFALIAS") or "",
            bool(one["flags"] & 1),
            names.get(one.get("IFLA_LINK"), "") if kind == "vlan" else "",
            (data and data.get("IFLA_VLAN_ID")) or 0,
            names.get(one.get("IFLA_MASTER"), ""),
            tuple(addresses.get(one["index"], ())),
            _has_ipv6(one),
        )
    return links


def _has_ipv6(link: Any) -> bool:
    settings = (link.get("IFLA_AF_SPEC") or {}).get("AF_INET6")
    return settings is not None and settings.get("IFLA_INET6_ADDR_GEN_MODE") != _NONE


def _programs() -> Iterator[str]:
    """Of the processes in this network namespace; of all where that cannot be told."""
    own = Path("/proc/self/ns/net").stat()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            name = (process / "comm").read_text().strip()
            with suppress(PermissionError):
                if not os.path.samestat((process / "ns/net").stat(), own):
                    continue
            yield name


class Hand:
    """What changes the host."""

    def __init__(self, kernel: Any, engine: Engine) -> None:
        self._kernel = kernel
        self._engine = engine

    def carry_out(self, steps: Sequence[Step]) -> None:
        """Do the steps in their order, or none: what was added before one that fails is removed. Raises
        `UnderlayError`, and `NotRunningError` without the permission."""
        done: list[Step] = []
        try:
            for step in steps:
                self._explained(step)
                done.append(step)
        except BaseException:
            for step in underlay.undo(done):
                with suppress(NetlinkError, EngineError, LookupError):
                    self._do(step)
            raise

    def _explained(self, step: Step) -> None:
        try:
            self._do(step)
        except NetlinkError as error:
            if error.code in (EPERM, EACCES):
                raise NotRunningError(f"not permitted to {step}: run as root, or with NET_ADMIN") from None
            if error.code == EOPNOTSUPP and isinstance(step, underlay.AddSubInterface):
                why = "this kernel has no 802.1Q VLANs: load its module (modprobe 8021q), or install a kernel with it"
                raise UnderlayError(why) from None
            raise UnderlayError(f"cannot {step}: {os.strerror(error.code)}") from None
        except EngineError as error:
            raise UnderlayError(f"cannot {step}: {error}") from None

    def _index(self, name: str) -> int:
        try:
            return socket.if_nametoindex(name)
        except OSError:
            raise NetlinkError(ENODEV, f"no interface {name}") from None

    def _mark(self, name: str, alias: str) -> None:
        index = self._index(name)
        try:
            self._kernel.link("set", index=index, IFLA_IFALIAS=alias)
        except BaseException:
            self._kernel.link("del", index=index)
            raise
        with suppress(NetlinkError):  # a kernel without IPv6
            self._kernel.link("set", index=index, IFLA_AF_SPEC=_NO_LINK_LOCAL)
        with suppress(
            OSError
        ):  # the same, or read only in a container: there Docker makes the bridges, and hears no RA
            Path(_NO_IPV6.format(name)).write_text("1")

    @singledispatchmethod
    def _do(self, step: Step) -> None:
        raise NotImplementedError(step)

    @_do.register
    def _(self, step: underlay.AddSubInterface) -> None:
        trunk = self._index(step.trunk)
        self._kernel.link("add", ifname=step.name, kind="vlan", link=trunk, vlan_id=step.tag)
        self._mark(step.name, step.alias)

    @_do.register
    def _(self, step: underlay.AddBridge) -> None:
        self._kernel.link("add", ifname=step.name, kind="bridge")
        self._mark(step.name, underlay.MARK)

    @_do.register
    def _(self, step: underlay.Silence) -> None:
        index = self._index(step.name)
        self._kernel.link("set", index=index, IFLA_AF_SPEC=_NO_LINK_LOCAL)
        for one in self._kernel.get_addr(family=socket.AF_INET6, index=index, scope=_LINK_SCOPE):
            if one.get("IFA_ADDRESS") != _DOCKERS:
                self._kernel.addr("del", index=index, address=one.get("IFA_ADDRESS"), prefixlen=one["prefixlen"])

    @_do.register
    def _(self, step: underlay.Enslave) -> None:
        self._kernel.link("set", index=self._index(step.name), master=self._index(step.bridge))

    @_do.register
    def _(self, step: underlay.Raise) -> None:
        self._kernel.link("set", index=self._index(step.name), state="up")

    @_do.register
    def _(self, step: underlay.Lower) -> None:
        self._kernel.link("set", index=self._index(step.name), state="down")

    @_do.register
    def _(self, step: underlay.RemoveLink) -> None:
        self._kernel.link("del", index=self._index(step.name))

    @_do.register
    def _(self, step: underlay.AddNetwork) -> None:
        one = step.network
        pool = {"Subnet": str(one.subnet), "Gateway": dotted(one.gateway)}
        if one.landing is not None:
            pool["IPRange"] = str(one.landing)
        self._engine.create_network(one.name, one.driver, pool, options=one.options, labels=one.labels)

    @_do.register
    def _(self, step: underlay.RemoveNetwork) -> None:
        deadline = time.monotonic() + REMOVE_SECONDS
        while True:
            try:
                return self._engine.remove_network(step.name)
            except RefusedError as error:
                if "active endpoints" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(REMOVE_PAUSE)
