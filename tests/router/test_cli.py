"""The command line, as far as it needs no running service."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from router import SOCKET_NAME, client
from router.__main__ import main
from tests.lab.service import COMMAND, REPOSITORY
from tests.router.good import GOOD

LEASE = {
    "vlan": "vlan1", "address": "10.0.1.100", "kind": "device", "state": "bound", "mac": "02:00:00:00:00:01",
    "client_id": None, "hostname": "gps", "container": None, "expires": "2027-01-15T09:00:00Z", "fits": True,
}  # fmt: skip
Capture = pytest.CaptureFixture[str]


def table(**changes: Any) -> list[str]:
    """The cells of the one row of a lease table."""
    _, row = client.lease_table([LEASE | changes])
    return re.split(" {2,}", row)


def test_a_good_file_is_fine(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "lanward.toml"
    file.write_text((REPOSITORY / "lanward.toml").read_text())
    assert main(["check-config", str(file)]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (f"{file}: fine: 2 VLANs (vlan1, vlan2)\n", "")


def test_each_error_of_a_bad_file_is_a_line_with_its_place(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "lanward.toml"
    file.write_text(GOOD.replace("tag = 1", "tag = 0").replace('pools = ["10.0.1.100', 'pools = ["10.0.3.100'))
    assert main(["check-config", str(file)]) == 2
    shown = capsys.readouterr()
    places = [line.split(": ")[0] for line in shown.err.splitlines()]
    assert {"vlan[0].tag", "vlan[0].pools[0]"} <= set(places)
    assert not shown.out


def test_a_file_that_is_not_there(tmp_path: Path, capsys: Capture) -> None:
    assert main(["check-config", str(tmp_path / "absent")]) == 2
    assert capsys.readouterr().err == f"{tmp_path / 'absent'}: No such file or directory\n"


def test_what_looks_like_an_accident_is_said_but_fine(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "lanward.toml"
    file.write_text(GOOD + '[[allow]]\nfrom = "vlan2"\nto = "vlan1"\n')
    assert main(["check-config", str(file)]) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "opens" in line]
    assert warning.startswith("warning: allow[")
    assert warning.endswith("opens all of vlan1 to vlan2, on all ports")


@pytest.mark.parametrize("words", [[], ["dance"], ["leases", "--loud"], ["run", "--config"], ["lease", "vlan1"]])
def test_bad_usage(words: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    assert "usage: lanward" in capsys.readouterr().err


def test_help_names_the_commands(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in ("run", "check-config", "rules", "leases", "status", "lease", "verify"))
    assert "Exit codes: 0 fine" in shown


@pytest.mark.parametrize(
    ("verb", "default"), [("run", "/etc/lanward/lanward.toml"), ("run", "/var/lib/lanward"), ("rules", "/etc/lanward")]
)
def test_help_tells_the_defaults(verb: str, default: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert default in capsys.readouterr().out


def shell(tmp_path: Path, words: str) -> subprocess.CompletedProcess[str]:
    """What a line of the shell does, with ``$LANWARD`` and the configuration ``$FILE``."""
    (tmp_path / "lanward.toml").write_text(GOOD)
    environment = {"LANWARD": " ".join(COMMAND), "FILE": str(tmp_path / "lanward.toml")}
    command = ["bash", "-o", "pipefail", "-c", words]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


def test_an_answer_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    done = shell(tmp_path, "$LANWARD rules --config $FILE >/dev/full")
    assert (done.returncode, done.stderr) == (3, "lanward: No space left on device\n")


def test_a_reader_that_has_enough_is_no_error(tmp_path: Path) -> None:
    done = shell(tmp_path, "$LANWARD rules --config $FILE | (exec <&-)")
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def answering(state: Path, answer: bytes) -> Iterator[None]:
    """Something that listens on the control socket and says ``answer`` to the first who asks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(state / SOCKET_NAME))
        listening.listen()
        listening.settimeout(5)

        def serve() -> None:
            asking, _ = listening.accept()
            with asking, asking.makefile("rb") as request:
                lines = list(iter(request.readline, b"\r\n"))
                sizes = [int(line.split()[1]) for line in lines if line.lower().startswith(b"content-length")]
                request.read(sum(sizes))
                asking.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize("answer", [b"", b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{,}"])
def test_an_answer_that_is_none(tmp_path: Path, answer: bytes, capsys: Capture) -> None:
    with answering(tmp_path, answer):
        assert main(["leases", "--state", str(tmp_path)]) == 3
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "lanward is not running" in sentence


def test_nobody_listens(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / SOCKET_NAME).touch()
    assert main(["status", "--state", str(tmp_path)]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


def http_answer(status: int, body: Any) -> bytes:
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(data)) + data


def test_a_lease_is_printed_as_nothing_but_its_address(tmp_path: Path, capsys: Capture) -> None:
    with answering(tmp_path, http_answer(200, {"address": "10.0.1.100"})):
        assert main(["lease", "vlan1", "web", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr() == ("10.0.1.100\n", "")


@pytest.mark.parametrize(("status", "code"), [(400, 2), (404, 2), (409, 1)])
def test_a_lease_that_is_refused_is_one_sentence(tmp_path: Path, status: int, code: int, capsys: Capture) -> None:
    with answering(tmp_path, http_answer(status, {"error": "because"})):
        assert main(["lease", "vlan1", "web", "--state", str(tmp_path)]) == code
    assert capsys.readouterr() == ("", "because\n")


def test_a_lease_of_a_service_that_does_not_run(tmp_path: Path, capsys: Capture) -> None:
    assert main(["lease", "vlan1", "web", "--state", str(tmp_path)]) == 3
    shown = capsys.readouterr()
    assert (shown.out, len(shown.err.splitlines())) == ("", 1)


def test_leases_for_programs(tmp_path: Path, capsys: Capture) -> None:
    with answering(tmp_path, http_answer(200, [LEASE])):
        assert main(["leases", "--json", "--state", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == [LEASE]


def test_a_lease_is_a_row() -> None:
    assert table() == [
        "vlan1", "10.0.1.100", "bound", "gps", "device", "02:00:00:00:00:01", "2027-01-15T09:00:00Z",
    ]  # fmt: skip


def test_a_row_says_what_is_special() -> None:
    assert "bound (outside the configuration)" in table(fits=False)
    assert "web" in table(container="web")
    assert table(expires=None)[-1] == "never"
    assert table(state="reserved", expires=None)[-1] == "-"


def test_columns_are_aligned_and_end_without_blanks() -> None:
    assert client.columns([("A", "BB", "C"), ("long", "x", "")]) == ["A     BB  C", "long  x"]


def test_a_table_without_leases_is_its_head() -> None:
    assert len(client.lease_table([])) == 1


CONTAINER = {
    "vlan": "vlan1", "network": "br0net", "container": "web", "id": "0123456789ab", "identity": "web",
    "state": "running", "address": "10.0.1.100", "docker_address": "10.0.1.240", "mac": "02:42:0a:00:01:f0",
    "pinned": "2026-11-24T19:50:37.247Z", "path": "namespace", "problems": [],
}  # fmt: skip
VLAN = {
    "name": "vlan1", "subnet": "10.0.1.0/24", "interface": "leg1", "dhcp": "own", "pool": {"free": 98, "size": 100},
    "leases": {"bound": 2, "expired": 0, "declined": 0, "reserved": 1},
}  # fmt: skip


def status(docker: dict[str, Any] | None) -> list[str]:
    """The lines of a status below the one of the VLAN."""
    firewall = {"error": None, "repairs": 0}
    shown = {
        "version": "1", "since": "now", "config": "lanward.toml", "vlans": [VLAN], "docker": docker,
        "firewall": firewall,
    }  # fmt: skip
    return client.status_table(shown)[5:]


def docker(*containers: dict[str, Any], warnings: list[str] | None = None) -> dict[str, Any]:
    return {"connected": True, "pins": {}, "warnings": warnings or [], "containers": list(containers)}


def cells(**changes: Any) -> list[str]:
    """The cells of the row of one container."""
    *_, row = status(docker(CONTAINER | changes))
    return re.split(" {2,}", row)


def test_without_containers_a_status_ends_with_the_vlans() -> None:
    assert status(None) == status(docker()) == []


def test_a_container_is_a_row() -> None:
    blank, head, _ = status(docker(CONTAINER))
    assert (blank, head.split()) == ("", ["VLAN", "CONTAINER", "LEASE", "STATE", "PINNED", "PROBLEM"])
    assert cells() == ["vlan1", "web", "10.0.1.100", "running", "namespace", "-"]


def test_a_container_that_has_not_what_it_should() -> None:
    assert cells(pinned=None)[4] == "no"
    assert cells(state="exited")[3:5] == ["exited", "-"]
    assert cells(address=None, pinned=None, problems=["one", "two\nlines"])[2:] == [
        "none", "running", "no", "one; two lines",
    ]  # fmt: skip


def test_a_warning_is_shown_once() -> None:
    shown = status(docker(CONTAINER | {"problems": ["a", "b"]}, warnings=["a; b", "Docker has no\nnetwork br1net"]))
    assert shown[2].endswith("  a; b")
    assert shown[3:] == ["", "warning: Docker has no network br1net"]
    assert status(docker(warnings=["no engine"])) == ["", "warning: no engine"]


def test_the_ways_to_the_page(tmp_path: Path) -> None:
    file = tmp_path / "lanward.toml"
    file.write_text(GOOD.replace("[api]", '[api]\nhosts = ["router.lan"]'))
    status = {"config": str(file), "api": "127.0.0.1:8067"}
    first, _, *by_ssh = client.ways_in(status, tmp_path)
    assert first == f"http://router.lan:8067/, with the token of [api] in {file}"
    assert f"  ssh -N -L 8067:{tmp_path / SOCKET_NAME} root@{socket.gethostname()}" in by_ssh
    for listening in (None, "127.0.0.1:8068"):
        *others, _, last = client.ways_in(status | {"api": listening}, tmp_path)
        assert others == by_ssh
        assert last.startswith(f"Nothing listens on 127.0.0.1:8067, the address of [api] in {file}: ")
    file.write_text(GOOD.replace("127.0.0.1:8067", "0.0.0.0:8067"))
    first, *_ = client.ways_in(status | {"api": "0.0.0.0:8067"}, tmp_path)
    assert first.startswith("http://ADDRESS-OF-THE-ROUTER:8067/, ")
    file.write_text(GOOD.partition("[api]")[0])
    assert client.ways_in(status, tmp_path)[: len(by_ssh)] == by_ssh
