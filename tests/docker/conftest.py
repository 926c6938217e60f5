"""The edge machine with a real engine of each version, kept for the tests of this folder and cleaned after each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import SOAK
from tests.docker.managed import Managed
from tests.lab.edge import Edge
from tests.lab.edge import edge as built
from tests.lab.engine import why_missing
from tests.lab.service import Service

VERSIONS = ["20.10", "28.5", *(["26.1"] if SOAK else [])]


@pytest.fixture(scope="package", params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    """The engine's version; the test is skipped when that engine cannot be run here."""
    asked = str(request.param)
    if reason := why_missing(asked):
        pytest.skip(reason)
    return asked


@pytest.fixture(scope="package")
def _kept(version: str) -> Iterator[Edge]:
    with built(version) as one:
        yield one


@pytest.fixture
def edge(_kept: Edge) -> Iterator[Edge]:
    """The machine: an engine with the VLANs' networks and no container, device1 and device2 not plugged in."""
    yield _kept
    _kept.reset()


@pytest.fixture
def service(edge: Edge, tmp_path: Path) -> Iterator[Service]:
    """The product in the router's namespace, not started: `service.start(edge.config())`."""
    one = Service(edge.truck.enter("router"), tmp_path)
    yield one
    one.kill9()


@pytest.fixture
def managed(edge: Edge, service: Service) -> Managed:
    """The machine with the service, not started."""
    return Managed(edge, service)
