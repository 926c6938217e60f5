"""The command line's side of the control API: ask the running service, print the answer."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from router import SOCKET_NAME, NotRunningError


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("lanward", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def get(state: Path, target: str) -> Any:
    """The JSON answer of the service whose state folder is ``state``. Raises `NotRunningError`."""
    path = state / SOCKET_NAME
    connection = _Connection(path)
    try:
        connection.request("GET", target)
        return json.loads(connection.getresponse().read())
    except PermissionError:
        raise NotRunningError(
            f"not permitted to use {path}: run as root or as a member of the socket's group"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise NotRunningError(
            f"lanward is not running with the state folder {state} ({why}): start it, or name its folder by --state"
        ) from None
    finally:
        connection.close()


def show(state: Path, target: str, table: Callable[[Any], Iterable[str]], *, as_json: bool) -> int:
    """Print an answer as JSON or as a table; returns the exit code."""
    answer = get(state, target)
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        print(*table(answer), sep="\n")
    return 0


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text as aligned lines."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def lease_table(leases: list[dict[str, Any]]) -> list[str]:
    """The lines of ``lanward leases``."""
    rows = [("VLAN", "ADDRESS", "STATE", "NAME", "KIND", "MAC", "EXPIRES")]
    for one in leases:
        name = one["container"] or one["hostname"] or "-"
        state = one["state"] if one.get("fits", True) else f"{one['state']} (outside the configuration)"
        expires = "-" if one["state"] == "reserved" else one["expires"] or "never"
        rows.append((one["vlan"], one["address"], state, name, one["kind"], one["mac"] or "-", expires))
    return columns(rows)


def status_table(status: dict[str, Any]) -> list[str]:
    """The lines of ``lanward status``."""
    rows = [("VLAN", "SUBNET", "INTERFACE", "BOUND", "EXPIRED", "DECLINED", "RESERVED", "FREE", "POOL")]
    for vlan in status["vlans"]:
        leases, pool = vlan["leases"], vlan["pool"]
        counts = (
            leases["bound"],
            leases["expired"],
            leases["declined"],
            leases["reserved"],
            pool["free"],
            pool["size"],
        )
        rows.append((vlan["name"], vlan["subnet"], vlan["interface"], *(str(count) for count in counts)))
    head = f"lanward {status['version']}, running since {status['since']}, configuration {status['config']}"
    return [head, _rules_line(status["firewall"]), "", *columns(rows)]


def _rules_line(firewall: dict[str, Any]) -> str:
    if firewall["error"]:
        return f"rules not as configured: {firewall['error']}"
    repairs = firewall["repairs"]
    return f"rules as configured, changed by somebody else and repaired {repairs} {'time' if repairs == 1 else 'times'}"
