"""`lanward verify` on the whole edge machine: measured from inside real containers, right and wrong."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.lab import netns, reachability
from tests.lab.clients import Udhcpc
from tests.lab.edge import Edge
from tests.lab.service import COMMAND, REPOSITORY, Service

pytestmark = pytest.mark.one_engine

CONTAINER1, CONTAINER2, DEVICE1, DEVICE2 = "vlan1/container1", "vlan2/container2", "vlan1/device1", "vlan2/device2"
ROUTER1, ROUTER2, INTERNET = "router, vlan1", "router, vlan2", "internet"
LONG = {name.partition("/")[2]: name for name in (CONTAINER1, CONTAINER2, DEVICE1, DEVICE2)} | {
    "router_vlan1": ROUTER1,
    "router_vlan2": ROUTER2,
}
"""The names of the design's table -> those of the command."""

Pair = tuple[str, str, str]
"""Source, target, service."""


class Answer(NamedTuple):
    code: int
    expected: dict[Pair, bool]
    measured: dict[Pair, bool | None]
    why: str

    @property
    def differing(self) -> set[Pair]:
        return {pair for pair, result in self.measured.items() if result not in (None, self.expected[pair])}

    def of(self, node: str) -> set[bool | None]:
        """What was measured from and to a node."""
        return {result for (source, target, _), result in self.measured.items() if node in (source, target)}


class Machine:
    """The edge machine with the service, a device and a container on each VLAN."""

    def __init__(self, edge: Edge, service: Service) -> None:
        self.edge = edge
        self.service = service

    def start(self, more: str = "") -> None:
        """Run the service, with these tables besides its configuration, and the containers."""
        self.service.start(self.edge.config((REPOSITORY / "lanward.toml").read_text() + more))
        self.run("container1", "br0net")
        self.run("container2", "br1net")

    def run(self, name: str, network: str) -> None:
        self.edge.run(name, network)
        self.await_pins(name)

    def await_pins(self, name: str, count: int = 1) -> None:
        def pinned() -> bool:
            return len([one for one in self.containers() if one["container"] == name and one["pinned"]]) == count

        netns.wait_until(pinned, 60, f"the lease of {name} to be on its link")

    def containers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.service.ask("status", "--json"))["docker"]["containers"]
        return found

    def await_state(self, name: str, state: str | None) -> None:
        def reached() -> bool:
            return state == next((one["state"] for one in self.containers() if one["container"] == name), None)

        netns.wait_until(reached, 20, f"{name} to be {state}")

    def verify(self) -> Answer:
        """What the command says where the service runs."""
        words = [*self.edge.truck.enter("router"), *COMMAND, "verify", "--json", "--state", str(self.service.state)]
        done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        rows = {(one["source"], one["target"], one["service"]): one for one in json.loads(done.stdout or "[]")}
        expected, measured = ({pair: one[key] for pair, one in rows.items()} for key in ("expected", "measured"))
        return Answer(done.returncode, expected, measured, done.stderr)


@pytest.fixture
def machine(edge: Edge, service: Service, tmp_path: Path) -> Iterator[Machine]:
    """device1 has its reservation, device2 asks for a lease."""
    built = Machine(edge, service)
    edge.place("device1", "10.0.1.20")
    client = Udhcpc(edge.truck.netns("device2"), tmp_path / "device2", "device2")
    edge.truck.plug("device2")
    client.launch()
    yield built
    client.stop()


def started(machine: Machine, more: str = "") -> Machine:
    machine.start(more)
    netns.wait_until(lambda: any(one["hostname"] == "device2" for one in machine.service.leases()), 20, "device2")
    return machine


def test_all_rows_are_as_the_policy_says(machine: Machine) -> None:
    found = started(machine).verify()
    assert found.differing == set()
    assert (found.code, found.why) == (0, "")
    table = {(LONG.get(one.source, one.source), LONG.get(one.target, one.target)): one for one in reachability.rows()}
    assert len(table) == 28
    assert found.measured == {
        (*pair, "icmp"): None if one.source.startswith("device") else one.expected for pair, one in table.items()
    } | {("router", INTERNET, "icmp"): True}


ALLOW = """
[[allow]]
from = "vlan1/container1"
to = "vlan2/container2"
ports = ["tcp/80", "udp/5000"]
"""


def test_an_exception_is_open_one_way_and_for_its_ports(machine: Machine) -> None:
    found = started(machine, ALLOW).verify()
    assert found.code == 0
    between = {pair: found.measured[pair] for pair in found.measured if {*pair} >= {CONTAINER1, CONTAINER2}}
    assert between == {
        (CONTAINER1, CONTAINER2, "icmp"): False,
        (CONTAINER1, CONTAINER2, "tcp/80"): True,
        (CONTAINER1, CONTAINER2, "udp/5000"): True,
        (CONTAINER2, CONTAINER1, "icmp"): False,
    }


