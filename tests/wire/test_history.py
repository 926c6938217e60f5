"""``lanward who`` and ``watch`` against a running service."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from router import periods
from tests.lab.netns import wait_until
from tests.lab.service import COMMAND, REPOSITORY
from tests.wire.control import ask
from tests.wire.segment import Segment, vlan
from tests.wire.station import Lan


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path) as built:
        yield built


def lanward(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def told(segment: Segment, target: str) -> list[dict[str, Any]]:
    found = ask(segment.service.state, "GET", target)
    assert found.status == 200, found.body
    rows: list[dict[str, Any]] = json.loads(found.body)
    return rows


def test_who_had_an_address(segment: Segment) -> None:
    segment.service.start(vlan(pools=["10.1.1.0-10.1.1.0"]))
    state = str(segment.service.state)
    with Lan(segment) as lan:
        first = lan.device(1, hostname="gps")
        assert first.join() == "10.1.1.0"
        wait_until(lambda: told(segment, "/history?address=10.1.1.0"), 5, "the lease to be in the history")
        first.release()
        wait_until(lambda: segment.states()["10.1.1.0"] == "expired", 5, "the release")
        between = time.time()
        time.sleep(2 - between % 1)  # to a whole second that nobody had it in
        assert lan.device(2, hostname="camera").join() == "10.1.1.0"
        wait_until(lambda: len(told(segment, "/history?address=10.1.1.0")) == 2, 5, "the second lease")
    found = lanward("who", "10.1.1.0", "--at", "now", "--state", state)
    assert (found.returncode, "camera" in found.stdout, "gps" in found.stdout) == (0, True, False)
    assert lanward("who", "10.1.1.0", "--at", "10 minutes ago", "--state", state).returncode == 1
    segment.service.stop()
    found = lanward("who", "gps", "--json", "--state", state)
    assert [(one["address"], one["hostname"]) for one in json.loads(found.stdout)] == [("10.1.1.0", "gps")]


@pytest.mark.parametrize("query", ["address=nonsense", "at=soon", "limit=0", "limit=x", "since=25:99", "hostname=gps"])
def test_a_bad_question_is_one_line(segment: Segment, query: str) -> None:
    segment.service.start(vlan())
    found = ask(segment.service.state, "GET", f"/history?{query}")
    assert found.status == 400
    assert json.loads(found.body)["error"].isprintable()


def test_a_bad_time_is_one_line_on_the_command_line(tmp_path: Path) -> None:
    found = lanward("who", "10.1.1.0", "--at", "soon", "--state", str(tmp_path))
    assert (found.returncode, len(found.stderr.splitlines())) == (2, 1)


def test_a_damaged_history_does_not_keep_the_service_from_its_work(segment: Segment) -> None:
    (segment.service.state / periods.FILE_NAME).write_bytes(b"damaged" * 1000)
    segment.service.start(vlan())
    with Lan(segment) as lan:
        address = lan.device(1, hostname="gps").join()
    wait_until(lambda: told(segment, f"/history?address={address}"), 5, "the lease to be in the history")
    wait_until(lambda: segment.service.events("history"), 5, "a word in the log")


def test_a_kill_costs_the_history_nothing_that_it_had(segment: Segment) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan:
        address = lan.device(1, hostname="gps").join()
        wait_until(lambda: told(segment, f"/history?address={address}"), 5, "the lease to be in the history")
        lan.device(2).join()
        segment.service.kill9()
        segment.service.start()
        (one,) = told(segment, f"/history?address={address}&at=now")
        assert one["hostname"] == "gps"
        other = lan.device(3).join()
    wait_until(lambda: told(segment, f"/history?address={other}"), 5, "the next lease")
    assert not segment.service.events("history")


def test_who_watches_on_the_command_line(segment: Segment) -> None:
    segment.service.start(vlan())
    command = [*COMMAND, "watch", "--state", str(segment.service.state)]
    with Lan(segment) as lan, subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as watcher:
        assert watcher.stdout is not None
        try:
            line, number, deadline = b"", 0, time.monotonic() + 20
            while b"granted" not in line and time.monotonic() < deadline:
                number += 1
                lan.device(number, hostname="gps").join()
                if select.select([watcher.stdout], [], [], 0.2)[0]:
                    line = watcher.stdout.readline()
            assert b"vlan=vlan1 address=10.1.1." in line
        finally:
            watcher.send_signal(signal.SIGINT)
        assert watcher.wait(10) == 0


def test_how_soon_the_service_answers(segment: Segment, record_property: Callable[[str, object], None]) -> None:
    """A question about one moment, over the control socket, with 50,000 leases in the history."""
    segment.service.start(vlan())
    segment.load("direct", count=50_000, window=128, seconds=60)
    wait_until(lambda: len(told(segment, "/history?limit=1000")) == 1000, 10, "the history")
    seconds = []
    for number in range(100):
        start = time.perf_counter()
        assert told(segment, f"/history?address=10.1.{1 + number}.7&at=now")
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    assert lanward("who", "10.1.3.7", "--at", "now", "--state", str(segment.service.state)).returncode == 0
    command = time.perf_counter() - start
    seconds.sort()
    record_property(
        "figure",
        f"median {seconds[50] * 1e3:.1f} ms, worst of 100 {seconds[-1] * 1e3:.1f} ms; the command {command:.2f} s",
    )
    assert seconds[50] < 0.05
