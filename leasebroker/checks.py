"""What is wrong with a network or a container's wish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dhcpd.pool import dotted
from leasebroker.containers import Problem

if TYPE_CHECKING:
    from leasebroker.containers import Network, Wish
    from leasebroker.known import Leg

_ICC = "com.docker.network.bridge.enable_icc"
_INHIBIT = "com.docker.network.bridge.inhibit_ipv4"
_TRUE = frozenset({"true", "t", "1"})
"""As the engine reads an option, in any case."""


def network_problem(leg: Leg, network: Network | None, *, filtered: bool) -> Problem | None:
    """Why containers of a network cannot be on its VLAN, None when they can.

    ``filtered``: bridged frames pass the host's FORWARD chain (br_netfilter).
    """
    if network is None:
        return Problem(f"Docker has no network {leg.network} for {leg.vlan}", _create(leg), ": ")
    wrong = next(differences(leg, network, filtered=filtered), None)
    if wrong is None:
        return None
    return Problem(f"network {leg.network}: {wrong}", f"remove it and create it again: {_create(leg)}")


def unclear_network(leg: Leg, why: str) -> Problem:
    """The engine does not say what a network is like: there are several of its name, or it cannot be read."""
    cure = f"see with docker network ls that there is one of that name, created by {_create(leg)}"
    return Problem(f"network {leg.network} of {leg.vlan}: {why}", cure)


def _create(leg: Leg) -> str:
    landing = f" --ip-range {leg.landing}" if leg.landing is not None else ""
    options = f"--gateway {dotted(leg.router)}{landing} -o {_INHIBIT}=true"
    return f"docker network create --subnet {leg.subnet} {options} {leg.network}"


def differences(leg: Leg, network: Network, *, filtered: bool) -> Iterator[str]:
    """What of a network is not as its VLAN needs it."""
    if network.subnet != leg.subnet:
        yield f"its subnet is {network.subnet}, that of {leg.vlan} is {leg.subnet}"
    if network.gateway != leg.router:
        yield f"its gateway is {dotted(network.gateway)}, the router of {leg.vlan} is {dotted(leg.router)}"
    if network.landing is None:
        yield "it has no --ip-range, so that Docker hands out addresses of the pools"
    elif leg.landing is not None and not network.landing.subnet_of(leg.landing):
        yield f"its --ip-range {network.landing} is outside the landing range {leg.landing} of {leg.vlan}"
    if network.internal:
        yield "it is --internal, which drops DHCP broadcasts"
    if filtered and network.options.get(_ICC) == "false":
        yield "inter-container communication is off (enable_icc=false), which drops frames between its ports"
    if network.driver == "bridge" and (value := network.options.get(_INHIBIT, "not set")).lower() not in _TRUE:
        yield f"its {_INHIBIT} is {value}, not true"  # the host would have the router's address


def lease_problems(
    leg: Leg, container: str, wish: Wish, address: int | None, *, reserved: bool = False
) -> Iterator[Problem]:
    """What of a container's wish could not be fulfilled. ``reserved``: the operator has written down that address for
    it, who may know of no wish: adoption told Docker the lease of before."""
    if address is None:
        cure = "enlarge its pools, or with known_only reserve one"
        if leg.is_external:
            cure = "see that its DHCP server runs and has a free address"
        yield Problem(f"container {container} has no lease on {leg.vlan}", cure, ": ")
    elif wish.address is not None and wish.address != address and leg.is_external:
        yield Problem(
            f"container {container} asks for {dotted(wish.address)} on {leg.vlan}, whose DHCP server gave it "
            f"{dotted(address)}",
            "reserve the address there",
            ": ",
        )
    elif wish.address is not None and wish.address != address and not reserved:
        yield Problem(
            f"container {container} asks for {dotted(wish.address)} on {leg.vlan}, which is another's, the router's or "
            f"Docker's: it has {dotted(address)}",
            "ask for a free one",
        )
