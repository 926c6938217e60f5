"""The command line's side of the control API: ask the running service, print the answer."""

from __future__ import annotations

import http.client
import json
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from leasebroker.containers import STARTED
from router import SOCKET_NAME, NotRunningError
from router.config import load
from router.text import harmless

STREAM_SECONDS = 60.0
"""Without a sign of life, of which there is one every 15 s."""


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float = 30) -> None:
        super().__init__("lanward", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get(state: Path, target: str) -> Any:
    """The JSON answer of the service whose state folder is ``state``. Raises `NotRunningError`."""
    return _ask(state, "GET", target, None)[1]


def ask(state: Path, target: str) -> tuple[int, Any]:
    """The HTTP status and the JSON answer, whatever it is. Raises `NotRunningError`."""
    return _ask(state, "GET", target, None)


@contextmanager
def stream(state: Path, target: str) -> Iterator[Iterable[bytes]]:
    """The lines of an answer that goes on, as they come. Raises `NotRunningError`."""
    connection = _Connection(state / SOCKET_NAME, STREAM_SECONDS)
    with closing(connection), _explained(state):
        connection.request("GET", target)
        response = connection.getresponse()
        if response.status != 200:
            raise NotRunningError(json.loads(response.read())["error"])
        yield response


def tell(state: Path, method: str, target: str, body: Any = None) -> tuple[int, Any]:
    """The HTTP status and the JSON answer, to a JSON body if there is one. Raises `NotRunningError`."""
    return _ask(state, method, target, None if body is None else json.dumps(body))


def refused(answer: Any) -> None:
    """Print why the answer is no."""
    print(harmless(answer["error"]), file=sys.stderr)


def text(state: Path, target: str) -> tuple[int, str]:
    """The HTTP status and an answer that is text. Raises `NotRunningError`."""
    status, body = _send(state, "GET", target, None)
    return status, body.decode(errors="replace")


def _ask(state: Path, method: str, target: str, body: str | None) -> tuple[int, Any]:
    with _explained(state):
        status, answer = _send(state, method, target, body)
        return status, json.loads(answer)


def _send(state: Path, method: str, target: str, body: str | None) -> tuple[int, bytes]:
    connection = _Connection(state / SOCKET_NAME)
    with closing(connection), _explained(state):
        connection.request(method, target, body)
        response = connection.getresponse()
        return response.status, response.read()


@contextmanager
def _explained(state: Path) -> Iterator[None]:
    path = state / SOCKET_NAME
    try:
        yield
    except PermissionError:
        raise NotRunningError(
            f"not permitted to use {path}: run as root or as a member of the socket's group"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise NotRunningError(
            f"lanward is not running with the state folder {state} ({why}): start it, or name its folder by --state"
        ) from None


def show(state: Path, target: str, table: Callable[[Any], Iterable[str]], *, as_json: bool) -> int:
    """Print an answer as JSON or as a table; returns the exit code."""
    answer = get(state, target)
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        print(*table(answer), sep="\n")
    return 0


def ways_in(status: dict[str, Any], state: Path) -> list[str]:
    """The lines of ``lanward page``. Raises `router.config.ConfigError`."""
    api = load(Path(status["config"])).api
    here = socket.gethostname()
    lines = [
        "On your own machine, over SSH (in a container: the socket is where the state folder is on its host):",
        f"  ssh -N -L 8067:{state / SOCKET_NAME} root@{here}",
        "and then in its browser: http://localhost:8067/",
    ]
    if api is None:
        return [*lines, "", f"Without SSH: add [api] with listen and token to {status['config']}, and start it again."]
    own = "ADDRESS-OF-THE-ROUTER" if api.host == "0.0.0.0" else api.host  # its name is refused unless it is in hosts
    place = api.hosts[0] if api.hosts else own
    if status["api"] != f"{api.host}:{api.port}":
        there = f"{api.host}:{api.port}, the address of [api] in {status['config']}"
        return [*lines, "", f"Nothing listens on {there}: start the service again."]
    return [f"http://{place}:{api.port}/, with the token of [api] in {status['config']}", "", *lines]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text, whoever chose it, as aligned lines."""
    shown = [list(map(harmless, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def lease_table(leases: list[dict[str, Any]]) -> list[str]:
    """The lines of ``lanward leases``."""
    rows = [("VLAN", "ADDRESS", "STATE", "NAME", "KIND", "MAC", "EXPIRES")]
    for one in leases:
        name = one["container"] or one["hostname"] or "-"
        state = one["state"] if one.get("fits", True) else f"{one['state']} (outside the configuration)"
        expires = "-" if one["state"] == "reserved" else one["expires"] or "never"
        rows.append((one["vlan"], one["address"], state, name, one["kind"], one["mac"] or "-", expires))
    return columns(rows)


def reservation_table(reservations: list[dict[str, Any]]) -> list[str]:
    """The lines of ``lanward reservations``."""
    rows = [("VLAN", "NAME", "ADDRESS", "KNOWN BY", "MADE", "PROBLEM")]
    for one in reservations:
        known = one["container"] or one["client_id"] or ", ".join(one["macs"])
        made = {"file": "in the file", "state": "by reserve"}[one["origin"]]
        rows.append(
            (one["vlan"] or "-", one["name"] or "-", one["address"] or "-", known or "-", made, one["problem"] or "-")
        )
    return columns(rows)


def status_table(status: dict[str, Any]) -> list[str]:
    """The lines of ``lanward status``."""
    rows = [("VLAN", "SUBNET", "INTERFACE", "BOUND", "EXPIRED", "DECLINED", "RESERVED", "FREE", "POOL")]
    for vlan in status["vlans"]:
        leases, pool = vlan["leases"], vlan["pool"]
        counts = [leases["bound"], leases["expired"], leases["declined"], leases["reserved"]]
        is_external = vlan["dhcp"] == "external"
        counts += ["-", "external"] if is_external else [pool["free"], pool["size"]]
        rows.append((vlan["name"], vlan["subnet"], vlan["interface"], *(str(count) for count in counts)))
    head = f"lanward {status['version']}, running since {status['since']}, configuration {status['config']}"
    docker = status["docker"]
    return [
        head,
        _rules_line(status["firewall"]),
        "",
        *columns(rows),
        *([] if docker is None else _docker_lines(docker)),
        *_warning_lines(status.get("warnings", [])),
    ]


_OF_DOCKER = ("container:", "container_without_lease:", "docker:", "network:", "netns:", "adoption:")
"""The kinds of warnings that stand with the containers."""


def _warning_lines(found: list[dict[str, str]]) -> list[str]:
    lines = [f"warning: {one['what']}; {one['cure']}" for one in found if not one["id"].startswith(_OF_DOCKER)]
    return ["", *map(_one_line, lines)] if lines else []


def _docker_lines(docker: dict[str, Any]) -> list[str]:
    """The containers, and below them the warnings that no row has."""
    rows = list(map(_container, docker["containers"]))
    shown = {row[-1] for row in rows}
    warnings = [line for one in docker["warnings"] if (line := _one_line(one)) not in shown]
    head = ("VLAN", "CONTAINER", "LEASE", "STATE", "PINNED", "PROBLEM")
    table = ["", *columns([head, *rows])] if rows else []
    return [*table, *([""] if warnings else []), *(f"warning: {one}" for one in warnings)]


def _container(one: dict[str, Any]) -> tuple[str, ...]:
    problem = _one_line("; ".join(one["problems"]))
    return one["vlan"], one["container"], one["address"] or "none", one["state"], _pinned(one), problem or "-"


def _pinned(one: dict[str, Any]) -> str:
    """``namespace`` (before its first instruction), ``start``, ``reconcile`` or ``no``; ``-`` when it does not run."""
    if one["state"] not in STARTED:
        return "-"
    return one["path"] if one["pinned"] else "no"


def _one_line(text: str) -> str:
    return harmless(" ".join(text.split()))


def _rules_line(firewall: dict[str, Any]) -> str:
    if firewall["error"]:
        return f"rules not as configured: {_one_line(firewall['error'])}"
    repairs = firewall["repairs"]
    return f"rules as configured, changed by somebody else and repaired {repairs} {'time' if repairs == 1 else 'times'}"
