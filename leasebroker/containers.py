"""The engine's JSON -> containers, networks, and what each container asks for. Readers raise ValueError."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network, ip_address
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from leasebroker.identity import container_name

IDENTITY, ADDRESS, HOSTNAME, GATEWAY = "lanward.identity", "lanward.address", "lanward.hostname", "lanward.gateway"
"""Labels that a container may have."""

_TEMPORARY = re.compile("[0-9a-f]{12}_([a-zA-Z0-9][a-zA-Z0-9_.-]+)")

AT_REST = frozenset({"created", "exited"})
STARTED = frozenset({"running", "paused"})


class Problem(str):
    """What is wrong, in one sentence that ends with its cure."""

    what: str
    cure: str

    def __new__(cls, what: str, cure: str, joint: str = "; ") -> Self:
        made = super().__new__(cls, f"{what}{joint}{cure}")
        made.what, made.cure = what, cure
        return made

    @classmethod
    def joined(cls, problems: Sequence[Problem]) -> Problem | None:
        """Several as one, None when there are none."""
        if len(problems) < 2:
            return problems[0] if problems else None
        made = str.__new__(cls, "; ".join(problems))
        made.what, made.cure = ("; ".join(getattr(one, part) for one in problems) for part in ("what", "cure"))
        return made


class Endpoint(NamedTuple):
    """A container on one network. Addresses are integers, 0 for none; ``mac`` is empty while it is not started."""

    mac: bytes = b""
    address: int = 0
    """The address that Docker gave."""
    requested: int = 0
    """The address that Docker was told to give (``--ip``)."""


class Container(NamedTuple):
    id: str
    name: str
    labels: Mapping[str, str]
    state: str
    """``created``, ``running``, ``paused``, ``restarting``, ``exited``, ``removing`` or ``dead``."""
    created: int
    """Seconds since the epoch."""
    endpoints: Mapping[str, Endpoint]
    """By the name of the network."""


class Member(NamedTuple):
    """Who a network shows on it: running, or about to. Until a container's first instruction some engines know its name
    only, and ``id`` is none."""

    id: str
    name: str
    mac: bytes
    address: int


class Network(NamedTuple):
    id: str
    name: str
    driver: str
    subnet: IPv4Network | None
    gateway: int
    landing: IPv4Network | None
    """``--ip-range``"""
    internal: bool
    options: Mapping[str, str]
    members: tuple[Member, ...]
    labels: Mapping[str, str] = MappingProxyType({})


class Wish(NamedTuple):
    """What a container asks for on one network."""

    identity: str
    hostname: str
    address: int | None = None
    problems: tuple[Problem, ...] = ()


def read_containers(found: Iterable[Any]) -> tuple[list[Container], dict[str, Problem]]:
    """The answer of ``GET /containers/json``, and what is wrong with those that cannot be read, by their names."""
    read: list[Container] = []
    unread: dict[str, Problem] = {}
    for one in found:
        try:
            read.append(read_container(one))
        except ValueError as error:
            name = _shown_name(one)
            what = f"container {name} has no lease: {error}"
            unread[name] = Problem(what, "make it again with that in its usual form")
    return read, unread


def _shown_name(found: Any) -> str:
    """Of one that is described in an unknown way."""
    try:
        return _own_name(found["Names"])
    except (AttributeError, KeyError, TypeError, IndexError):
        return str(found.get("Id"))[:12] if isinstance(found, dict) else "?"


def read_container(found: Any) -> Container:
    """One object of ``GET /containers/json``."""
    try:
        networks = (found["NetworkSettings"] or {}).get("Networks") or {}
        return Container(
            str(found["Id"]),
            _own_name(found["Names"] or ["/" + found["Id"][:12]]),
            dict(found["Labels"] or {}),
            str(found["State"]),
            int(found["Created"]),
            {name: _endpoint(one) for name, one in networks.items()},
        )
    except (AttributeError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"the engine describes a container in an unknown way: {error!r}") from None


def _own_name(names: list[str]) -> str:
    """The name among the aliases that links give: ``/name``, not ``/other/alias``."""
    return next((one[1:] for one in names if "/" not in one[1:]), names[0][1:])


def _endpoint(found: Any) -> Endpoint:
    requested = (found.get("IPAMConfig") or {}).get("IPv4Address")
    return Endpoint(_mac(found.get("MacAddress")), _address(found.get("IPAddress")), _address(requested))


def _mac(text: str | None) -> bytes:
    """Docker takes, and on some engines shows, ``02-42-0a-00-01-05`` and ``0242.0a00.0105`` too."""
    try:
        return bytes.fromhex(re.sub("[:.-]", "", text or ""))
    except ValueError:
        raise ValueError(f"{text!r} is no MAC address") from None


def _address(text: str | None) -> int:
    """``10.0.1.20``, ``10.0.1.20/24`` or ``::ffff:10.0.1.20``"""
    if not text:
        return 0
    found = ip_address(text.partition("/")[0])
    address = found if isinstance(found, IPv4Address) else found.ipv4_mapped
    if address is None:
        raise ValueError(f"{text!r} is no IPv4 address")
    return int(address)


def read_network(found: Any) -> Network:
    """The answer of ``GET /networks/NAME``."""
    try:
        pools = [one for one in (found.get("IPAM") or {}).get("Config") or [] if ":" not in one.get("Subnet", "")]
        pool = pools[0] if pools else {}
        members = (found.get("Containers") or {}).items()
        return Network(
            str(found["Id"]),
            str(found["Name"]),
            str(found["Driver"]),
            IPv4Network(pool["Subnet"], strict=False) if pool.get("Subnet") else None,
            _address(pool.get("Gateway")),
            IPv4Network(pool["IPRange"], strict=False) if pool.get("IPRange") else None,
            bool(found.get("Internal")),
            dict(found.get("Options") or {}),
            tuple(_member(id_, one) for id_, one in members),
            dict(found.get("Labels") or {}),
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the engine describes a network in an unknown way: {error!r}") from None


def _member(id_: str, found: Any) -> Member:
    return Member(id_, str(found["Name"]), _mac(found.get("MacAddress")), _address(found.get("IPv4Address")))


def wishes(
    containers: Iterable[Container], network: str, held: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Wish]:
    """What each container on a network asks for, by its id. An identity belongs to the container that was created
    first, of one second to the one that comes first; one that claims it as well goes by its own name. One that has
    Compose's name for the time being comes last: what it had is the new one's.

    ``held``: what they go by now, by their ids. One that runs keeps that for as long as it may have it.
    """
    there = [(one, _wish(one, network)) for one in containers if network in one.endpoints]
    kept = {
        one.id: held[one.id]
        for one, wish in there
        if one.state in STARTED and held.get(one.id) in _allowed(one, wish, network)
    }
    there.sort(key=lambda each: (each[0].id not in kept, _lasting_name(each[0]) != each[0].name, each[0].created))
    found: dict[str, Wish] = {}
    owners: dict[str, str] = {}
    for one, wish in there:
        free = [identity for identity in _allowed(one, wish, network) if identity not in owners]
        identity = kept[one.id] if kept.get(one.id) in free else free[0]
        is_second = identity != wish.identity
        found[one.id] = _second(one, wish, identity, owners.get(wish.identity)) if is_second else wish
        owners[identity] = one.name
    return found


def _allowed(one: Container, wish: Wish, network: str) -> tuple[str, ...]:
    """The identities that a container may go by, the best first. The last is no other's: no label has ``@`` in it."""
    name = _lasting_name(one)
    return wish.identity, name, f"{name}@{network}", f"{one.name}@{network}"


