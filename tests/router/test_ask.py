"""The command line's questions: what is printed is one line each, whatever the names in it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dhcpd.leases import BOUND, Row
from router import SOCKET_NAME, ask, client
from router.__main__ import main
from router.history import History
from router.periods import MAX_ROWS
from router.settings import Keep
from tests.dhcpd.script import START, ip, mac
from tests.router.test_cli import answering, http_answer, status

Capture = pytest.CaptureFixture[str]
HOSTILE = ["\x1b[2J", "two\nlines", "\u202eevil", "\x07", "\x9b31m", "\ud800", "\u2028", "tab\there"]
EVENT = {
    "id": 1, "at": "2026-11-25T21:01:03.123Z", "level": "info", "event": "granted", "vlan": "vlan1",
    "address": "10.0.1.100", "hostname": "gps", "container": None,
}  # fmt: skip
PERIOD = {
    "vlan": "vlan1", "address": "10.0.1.100", "state": "bound", "mac": "02:00:00:00:00:01", "client_id": None,
    "hostname": "gps", "container": None, "since": "2026-11-25T21:01:03Z", "until": None,
}  # fmt: skip
WARNING = {
    "id": "pool_full:vlan1", "since": "2026-11-25T21:01:03Z", "subject": "vlan1", "what": "it is full",
    "cure": "enlarge it",
}  # fmt: skip
EXPLAINED: dict[str, Any] = {
    "vlan": "vlan1", "address": "10.0.1.100", "why": "it was free", "identity": {"kind": "container", "value": "web"},
    "reservation": {"name": "web", "address": "10.0.1.100", "macs": [], "client_id": None, "container": "web"},
    "lease": {
        "state": "bound", "mac": None, "hostname": "web", "since": "2026-11-25T21:01:03Z",
        "expires": "2026-11-25T22:01:03Z",
    },
    "pool": {"range": None, "offered": False},
    "container": {
        "name": "web", "id": "0123456789ab", "network": "br0net", "state": "running", "pinned": "2026-11-25T21:01:03Z",
        "path": "namespace", "problems": ["label lanward.address: no"],
    },
    "docker": {"address": "10.0.1.240", "requested": None, "mac": None, "at": "2026-11-25T21:01:03Z"},
    "namespace": {
        "interface": "eth0", "mac": "02:42:00:00:00:01", "mtu": 1500, "addresses": ["10.0.1.100/24", "10.0.1.240/24"],
        "default_route": {"gateway": "10.0.1.1", "interface": "eth0", "source": None}, "at": "2026-11-25T21:01:04Z",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_a_name_reaches_the_terminal_as_an_order(name: str) -> None:
    for line in (
        ask.event_line(EVENT | {"hostname": name}),
        *ask.explanation(EXPLAINED | {"identity": {"kind": "container", "value": name}}),
        *client.columns([(name,)]),
    ):
        assert line.isprintable()
        assert len(line.splitlines()) == 1


def test_an_event_is_a_line() -> None:
    line = ask.event_line(EVENT)
    assert line.split("  ", 1)[1] == "granted  vlan=vlan1 address=10.0.1.100 hostname=gps"
    assert "WARNING pool_full" in ask.event_line({**EVENT, "level": "warning", "event": "pool_full"})
    assert "lost=7" in ask.event_line({"event": "resync", "lost": 7})


@pytest.fixture
def in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_berlin")
def test_a_time_has_its_zone(tmp_path: Path, capsys: Capture) -> None:
    assert ask.event_line(EVENT).startswith("22:01:03.123 CET  granted")
    assert "granted or renewed at 2026-11-25 22:01:03 CET, until" in ask.explanation(EXPLAINED)[3]
    with answering(tmp_path, http_answer(200, [PERIOD | {"until": "2027-07-01T10:00:00Z"}])):
        assert main(["who", "10.0.1.100", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("  2026-11-25 22:01:03 CET  2027-07-01 12:00:00 CEST\n")
    (tmp_path / SOCKET_NAME).unlink()
    with answering(tmp_path, http_answer(200, [WARNING])):
        assert main(["warnings", "--state", str(tmp_path)]) == 1
    what, cure = capsys.readouterr().out.splitlines()
    assert what == "2026-11-25 22:01:03 CET  it is full"
    assert cure == f"{'':23}  enlarge it"


def test_an_explanation_says_all_that_is_known() -> None:
    lines = ask.explanation(EXPLAINED)
    assert lines[0] == "vlan1  10.0.1.100: it was free"
    assert [line.split()[0] for line in lines[1:]] == [
        "identity", "reserved", "lease", "pool", "container", "Docker", "namespace", "problem",
    ]  # fmt: skip
    assert "eth0 02:42:00:00:00:01: 10.0.1.100/24, 10.0.1.240/24; default by 10.0.1.1" in lines[7]
    assert "before its first instruction" in lines[5]


def test_an_explanation_leaves_out_what_is_not_there() -> None:
    unknown = EXPLAINED | dict.fromkeys(
        ("identity", "reservation", "lease", "pool", "container", "docker", "namespace")
    )
    assert ask.explanation(unknown | {"address": None}) == ["vlan1  no address: it was free"]


def test_who_had_an_address_is_a_table(tmp_path: Path, capsys: Capture) -> None:
    with answering(tmp_path, http_answer(200, [PERIOD])):
        assert main(["who", "10.0.1.100", "--at", "22:00", "--state", str(tmp_path)]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["VLAN", "ADDRESS", "STATE", "NAME", "MAC", "FROM", "UNTIL"]
    assert row.split()[:5] == ["vlan1", "10.0.1.100", "bound", "gps", "02:00:00:00:00:01"]
    assert row.endswith("no end")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_who_shows_all_that_there_is_room_for_and_says_when_it_is_full(
    tmp_path: Path, options: list[str], capsys: Capture
) -> None:
    """Of a service that does not run: it leaves what it had."""
    holders = {"10.0.1.100": 150, "10.0.1.101": MAX_ROWS + 1}
    with closing(History(tmp_path, Keep())) as history:
        history.start()
        for address, count in holders.items():
            lease = Row(ip(address), BOUND, b"", b"", b"", "gps", START, START)
            rows = [
                lease._replace(client=mac(n), mac=mac(n), since=START + n, expires=START + n + 1) for n in range(count)
            ]
            history.put("vlan1", rows, START + count)
    shown = []
    for address in holders:
        assert main(["who", address, *options, "--state", str(tmp_path)]) == 0
        output, errors = capsys.readouterr()
        shown.append((output.count(address), errors))
    assert shown == [
        (150, ""),
        (MAX_ROWS, f"these are the latest {MAX_ROWS}, there may be more: ask for a moment by --at\n"),
    ]


def test_who_asks_the_service_for_as_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = []

    def answer(_state: Path, target: str) -> tuple[int, Any]:
        targets.append(target)
        return 200, [PERIOD]

    monkeypatch.setattr(client, "ask", answer)
    assert main(["who", "gps", "--state", str(tmp_path)]) == 0
    assert targets == [f"/history?node=gps&limit={MAX_ROWS}"]


def test_nobody_had_it(tmp_path: Path, capsys: Capture) -> None:
    with answering(tmp_path, http_answer(200, [])):
        assert main(["who", "10.0.1.100", "--state", str(tmp_path)]) == 1
    assert capsys.readouterr().out == "nobody is known to have had 10.0.1.100\n"


@pytest.mark.parametrize("command", ["who", "explain"])
def test_bytes_that_are_no_text_are_a_name_that_nobody_has(tmp_path: Path, command: str, capsys: Capture) -> None:
    """As Python has them in an argument."""
    answer = http_answer(200, []) if command == "who" else http_answer(404, {"error": "no node is known as '?'"})
    with answering(tmp_path, answer):
        assert main([command, "\udcff", "--state", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert len([*shown.out.splitlines(), *shown.err.splitlines()]) == 1


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_why_a_node_is_not_explained_is_no_answer(tmp_path: Path, options: list[str], capsys: Capture) -> None:
    with answering(tmp_path, http_answer(404, {"error": "no node is known as 'web'"})):
        assert main(["explain", "web", *options, "--state", str(tmp_path)]) == 1
    assert capsys.readouterr() == ("", "no node is known as 'web'\n")


def test_a_history_that_cannot_be_read_is_said(tmp_path: Path, capsys: Capture) -> None:
    with answering(tmp_path, http_answer(503, {"error": "the history cannot be read: x"})):
        assert main(["who", "10.0.1.100", "--state", str(tmp_path)]) == 3
    assert capsys.readouterr().err == "the history cannot be read: x\n"


def test_a_damaged_history_of_a_service_that_does_not_run_is_said(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "history.db").write_bytes(b"damaged" * 1000)
    assert main(["who", "10.0.1.100", "--state", str(tmp_path)]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"the history cannot be read: {tmp_path / 'history.db'}: ")


@pytest.mark.parametrize("command", [["who", "10.0.1.100"], ["watch"], ["explain", "web"], ["warnings"], ["health"]])
def test_a_service_that_does_not_run(tmp_path: Path, command: list[str], capsys: Capture) -> None:
    assert main([*command, "--state", str(tmp_path)]) == 3
    shown = capsys.readouterr()
    assert (shown.out, len(shown.err.splitlines())) == ("", 1)


def test_warnings_are_two_lines_each_and_an_exit_code(tmp_path: Path, capsys: Capture) -> None:
    with answering(tmp_path, http_answer(200, [WARNING])):
        assert main(["warnings", "--state", str(tmp_path)]) == 1
    what, cure = capsys.readouterr().out.splitlines()
    assert what.endswith("  it is full")
    assert cure.strip() == "enlarge it"


def test_a_status_ends_with_the_warnings_that_stand_nowhere_else() -> None:
    shown = client._warning_lines([WARNING, WARNING | {"id": "container:web on br0net"}])
    assert shown == ["", "warning: it is full; enlarge it"]
    assert status(None) == []


def test_a_watcher_prints_json_for_programs(tmp_path: Path, capsys: Capture) -> None:
    body = f"id: 1\nevent: granted\ndata: {json.dumps(EVENT)}\n\n".encode()
    answer = b"HTTP/1.0 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body
    with answering(tmp_path, answer):
        assert main(["watch", "--json", "--state", str(tmp_path)]) == 3
    shown = capsys.readouterr()
    assert json.loads(shown.out) == EVENT
    assert shown.err == "the service has ended\n"
