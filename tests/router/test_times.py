"""Points in time as people write them, on a machine in a zone of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from router.times import point


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With the rule itself: a container has no file of zones."""
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


CASES = [
    ("now", "2026-11-25T15:30:00+01:00"),
    ("14:00", "2026-11-25T14:00:00+01:00"),
    ("22:00", "2026-11-24T22:00:00+01:00"),
    ("22:00:30", "2026-11-24T22:00:30+01:00"),
    ("today 08:15", "2026-11-25T08:15:00+01:00"),
    ("Today", "2026-11-25T00:00:00+01:00"),
    ("yesterday 22:00", "2026-11-24T22:00:00+01:00"),
    ("yesterday  8:00", "2026-11-24T08:00:00+01:00"),
    ("yesterday", "2026-11-24T00:00:00+01:00"),
    ("last night", "2026-11-25T03:00:00+01:00"),
    ("last night 23:10", "2026-11-24T23:10:00+01:00"),
    ("last night 02:00", "2026-11-25T02:00:00+01:00"),
    ("2h ago", "2026-11-25T13:30:00+01:00"),
    ("90 minutes ago", "2026-11-25T14:00:00+01:00"),
    ("3d", "2026-11-22T15:30:00+01:00"),
    ("2026-11-24", "2026-11-24T00:00:00+01:00"),
    ("2026-11-24T22:00", "2026-11-24T22:00:00+01:00"),
    ("2026-11-24 22:00:05", "2026-11-24T22:00:05+01:00"),
    ("2026-11-24T22:00Z", "2026-11-24T22:00:00+00:00"),
    ("2026-11-24t22:00z", "2026-11-24T22:00:00+00:00"),
    ("2026-11-24T22:00-05:00", "2026-11-24T22:00:00-05:00"),
    ("2026-07-01 12:00", "2026-07-01T12:00:00+02:00"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_a_time_is_understood(text: str, expected: str) -> None:
    now = datetime.fromisoformat("2026-11-25T15:30:00+01:00")
    assert point(text, now) == datetime.fromisoformat(expected)


def test_yesterday_is_told_by_the_clock_where_a_day_has_25_hours() -> None:
    now = datetime.fromisoformat("2026-10-25T15:00:00+01:00")
    assert point("yesterday 15:00", now) == datetime.fromisoformat("2026-10-24T15:00:00+02:00")


@pytest.mark.parametrize(
    ("text", "now", "expected"),
    [
        ("02:30", "2026-10-25T02:45:00+01:00", "2026-10-25T02:30:00+01:00"),
        ("02:30", "2026-10-25T02:10:00+01:00", "2026-10-25T02:30:00+02:00"),
        ("02:30", "2026-10-25T02:45:00+02:00", "2026-10-25T02:30:00+02:00"),
        ("02:30", "2026-10-25T02:10:00+02:00", "2026-10-24T02:30:00+02:00"),
        ("02:30", "2026-10-25T11:00:00+01:00", "2026-10-25T02:30:00+01:00"),
        ("02:30", "2026-10-26T02:10:00+01:00", "2026-10-25T02:30:00+01:00"),
        ("today 02:30", "2026-10-25T02:45:00+01:00", "2026-10-25T02:30:00+01:00"),
        ("last night 02:30", "2026-10-25T11:00:00+01:00", "2026-10-25T02:30:00+01:00"),
        ("02:30", "2026-03-29T00:30:00+01:00", "2026-03-28T02:30:00+01:00"),
    ],
)
def test_the_last_time_that_the_clock_showed_it_where_an_hour_comes_twice_or_not(
    text: str, now: str, expected: str
) -> None:
    assert point(text, datetime.fromisoformat(now)) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "soon",
        "25:00",
        "22:61",
        "yesterday 30:00",
        "2026-13-01",
        "9999999d ago",
        "999999d",
        "\x1b[2J",
        "\u0661:\u0660\u0660",
    ],
)
def test_what_is_no_time_is_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="expected a time such as") as found:
        point(text, datetime.fromisoformat("2026-11-25T15:30:00+01:00"))
    assert str(found.value).isprintable()
