"""What a configuration allows and its operator may not have meant."""

from __future__ import annotations

from collections.abc import Iterator

from router.settings import Allow, Config, Kind, Node


def warnings(config: Config) -> list[str]:
    """One line for each thing that is allowed but looks like an accident, ``place: message``."""
    known = {(vlan.scope.name, one.name) for vlan in config.vlans for one in vlan.scope.reservations}
    return [
        *_unknown_nodes(config, known),
        *(f"allow[{index}]: {why}" for index, one in enumerate(config.allow) if (why := _doubt(one, config))),
    ]


def _unknown_nodes(config: Config, known: set[tuple[str, str]]) -> Iterator[str]:
    ends = [
        *((f"allow[{index}].from", one.source) for index, one in enumerate(config.allow)),
        *((f"allow[{index}].to", one.target) for index, one in enumerate(config.allow)),
        *((f"publish[{index}].to", one.target) for index, one in enumerate(config.publish)),
    ]
    for place, node in ends:
        if node.kind is Kind.NODE and node.address is None and (node.vlan or "", node.name or "") not in known:
            yield f"{place}: no reservation is named {node}; closed until a node of that name has a lease"


def _doubt(allow: Allow, config: Config) -> str | None:
    source, target = allow.source, allow.target
    router = _router_of(target, config)
    if source.kind is Kind.ROUTER:
        return "the router reaches everything without it"
    if router and source.kind is Kind.WAN:
        return f"has no effect: from the WAN nothing gets to the router's address in {router}"
    if source.vlan is not None and source.vlan == target.vlan and not router:
        return f"within {source.vlan} packets do not pass the router, so this changes nothing"
    if target.kind is Kind.WAN and not _is_encrypted_only(source, config):
        return f"{source} reaches the WAN without it"
    if target.kind is Kind.VLAN and not allow.ports:
        return f"opens all of {target} to {'the whole WAN' if source.kind is Kind.WAN else source}, on all ports"
    if target.kind is Kind.ROUTER and source.kind is Kind.WAN and not allow.ports:
        return "opens all ports of the router to the whole WAN"
    return f"opens the router's address in {router} to {source}" if router and router != source.vlan else None


def _is_encrypted_only(source: Node, config: Config) -> bool:
    return any(vlan.encrypted_only for vlan in config.vlans if vlan.scope.name == source.vlan)


def _router_of(node: Node, config: Config) -> str | None:
    return next((vlan.scope.name for vlan in config.vlans if vlan.scope.router == node.address), None)
