"""`lanward lease`: the address of a container, known before there is one."""

from __future__ import annotations

from ipaddress import IPv4Interface

import pytest

from tests.lab import netns
from tests.lab.edge import Edge
from tests.lab.service import Service

pytestmark = pytest.mark.one_engine


def test_a_container_can_be_given_its_lease_by_docker(edge: Edge, service: Service) -> None:
    service.start(edge.config())
    address = service.ask("lease", "vlan1", "web").strip()
    edge.run("web", "br0net", f"--ip={address}")
    assert edge.addresses("web") == [IPv4Interface(f"{address}/24")]
    assert service.ask("lease", "vlan1", "web").strip() == address


@pytest.mark.parametrize("asked_first", [True, False])
def test_a_container_has_the_same_address_without_it(asked_first: bool, edge: Edge, service: Service) -> None:
    service.start(edge.config())
    if asked_first:
        address = service.ask("lease", "vlan1", "web").strip()
    edge.run("web", "br0net")
    netns.wait_until(lambda: len(edge.addresses("web")) == 2, 60, "the lease")
    if not asked_first:
        address = service.ask("lease", "vlan1", "web").strip()
    first, docker = edge.addresses("web")
    assert first == IPv4Interface(f"{address}/24")
    assert docker.ip in edge.truck.plan.vlan("vlan1").landing
