"""The control socket and the command line of a running service."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.netns import wait_until
from tests.lab.service import COMMAND, REPOSITORY
from tests.wire import control
from tests.wire.segment import Segment, reservation, vlan
from tests.wire.station import Lan

SAMPLE = re.compile(r'(?P<name>[a-z_]+)(?:\{(?:[a-z]+="[^"\\\n]*",?)+\})? \d+(?:\.\d+)?(?:e-\d+)?')
HOSTILE = [
    b"\x1b[2J\x1b]0;owned\x07", b"<script>alert(1)</script>", b'a"b\'c\\d', b"two\nlines\r\n", b"nul\0byte",
    b"\xff\xfe\x80", b"../../etc/passwd", b"$(reboot)`id`", "\u202eevil".encode(), b"{}[]=,", b" ", b"x" * 255,
]  # fmt: skip
PLAIN = re.compile(r"[A-Za-z0-9._-]{0,63}")


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path, vlans=2) as built:
        yield built


def check_metrics(body: bytes) -> dict[str, str]:
    """Prometheus text format 0.0.4: each sample belongs to the family announced before it. Returns name -> type."""
    families: dict[str, str] = {}
    current = ""
    assert body.endswith(b"\n")
    for line in body.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, current, kind = line.split()
            assert current not in families
            assert kind in {"counter", "gauge", "histogram"}
            families[current] = kind
        elif not line.startswith("# HELP "):
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            suffixes = ("_bucket", "_sum", "_count") if families[current] == "histogram" else ("",)
            assert sample["name"] in {current + one for one in suffixes}
    return families


def test_the_socket_answers_what_it_should_and_nothing_else(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    state = segment.service.state
    mode = (state / "lanward.sock").stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660
    found = {
        (method, target): control.ask(state, method, target).status
        for method in ("GET", "POST", "PUT", "DELETE")
        for target in ("/leases", "/status", "/metrics", "/reload", "/", "/map", "/../../etc/passwd", "/leases/x")
    }
    good = {("GET", one) for one in ("/leases", "/status", "/metrics", "/", "/map")} | {("POST", "/reload")}
    assert {asked for asked, status in found.items() if status == 200} == good
    assert {status for asked, status in found.items() if asked not in good} == {404, 405}
    assert control.ask(state, "GET", "/leases") == (200, "application/json", b"[]")
    assert "Traceback" not in segment.service.log.read_text()


def test_metrics_are_prometheus_text(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    with Lan(segment) as lan:
        lan.device(1).join()
    answer = control.ask(segment.service.state, "GET", "/metrics")
    assert answer.content_type == "text/plain; version=0.0.4; charset=utf-8"
    families = check_metrics(answer.body)
    assert families["lanward_leases"] == "gauge"
    assert families["lanward_packets_received_total"] == "counter"
    lines = answer.body.decode().splitlines()
    assert 'lanward_leases{vlan="vlan1",state="bound"} 1' in lines
    assert 'lanward_leases{vlan="vlan2",state="bound"} 0' in lines
    assert 'lanward_packets_sent_total{vlan="vlan1",type="ack"} 1' in lines


def test_the_command_line_shows_leases_and_status(segment: Segment) -> None:
    camera = reservation(name="camera", mac="02:00:00:00:00:09", address="10.1.0.20")
    segment.service.start(vlan(1) + camera + vlan(2))
    with Lan(segment) as lan:
        lan.device(1, hostname="gps").join()
    head, bound, reserved = sorted(segment.service.ask("leases").splitlines(), key=lambda line: "10.1" in line)
    assert head.split() == ["VLAN", "ADDRESS", "STATE", "NAME", "KIND", "MAC", "EXPIRES"]
    rows = {row.split()[1]: row.split() for row in (bound, reserved)}
    assert rows["10.1.1.0"][:6] == ["vlan1", "10.1.1.0", "bound", "gps", "device", "02:00:00:00:00:01"]
    assert rows["10.1.0.20"] == ["vlan1", "10.1.0.20", "reserved", "camera", "device", "02:00:00:00:00:09", "-"]
    _, rules, _, _, first, second = segment.service.ask("status").splitlines()
    assert rules == "rules as configured, changed by somebody else and repaired 0 times"
    assert first.split() == ["vlan1", "10.1.0.0/16", "leg1", "1", "0", "0", "1", "51199", "51200"]
    assert second.split()[:3] == ["vlan2", "10.2.0.0/16", "leg2"]
    status = json.loads(segment.service.ask("status", "--json"))
    assert {"version", "config", "state", "since", "vlans"} <= status.keys()


def ended_with(segment: Segment, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    command = [*COMMAND, *words, "--state", str(segment.service.state)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=10)
    return done.returncode, done.stdout, done.stderr


def test_the_command_line_gives_a_container_its_lease_before_it_is_there(segment: Segment) -> None:
    segment.service.start(vlan(1, pools=["10.1.1.0-10.1.1.0"]))
    for _ in range(2):
        assert ended_with(segment, "lease", "vlan1", "web") == (0, "10.1.1.0\n", "")
        segment.service.kill9()
        segment.service.start()
    code, output, why = ended_with(segment, "lease", "vlan1", "db")
    assert (code, output) == (1, "")
    assert why.startswith("vlan1 has no address for db: ")
    assert ended_with(segment, "lease", "vlan7", "db") == (2, "", "no VLAN has the name vlan7: there are vlan1\n")
    assert ended_with(segment, "lease", "vlan1", "")[0] == 2
    (row,) = segment.service.leases()
    assert (row["container"], row["address"], row["kind"]) == ("web", "10.1.1.0", "container")


@pytest.mark.parametrize("verb", ["leases", "status"])
def test_a_service_that_does_not_run_is_one_sentence(tmp_path: Path, verb: str) -> None:
    words = [*COMMAND, verb, "--state", str(tmp_path)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=10)
    assert (done.returncode, done.stdout) == (3, "")
    (sentence,) = done.stderr.splitlines()
    assert "lanward is not running" in sentence
    assert str(tmp_path) in sentence


def test_hostile_host_names_come_out_harmless(segment: Segment) -> None:
    segment.service.start(vlan(1))
    with Lan(segment) as lan:
        devices = [lan.device(n, hostname=name, client_id=b"\0" + name[:60]) for n, name in enumerate(HOSTILE)]
        for one in devices:
            one.join()
    rows = segment.service.leases()
    assert len(rows) == len(HOSTILE)
    assert all(PLAIN.fullmatch(row["hostname"] or "") for row in rows)
    assert len(segment.service.ask("leases").splitlines()) == len(HOSTILE) + 1
    assert segment.service.ask("leases").replace("\n", "").isprintable()
    wait_until(lambda: len(segment.service.events("granted")) == len(HOSTILE), 3, "the log lines")
    assert all(line.startswith("{") and line.isprintable() for line in segment.service.log.read_text().splitlines())
    check_metrics(control.ask(segment.service.state, "GET", "/metrics").body)


def test_a_vlan_may_be_named_like_a_field_of_the_log(segment: Segment) -> None:
    segment.service.start(vlan(1, name="event", known_only=True))
    with Lan(segment) as lan:
        lan.device(1).discover(timeout=0)
    wait_until(lambda: segment.service.events("dropped"), 3, "the drop in the log")
    assert segment.service.events("dropped")[0]["vlans"] == {"event": {"unknown_client": 1}}


class Asking(threading.Thread):
    """One who asks the service the same all the time, until `stop`."""

    def __init__(self, state: Path, target: str) -> None:
        super().__init__(name="asking")
        self._state, self._target = state, target
        self._ended = threading.Event()
        self.answers = 0
        self.body = b""

    def run(self) -> None:
        while not self._ended.is_set():
            self.body = control.ask(self._state, "GET", self._target).body
            self.answers += 1

    def stop(self) -> None:
        self._ended.set()
        self.join()


def processor_seconds(segment: Segment) -> float:
    """What the service's loop has used until now: unlike the time of a clock, other programs do not add to it."""
    assert segment.service.process is not None
    pid = segment.service.process.pid
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def work_of_an_answer(segment: Segment, target: str) -> float:
    """Processor seconds of the service's loop for one answer, when the HTTP server is there already."""
    control.ask(segment.service.state, "GET", target)
    before = processor_seconds(segment)
    control.ask(segment.service.state, "GET", target)
    return processor_seconds(segment) - before


