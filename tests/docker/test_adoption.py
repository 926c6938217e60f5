"""A container at rest: the lease is written into Docker's own record, and no container is left without its network."""

from __future__ import annotations

import json
import subprocess
import sys
from ipaddress import IPv4Address

import pytest

from leasebroker.adoption import Journal
from tests.docker.managed import Managed
from tests.lab.netns import wait_until
from tests.lab.service import REPOSITORY

DIE = """
import os, sys
from leasebroker import adoption
from leasebroker.docker_feed import Engine
from pathlib import Path
step, socket, state, container, address = sys.argv[1:]
left = int(step)
def dying(call):
    def called(*arguments, **more):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return call(*arguments, **more)
    return called
for owner, name in (
    (adoption.Journal, "_write"), (Engine, "disconnect"), (Engine, "connect"), (adoption.Journal, "remove"),
):
    setattr(owner, name, dying(getattr(owner, name)))
journal = adoption.Journal(Path(state) / "adoption.json")
adoption.adopt(Engine(socket), journal, container, "br0net", int(address))
"""
"""An adoption that dies before its nth step."""


def test_a_lease_is_written_into_dockers_record(managed: Managed) -> None:
    """From then on Docker itself gives the leased address, with or without the router."""
    managed.start()
    managed.edge.run("web", "br0net", "--network-alias", "www")
    lease = str(managed.lease("web"))
    assert managed.in_docker("web") is None
    managed.engine.docker("stop", "--time", "1", "web")
    assert managed.adopted("web") == lease
    managed.service.stop()
    managed.engine.docker("start", "web")
    assert [str(one.ip) for one in managed.edge.addresses("web")] == [lease]
    assert managed.edge.routes("web") == ["default via 10.0.1.1 dev eth0"]
    managed.edge.run("client")
    assert lease in managed.engine.docker("exec", "client", "nslookup", "www")


def test_a_container_that_is_only_made_is_adopted(managed: Managed) -> None:
    managed.start()
    managed.engine.docker("create", "--name", "web", "--network", "br0net", "lanward-test")
    assert managed.adopted("web") == "10.0.1.100"


def test_what_was_set_for_a_connection_stays(managed: Managed) -> None:
    """Where the engine would forget the MAC, the container is not adopted."""
    managed.start()
    managed.engine.docker(
        "create", "--name", "web", "--network", "br0net", "--network-alias", "www",
        "--mac-address", "02:00:00:00:07:07", "lanward-test",
    )  # fmt: skip
    managed.engine.docker("create", "--name", "zeta", "--network", "br0net", "lanward-test")
    managed.adopted("zeta")
    wait_until(lambda: managed.in_docker("web") or managed.engine.version != "20.10", 5, "web to be adopted")
    managed.engine.docker("start", "web")
    shown = json.loads(managed.engine.docker("inspect", "--format", "{{json .NetworkSettings.Networks.br0net}}", "web"))
    assert "www" in shown["Aliases"]
    assert shown["MacAddress"] == "02:00:00:00:07:07"
    assert str(managed.lease("web")) == "10.0.1.100"


def test_adoption_can_be_switched_off(managed: Managed) -> None:
    managed.service.start(managed.edge.config() + "adopt = false\n")
    managed.engine.docker("create", "--name", "web", "--network", "br0net", "lanward-test")
    managed.edge.run("other")
    managed.lease("other")
    with pytest.raises(TimeoutError):
        wait_until(lambda: managed.in_docker("web"), 6, "an adoption")


@pytest.mark.one_engine
def test_what_a_death_cut_off_is_repaired_although_adoption_is_off_now(managed: Managed) -> None:
    managed.engine.docker("create", "--name", "web", "--network", "br0net", "lanward-test")
    id_ = managed.engine.docker("inspect", "--format", "{{.Id}}", "web")
    Journal(managed.service.state / "adoption.json").put(id_, "br0net", {"Aliases": [], "IPAMConfig": {}})
    managed.engine.docker("network", "disconnect", "br0net", "web")
    managed.service.start(managed.edge.config() + "adopt = false\n")
    wait_until(lambda: managed.networks("web") == {"br0net"}, 5, "the network to be back")


def test_a_container_to_be_removed_is_left_alone(managed: Managed) -> None:
    managed.start()
    managed.engine.docker("create", "--rm", "--name", "once", "--network", "br0net", "lanward-test")
    managed.engine.docker("create", "--name", "web", "--network", "br0net", "lanward-test")
    managed.adopted("web")
    assert managed.in_docker("once") is None


def test_a_death_in_the_middle_is_repaired(managed: Managed) -> None:
    """However far it came, a container has its network again, and the lease, when the router is back."""
    steps = range(6)
    managed.start()
    for step in steps:
        managed.engine.docker("create", "--name", f"web{step}", "--network", "br0net", "lanward-test")
    wait_until(lambda: all(managed.container(f"web{step}").get("address") for step in steps), 5, "the leases")
    addresses = [managed.container(f"web{step}")["address"] for step in steps]
    managed.service.kill9()
    for step, address in enumerate(addresses):
        assert managed.in_docker(f"web{step}") is None
        id_ = managed.engine.docker("inspect", "--format", "{{.Id}}", f"web{step}")
        command = [sys.executable, "-c", DIE, str(step), str(managed.engine.socket), str(managed.service.state), id_]
        died = subprocess.run([*command, str(int(IPv4Address(address)))], cwd=REPOSITORY, check=False).returncode
        assert died == (9 if step < 5 else 0)
        assert managed.networks(f"web{step}") == (set() if step == 2 else {"br0net"})
    managed.service.start()
    for step, address in enumerate(addresses):
        assert managed.networks(f"web{step}") == {"br0net"}
        assert managed.adopted(f"web{step}") == address
        managed.engine.docker("start", f"web{step}")
        assert str(managed.lease(f"web{step}")) == address


def test_an_address_that_a_running_container_has_from_docker_is_not_adopted(managed: Managed) -> None:
    """A renamed container keeps it in Docker: the next one of its name has the lease, and can be started again."""
    managed.start()
    managed.edge.run("web")
    lease = str(managed.lease("web"))
    managed.engine.docker("stop", "--time", "1", "web")
    assert managed.adopted("web") == lease
    managed.engine.docker("start", "web")
    managed.lease("web")
    managed.engine.docker("rename", "web", "web-old")
    wait_until(lambda: managed.is_pinned("web-old") and managed.container("web-old")["address"] != lease, 5, "the move")
    managed.edge.run("web")
    assert str(managed.lease("web")) == lease
    managed.engine.docker("stop", "--time", "1", "web")
    wait_until(lambda: any(f"given {lease} to web-old" in one for one in managed.warnings()), 10, "the warning")
    assert managed.in_docker("web") is None
    managed.engine.docker("start", "web")
    assert str(managed.lease("web")) == lease


def test_a_start_that_was_refused_for_its_address_is_healed(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web", "br0net", "--restart", "always")
    lease = str(managed.lease("web"))
    managed.engine.docker("stop", "--time", "1", "web")
    managed.adopted("web")
    managed.service.stop()
    managed.edge.run("thief", "br0net", "--ip", lease)
    with pytest.raises(RuntimeError, match="Address already in use"):
        managed.engine.docker("start", "web")
    managed.service.start()
    wait_until(lambda: managed.engine.pid("web"), 15, "web to be started")
    assert str(managed.lease("web")) == lease
    managed.lease("thief")
    assert lease not in {str(one.ip) for one in managed.edge.addresses("thief")}
