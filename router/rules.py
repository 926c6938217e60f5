"""The configuration as one nftables table, the same text for the same values.

An established packet passes three rules with one look-up among them, and one rule more where connections may begin in
the WAN, whatever the configuration; the first packet of a connection passes one rule more for each set. VLANs, nodes
and exceptions are elements.

- ``forward``: a packet has an address of the leg it came in on (with ``guard``: a leased one, and the holder's MAC);
  connections go from a VLAN to the WAN, from the WAN to what is published, and where an ``[[allow]]`` lets them.
  Nothing else is forwarded, of other interfaces neither: what is no leg now may be one that has just come, one whose
  VLAN was taken out of the file or an uplink of before, and the kernel forwards because we told it to.
- ``input``: a VLAN reaches the router's address in that VLAN, and there DHCP, ping and ``router_ports``; where a group
  is relayed from, IGMP too: a router that hears no queries is soon no member any more. Interfaces that are neither a
  leg nor the WAN are not ours, but no packet of theirs gets to the addresses of a VLAN, and while the WAN's is not
  known they are as closed as the WAN.
- IPv6 is not forwarded, and not taken in from a leg.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dhcpd.wire import SERVER_PORT
from router.elements import (
    ENCRYPTED,
    PAIRS,
    Wiring,
    comment,
    exceptions,
    published,
    quoted,
    reserved_members,
    wan_to_router,
)
from router.nftables import Ruleset, Set
from router.settings import Config, Kind, Vlan

_INTERFACE, _ADDRESS, _SERVICE = "ifname", "ipv4_addr", "inet_proto . inet_service"
_INDEX, _VLANS = "iface_index", 4094
"""By number an interface is found in a third of the time, and in a map whose size is known again in less."""
_ASKED = "ip protocol . th dport"
"""Matches a service. ``meta l4proto`` would do as well, but Linux 7 refuses it in the key of an interval set."""
_ABOUT = {"vlan_to_node": "[[vlan]] router_ports, [[allow]], [[broadcast]]"}
_KINDS = {"vlan": _INTERFACE, "node": _ADDRESS}
_SOURCES = {"vlan": "iifname", "node": "ip saddr"}
_TARGETS = {"vlan": "oifname", "node": "ip daddr"}


def ruleset(
    config: Config,
    legs: Mapping[str, str],
    wan: str | None,
    nodes: Mapping[tuple[str, str], int],
    indexes: Mapping[str, int] | None = None,
    *,
    offload: bool = False,
) -> Ruleset:
    """The rules of a configuration.

    ``legs`` has the interface of each VLAN by its name, without those that are away; ``wan`` is the uplink;
    ``nodes`` has the addresses of (VLAN, name) that the file does not tell; ``indexes`` has the numbers of the
    interfaces, without which these have to be there when the kernel gets the rules. ``offload``: it has flowtables.
    """
    wiring = Wiring(legs, wan, nodes, indexes or {})
    placed = [(f"vlan[{index}]", vlan) for index, vlan in enumerate(config.vlans)]
    served = [(place, vlan) for place, vlan in placed if vlan.scope.name in legs]
    fast = [legs[vlan.scope.name] for _, vlan in served if not vlan.guard] if offload and wan else []
    has_inbound = _has_inbound(config)
    chains = {"forward": _forward(wan, has_inbound=has_inbound), "input": _input(config, wan)}
    for place, vlan in served:
        chains |= _vlan_chains(place, vlan, _groups(config, vlan), fast=legs[vlan.scope.name] in fast)
    chains |= {"fast_path": _fast_path(wan)} if fast and wan else {}
    chains |= {"connections": _connections(wan, has_inbound=has_inbound), "services": _services(), "errors": _errors()}
    if wan:
        chains["encrypted_only"] = _encrypted_only()
        chains |= {"prerouting": _prerouting(wan) if config.publish else [], "postrouting": _postrouting(wan)}
    return Ruleset(_sets(config, wiring, placed, served), chains, _flowtables(fast, wan))


# -- sets


def _sets(
    config: Config, wiring: Wiring, placed: Sequence[tuple[str, Vlan]], served: Sequence[tuple[str, Vlan]]
) -> dict[str, Set]:
    subnets = {str(vlan.scope.subnet): place for place, vlan in placed}
    within = {f"{subnet} . {subnet}": place for subnet, place in subnets.items()}
    sets = {
        "subnets": Set(_ADDRESS, "[[vlan]] subnet", subnets, flags="interval"),
        "within_vlan": Set(f"{_ADDRESS} . {_ADDRESS}", "[[vlan]] subnet", within, flags="interval"),
    }
    for name, elements in exceptions(config, wiring).items():
        source, target = name.split("_to_")
        key = f"{_KINDS[source]} . {_KINDS[target]} . {_SERVICE}"
        sets[name] = Set(key, _ABOUT.get(name, "[[allow]]"), elements, flags="interval")
    for place, vlan in served:
        if vlan.guard:
            members = reserved_members(vlan, place)
            sets[guard_set(vlan.scope.name)] = Set(
                f"ether_addr . {_ADDRESS}", f"{place}.guard", members, flags="timeout"
            )
    if config.wan:
        sets["wan_to_router"] = Set(_SERVICE, "[[allow]]", wan_to_router(config), flags="interval")
    if wiring.wan:
        sets |= _publish_sets(config, wiring)
    return sets | _verdicts(wiring, served)


def _publish_sets(config: Config, wiring: Wiring) -> dict[str, Set]:
    kept, moved = published(config, wiring)
    about = "[[publish]]"
    return {
        "publish": Set(f"{_SERVICE} : {_ADDRESS}", about, kept, "map", "interval"),
        "publish_moved": Set(f"{_SERVICE} : {_ADDRESS} . inet_service", f"{about} to_port", moved, "map"),
    }


def _verdicts(wiring: Wiring, served: Sequence[tuple[str, Vlan]]) -> dict[str, Set]:
    """What becomes of a packet by its interface."""
    legs = [(place, vlan, wiring.index(wiring.legs[vlan.scope.name])) for place, vlan in served]
    forward = {f"{leg} : goto {_chain('from', vlan)}": place for place, vlan, leg in legs if leg}
    to_router = {f"{leg} : goto {_chain('to_router', vlan)}": place for place, vlan, leg in legs if leg}
    sets = {
        "from_legs": Set(f"{_INDEX} : verdict", "[[vlan]]", forward, "map", size=_VLANS),
        "legs_to_router": Set(f"{_INDEX} : verdict", "[[vlan]]", to_router, "map", size=_VLANS),
    }
    if wiring.wan:
        wan = wiring.index(wiring.wan)
        exits = {f"{leg} . {wan} : {_exit(vlan)}": _exit_place(place, vlan) for place, vlan, leg in legs if leg and wan}
        sets["exits"] = Set(f"{_INDEX} . {_INDEX} : verdict", "[[vlan]] to [wan]", exits, "map", size=_VLANS)
    return sets


def _exit(vlan: Vlan) -> str:
    return "jump encrypted_only" if vlan.encrypted_only else "accept"


def _exit_place(place: str, vlan: Vlan) -> str:
    return f"{place}.encrypted_only" if vlan.encrypted_only else place


def guard_set(vlan: str) -> str:
    """The set of a guarded VLAN's members, ``MAC . address``."""
    return f"guard_{vlan}"


