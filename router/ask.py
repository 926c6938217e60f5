"""The command line's questions about what happens and what happened."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from datetime import datetime
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from router import NO, NotRunningError, UsageError, client
from router.periods import FILE_NAME, MAX_ROWS, question, read
from router.text import harmless
from router.times import point


def watch(state: Path, *, as_json: bool) -> int:
    """Print events as they happen, until interrupted. Raises `NotRunningError`, also when the service ends."""
    try:
        for event in _events(state):
            print(json.dumps(event) if as_json else event_line(event), flush=True)
    except KeyboardInterrupt:
        return 0
    raise NotRunningError("the service has ended")


def _events(state: Path) -> Iterator[dict[str, Any]]:
    with client.stream(state, "/events") as lines:
        for line in lines:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))


def event_line(event: dict[str, Any]) -> str:
    """``22:01:03.123 CET  granted  vlan=vlan1 address=10.0.1.100``; times are the machine's."""
    fields = {key: value for key, value in event.items() if key not in {"id", "at", "level", "event"}}
    words = [f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in fields.items()]
    words = [one for one in words if not one.endswith("=null")]
    at = "-"
    if "at" in event:
        moment = datetime.fromisoformat(event["at"]).astimezone()
        at = f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03} {moment:%Z}"
    level = "" if event.get("level", "info") == "info" else f"{event['level'].upper()} "
    return harmless(f"{at:16}  {level}{event['event']}  {' '.join(words)}".rstrip())


def who(state: Path, what: str, at: str | None, *, as_json: bool) -> int:
    """Who had an address, or which addresses a node had: at a time, or ever. Exit code 1 when nobody is known.

    Asks the service, and when it does not run reads what it has left. Raises `NotRunningError` or `UsageError`.
    """
    try:
        asked = {"address": str(IPv4Address(what))}
    except AddressValueError:
        asked = {"node": what}
    asked["limit"] = str(MAX_ROWS)
    moment = None
    if at is not None:
        try:
            moment = point(at, datetime.now().astimezone())
        except ValueError as error:
            raise UsageError(f"--at: {error}") from None
        asked["at"] = moment.isoformat()
    found = _history(state, asked)
    if as_json:
        print(json.dumps(found, indent=2))
    elif found:
        print(*client.columns(list(_periods(found))), sep="\n")
    else:
        when = "" if moment is None else f" at {moment:%Y-%m-%d %H:%M:%S %Z}"
        print(
            harmless(
                f"{'nobody is known to have had' if 'address' in asked else 'no address is known of'} {what}{when}"
            )
        )
    if len(found) == MAX_ROWS:
        print(f"these are the latest {MAX_ROWS}, there may be more: ask for a moment by --at", file=sys.stderr)
    return 0 if found else NO


def _history(state: Path, asked: dict[str, str]) -> list[dict[str, Any]]:
    try:
        status, answer = client.ask(state, f"/history?{urlencode(asked, errors='replace')}")
    except NotRunningError:
        if not os.access(state / FILE_NAME, os.R_OK):
            raise
        try:
            return read(state / FILE_NAME, question(asked, datetime.now().astimezone()))
        except sqlite3.Error as error:
            raise NotRunningError(f"the history cannot be read: {state / FILE_NAME}: {error}") from None
    if status != 200:
        raise NotRunningError(answer["error"])
    found: list[dict[str, Any]] = answer
    return found


