"""Starts that cannot be: one sentence that says why and what to do, and an exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import netns
from tests.lab.netns import wait_until
from tests.lab.service import COMMAND, REPOSITORY, Service
from tests.wire import control
from tests.wire.segment import Segment, inside, toml, vlan
from tests.wire.station import Lan

BAD_CONFIGURATION, NOT_PERMITTED = 2, 3
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all")


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path) as built:
        yield built


def run(segment: Segment, config: str, state: Path | None = None, prefix: Sequence[str] = ()) -> tuple[int, list[str]]:
    """Run the service to its end, which it has to reach by itself: its exit code and the lines that it wrote."""
    file = segment.service.config.with_name("other.toml")
    file.write_text(config)
    words = [*netns.enter(segment.server), *prefix, *COMMAND, "run", "--config", str(file)]
    words += ["--state", str(state or segment.service.state)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=10)
    assert not done.stdout
    return done.returncode, done.stderr.splitlines()


def refusal(segment: Segment, config: str, state: Path | None = None, prefix: Sequence[str] = ()) -> str:
    """The one sentence with which a start is refused."""
    code, lines = run(segment, config, state, prefix)
    assert (code, len(lines)) == (NOT_PERMITTED, 1), lines
    return lines[0]


def test_a_bad_configuration_shows_all_errors(segment: Segment) -> None:
    bad = vlan(tag=5000, pools=["10.2.1.0-10.2.1.9"], lease_time="soon")
    code, lines = run(segment, bad)
    places = [line.split(": ")[0] for line in lines]
    assert (code, sorted(places)) == (
        BAD_CONFIGURATION,
        ["vlan[0].lease_time", "vlan[0].pools[0]", "vlan[0].tag"],
    )
    assert not list(segment.service.state.iterdir())


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    words = [*COMMAND, "run", "--config", str(tmp_path / "absent"), "--state", str(tmp_path)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=10)
    assert (done.returncode, done.stderr) == (BAD_CONFIGURATION, f"{tmp_path / 'absent'}: No such file or directory\n")


def test_a_port_in_use(segment: Segment, tmp_path: Path) -> None:
    if shutil.which("dnsmasq") is None:
        pytest.skip("dnsmasq is not installed")
    options = [
        "--no-daemon",
        "--port=0",
        "--conf-file=/dev/null",
        "--user=root",
        "--dhcp-range=10.1.2.0,10.1.2.9,255.255.0.0",
    ]
    rival = subprocess.Popen(
        [*netns.enter(segment.server), "dnsmasq", *options, f"--dhcp-leasefile={tmp_path / 'dnsmasq'}"],
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: "00000000:0043 " in udp_sockets(rival.pid), 5, "dnsmasq to take the port")
        sentence = refusal(segment, vlan())
    finally:
        rival.kill()
        rival.wait()
    assert "port 67 on leg1 is in use" in sentence
    assert "ss -lunp" in sentence


def udp_sockets(pid: int) -> str:
    return Path(f"/proc/{pid}/net/udp").read_text()


def test_a_second_service_on_one_interface(segment: Segment, tmp_path: Path) -> None:
    segment.service.start(vlan())
    (tmp_path / "other").mkdir()
    assert "port 67 on leg1 is in use" in refusal(segment, vlan(), tmp_path / "other")
    with Lan(segment) as lan:
        lan.device(1).join()


def test_a_second_service_on_one_state_folder(segment: Segment) -> None:
    segment.service.start(vlan())
    sentence = refusal(segment, vlan())
    assert str(segment.service.state) in sentence
    with Lan(segment) as lan:
        lan.device(1).join()
    assert segment.service.leases()


@pytest.mark.parametrize(
    ("settings", "named"), [({"interface": "eth7"}, "eth7"), ({"tag": 2}, "10.1.0.0/16")], ids=["named", "by subnet"]
)
def test_a_missing_interface(segment: Segment, settings: dict[str, object], named: str) -> None:
    netns.batch(["link del leg1"], segment.server)
    assert named in refusal(segment, vlan(1, **settings))


def test_no_privilege(segment: Segment) -> None:
    state = public_folder(segment)
    os.chown(state, 65534, 65534)
    sentence = refusal(segment, vlan(interface="leg1"), state, NOBODY)
    assert "no permission for sockets on leg1: run as root" in sentence


def test_a_state_folder_that_cannot_be_written(segment: Segment) -> None:
    state = public_folder(segment)
    state.chmod(0o555)
    assert str(state) in refusal(segment, vlan(), state, NOBODY)


def test_what_is_kept_is_for_who_may_open_the_socket(segment: Segment) -> None:
    state = public_folder(segment)
    old = [state / "reservations.json", state / "history.db.bad"]
    for one in old:
        one.write_text('{"reservations": []}')
        one.chmod(0o644)
    segment.service.start(vlan())
    with Lan(segment) as lan:
        lan.device(1).join()
        wait_until(lambda: json.loads(control.ask(state, "GET", "/history").body), 5, "the history")
    segment.service.ask("reserve", "vlan1", "10.1.1.0", "--name", "gps")
    names = {one.name for one in state.iterdir()}
    assert {"leases.db", "leases.db-wal", "history.db", "history.db.bad", "reservations.json"} <= names
    assert [one.name for one in state.iterdir() if one.stat().st_mode & 0o007] == []
    for words in (["leases"], ["who", "10.1.1.0"]):
        command = [*NOBODY, *COMMAND, *words, "--state", str(state)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=10)
        assert (done.returncode, done.stdout) == (NOT_PERMITTED, "")
        assert done.stderr.startswith(f"not permitted to use {state / 'lanward.sock'}: ")


def test_a_state_folder_is_made_for_nobody_else(segment: Segment) -> None:
    service = segment.service = Service(netns.enter(segment.server), segment.service.config.parent / "other")
    service.state.rmdir()
    service.start(vlan())
    assert service.state.stat().st_mode & 0o777 == 0o750


def test_a_state_folder_that_is_a_file(segment: Segment) -> None:
    segment.service.config.touch()
    assert str(segment.service.config) in refusal(segment, vlan(), segment.service.config)


def test_a_state_folder_with_a_path_too_long_for_a_socket(segment: Segment, tmp_path: Path) -> None:
    state = tmp_path / ("x" * 120)
    state.mkdir()
    assert str(state) in refusal(segment, vlan(), state)


def public_folder(segment: Segment) -> Path:
    """A state folder that everybody can reach, as pytest's own cannot be."""
    state = segment.service.state
    for folder in state.parents[:3]:
        folder.chmod(0o755)
    return state