def work_before_offers(segment: Segment, number: int) -> list[float]:
    """Processor seconds of the service's loop from a DISCOVER to its OFFER, for so many devices."""
    spent = []
    with Lan(segment) as lan:
        for device in map(lan.device, range(100_000, 100_000 + number)):
            before = processor_seconds(segment)
            assert device.discover(timeout=10).kind == "offer"
            spent.append(processor_seconds(segment) - before)
    return spent


@pytest.mark.parametrize(("target", "share"), [("/leases", 1 / 3), ("/metrics", 3), ("/status", 3)])
def test_questions_hold_up_no_offer(
    segment: Segment, target: str, share: float, count: Callable[[int, int], int]
) -> None:
    """An OFFER waits for a part of a long answer, or for a few short ones."""
    segment.service.start(vlan(1) + vlan(2))
    segment.load("direct", count=20_000, window=128, seconds=60)
    whole = work_of_an_answer(segment, target)
    asking = Asking(segment.service.state, target)
    asking.start()
    try:
        wait_until(lambda: asking.answers, 20, "the first answer")
        spent = work_before_offers(segment, count(200, 2000))
        wait_until(lambda: asking.answers > 5, 60, "more answers")
    finally:
        asking.stop()
    print(
        f"{target}: {asking.answers} answers of {len(asking.body)} bytes, each {whole * 1e3:.1f} ms of work", end="; "
    )
    print(f"{max(spent) * 1e3:.1f} ms of work before an OFFER")
    assert max(spent) < 0.02 + share * whole
    if target == "/leases":
        assert len(json.loads(asking.body)) >= 20_000