def drop(hook: str, what: str) -> str:
    return f"table ip broken {{ chain one {{ type filter hook {hook} priority 0; {what} drop; }}; }}"


@pytest.mark.parametrize(
    ("container", "rules", "rows"),
    [
        pytest.param(
            "container1", drop("output", "ip daddr 10.0.1.20"), {(CONTAINER1, DEVICE1)}, id="to one neighbour"
        ),
        pytest.param(
            "container2", drop("input", "ip saddr 10.0.2.1"), {("router", CONTAINER2), (CONTAINER2, ROUTER2)},
            id="from the router",
        ),
        pytest.param(
            "container1", drop("output", "ip daddr != 10.0.0.0/8"), {(CONTAINER1, INTERNET)}, id="to the internet"
        ),
        pytest.param(
            "container1", drop("input", "icmp type echo-request"), {("router", CONTAINER1)}, id="what it is asked"
        ),
    ],
)  # fmt: skip
def test_what_a_container_drops_differs(
    machine: Machine, container: str, rules: str, rows: set[tuple[str, str]]
) -> None:
    started(machine).edge.out(container, "nft", rules)
    found = machine.verify()
    assert found.differing == {(*pair, "icmp") for pair in rows}
    assert found.code == 1


def test_a_container_that_is_silent_is_not_taken_for_one_that_is_off(machine: Machine) -> None:
    """Its link is down: it does not even answer ARP."""
    started(machine).edge.out("container1", "ip", "link", "set", "eth0", "arp", "off")
    machine.edge.out("container1", "ip", "neigh", "flush", "all")
    netns.batch(["neigh flush all"], machine.edge.truck.netns("router"))
    found = machine.verify()
    assert ("router", CONTAINER1, "icmp") in found.differing
    assert found.code == 1


def test_a_leak_between_vlans_differs(machine: Machine) -> None:
    """A cable from container1 into the other VLAN, of which nobody told Docker."""
    pid = started(machine).edge.engine.pid("container1")
    leak = [f"link add leak type veth peer name eth9 netns {pid}", "link set leak master br1", "link set leak up"]
    netns.batch(leak, machine.edge.truck.netns("host"))
    machine.edge.out("container1", "ip", "addr", "add", "10.0.2.77/24", "dev", "eth9")
    machine.edge.out("container1", "ip", "link", "set", "eth9", "up")
    found = machine.verify()
    assert found.differing == {(CONTAINER1, one, "icmp") for one in (CONTAINER2, DEVICE2, ROUTER2)}
    assert found.code == 1


def test_a_container_that_does_not_run_is_not_measured(machine: Machine) -> None:
    started(machine).edge.engine.docker("stop", "--time=0", "container2")
    machine.await_state("container2", "exited")
    found = machine.verify()
    assert (found.code, found.of(CONTAINER2)) == (0, {None})
    assert found.of(CONTAINER1) >= {True, False}
    assert found.why == f"not measured from {CONTAINER2}: no such container runs\n"
    machine.edge.engine.docker("rm", "container1", "--force")
    machine.await_state("container1", None)
    found = machine.verify()
    assert (found.code, found.of(CONTAINER1)) == (0, {None})
    machine.edge.engine.docker("start", "container2")
    machine.await_pins("container2")
    found = machine.verify()
    assert (found.code, found.of(CONTAINER2)) == (0, {True, False, None})


def test_a_container_in_both_vlans_asks_each_by_its_link(machine: Machine) -> None:
    started(machine).run("both", "br0net")
    machine.edge.engine.docker("network", "connect", "br1net", "both")
    machine.await_pins("both", 2)
    found = machine.verify()
    one, two = "vlan1/both", "vlan2/both"
    measured = {pair[:2]: result for pair, result in found.measured.items() if result is not None}
    assert {target for source, target in measured if source == one} == {CONTAINER1, DEVICE1, ROUTER1, INTERNET}
    assert {target for source, target in measured if source == two} == {CONTAINER2, DEVICE2, ROUTER2}
    assert found.differing == set()
    assert found.code == 0
    assert found.why == f"not measured from {one}, {two}: what the container sends by another network\n"


def test_a_container_without_its_lease_differs(machine: Machine) -> None:
    """The service cannot find the namespaces, so nothing is pinned."""
    text = machine.edge.config().replace(str(machine.edge.engine.netns), f"{machine.edge.engine.home}/nowhere/netns")
    machine.service.start(text)
    machine.edge.run("container1", "br0net")
    machine.await_state("container1", "running")
    found = machine.verify()
    assert ("router", CONTAINER1, "icmp") in found.differing
    assert found.code == 1
    assert "nowhere/netns: No such file or directory; mount the engine's folder here" in found.why