def _wish(one: Container, network: str) -> Wish:
    problems: list[Problem] = []
    identity = _label(one, IDENTITY, container_name, problems) or _lasting_name(one)
    address = _label(one, ADDRESS, _labelled_address, problems) or one.endpoints[network].requested or None
    hostname = one.labels.get(HOSTNAME) or identity
    return Wish(identity, hostname, address, tuple(problems))


def _label(one: Container, label: str, reader: Any, problems: list[Problem]) -> Any:
    """The label's value, None when there is none or it is no good."""
    text = one.labels.get(label)
    if text is None:
        return None
    try:
        return reader(text)
    except ValueError as error:
        what = f"container {one.name}: label {label}={text!r}: {error}"
        problems.append(Problem(what, "it is ignored until it is corrected"))
        return None


def _labelled_address(text: str) -> int:
    try:
        return int(IPv4Address(text))
    except ValueError:
        raise ValueError("expected an IPv4 address such as 10.0.1.20") from None


def _second(one: Container, wish: Wish, identity: str, owner: str | None) -> Wish:
    """``owner`` None: it is gone, or goes by another identity by now."""
    whose, cure = "that another had when it came", "start it again to have that one's address"
    if owner is not None:
        whose, cure = f"of container {owner}", f"give it another label {IDENTITY}"
    claims = f"container {one.name} claims the identity {wish.identity} {whose}"
    problem = Problem(f"{claims}: it has an address of its own, as {identity}", cure)
    return wish._replace(identity=identity, address=None, problems=(*wish.problems, problem))


def is_transient(one: Container) -> bool:
    """Whether Compose is replacing the container and has given it a name for the time being: a new one until it starts,
    an old one before it goes."""
    return one.state not in STARTED and _lasting_name(one) != one.name


def _lasting_name(one: Container) -> str:
    """The name without what Compose puts before it for the time being, as ``ID_name``. One that is left with that when
    Compose is interrupted is started later as it is."""
    found = _TEMPORARY.fullmatch(one.name) if "com.docker.compose.project" in one.labels else None
    return one.name if found is None else found[1]


def gateway_choice(one: Container, legs: Iterable[tuple[str, str]]) -> str | None:
    """The network by whose router the container's default route goes, None when Docker's own stays.

    ``legs`` are (VLAN, network) in the order of the configuration. The label ``lanward.gateway`` is ``false``, or names
    a VLAN or a network.
    """
    candidates = [leg for leg in legs if leg[1] in one.endpoints]
    if _keeps_docker_route(one) or not candidates:
        return None
    return next((leg[1] for leg in candidates if one.labels.get(GATEWAY) in leg), candidates[0][1])


def _keeps_docker_route(one: Container) -> bool:
    return one.labels.get(GATEWAY, "").lower() == "false"


def gateway_problem(one: Container, legs: Iterable[tuple[str, str]]) -> Problem | None:
    """What is wrong with the label that `gateway_choice` reads."""
    label = one.labels.get(GATEWAY)
    candidates = [leg for leg in legs if leg[1] in one.endpoints]
    if label is None or _keeps_docker_route(one) or not candidates or any(label in leg for leg in candidates):
        return None
    expected = ", ".join(vlan for vlan, _ in candidates)
    what = f"container {one.name}: label {GATEWAY}={label!r}: expected a VLAN that it is on ({expected}), or false"
    return Problem(what, f"its default route goes by {candidates[0][0]} until it is corrected")