def _chain(what: str, vlan: Vlan) -> str:
    return f"{what}_{vlan.scope.name}"


# -- chains


def _about(what: str) -> str:
    return f'comment "{what}"'


def _has_inbound(config: Config) -> bool:
    """Whether a connection may begin in the WAN."""
    return bool(config.publish) or any(one.source.kind is Kind.WAN for one in config.allow)


def _clamp(wan: str | None) -> list[str]:
    """RFC 4459 section 3.2."""
    if wan is None:
        return []
    what = f"tcp flags & (syn | rst) == syn oifname {quoted(wan)} tcp option maxseg size set rt mtu"
    return [f"{what} {_about('[wan] path MTU')}"]


def _forward(wan: str | None, *, has_inbound: bool) -> list[str]:
    """The clamp comes first where SYNs of the WAN are answered: an answer is established already."""
    return [
        *(_clamp(wan) if has_inbound else []),
        f"iif vmap @from_legs {_about('[[vlan]]')}",
        f"ip saddr @subnets counter drop {_about('[[vlan]] subnet: not from this interface')}",
        f"goto connections {_about('[wan]')}",
    ]


def _groups(config: Config, vlan: Vlan) -> list[str]:
    """The broadcasts for which the router is a member of a group in the VLAN."""
    heard = enumerate(config.broadcast)
    return [f"broadcast[{at}]" for at, one in heard if one.source.vlan == vlan.scope.name and one.group is not None]


def _vlan_chains(place: str, vlan: Vlan, groups: Sequence[str], *, fast: bool) -> dict[str, list[str]]:
    subnet = f"ip saddr {vlan.scope.subnet}"
    member, about = (subnet, place) if not vlan.guard else (f"ether saddr . ip saddr @{guard_set(vlan.scope.name)}", "")
    about = about or f"{place}.guard"
    spoofed = f"counter drop {_about(f'{about}: source not allowed')}"
    heard = f"ip daddr 255.255.255.255 udp dport {SERVER_PORT} accept"
    asked = f"ip protocol igmp ip daddr 224.0.0.0/4 accept {_about(comment(groups))}"
    return {
        _chain("from", vlan): [f"{member} goto {'fast_path' if fast else 'connections'} {_about(about)}", spoofed],
        _chain("to_router", vlan): [
            f"{heard} {_about(f'{place}: DHCP, from clients without an address or with that of another VLAN')}",
            *([asked] if groups else []),
            f"{subnet} goto services {_about(place)}",
            f"counter drop {_about(f'{place}: source not in the subnet')}",
        ],
    }


