"""The virtual truck with the rules in its router's kernel."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address

import pytest

from router.config import Config
from router.firewall import Firewall
from router.nftables import Ruleset
from router.sysctls import prepare
from tests.lab.routed import Routed, routed
from tests.router.cases import wired

Enforce = Callable[..., Ruleset]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Routed]:
    """One truck for a module; the rules of a test are gone after it."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with routed() as built:
        yield built


@pytest.fixture
def firewall(nodes: Routed) -> Iterator[Firewall]:
    """The firewall of the router, still without rules."""
    with nodes.on("router"):
        assert prepare(["leg1", "leg2"], "wan") == []
        made = Firewall()
    yield made
    made.close()
    nodes.close()
    nodes.truck.run("router", "nft", "flush", "ruleset")


@pytest.fixture
def enforce(nodes: Routed, firewall: Firewall) -> Enforce:
    """`enforce(configuration, addresses of nodes)` puts the rules of a configuration into the router's kernel."""

    def enforce(
        config: Config,
        names: Mapping[tuple[str, str], str] | None = None,
        *,
        uplink: str | None = "wan",
        offload: bool = False,
    ) -> Ruleset:
        known = {key: int(IPv4Address(address)) for key, address in (names or {}).items()}
        with nodes.on("router"):
            rules = wired(config, known, uplink=uplink, offload=offload)
            firewall.apply(rules, 0.0)
        return rules

    return enforce