def _periods(found: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    yield "VLAN", "ADDRESS", "STATE", "NAME", "MAC", "FROM", "UNTIL"
    for one in found:
        name = one["container"] or one["hostname"] or "-"
        times = (_here(one["since"]), _here(one["until"]))
        yield (one["vlan"], one["address"], one["state"], name, one["mac"] or "-", *times)


def _here(iso: str | None) -> str:
    """With its zone, which is another in summer."""
    return "no end" if iso is None else datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def warnings(state: Path, *, as_json: bool) -> int:
    """Print what is wrong at the moment, and its cure; exit code 1 when something is. Raises `NotRunningError`."""
    found: list[dict[str, str]] = client.get(state, "/warnings")
    if as_json:
        print(json.dumps(found, indent=2))
    for one in () if as_json else found:
        since = _here(one["since"])
        print(harmless(f"{since}  {one['what']}"))
        print(harmless(f"{'':{len(since)}}  {one['cure']}"))
    return NO if found else 0


def health(state: Path, *, is_ready: bool) -> int:
    """Print whether the service does its work, or is ready to; exit code 1 when not. Raises `NotRunningError`."""
    status, text = client.text(state, "/readyz" if is_ready else "/healthz")
    print(*map(harmless, text.splitlines()), sep="\n")
    return 0 if status == 200 else NO


def explain(state: Path, node: str, *, as_json: bool) -> int:
    """Print why a node has its address; exit code 1 when nobody is known by that name. Raises `NotRunningError`."""
    status, answer = client.ask(state, f"/explain?{urlencode({'node': node}, errors='replace')}")
    if status != 200:
        client.refused(answer)
        return NO
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        print("\n\n".join("\n".join(explanation(one)) for one in answer))
    return 0


def explanation(one: dict[str, Any]) -> list[str]:
    """The lines about one node on one VLAN."""
    facts = [
        ("identity", _identity_text(one["identity"])),
        ("reserved", _reservation_text(one["reservation"])),
        ("lease", _lease_text(one["lease"])),
        ("pool", one["pool"] and (one["pool"]["range"] or "in none")),
        ("container", _container_text(one["container"])),
        ("Docker", _docker_text(one["docker"])),
        ("namespace", _namespace_text(one["namespace"])),
        *(("problem", problem) for problem in (one["container"] or {}).get("problems", [])),
    ]
    head = f"{one['vlan']}  {one['address'] or 'no address'}: {one['why']}"
    return [harmless(line) for line in (head, *(f"  {what:10} {text}" for what, text in facts if text))]


def _identity_text(one: dict[str, Any] | None) -> str | None:
    return None if one is None else f"{one['kind']} {one['value']}"


def _reservation_text(one: dict[str, Any] | None) -> str | None:
    if one is None:
        return None
    whom = one["client_id"] or (f"container {one['container']}" if one["container"] else ", ".join(one["macs"]))
    return f"{one['address'] or 'no fixed address'} for {one['name'] or 'this node'} ({whom})"


def _lease_text(one: dict[str, Any] | None) -> str | None:
    if one is None:
        return None
    named = f", calls itself {one['hostname']}" if one["hostname"] else ""
    times = f"granted or renewed at {_here(one['since'])}, until {_here(one['expires'])}"
    return f"{one['state']}, {one['mac'] or 'MAC unknown'}{named}; {times}"


def _container_text(one: dict[str, Any] | None) -> str | None:
    if one is None:
        return None
    how = {"namespace": "before its first instruction", "start": "at its start", "reconcile": "by a look at everything"}
    pinned = (
        "not on its link"
        if one["pinned"] is None
        else f"on its link {how.get(one['path'], '')} at {_here(one['pinned'])}"
    )
    return f"{one['name']} ({one['id']}) on {one['network']}, {one['state']}; the lease is {pinned}"


def _docker_text(one: dict[str, Any] | None) -> str | None:
    if one is None:
        return None
    told = f", told to give {one['requested']}" if one["requested"] else ""
    return f"its record says {one['address'] or 'no address'}{told} (seen at {_here(one['at'])})"


def _namespace_text(one: dict[str, Any] | None) -> str | None:
    if one is None:
        return None
    route = one["default_route"]
    way = "no default route" if route is None else f"default by {route['gateway'] or route['interface']}"
    return f"{one['interface']} {one['mac']}: {', '.join(one['addresses'])}; {way} (seen at {_here(one['at'])})"
