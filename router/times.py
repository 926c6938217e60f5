"""Points in time as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

_CLOCK = re.compile(r"(?:(today|yesterday|last night)\b ?)?(?:([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?)?")
_AGO = re.compile(r"([0-9]{1,6}) ?(s|m|h|d)(?:econds?|inutes?|in|ours?|ays?)?(?: ago)?")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NIGHT = 3
"""The hour that "last night" means when none is given."""
EXPECTED = 'expected a time such as 2026-11-24T22:00, 22:00, "yesterday 22:00", "last night" or "2h ago"'


def point(text: str, now: datetime) -> datetime:
    """``2026-11-24T22:00:00Z`` (ISO 8601), ``now``, ``22:00`` (the last one), ``today 22:00``, ``yesterday 22:00``,
    ``last night``, ``2h ago``. Without a zone it is the machine's, as ``now`` is. Raises ValueError with one line."""
    written = " ".join(text.lower().split())
    if written == "now":
        return now
    try:
        if (match := _AGO.fullmatch(written)) is not None:
            return now - timedelta(seconds=int(match[1]) * _UNITS[match[2]])
        if written and (match := _CLOCK.fullmatch(written)) is not None:
            return _on_the_clock(match, now)
        found = datetime.fromisoformat(text.strip().upper())
        return found if found.tzinfo is not None else found.astimezone()
    except (ValueError, OverflowError):
        raise ValueError(f"{EXPECTED}, not {text[:60]!r}") from None


def _on_the_clock(match: re.Match[str], now: datetime) -> datetime:
    day, hour, minute, second = match.groups()
    if hour is None and day != "last night":
        hour = "0"
    at = (int(hour or _NIGHT), int(minute or 0), int(second or 0))
    clock = now.replace(hour=at[0], minute=at[1], second=at[2], microsecond=0, tzinfo=None)
    found = _last(clock, now)
    if day == "yesterday" or (day is None and found > now) or (day == "last night" and _is_evening(at[0], found, now)):
        found = _last(clock - timedelta(days=1), now)
    return found


def _last(clock: datetime, now: datetime) -> datetime:
    """When the machine's clock showed that; in an hour that comes twice the later time, unless it is still to come."""
    first, second = clock.replace(fold=0).astimezone(), clock.replace(fold=1).astimezone()
    is_shown = second.replace(tzinfo=None) == clock  # not in an hour that is left out
    return second if is_shown and second <= now else first


def _is_evening(hour: int, found: datetime, now: datetime) -> bool:
    """Whether that hour of last night was before midnight, or is still to come today."""
    return hour >= 12 or found > now


def iso_time(seconds: float) -> str:
    """ISO 8601 in UTC, whole seconds."""
    return f"{_second(int(seconds // 1))}Z"


def iso_millis(seconds: float) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    whole = int(seconds // 1)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """What happens together is written with the same second, and leases that begin together end together."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
