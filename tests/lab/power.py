"""100 devices and 20 containers get leases, the power goes, and comes back: inside a guest of `tests.lab.guest`.

``fill FOLDER`` runs until the guest is killed, and writes down there what each node was given, in the moment it knows.
``check FOLDER`` is after the boot; ends with 1 when a lease is not what it was. The folder survives the cut; what the
guest's kernel has not been told to sync does not, nor does anything that the engine knew.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import NoReturn

from tests.lab import netns
from tests.lab.trunk import ROUTERS, Lab
from tests.wire.station import Device, Port

DEVICES, CONTAINERS = 100, 20
PACE_SECONDS = 0.4
OVERRIDE = """services:
  router:
    volumes:
      - {state}:/var/lib/lanward
"""
TELL = """while :; do
set -- $(ip -4 -o addr show dev eth0); address=${4%/*}
case $address in 10.0.?.1??) break;; esac
sleep 0.2
done
echo "$address" >/told/NAME.part && mv /told/NAME.part /told/NAME && exec sleep 2147483647"""
"""What a container runs: it waits for an address out of the pool, and writes it down."""


def devices() -> list[Device]:
    """One after the other on each VLAN."""
    netns.batch(["link set eth0 promisc on"], "device1")
    netns.batch(["link set eth0 promisc on"], "device2")
    ports = [Port(device, "eth0", router) for device, router in ROUTERS.items()]
    return [ports[number % 2].device(number) for number in range(DEVICES)]


def given(folder: Path) -> dict[str, str]:
    """MAC of a device or name of a container -> address, as those were told before the cut."""
    devices = folder / "devices"
    lines = [line.split() for line in (devices.read_text() if devices.exists() else "").splitlines(keepends=True)]
    told = {line[0]: line[1] for line in lines if len(line) == 2}
    files = [one for one in (folder / "told").glob("*") if one.suffix != ".part"]
    return told | {one.name: one.read_text().strip() for one in files}


def start(folder: Path) -> Lab:
    for one in ("state", "told"):
        (folder / one).mkdir(exist_ok=True)
    lab = Lab("2")
    lab.build()
    (lab.home / "docker-compose.override.yml").write_text(OVERRIDE.format(state=folder / "state"))
    lab.await_ready(lambda: lab.compose("up", "-d"))
    return lab


def run_all(lab: Lab, folder: Path, numbers: Iterable[int]) -> None:
    """Start containers, one after the other."""
    for number in numbers:
        name, network = f"c{number}", f"br{number % 2}net"
        options = ["--detach", "--init", "--name", name, "--network", network, f"--volume={folder}/told:/told"]
        lab.out("docker", "run", *options, "busybox", "sh", "-c", TELL.replace("NAME", name))


def fill(folder: Path) -> NoReturn:
    lab = start(folder)
    threading.Thread(target=run_all, args=(lab, folder, range(CONTAINERS)), daemon=True).start()
    with (folder / "devices").open("a") as told:
        for device in devices():
            if device.select(device.discover(20), 20).kind == "ack":
                print(device.mac.hex(":"), device.address, file=told, flush=True)
                os.fsync(told.fileno())
            time.sleep(PACE_SECONDS)
    time.sleep(3600)
    sys.exit(1)


def check(folder: Path) -> int:
    """Whoever was given an address still has it, and gets it again; nobody else has it."""
    before = given(folder)
    lab = start(folder)
    leases = json.loads(lab.out("docker", "exec", "router", "lanward", "leases", "--json"))
    held = {one["container"] or one["mac"]: one["address"] for one in leases if one["state"] == "bound"}
    lost = {node: address for node, address in before.items() if held.get(node) != address}
    lab.check(f"{len(before)} acknowledged leases are as they were {lost or ''}", not lost)
    lab.check("no address has two holders", len(set(held.values())) == len(held))
    wrong = dict(_changed(before))
    lab.check(f"every device gets its address again {wrong or ''}", not wrong)
    (folder / "told").rename(folder / "before")
    (folder / "told").mkdir()
    names = [node for node in before if node.startswith("c")]
    run_all(lab, folder, [int(name[1:]) for name in names])
    netns.wait_until(lambda: given(folder).keys() >= set(names), 60, "the containers to be told their addresses")
    again = {name: given(folder)[name] for name in names}
    lab.check(f"every container gets its address again {again}", again == {name: before[name] for name in names})
    return int(lab.failed > 0)


def _changed(before: dict[str, str]) -> Iterator[tuple[str, str]]:
    for device in devices():
        device.address = before.get(device.mac.hex(":"), "")
        if device.address:
            reply = device.reboot(20)
            if (reply.kind, reply.address) != ("ack", device.address):
                yield device.mac.hex(":"), f"{reply.kind} {IPv4Address(reply.address or 0)}"


if __name__ == "__main__":
    what, where = sys.argv[1], Path(sys.argv[2])
    if what == "fill":
        fill(where)
    sys.exit(check(where))
