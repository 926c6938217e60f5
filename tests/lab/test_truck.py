"""The truck is wired as planned, and nothing of it outlives its block."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import netns
from tests.lab.plan import two_vlans, wiring
from tests.lab.truck import Truck

pytestmark = pytest.mark.usefixtures("needs_root")

BUILD_AND_WAIT = """
import sys, time
from tests.lab.plan import two_vlans
from tests.lab.truck import Truck
with Truck(two_vlans()) as truck:
    print(truck.netns("router"), flush=True)
    time.sleep(60)
"""


def give(truck: Truck, node: str, address: str) -> None:
    netns.batch([f"addr add {address} dev eth0"], truck.netns(node))


def fail_inside(truck: Truck) -> None:
    with truck:
        truck.run("device1", "sh", "-c", "sleep 60 >/dev/null 2>&1 &")
        raise ZeroDivisionError


def test_only_a_plugged_device_of_the_same_vlan_is_reached() -> None:
    with Truck(two_vlans()) as truck:
        for node, address in {"device1": "10.0.1.9/24", "device2": "10.0.1.8/24", "container1": "10.0.1.7/24"}.items():
            give(truck, node, address)
        truck.plug("device2")
        assert not truck.ping("device1", "10.0.1.1")
        truck.plug("device1")
        assert truck.ping("device1", "10.0.1.1", timeout=3)
        assert truck.ping("device1", "10.0.1.7", timeout=3)
        assert not truck.ping("device1", "10.0.1.8")
        truck.move("device2", "vlan1")
        assert truck.ping("device1", "10.0.1.8", timeout=3)
        assert truck.ping("router", "198.51.100.9", timeout=3)


def test_a_failed_block_leaves_nothing() -> None:
    truck = Truck(two_vlans())
    with pytest.raises(ZeroDivisionError):
        fail_inside(truck)
    assert not netns.existing(truck.netns(""))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", BUILD_AND_WAIT], stdout=-1, stderr=-3, text=True) as owner:
        assert owner.stdout
        router = owner.stdout.readline().strip()
        assert router in netns.existing()
        owner.send_signal(number)
        assert owner.wait(5) != 0
    assert not netns.existing(netns.prefix(owner.pid))


def test_a_sweep_removes_the_truck_of_a_killed_owner_only() -> None:
    with Truck(two_vlans()) as mine, subprocess.Popen([sys.executable, "-c", BUILD_AND_WAIT], stdout=-1) as owner:
        assert owner.stdout
        owner.stdout.readline()
        owner.kill()
        owner.wait(5)
        assert netns.existing(netns.prefix(owner.pid))
        netns.sweep()
        assert not netns.existing(netns.prefix(owner.pid))
        assert Path("/run/netns", mine.netns("router")).exists()


def test_a_tagged_trunk_carries_every_vlan_and_an_access_port_one() -> None:
    plan = two_vlans()
    wires = wiring(plan, "lw-", tagged=True)
    assert [line for line in wires.bridge if "trunk" in line] == [
        "vlan add dev trunk vid 1",
        "vlan add dev trunk vid 2",
    ]
    assert "vlan add dev p-device2 vid 2 pvid untagged" in wires.bridge
    assert "link add link enp2s0 name enp2s0.2 type vlan id 2" in wires.ip["host"]
