"""`make demo`: build the virtual truck, run the service on it, plug devices in, show what they get
and who reaches whom."""

from __future__ import annotations

import io
import os
import sys
import tempfile
import time
from ipaddress import IPv4Address
from pathlib import Path

from tests.lab import netns, reachability
from tests.lab.clients import Client, Dhclient, Dhcpcd, Udhcpc
from tests.lab.plan import Container, Device, Plan, two_vlans
from tests.lab.service import REPOSITORY, Service
from tests.lab.truck import Truck

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
    netns.sweep()
    try:
        return _show(two_vlans(devices=len(CLIENTS)))
    except KeyboardInterrupt:
        print("\nInterrupted; everything is removed again.")
        return 130
    except (RuntimeError, TimeoutError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1


def _show(plan: Plan) -> int:
    print("Lanward on a virtual truck: every machine below is a network namespace.\n")
    with tempfile.TemporaryDirectory(prefix="lanward-demo-") as home:
        began = time.monotonic()
        with Truck(plan) as truck:
            _describe(truck)
            _tell("the truck is built", began)
            return _run(truck, Path(home))


def _run(truck: Truck, home: Path) -> int:
    service = Service(truck.enter("router"), home)
    began = time.monotonic()
    service.start((REPOSITORY / "lanward.toml").read_text())
    _tell("the service is ready", began)
    print("\n  Devices are plugged in:\n")
    good = [_plug(truck, truck.plan.device(name), kind, home) for name, kind in CLIENTS.items()]
    addresses = _place_containers(truck, service, home)
    print("\n  lanward leases\n")
    print(_indented(service.ask("leases")))
    rows = _show_table(truck, addresses | {one["hostname"]: IPv4Address(one["address"]) for one in service.leases()})
    service.stop()
    right = sum(row.measured == row.expected for row in rows)
    print(f"\n{sum(good)} of {len(good)} devices got an address of their VLAN and reach their router.")
    print(f"{right} of {len(rows)} rows of the table are as expected.")
    return 0 if all(good) and right == len(rows) else 1


def _place_containers(truck: Truck, service: Service, home: Path) -> dict[str, IPv4Address]:
    """A container with a reservation takes its address, any other asks for one, as a device does."""
    reserved = {one["container"]: one["address"] for one in service.leases() if one["container"]}
    return {
        one.name: _set_address(truck, one, reserved[one.name])
        if one.name in reserved
        else Udhcpc(truck.netns(one.name), home / one.name, one.name).start().address.ip
        for one in truck.plan.containers
    }


def _set_address(truck: Truck, container: Container, address: str) -> IPv4Address:
    vlan = truck.plan.vlan(container.vlan)
    lines = [f"addr add {address}/{vlan.subnet.prefixlen} dev eth0", f"route add default via {vlan.router}"]
    netns.batch(lines, truck.netns(container.name))
    return IPv4Address(address)


def _show_table(truck: Truck, addresses: dict[str, IPv4Address]) -> list[reachability.Row]:
    began = time.monotonic()
    rows = reachability.measure(truck, reachability.rows(), reachability.places(truck.plan, addresses))
    print(f"\n  Who reaches whom, by ping, {(time.monotonic() - began) * 1000:.0f} ms\n")
    print(_indented("\n".join(reachability.lines(rows))))
    return rows


def _describe(truck: Truck) -> None:
    print(f"  trunk   {truck.trunk}")
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
