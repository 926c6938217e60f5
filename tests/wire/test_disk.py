"""The disk fails under the service: a damaged database at the start, no room for a commit."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import netns
from tests.lab.netns import wait_until
from tests.lab.service import Service
from tests.wire import control
from tests.wire.segment import Segment, vlan
from tests.wire.station import Lan
from tests.wire.test_kill import acknowledged

SMALL_DISK = """mount -t tmpfs -o size=6m tmpfs "$0" && exec "$@" """


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path) as built:
        yield built


def test_a_corrupt_database_costs_no_service_and_few_leases(segment: Segment) -> None:
    segment.service.start(vlan())
    segment.load("direct", count=2000)
    segment.service.stop()
    path = segment.service.state / "leases.db"
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4096] = bytes(4096)
    path.write_bytes(data)
    segment.service.start()
    wait_until(lambda: segment.service.events("lease_database"), 3, "the damage in the log")
    kept = segment.states()
    assert 1800 < len(kept) < 2000
    assert len(list(segment.service.state.glob("leases.db*"))) > 1, "the bad file was set aside"
    figures = segment.load("direct", count=2000, window=16)
    assert (figures["exchanges"], figures["naks"], figures["double_allocated"]) == (2000, 0, 0)


def test_a_database_of_nonsense_costs_no_service(segment: Segment) -> None:
    (segment.service.state / "leases.db").write_bytes(b"<html>" * 10_000)
    segment.service.start(vlan())
    wait_until(lambda: segment.service.events("lease_database"), 3, "the damage in the log")
    with Lan(segment) as lan:
        assert lan.device(1).join() == "10.1.1.0"
    segment.service.kill9()
    segment.service.start()
    assert segment.states() == {"10.1.1.0": "bound"}


def on_small_disk(segment: Segment, home: Path) -> Service:
    """A service whose state folder is a file system of 6 MiB, in a mount namespace of its own."""
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", SMALL_DISK, str(home / "state")]
    return Service([*netns.enter(segment.server), *words], home)


def fill(folder: Path) -> Path:
    """Leave no room on the file system of a folder."""
    file = folder / "fill"
    done = subprocess.run(["dd", "if=/dev/zero", f"of={file}", "bs=4096"], capture_output=True, text=True, check=False)
    assert "No space left" in done.stderr
    return file


def test_a_full_disk_means_silence_and_ends(segment: Segment, tmp_path: Path) -> None:
    service = segment.service = on_small_disk(segment, tmp_path / "small")
    service.start(vlan())
    assert service.process is not None
    state = Path(f"/proc/{service.process.pid}/root{service.state}")
    with Lan(segment) as lan:
        early, late = lan.device(1), lan.device(2)
        early.join()
        file = fill(state)
        load = segment.start_load(
            "direct", count=30_000, window=64, seconds=3, tries=1, timeout=0.5, log=str(tmp_path / "acks")
        )
        wait_until(lambda: service.events("commit_failed"), 10, "a commit to fail")
        figures = json.loads(load.communicate(timeout=20)[0])
        assert figures["lost"] > 0, "silence instead of an ACK"
        assert 'operation="commit"' in control.ask(state, "GET", "/metrics").body.decode()
        file.unlink()
        wait_until(lambda: early.renew(timeout=0.2).kind == "ack", 5, "an ACK after there is room again")
        late.join()
    promised = acknowledged(tmp_path / "acks")
    promised |= {device.mac.hex(":"): device.address for device in (early, late)}
    assert {event["level"] for event in service.events("commit_failed")} == {"error"}
    assert promised.items() <= after_power_cut(segment, state, tmp_path / "copy").items()


def after_power_cut(segment: Segment, state: Path, home: Path) -> dict[str, str]:
    """MAC -> address as a service knows them that is started on what is on the disk now."""
    service = segment.service
    assert service.process is not None
    service.process.send_signal(signal.SIGSTOP)
    segment.service = Service(netns.enter(segment.server), home)
    for file in state.glob("leases.db*"):
        shutil.copy(file, segment.service.state)
    service.kill9()
    segment.service.start(vlan())
    return {row["mac"]: row["address"] for row in segment.service.leases() if row["state"] == "bound"}
