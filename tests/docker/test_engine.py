"""The engines of the tests are real ones, on the truck's bridges, and nothing of them outlives its block."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import netns, remains
from tests.lab.edge import Edge
from tests.lab.service import REPOSITORY, Service

BUILD_AND_WAIT = """
import sys, time
from tests.lab.edge import edge
with edge(sys.argv[1]) as one:
    one.run("container1", "br0net")
    print(one.engine.home, flush=True)
    time.sleep(60)
"""


def test_a_container_lands_and_reaches_its_vlan(edge: Edge) -> None:
    edge.place("device1", "10.0.1.20")
    edge.place("device2", "10.0.2.20")
    edge.run("container1", "br0net")
    edge.run("container2", "br1net")
    vlan = edge.truck.plan.vlan("vlan1")
    (address,) = edge.addresses("container1")
    assert address.ip in vlan.landing
    assert address.network == vlan.subnet
    assert edge.routes("container1") == ["default via 10.0.1.1 dev eth0"]
    assert edge.ping("container1", vlan.router)
    assert edge.ping("container1", "10.0.1.20")
    assert edge.ping("device1", address.ip)
    assert edge.ping("container2", "10.0.2.20")
    assert edge.ping("device1", vlan.router)


def test_a_removed_container_leaves_no_namespace(edge: Edge) -> None:
    edge.run("container1", "br0net")
    assert len(edge.engine.namespaces()) == 1
    edge.engine.remove_containers()
    assert edge.engine.namespaces() == []
    assert edge.engine.docker("ps", "--all", "--quiet") == ""


def test_a_restart_brings_back_what_should_run(edge: Edge) -> None:
    edge.run("container1", "br0net", "--restart=always")
    edge.run("container2", "br1net")
    edge.engine.restart()
    netns.wait_until(lambda: edge.engine.pid("container1"), 10, "container1 to be back")
    assert edge.engine.pid("container2") == 0
    assert edge.ping("container1", "10.0.1.1")


def test_live_restored_containers_outlive_the_engine(edge: Edge) -> None:
    edge.engine.live_restore = True
    edge.engine.restart()
    first = edge.run("container1", "br0net")
    edge.engine.stop()
    assert Path(f"/proc/{first}").exists()
    edge.engine.start()
    assert edge.engine.pid("container1") == first
    assert edge.ping("container1", "10.0.1.1")


def test_a_killed_engine_comes_back(edge: Edge) -> None:
    first = edge.run("container1", "br0net", "--restart=always")
    edge.engine.kill9()
    assert not edge.engine.running
    assert Path(f"/proc/{first}").exists()
    edge.engine.start()
    netns.wait_until(lambda: edge.engine.pid("container1") not in {0, first}, 10, "container1 to be back")
    assert edge.ping("container1", "10.0.1.1")


def test_the_service_runs_beside_the_engine(edge: Edge, service: Service) -> None:
    service.start(edge.config())
    assert service.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_owner_leaves_nothing(version: str, number: signal.Signals) -> None:
    before = _shim_sockets()
    command = [sys.executable, "-c", BUILD_AND_WAIT, version]
    with subprocess.Popen(command, stdout=-1, stderr=-3, text=True, cwd=REPOSITORY) as owner:
        assert owner.stdout
        home = Path(owner.stdout.readline().strip())
        assert remains.processes(home)
        assert remains.mounts(home)
        owner.send_signal(number)
        owner.wait(20)
    assert remains.sweep() == ([home.name] if number == signal.SIGKILL else [])
    netns.sweep()
    assert remains.processes(home) == []
    assert remains.mounts(home) == []
    assert remains.cgroups(home) == []
    assert remains.homes(netns.prefix(owner.pid)) == []
    assert netns.existing(netns.prefix(owner.pid)) == []
    assert _shim_sockets() <= before


def _shim_sockets() -> set[Path]:
    folder = Path("/run/containerd/s")
    return set(folder.iterdir()) if folder.is_dir() else set()
