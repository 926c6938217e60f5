"""Notes that come in floods: at most one a second is for the log, with how many it stands for."""

from __future__ import annotations

from dhcpd.decision import Note

PAUSE = 1.0
"""Seconds between two notes of one kind."""


class Throttle:
    """The notes of one kind. ``now`` is monotonic time. The latest of those that were held back is told when a second
    has gone by since the last one, with the number of the others as ``left_out``."""

    def __init__(self) -> None:
        self._due = float("-inf")
        self._latest: Note | None = None
        self._left_out = 0

    def put(self, note: Note, now: float) -> Note | None:
        """What the log is told now, None for nothing."""
        self._left_out += self._latest is not None
        self._latest = note
        return self.tick(now)

    def tick(self, now: float) -> Note | None:
        """`put` without a new note."""
        note = self._latest
        if note is None or now < self._due:
            return None
        if self._left_out:
            note = note._replace(fields={**note.fields, "left_out": self._left_out})
        self._due, self._latest, self._left_out = now + PAUSE, None, 0
        return note