def test_a_socket_that_a_killed_service_left_is_replaced(segment: Segment) -> None:
    segment.service.start(vlan())
    segment.service.kill9()
    assert (segment.service.state / "lanward.sock").exists()
    segment.service.start()
    assert segment.service.leases() == []


def test_a_tcp_port_in_use(segment: Segment) -> None:
    with inside(segment.server), socket.socket() as other:
        other.bind(("127.0.0.1", 8067))
        other.listen()
        sentence = refusal(segment, vlan() + '[api]\nlisten = "127.0.0.1:8067"\ntoken = "secret"\n')
    assert "127.0.0.1:8067 (Address already in use)" in sentence
    assert "secret" not in sentence


def test_an_address_for_the_page_may_come_later(segment: Segment) -> None:
    segment.service.start(vlan() + '[api]\nlisten = "192.168.77.5:8067"\ntoken = "secret"\n')
    with Lan(segment) as lan:
        lan.device(1).join()
    netns.batch(["address add 192.168.77.5/24 dev lo"], segment.server)
    with inside(segment.server), socket.socket() as browser:
        browser.settimeout(10)
        browser.connect(("192.168.77.5", 8067))
        browser.sendall(b"GET / HTTP/1.1\r\nHost: 192.168.77.5:8067\r\n\r\n")
        assert browser.recv(15) == b"HTTP/1.1 200 OK"


