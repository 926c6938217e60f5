"""The configuration file: the whole of it is read and checked at once, and every error is found."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from dhcpd.pool import dotted
from dhcpd.values import address, boolean, domain, duration, network, shown, text
from leasebroker.identity import container_name
from router.nodes import Nodes, interface, node_name, port, ports
from router.plan import unusable
from router.reservations import Additions
from router.settings import Allow, Api, Broadcast, Config, Docker, Entry, Keep, Ports, Publish, Trunk, Uplink, Vlan, Wan
from router.tables import Errors, Table
from router.vlans import Neighbours, read_vlan

__all__ = ["Config", "ConfigError", "Vlan", "load", "parse"]

_LONGEST_INTERFACE = 15
_MOST_MOVED = 512
"""Ports of a range with another ``to_port``: the kernel has an element for each, which the loop writes and reads back
when a table changes. So many take it 10 ms more than none, all of them seconds."""
_TOML_PLACE = re.compile(r"(.*) \(at (line [0-9]+, column [0-9]+|end of document)\)", re.DOTALL)


class ConfigError(Exception):
    """The file cannot be used. ``errors`` has one line for each thing wrong, ``place: message``."""

    def __init__(self, errors: list[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = errors


def load(path: Path, entries: Sequence[Entry] = ()) -> Config:
    """`parse` of a file. Raises `ConfigError`, also when the file cannot be read."""
    return parse(read(path), entries)


def read(path: Path) -> str:
    """The text of a file. Raises `ConfigError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror or error}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: byte {error.start} is not UTF-8"]) from None


def parse(source: str, entries: Sequence[Entry] = ()) -> Config:
    """The configuration in a TOML text, and with it the reservations of ``entries`` that find a place there
    (`Config.kept`). Raises `ConfigError`, and nothing else, with all errors of the text."""
    errors = Errors()
    root, additions = Table("", _toml(source), errors), Additions(entries)
    wan = _read_wan(root)
    vlans, nodes = _read_vlans(root, additions, wan)
    allow = tuple(_read_allow(table, nodes) for table in root.tables("allow"))
    publish = _read_publishes(root.tables("publish"), nodes)
    broadcast = tuple(_read_broadcast(table, nodes) for table in root.tables("broadcast"))
    docker, api = _read_docker(root), _read_api(root)
    trunk, history = _read_trunk(root, vlans), _read_history(root)
    root.finish()
    if errors.lines:
        raise ConfigError(errors.lines)
    return Config(
        vlans,
        wan,
        tuple(one for one in allow if one),
        publish,
        tuple(one for one in broadcast if one),
        docker,
        api,
        trunk,
        history,
        tuple(additions.kept),
    )


def _toml(source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(source)
    except RecursionError:
        raise ConfigError(["the file is nested too deeply"]) from None
    except tomllib.TOMLDecodeError as error:
        match = _TOML_PLACE.fullmatch(str(error))
        message = f"{match[2]}: {match[1]}" if match else str(error)
        raise ConfigError([message if message.isprintable() else ascii(message)[1:-1]]) from None
    except ValueError:
        raise ConfigError(["a number has thousands of digits"]) from None


def _read_wan(root: Table) -> Wan | None:
    table = root.table("wan")
    if table is None:
        return None
    wan = Wan(table.get("network", container_name), table.get("interface", interface), _read_uplink(table))
    if "network" in table and "interface" in table:
        table.error("interface", "[wan] with a network cannot have an interface as well")
    if "network" not in table and "interface" not in table:
        table.errors.add(table.place, "expected network or interface")
    for key, value in {"network": wan.network, "interface": wan.interface}.items():
        if value is not None:
            table.errors.claim(key, value, table.place, table.at(key), value)
    for name in (wan.interface, wan.uplink and wan.uplink.parent):
        if name is not None:
            table.errors.claim("bridge", name, table.place, table.place, name)
    table.finish()
    return wan


_UPLINK = ("parent", "subnet", "gateway", "landing")


def _read_uplink(table: Table) -> Uplink | None:
    parent, gateway = table.get("parent", interface), table.get("gateway", address)
    subnet, landing = table.get("subnet", network), table.get("landing", network)
    written = [key for key in _UPLINK if key in table]
    if not written:
        return None
    if "network" not in table:
        table.error(written[0], "is for a [wan] with a network")
    for key in set(_UPLINK).difference(written):
        table.error(key, f"is missing: it goes with {written[0]}")
    if subnet is None or gateway is None or parent is None or landing is None:
        return None
    if why := unusable(subnet, gateway):
        table.error("gateway", why)
    if not landing.subnet_of(subnet):
        table.error("landing", f"{landing} is outside {subnet}")
    elif IPv4Address(gateway) in landing:
        table.error("landing", f"{landing} contains the gateway's address {dotted(gateway)}")
    return Uplink(parent, subnet, gateway, landing)


def _read_trunk(root: Table, vlans: tuple[Vlan, ...]) -> Trunk | None:
    table = root.table("trunk")
    if table is None:
        return None
    name = table.need("interface", interface)
    table.finish()
    ours = {name, *(f"{name}.{vlan.tag}" for vlan in vlans)} if name else set()
    for index, vlan in enumerate(vlans):
        if vlan.bridge in ours:
            table.errors.add(f"vlan[{index}].bridge", f"{vlan.bridge} is the trunk, or its interface for a VLAN")
        if vlan.bridge is None:
            table.errors.add(f"vlan[{index}].bridge", "is missing: with [trunk] each VLAN has a bridge on the host")
        if name and len(f"{name}.{vlan.tag}") > _LONGEST_INTERFACE:
            table.error("interface", f"{name}.{vlan.tag}, for {vlan.scope.name}, is longer than 15 characters")
    return Trunk(name) if name else None


def _read_vlans(root: Table, additions: Additions, wan: Wan | None) -> tuple[tuple[Vlan, ...], Nodes]:
    tables = root.tables("vlan")
    if not tables:
        root.error("vlan", "at least one [[vlan]] is needed")
    before = Neighbours()
    if wan is not None and wan.uplink is not None:
        before.subnets["wan"] = wan.uplink.subnet
    vlans = tuple(vlan for vlan in [read_vlan(table, before, additions) for table in tables] if vlan)
    return vlans, Nodes((vlan.scope for vlan in vlans), before.names, has_wan="wan" in root)


def _read_allow(table: Table, nodes: Nodes) -> Allow | None:
    source, target = table.need("from", nodes.node), table.need("to", nodes.node)
    allowed = tuple(one for _, one in table.each("ports", ports, some=True))
    if source is not None and source == target:
        table.error("to", f"{target} is the same as from")
    table.finish()
    return Allow(source, target, allowed) if source and target else None


def _read_publishes(tables: list[Table], nodes: Nodes) -> tuple[Publish, ...]:
    found: list[tuple[str, Publish]] = []
    for table in tables:
        publish = _read_publish(table, nodes)
        if publish is None:
            continue
        other = next((place for place, one in found if publish.ports.overlaps(one.ports)), None)
        if other:
            table.error("port", f"{publish.ports} is published already by {other}")
        found.append((table.place, publish))
    return tuple(publish for _, publish in found)


def _read_publish(table: Table, nodes: Nodes) -> Publish | None:
    if not nodes.has_wan:
        table.errors.add(table.place, "there is no [wan] to publish on")
    published, target = table.need("port", _forwarded), table.need("to", nodes.single)
    to_port = table.get("to_port", partial(_to_port, published))
    table.finish()
    if published is None or target is None:
        return None
    first = to_port or published.first
    if first + published.last - published.first > 65535:
        table.error("to_port", f"{published} moved to {first} ends above 65535")
    if first != published.first and (size := published.last - published.first + 1) > _MOST_MOVED:
        table.error("to_port", f"{published} has {size} ports, of which at most {_MOST_MOVED} can be moved")
    return Publish(published, target, first)


def _forwarded(value: object) -> Ports:
    found = ports(value)
    if found.protocol == "icmp":
        raise ValueError("expected tcp or udp with a port; icmp has none")
    return found


def _to_port(published: Ports | None, value: object) -> int:
    """``80`` or ``"tcp/80"``; the protocol cannot change."""
    if not isinstance(value, str):
        return port(value)
    found = ports(value)
    if found.first != found.last or (published is not None and found.protocol != published.protocol):
        raise ValueError(f"expected one port of the same protocol, not {shown(value)}")
    return port(found.first)


def _read_broadcast(table: Table, nodes: Nodes) -> Broadcast | None:
    name, number = table.need("name", node_name), table.need("port", port)
    source = table.need("from", nodes.vlan_or_router)
    targets = table.each("to", nodes.vlan, some=True)
    if "to" not in table:
        table.error("to", "is missing")
    for place, target in targets:
        if target == source:
            table.errors.add(place, f"{target} is the same as from")
        table.errors.claim((table.place, "to"), target, place, place, target)
    group = table.get("group", _multicast)
    if name:
        table.errors.claim("broadcast", name, table.place, table.at("name"), name)
    table.finish()
    if name is None or number is None or source is None:
        return None
    return Broadcast(name, number, source, tuple(target for _, target in targets), group)


def _multicast(value: object) -> int:
    found = address(value)
    if found >> 28 != 0xE:
        raise ValueError(f"{dotted(found)} is no multicast group, expected 224.0.0.0 to 239.255.255.255")
    return found


def _absolute(value: object) -> str:
    if not text(value).startswith("/"):
        raise ValueError(f"expected an absolute path, not {shown(value)}")
    return text(value)


def _read_docker(root: Table) -> Docker:
    default, table = Docker(), root.table("docker")
    if table is None:
        return default
    docker = Docker(
        table.get("socket", _absolute, default.socket),
        table.get("netns", _absolute, default.netns),
        table.get("adopt", boolean, default.adopt),
    )
    table.finish()
    return docker


_SIZE = re.compile(r"([0-9]{1,6})(MiB|GiB)")
_SMALLEST_HISTORY = 8 << 20


def _size(value: object) -> int:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or (size := int(match[1]) << (20 if match[2] == "MiB" else 30)) < _SMALLEST_HISTORY:
        raise ValueError(f'expected a size such as "150MiB" or "1GiB", at least "8MiB", not {shown(value)}')
    return size


def _read_history(root: Table) -> Keep:
    default, table = Keep(), root.table("history")
    if table is None:
        return default
    keep = Keep(table.get("max_age", duration, default.max_age), table.get("max_size", _size, default.max_size))
    table.finish()
    return keep


def _listen(value: object) -> tuple[str, int]:
    host, _, number = text(value).rpartition(":")
    try:
        return dotted(address(host)), port(int(number))
    except ValueError:
        raise ValueError(f"expected an address and a port such as 127.0.0.1:8067, not {shown(value)}") from None


def _token(value: object) -> str:
    """What fits into an HTTP header; the message does not tell the value."""
    if not isinstance(value, str) or not re.fullmatch("[!-~]+", value):
        raise ValueError("expected visible ASCII characters without spaces")
    return value


def _read_api(root: Table) -> Api | None:
    table = root.table("api")
    if table is None:
        return None
    listen = table.need("listen", _listen)
    token = table.need("token", _token, "the API on TCP is open only to who knows it")
    hosts = tuple(one.lower() for _, one in table.each("hosts", domain))
    table.finish()
    return Api(*listen, token, hosts) if listen and token else None
