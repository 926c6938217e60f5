"""A truck, the service in its router, and real clients on its devices."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.clients import Client
from tests.lab.plan import two_vlans
from tests.lab.service import Service
from tests.lab.truck import Truck

MakeClient = Callable[..., Client]


@pytest.fixture
def truck() -> Iterator[Truck]:
    """A truck of two VLANs: device1 and device3 belong to vlan1, device2 and device4 to vlan2; all are unplugged."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    with Truck(two_vlans(devices=4)) as built:
        yield built


@pytest.fixture
def service(truck: Truck, tmp_path: Path) -> Iterator[Service]:
    """The service in the router's namespace, not started yet."""
    made = Service(truck.enter("router"), tmp_path)
    yield made
    made.kill9()


@pytest.fixture
def client(truck: Truck, tmp_path: Path) -> Iterator[MakeClient]:
    """`client(kind, device, hostname)`: a client of that kind on the device, whose cable is plugged in, called like the
    device unless it is given a name."""
    made: list[Client] = []

    def make(kind: type[Client], device: str, hostname: str | None = None) -> Client:
        if missing := kind.missing():
            pytest.skip(f"{missing} is not installed")
        truck.plug(device)
        made.append(kind(truck.netns(device), tmp_path / device, hostname or device))
        return made[-1]

    yield make
    for one in made:
        one.stop()
