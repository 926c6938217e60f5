"""What every test gets: nothing may outlive a test, and long tests ask how long they may be."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.lab import netns, remains, truck

SOAK = os.environ.get("LANWARD_SOAK", "0") not in {"", "0"}
ROOT = os.geteuid() == 0

# How long an example takes is the machine's business, which may be shared.
settings.register_profile("lanward", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lanward")


def pytest_report_header() -> str:
    """Say in the header what this machine cannot test."""
    if not ROOT:
        return "truck: not built, because network namespaces need root"
    return f"truck: {truck.trunk_description(tagged=truck.kernel_has_vlans())}"


def pytest_sessionstart() -> None:
    """Remove what killed runs left behind."""
    if ROOT:
        remains.sweep()
        netns.sweep()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests measured and kept by `record_property("figure", ...)`, a line each."""
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.stats.get(kind, [])]
    figures = [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for report in reports
        if report.when == "call"
        for name, value in report.user_properties
        if name == "figure"
    ]
    if figures:
        terminalreporter.section("figures")
    for line in figures:
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    started = [t for t in threading.enumerate() if t not in before]
    for thread in started:
        thread.join(timeout=1)
    left = [t.name for t in started if t.is_alive()]
    assert not left, f"threads left running: {left}"


@pytest.fixture(autouse=True)
def _no_namespace_is_left() -> Iterator[None]:
    mine = netns.prefix(os.getpid())
    before = set(netns.existing(mine))
    yield
    left = set(netns.existing(mine)) - before
    netns.delete(sorted(left))
    assert not left, f"network namespaces left: {sorted(left)}"


@pytest.fixture(autouse=True)
def _no_engine_is_left() -> Iterator[None]:
    mine = netns.prefix(os.getpid())
    before = set(remains.homes(mine))
    yield
    left = set(remains.homes(mine)) - before
    for home in left:
        remains.remove(home)
    assert not left, f"Docker engines left: {sorted(left)}"


@pytest.fixture(scope="session")
def count() -> Callable[[int, int], int]:
    """`count(normal, soak)`: how many rounds a long test does; `make soak` sets LANWARD_SOAK=1."""
    return lambda normal, soak: soak if SOAK else normal


@pytest.fixture
def needs_root() -> None:
    """Skip a test that makes network namespaces when the tests do not run as root."""
    if not ROOT:
        pytest.skip("network namespaces need root")
