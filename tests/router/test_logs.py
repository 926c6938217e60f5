"""The log: JSON lines that survive whatever is in them and whatever becomes of the stream."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

import pytest
import structlog

from dhcpd.decision import Note
from router import logs


@pytest.fixture(autouse=True)
def _structlog_as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def write(stream: TextIO, *notes: Note) -> None:
    tell = logs.configured(stream)
    for note in notes:
        tell(note)


def lines(*notes: Note) -> list[dict[str, Any]]:
    stream = io.StringIO()
    write(stream, *notes)
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_note_is_one_json_line() -> None:
    (line,) = lines(Note("warning", "pool_full", {"vlan": "vlan1", "size": 10}))
    told = datetime.fromisoformat(line.pop("time"))
    assert abs(datetime.now(UTC) - told) < timedelta(seconds=5)
    assert line == {"level": "warning", "event": "pool_full", "vlan": "vlan1", "size": 10}


@pytest.mark.parametrize("hostile", ["two\nlines", "\x1b[2J", '"quoted"', "\u2028", "\ud800", "\0"])
def test_nothing_in_a_field_breaks_its_line(hostile: str) -> None:
    stream = io.StringIO()
    write(stream, Note("info", "granted", {"hostname": hostile}))
    (line,) = stream.getvalue().splitlines()
    assert line.isprintable()
    assert json.loads(line)["hostname"] == hostile


def test_a_value_that_json_has_not_is_written_as_text() -> None:
    (line,) = lines(Note("info", "ready", {"state": Path("state")}))
    assert line["state"] == "state"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_columns() -> None:
    stream = Terminal()
    write(stream, Note("info", "granted", {"address": "10.0.1.100"}))
    assert "granted" in stream.getvalue()
    assert "10.0.1.100" in stream.getvalue()
    assert not stream.getvalue().startswith("{")


def test_a_terminal_obeys_nothing_that_others_chose() -> None:
    stream = Terminal()
    hostile = "\x1b]0;owned\x07\u202e\x9b31m\n"
    plain = Terminal()
    write(plain, Note("info", "granted", {"hostname": "x", "names": ["x"]}))
    write(stream, Note("info", "granted", {"hostname": hostile, "names": [hostile]}))
    colours = plain.getvalue().count("\x1b")
    assert stream.getvalue().count("\x1b") == colours
    assert not {"\x07", "\u202e", "\x9b"} & set(stream.getvalue())
    assert len(stream.getvalue().splitlines()) == 1


class Counting(io.StringIO):
    writes = 0

    def write(self, text: str) -> int:
        self.writes += 1
        return super().write(text)


def test_the_lines_of_one_turn_of_the_loop_are_one_write() -> None:
    stream = Counting()

    async def turn() -> None:
        write(stream, *(Note("info", "granted", {"number": number}) for number in range(100)))
        assert stream.writes == 0
        await asyncio.sleep(0)

    asyncio.run(turn())
    assert stream.writes == 1
    assert [json.loads(line)["number"] for line in stream.getvalue().splitlines()] == list(range(100))


class Full(io.StringIO):
    """A stream on a disk that is full for a while."""

    room = False

    def write(self, text: str) -> int:
        if not self.room:
            raise OSError(28, "No space left on device")
        return super().write(text)


def test_a_stream_that_fails_loses_lines_and_nothing_else() -> None:
    stream = Full()

    async def turns() -> None:
        write(stream, Note("info", "lost", {}))
        await asyncio.sleep(0)
        stream.room = True
        write(stream, Note("info", "kept", {}))
        await asyncio.sleep(0)

    asyncio.run(turns())
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == "kept"
