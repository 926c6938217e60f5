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


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What does not hang on the engine's version runs on the first one only, but at full length on all."""
    others = [
        one
        for one in items
        if not SOAK
        and one.get_closest_marker("one_engine")
        and getattr(one, "callspec", None)
        and one.callspec.params.get("version") in VERSIONS[1:]  # type: ignore[attr-defined]
    ]
    config.hook.pytest_deselected(items=others)
    items[:] = [one for one in items if one not in others]


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
