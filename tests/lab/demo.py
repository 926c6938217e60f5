"""`make demo`: build the virtual truck with a Docker engine, run the service, plug devices in and run containers, and
show what they get and who reaches whom."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

from tests.lab import netns, reachability, remains
from tests.lab.clients import Client, Dhclient, Dhcpcd, Udhcpc
from tests.lab.edge import Edge, edge
from tests.lab.engine import IDLE, why_missing
from tests.lab.plan import Container, Device, Vlan, two_vlans
from tests.lab.service import Service
from tests.lab.truck import Truck

ENGINE = "20.10"
CLIENTS: dict[str, type[Client]] = {
    "device1": Udhcpc,
    "device2": Dhclient,
    "device3": Dhcpcd,
    "device4": Udhcpc,
    "device5": Dhclient,
}


def main() -> int:
    """Run the demo; return 0 when each device got an address of its VLAN and every row of the table is as expected."""
    if os.geteuid() != 0:
        print("make demo builds network namespaces, which needs root: sudo make demo", file=sys.stderr)
        return 3
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # what happens shows as it happens, in a pipe too
    if reason := why_missing(ENGINE):
        print(f"make demo runs real containers: {reason}", file=sys.stderr)
        return 3
    remains.sweep()
    netns.sweep()
    try:
        return _show()
    except KeyboardInterrupt:
        print("\nInterrupted; everything is removed again.")
        return 130
    except (RuntimeError, TimeoutError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def _show() -> int:
    print("Lanward on a virtual truck: every device is a network namespace, every container a real one.\n")
    with tempfile.TemporaryDirectory(prefix="lanward-demo-") as home:
        began = time.monotonic()
        with edge(ENGINE, devices=len(CLIENTS)) as built:
            _describe(built)
            _tell("the truck is built and the engine runs", began)
            return _run(built, Path(home))


def _run(built: Edge, home: Path) -> int:
    service = Service(built.truck.enter("router"), home)
    began = time.monotonic()
    service.start(built.config())
    _tell("the service is ready", began)
    print("\n  Devices are plugged in:\n")
    devices = [_plug(built.truck, built.truck.plan.device(name), kind, home) for name, kind in CLIENTS.items()]
    print("\n  Containers are run:\n")
    containers = [_run_container(built, service, one) for one in two_vlans().containers]
    print("\n  lanward leases\n")
    print(_indented(service.ask("leases")))
    rows = _show_table(built, service)
    service.stop()
    right = sum(row.measured == row.expected for row in rows)
    print(f"\n{sum(devices)} of {len(devices)} devices got an address of their VLAN and reach their router.")
    print(f"{sum(containers)} of {len(containers)} containers have their lease and reach their router.")
    print(f"{right} of {len(rows)} rows of the table are as expected.")
    return 0 if all(devices) and all(containers) and right == len(rows) else 1


def _run_container(built: Edge, service: Service, container: Container) -> bool:
    """Run it as anybody would; its first instruction prints the addresses that it has."""
    vlan, name = built.truck.plan.vlan(container.vlan), container.name
    began = time.monotonic()
    built.run(name, vlan.network, command=("sh", "-c", f"ip -4 -o addr; {IDLE}"))
    took = (time.monotonic() - began) * 1000
    try:
        netns.wait_until(lambda: set(_leases(service, vlan, name)) & set(built.addresses(name)), 10, "its lease")
    except TimeoutError as error:
        print(f"  {name}  {vlan.name}  docker  {error}, and it has {built.addresses(name)}")
        return False
    (lease,) = _leases(service, vlan, name)
    answered = built.ping(name, vlan.router)
    when = "at its first instruction" if str(lease) in built.engine.docker("logs", name).split() else "soon after"
    router = "reaches its router" if answered else "DOES NOT REACH ITS ROUTER"
    print(f"  {name}  {vlan.name}  {lease!s:16} {when}, docker run took {took:.0f} ms, {router}")
    return lease.ip in vlan.subnet and answered


def _leases(service: Service, vlan: Vlan, container: str) -> list[IPv4Interface]:
    """What the lease table says that the container of that name has."""
    rows = [one for one in service.leases() if one["vlan"] == vlan.name and one["container"] == container]
    return [IPv4Interface((one["address"], vlan.subnet.prefixlen)) for one in rows if one["state"] == "bound"]


def _show_table(built: Edge, service: Service) -> list[reachability.Row]:
    began = time.monotonic()
    nodes = {one["container"] or one["hostname"]: IPv4Address(one["address"]) for one in service.leases()}
    rows = reachability.measure(built.enter, reachability.rows(), reachability.places(built.truck.plan, nodes))
    print(f"\n  Who reaches whom, by ping, {(time.monotonic() - began) * 1000:.0f} ms\n")
    print(_indented("\n".join(reachability.lines(rows))))
    return rows


def _describe(built: Edge) -> None:
    truck = built.truck
    print(f"  trunk   {truck.trunk}")
    print(f"  engine  Docker Engine {built.engine.docker('version', '--format', '{{.Server.Version}}')}, on the host")
    for vlan in truck.plan.vlans:
        devices = " ".join(d.name for d in truck.plan.devices if d.vlan == vlan.name)
        print(f"  {vlan.name:7} {vlan.subnet}, router {vlan.router}, behind the switch: {devices}")
    print()


def _plug(truck: Truck, device: Device, kind: type[Client], home: Path) -> bool:
    client = kind(truck.netns(device.name), home / device.name, device.name)
    vlan = truck.plan.vlan(device.vlan)
    truck.plug(device.name)
    began = time.monotonic()
    try:
        lease = client.start()
    except TimeoutError as error:
        print(f"  {device.name}  {vlan.name}  {kind.program:9} {error}")
        return False
    took = (time.monotonic() - began) * 1000
    answered = truck.ping(device.name, vlan.router)
    router = "reaches its router" if answered else "DOES NOT REACH ITS ROUTER"
    print(f"  {device.name}  {vlan.name}  {kind.program:9} {lease.address!s:16} after {took:4.0f} ms, {router}")
    return lease.address.ip in vlan.subnet and lease.router == vlan.router and answered


def _tell(what: str, began: float) -> None:
    print(f"  {what}, {(time.monotonic() - began) * 1000:.0f} ms")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
