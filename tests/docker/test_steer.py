"""Containers are steered: a reservation moves one that runs, and a lease goes only with its container."""

from __future__ import annotations

import subprocess
from ipaddress import IPv4Address

import pytest

from tests.docker.managed import Managed
from tests.lab.netns import wait_until
from tests.lab.service import COMMAND, REPOSITORY

pytestmark = pytest.mark.one_engine
RESERVED = "10.0.1.77"


def lanward(managed: Managed, *words: str) -> tuple[int, str]:
    """Exit code and errors of a command."""
    command = [*COMMAND, *words, "--state", str(managed.service.state)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=30)
    return done.returncode, done.stderr


def test_a_reservation_moves_a_container_that_runs(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web")
    managed.edge.run("other")
    before = managed.lease("web"), managed.lease("other")
    managed.engine.docker("stop", "--time", "0", "web")
    assert managed.adopted("web") == str(before[0])
    managed.engine.docker("start", "web")
    assert managed.lease("web") == before[0]
    managed.service.ask("reserve", "vlan1", "--container", "web", "--address", RESERVED)
    wait_until(lambda: managed.is_on_link("web", RESERVED), 15, "the reserved address on the link")
    assert managed.lease("web") == IPv4Address(RESERVED)
    assert managed.lease("other") == before[1]
    assert managed.warnings() == [], "Docker was told the former address: that is no wish of the user's"
    managed.service.ask("unreserve", "vlan1", "web")
    managed.service.ask("reserve", "vlan1", "--container", "web", "--address", str(before[0]))
    wait_until(lambda: managed.is_on_link("web", str(before[0])), 15, "the former address on the link")


def test_a_lease_is_dropped_only_when_its_container_is_gone(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web")
    address = str(managed.lease("web"))
    assert lanward(managed, "drop", "vlan1", address) == (
        1, "container web is there (running): its lease goes after docker rm web\n",
    )  # fmt: skip
    managed.engine.docker("stop", "--time", "0", "web")
    assert lanward(managed, "drop", "vlan1", address)[0] == 1
    managed.engine.docker("rm", "web")
    wait_until(lambda: lanward(managed, "drop", "vlan1", address) == (0, ""), 15, "the container to be known as gone")
    assert address not in {row["address"] for row in managed.service.leases()}
    managed.edge.run("next", "br0net", "--label", f"lanward.address={address}")
    assert str(managed.lease("next")) == address
