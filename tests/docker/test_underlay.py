"""The Docker networks that the underlay makes, on real engines."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing

import pytest
from pyroute2 import IPRoute

from leasebroker.docker_feed import Engine
from router import underlay
from router.config import parse
from router.host import Hand, observe
from router.settings import Config
from router.underlay import AddNetwork, RemoveNetwork, UnderlayError
from tests.lab import netns
from tests.lab.edge import Edge
from tests.lab.inside import inside


@pytest.fixture
def config(edge: Edge) -> Iterator[Config]:
    edge.engine.remove_networks("br0net", "br1net")
    yield parse(edge.config())
    edge.networks()


def test_networks_are_made_as_the_router_needs_them_and_removed(edge: Edge, config: Config) -> None:
    with inside(edge.truck.netns("host")), IPRoute() as kernel, closing(Engine(config.docker.socket)) as engine:
        hand = Hand(kernel, engine)
        wanted = underlay.up(config, observe(config, kernel, engine)._replace(links=_trunk()))
        hand.carry_out([one for one in wanted if isinstance(one, AddNetwork)])
        seen = observe(config, kernel, engine)
        assert set(seen.networks) == {"br0net", "br1net"}
        assert not [one for one in underlay.up(config, seen._replace(links=_trunk())) if isinstance(one, AddNetwork)]
        edge.run("web")
        busy = observe(config, kernel, engine)
        with pytest.raises(UnderlayError, match="has containers: stop them first"):
            underlay.down(busy)
        edge.engine.remove_containers()
        hand.carry_out(underlay.down(observe(config, kernel, engine)))
        assert not observe(config, kernel, engine).networks


def test_a_network_goes_when_the_engine_has_done_with_its_last_container(edge: Edge, config: Config) -> None:
    edge.networks()
    edge.run("web")
    with inside(edge.truck.netns("host")), IPRoute() as kernel, closing(Engine(config.docker.socket)) as engine:
        with ThreadPoolExecutor(1) as pool:
            removal = pool.submit(Hand(kernel, engine).carry_out, [RemoveNetwork("br0net")])
            assert not wait([removal], 0.5).done
            edge.engine.remove_containers()
        removal.result()
        assert set(observe(config, kernel, engine).networks) == {"br1net"}


def test_a_network_with_other_settings_is_refused(edge: Edge, config: Config) -> None:
    edge.engine.network("br0net", "10.0.1.0/24", "10.0.1.1", "10.0.1.240/28", "br0", inhibit_ipv4=False)
    with inside(edge.truck.netns("host")), IPRoute() as kernel, closing(Engine(config.docker.socket)) as engine:
        seen = observe(config, kernel, engine)._replace(links=_trunk())
    with pytest.raises(UnderlayError, match="inhibit_ipv4 is not set, not true; correct docker-compose"):
        underlay.up(config, seen)
    edge.engine.remove_networks("br0net")
    netns.batch(["addr flush dev br0"], edge.truck.netns("host"))  # which the engine leaves there


def _trunk() -> dict[str, underlay.HostLink]:
    return {"enp2s0": underlay.HostLink("enp2s0")}
