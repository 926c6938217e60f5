"""The log: JSON lines, or columns on a terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

from dhcpd.decision import Note
from router.text import harmless, members
from router.times import iso_millis

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict, Processor, WrappedLogger


def log(note: Note) -> None:
    """Write one note as one line on standard output."""
    _logger()(note)


@cache
def _logger() -> Callable[[Note], None]:
    return configured(sys.stdout)


def configured(stream: TextIO) -> Callable[[Note], None]:
    """Set up structlog on a stream; what is returned passes a note through its processors and writes the line."""
    import structlog  # noqa: PLC0415 - 17 ms to import; the first line comes after the sockets are open

    processors: list[Processor] = [_json_line]
    if stream.isatty():
        processors = [
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            _harmless,
            structlog.dev.ConsoleRenderer(pad_event_to=16),
        ]
    lines = _Lines(stream)
    structlog.configure(processors=processors, logger_factory=lambda *_: lines, cache_logger_on_first_use=True)

    def write(note: Note) -> None:
        """As structlog's bound logger does, without its copies of the fields: a line is written for every lease."""
        event: Any = {"event": note.event, **note.fields}
        for processor in processors:
            event = processor(lines, note.level, event)
        lines.msg(event)

    return write


def _json_line(_logger: WrappedLogger, level: str, event: EventDict) -> str:
    """One JSON object; structlog's own chain of timestamp, level and renderer takes five times as long."""
    return f'{{"time": "{iso_millis(time.time())}", "level": "{level}"{members(event)}}}'


def _harmless(_logger: WrappedLogger, _level: str, event: EventDict) -> EventDict:
    """A terminal obeys what host names and errors of others may have in them."""
    return {key: harmless(one) if isinstance(one, str) else one for key, one in event.items()}


class _Lines:
    """A structlog logger that writes its lines once per turn of the event loop: a storm of leases is one write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._waiting: list[str] = []

    def msg(self, line: str) -> None:
        self._waiting.append(line)
        if len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_soon(self._flush)
            except RuntimeError:
                self._flush()

    debug = info = warning = error = critical = exception = msg

    def _flush(self) -> None:
        """What the stream does not take (a full disk, a reader that is gone) is lost: the service goes on."""
        text = "\n".join([*self._waiting, ""])
        self._waiting.clear()
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()