def _fast_path(wan: str) -> list[str]:
    """Only between the WAN and VLANs without a guard: what is offloaded passes no rule any more."""
    what = f"oifname {quoted(wan)} ct state established meta l4proto {{ tcp, udp }}"
    return [f"{what} flow add @fast {_about('[wan]')}", f"goto connections {_about('[[vlan]]')}"]


def _states() -> list[str]:
    """Not a map in the rule: it would miss while the rule is being replaced."""
    return [
        f"ct state established accept {_about('replies')}",
        f"ct state related,invalid goto errors {_about('ICMP errors')}",
    ]


def _errors() -> list[str]:
    """An error is let through by the connection that it says it is about, and anybody can say that: a VLAN may speak
    of connections with an end in it, others of those that leave the VLANs."""
    others = f"counter drop {_about('[[vlan]] subnet: an ICMP error about a connection of others')}"
    return [
        f"ct state invalid counter drop {_about('of no connection')}",
        *(f"ip saddr . ct {way} ip saddr @within_vlan accept {_about('ICMP errors')}" for way in ("original", "reply")),
        f"ip saddr @subnets {others}",
        f"ct original ip saddr @subnets ct reply ip saddr @subnets {others}",
        f"accept {_about('ICMP errors')}",
    ]


def _pair_rule(name: str, about: str) -> str:
    source, target = name.split("_to_")
    return f"{_SOURCES[source]} . {_TARGETS[target]} . {_ASKED} @{name} accept {_about(about)}"


def _connections(wan: str | None, *, has_inbound: bool) -> list[str]:
    """What a forwarded packet may do; at its end the policy of ``forward`` drops it."""
    to_wan = [
        f"iif . oif vmap @exits {_about('[[vlan]] to [wan]')}",
        f"iifname {quoted(wan or '')} ct status dnat accept {_about('[[publish]]')}",
    ]
    clamp = [] if has_inbound else _clamp(wan)
    return [*_states(), *clamp, *(to_wan if wan else []), *(_pair_rule(name, "[[allow]]") for name in PAIRS)]


def _encrypted_only() -> list[str]:
    about = _about("[[vlan]] encrypted_only")
    services = ", ".join(f"{protocol} . {port}" for protocol, ports in ENCRYPTED.items() for port in ports)
    return [
        f"{_ASKED} {{ {services} }} accept {about}",
        f"ip protocol esp accept {about}",
        f"icmp type echo-request accept {about}",
    ]


def _input(config: Config, wan: str | None) -> list[str]:
    """A leg that came back under another name is closed until the rules know it. An uplink that is not known may be
    any interface that is left."""
    from_wan = [
        f"udp sport 67 udp dport 68 accept {_about('[wan] its own address by DHCP')}",
        f"icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert }} accept {_about('[wan]')}",
        f"{_ASKED} @wan_to_router accept {_about('[[allow]] from wan to router')}",
        f"counter drop {_about('[wan]')}",
    ]
    uplink = f"iifname {quoted(wan)} " if wan else ""
    guarded = [f"{uplink}{rule}" for rule in from_wan] if config.wan else []
    foreign = _about("[[vlan]] subnet: not from this interface")
    return [
        f'iifname "lo" accept {_about("loopback")}',
        f"iif vmap @legs_to_router {_about('[[vlan]]')}",
        f"ip saddr @subnets counter drop {foreign}",
        *_states(),
        f"ip daddr @subnets counter drop {foreign}",
        *guarded,
    ]


def _services() -> list[str]:
    """What a VLAN's packet may ask of the router."""
    return [
        *_states(),
        _pair_rule("vlan_to_node", _ABOUT["vlan_to_node"]),
        _pair_rule("node_to_node", "[[allow]]"),
        f"counter drop {_about('[[vlan]] router_ports: not open')}",
    ]


def _prerouting(wan: str) -> list[str]:
    """``fib``: what the WAN sends through the router to somebody else is not for us."""
    ours = f"iifname {quoted(wan)} fib daddr type local meta l4proto {{ tcp, udp }}"
    about = _about("[[publish]]")
    return [
        f"{ours} dnat ip to {_ASKED} map @publish {about}",
        f"{ours} dnat ip addr . port to {_ASKED} map @publish_moved {about}",
    ]


def _postrouting(wan: str) -> list[str]:
    return [f"oifname {quoted(wan)} meta nfproto ipv4 masquerade {_about('[wan]')}"]


def _flowtables(fast: Sequence[str], wan: str | None) -> dict[str, list[str]]:
    if not fast or wan is None:
        return {}
    devices = ", ".join(quoted(one) for one in [*fast, wan])
    return {"fast": ["hook ingress priority filter;", f"devices = {{ {devices} }};"]}
