"""What a new configuration changes, as sentences for the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dhcpd.options import CLASSLESS_ROUTES, MICROSOFT_ROUTES, name_of, show
from dhcpd.pool import dotted
from dhcpd.settings import Boot, Options, Reservation, Scope
from dhcpd.values import shown, span
from router.plan import options_of
from router.settings import Api, Config, Vlan, Wan

Facts = Mapping[str, str]
"""What is compared -> how it is shown. What is not set is absent or empty."""


def diff(old: Config, new: Config) -> list[str]:
    """One sentence per change, in a fixed order. Never tells the token."""
    before = {vlan.scope.name: vlan for vlan in old.vlans}
    after = {vlan.scope.name: vlan for vlan in new.vlans}
    lines = [f"{name}: removed" for name in before if name not in after]
    for name, vlan in after.items():
        if name in before:
            lines += _vlan(name, before[name], vlan)
        else:
            lines.append(f"{name}: added ({vlan.scope.subnet}, tag {vlan.tag})")
    lines += _listed((*old.allow, *old.publish, *old.broadcast), (*new.allow, *new.publish, *new.broadcast))
    before_rest, after_rest = _rest(old), _rest(new)
    for name, facts in after_rest.items():
        lines += _facts(name, before_rest[name], facts)
    lines += _listening(old.api, new.api)
    if old.api and new.api and old.api.token != new.api.token:
        lines.append("api: token changed")
    return lines


def _listening(old: Api | None, new: Api | None) -> list[str]:
    """The socket is opened at the start; without ``[api]`` it answers nobody any more."""
    before, after = ({"listen": f"{one.host}:{one.port}"} if one else {} for one in (old, new))
    return [f"{line}{', from the next start on' if new else ''}" for line in _facts("api", before, after)]


def _vlan(name: str, old: Vlan, new: Vlan) -> list[str]:
    before = {one.name: one for one in old.scope.reservations}
    after = {one.name: one for one in new.scope.reservations}
    lines = _facts(name, _vlan_facts(old), _vlan_facts(new))
    lines += [f"{name}: reservation {one.name} removed" for one in before.values() if one.name not in after]
    for one in after.values():
        if one.name in before:
            lines += _facts(f"{name}: reservation {one.name}", _node_facts(before[one.name]), _node_facts(one))
        else:
            lines.append(f"{name}: reservation {one.name} added{_address(one)}")
    return lines


def _facts(what: str, old: Facts, new: Facts) -> list[str]:
    lines = []
    for key in {**new, **old}:
        before, after = old.get(key, ""), new.get(key, "")
        if before and after and before != after:
            lines.append(f"{what}: {key} {before} is now {after}")
        elif before != after:
            lines.append(f"{what}: {key} {before or after} {'removed' if before else 'added'}")
    return lines


def _listed(old: Iterable[object], new: Iterable[object]) -> list[str]:
    before, after = dict.fromkeys(map(str, old)), dict.fromkeys(map(str, new))
    removed = [f"{one} removed" for one in before if one not in after]
    return removed + [f"{one} added" for one in after if one not in before]


def _address(one: Reservation) -> str:
    return "" if one.address is None else f" ({dotted(one.address)})"


def _vlan_facts(vlan: Vlan) -> Facts:
    scope = vlan.scope
    computed = options_of(scope.subnet, scope.router)
    return {
        "tag": str(vlan.tag),
        "subnet": str(scope.subnet),
        "router": dotted(scope.router),
        "pool": ", ".join(map(str, scope.pools)),
        "landing": str(vlan.landing or ""),
        "network": vlan.network or "",
        "interface": vlan.interface or "",
        "bridge": vlan.bridge or "",
        "encrypted_only": shown(vlan.encrypted_only),
        "guard": shown(vlan.guard),
        "router_ports": ", ".join(map(str, vlan.router_ports)),
        "dhcp": "external" if scope.is_external else "own",
        **_scope_facts(scope),
        **_boot_facts(scope.boot),
        **_option_facts({code: data for code, data in scope.options.items() if computed.get(code) != data}),
    }


def _scope_facts(scope: Scope) -> Facts:
    times = ("lease_time", "min_lease_time", "max_lease_time", "quarantine")
    switches = ("authoritative", "match_client_id", "known_only", "probe", "t1", "t2")
    return {
        **{key: span(getattr(scope, key)) for key in times},
        **{key: shown(getattr(scope, key)) for key in switches},
        "always_broadcast": ", ".join(sorted(mac.hex(":") for mac in scope.always_broadcast)),
    }


def _boot_facts(boot: Boot) -> Facts:
    next_server = dotted(boot.next_server) if boot.next_server else ""
    return {"next_server": next_server, "server_name": boot.server_name, "boot_file": boot.file}


def _option_facts(options: Options) -> Facts:
    same = options.get(MICROSOFT_ROUTES) == options.get(CLASSLESS_ROUTES)
    told = {code: data for code, data in options.items() if not (same and code == MICROSOFT_ROUTES)}
    return {f"option {name_of(code)}": show(code, data) for code, data in told.items()}


def _node_facts(one: Reservation) -> Facts:
    return {
        "address": "" if one.address is None else dotted(one.address),
        "mac": ", ".join(mac.hex(":") for mac in one.macs),
        "client_id": "" if one.client_id is None else one.client_id.hex(":"),
        "container": one.container or "",
        **_boot_facts(one.boot or Boot()),
        **_option_facts(one.options),
    }


def _rest(config: Config) -> dict[str, Facts]:
    docker, api, trunk = config.docker, config.api, config.trunk
    return {
        "wan": _wan_facts(config.wan) if config.wan else {},
        "trunk": {"interface": trunk.interface} if trunk else {},
        "docker": {"socket": docker.socket, "netns": docker.netns, "adopt": shown(docker.adopt)},
        "history": {"max_age": span(config.history.max_age), "max_size": f"{config.history.max_size >> 20}MiB"},
        "api": {"hosts": ", ".join(api.hosts)} if api else {},
    }


def _wan_facts(wan: Wan) -> Facts:
    facts = {"network": wan.network or "", "interface": wan.interface or ""}
    if (uplink := wan.uplink) is not None:
        facts |= {
            "parent": uplink.parent,
            "subnet": str(uplink.subnet),
            "gateway": dotted(uplink.gateway),
            "landing": str(uplink.landing),
        }
    return facts
