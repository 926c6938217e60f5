"""`GET /events` of a running service."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.wire.segment import Segment, vlan
from tests.wire.station import Lan


class Stream:
    """The answer to ``GET /events``, read as it comes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._text = b""
        self.resyncs: list[dict[str, Any]] = []

    def until(self, name: str, seconds: float = 5, **fields: object) -> dict[str, Any]:
        """The next event of that name with these fields, those before it are skipped."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            block, found, rest = self._text.partition(b"\n\n")
            if not found:
                self._connection.settimeout(max(0.01, deadline - time.monotonic()))
                data = self._connection.recv(65536)
                assert data, "the stream ended"
                self._text += data
                continue
            self._text = rest
            lines = dict(line.split(": ", 1) for line in block.decode().splitlines() if ": " in line)
            if "data" not in lines:
                continue
            event: dict[str, Any] = json.loads(lines["data"])
            assert event["event"] == lines["event"]
            if lines["event"] == "resync":
                self.resyncs.append(event)
                continue
            assert str(event["id"]) == lines["id"]
            if event["event"] == name and fields.items() <= event.items():
                return event
        raise TimeoutError(f"no event {name} {fields} in {seconds:g} s")

    def ends(self) -> bool:
        """Whether the other side says that nothing more comes."""
        self._connection.settimeout(5)
        while self._connection.recv(65536):
            pass
        return True


@contextmanager
def events(state: Path, **headers: str) -> Iterator[Stream]:
    """HTTP/1.0, so that the answer is not in chunks."""
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(10)
        one.connect(str(state / "lanward.sock"))
        lines = [f"{key.replace('_', '-')}: {value}\r\n" for key, value in headers.items()]
        one.sendall(f"GET /events HTTP/1.0\r\n{''.join(lines)}\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            data = one.recv(1)
            assert data, head
            head += data
        assert b" 200 " in head.splitlines()[0], head
        assert b"text/event-stream" in head
        yield Stream(one)


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path) as built:
        yield built


def test_who_watches_sees_leases_as_they_change(segment: Segment) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan, events(segment.service.state) as stream:
        device = lan.device(1, hostname="gps")
        address = device.join()
        lease = stream.until("lease", address=address)
        (held,) = segment.service.leases()
        ends = [datetime.fromisoformat(one) for one in (lease.pop("expires"), held["expires"])]
        assert abs((ends[0] - ends[1]).total_seconds()) <= 1
        assert {**lease, "id": 0, "at": ""} == {
            "id": 0, "at": "", "level": "info", "event": "lease", "vlan": "vlan1", "address": address,
            "state": "bound", "mac": device.mac.hex(":"), "hostname": "gps", "container": None,
        }  # fmt: skip
        assert stream.until("granted")["hostname"] == "gps"
        device.release()
        assert stream.until("lease", state="expired")["address"] == address


def test_a_watcher_that_comes_back_misses_nothing(segment: Segment) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan:
        with events(segment.service.state) as stream:
            lan.device(1).join()
            seen = stream.until("granted")["id"]
        address = lan.device(2).join()
        with events(segment.service.state, Last_Event_ID=str(seen)) as stream:
            assert stream.until("granted")["address"] == address
            assert not stream.resyncs


def test_a_watcher_of_the_service_before_is_told_to_start_anew(segment: Segment) -> None:
    segment.service.start(vlan())
    with Lan(segment) as lan:
        with events(segment.service.state) as stream:
            lan.device(1).join()
            seen = stream.until("granted")["id"]
        segment.service.stop()
        segment.service.start()
        with events(segment.service.state, Last_Event_ID=str(seen)) as stream:
            lan.device(2).join()
            stream.until("granted")
            assert len(stream.resyncs) == 1


def test_a_watcher_does_not_hold_up_the_end_of_the_service(segment: Segment) -> None:
    segment.service.start(vlan())
    with events(segment.service.state) as stream:
        began = time.monotonic()
        assert segment.service.stop() == 0
        assert time.monotonic() - began < 3
        assert stream.ends()


def test_a_watcher_that_reads_nothing_costs_the_service_nothing(segment: Segment) -> None:
    """It loses the oldest, is told so, and everybody else is served."""
    segment.service.start(vlan())
    with events(segment.service.state) as stream:
        figures = segment.load("direct", count=5000, window=64, seconds=20)
        assert figures["exchanges"] == 5000
        with Lan(segment) as lan:
            address = lan.device(1).join()
            stream.until("granted", seconds=10, address=address)
        assert sum(one["lost"] for one in stream.resyncs) > 1000