def test_without_nf_tables_devices_are_served_and_the_log_says_what_is_missing(
    segment: Segment, tmp_path: Path
) -> None:
    words = [*netns.enter(segment.server), sys.executable, "-m", "tests.lab.old_kernel"]
    service = segment.service = Service(words, tmp_path / "old")
    service.start(vlan(guard=True) + '[[broadcast]]\nname = "gps"\nport = 10110\nfrom = "router"\nto = ["vlan1"]\n')
    with Lan(segment) as lan:
        assert lan.device(1).join() == "10.1.1.0"
    (failed,) = service.events("firewall_failed")
    assert failed["error"].startswith("this kernel has no nf_tables: it needs one with CONFIG_NF_TABLES")
    assert "rules not as configured: this kernel has no nf_tables" in service.ask("status")
    assert control.ask(service.state, "GET", "/metrics").status == 200
    assert not service.events("rules_applied")
    assert service.stop() == 0
    assert "Traceback" not in service.log.read_text()


@pytest.mark.parametrize(
    ("wan", "what"),
    [
        ({"interface": "ppp0"}, "[wan] interface ppp0 does not exist"),
        ({"interface": "leg1"}, "[wan] interface leg1 is that of a VLAN"),
        ({"network": "wan"}, "the router is not in wan, the Docker network of [wan], as far as is known"),
    ],
)
def test_an_uplink_that_is_not_there_is_said(segment: Segment, wan: dict[str, str], what: str) -> None:
    segment.service.start("[wan]\n" + toml(**wan) + vlan())
    wait_until(lambda: segment.service.events("no_uplink"), 5, "the missing uplink to be said")
    (missing,) = segment.service.events("no_uplink")
    assert missing["level"] == "warning"
    assert missing["what"].startswith(what)


@contextmanager
def starting(segment: Segment) -> Iterator[tuple[Future[None], socket.socket]]:
    """A start that has to wait, for an engine that does not answer until its socket is closed."""
    place = segment.service.config.with_name("docker.sock")
    with socket.socket(socket.AF_UNIX) as silent, ThreadPoolExecutor(1) as thread:
        silent.bind(str(place))
        silent.listen()
        network = toml(network="br0net", landing="10.1.255.0/24", interface="leg1")
        start = thread.submit(
            segment.service.start, vlan() + network + f'[docker]\nsocket = "{place}"\nnetns = "{place.parent}"\n'
        )
        wait_until(lambda: segment.service.process, 5, "the process")
        yield start, silent


def minds(segment: Segment, number: signal.Signals) -> bool:
    """Whether the service blocks or catches a signal."""
    assert segment.service.process is not None
    lines = Path(f"/proc/{segment.service.process.pid}/status").read_text().splitlines()
    masks = dict(line.split(":\t") for line in lines if line.startswith("Sig"))
    return any(int(masks[name], 16) >> number - 1 & 1 for name in ("SigBlk", "SigCgt"))


def test_a_reload_during_the_start_is_done_after_it(segment: Segment) -> None:
    with starting(segment) as (start, silent):
        assert segment.service.process is not None
        wait_until(lambda: minds(segment, signal.SIGHUP), 5, "the service to mind it")
        segment.service.process.send_signal(signal.SIGHUP)
        wait_until(lambda: segment.service.events("rules_applied"), 5, "the start")
        segment.service.process.send_signal(signal.SIGHUP)
        assert not start.done()
        silent.close()
        start.result()
    wait_until(lambda: segment.service.events("reloaded"), 5, "the reload")
    told = [one["event"] for one in segment.service.events()]
    assert [one for one in told if one in {"ready", "reloaded"}] == ["ready", "reloaded"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_start_is_in_order(segment: Segment, number: signal.Signals) -> None:
    with starting(segment) as (start, _):
        assert segment.service.process is not None
        wait_until(lambda: segment.service.events("rules_applied"), 5, "the start")
        segment.service.process.send_signal(number)
        assert segment.service.process.wait(5) == 0
        with pytest.raises(RuntimeError, match="did not become ready"):
            start.result()
    assert [one["event"] for one in segment.service.events() if one["event"] in {"ready", "stopped"}] == ["stopped"]
    assert "Traceback" not in segment.service.log.read_text()
    assert not (segment.service.state / "lanward.sock").exists()
