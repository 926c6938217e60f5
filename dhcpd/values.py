"""What an operator writes, as values. Every reader takes what TOML gives and raises ValueError, and nothing else, with
a message of one line that says what is expected."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network

from dhcpd.settings import INFINITE

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,10})([smhd])")
_MAC = re.compile(r"[0-9a-f]{2}([:-])[0-9a-f]{2}(\1[0-9a-f]{2}){4}", re.IGNORECASE)
_LABEL = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
_HEX = re.compile(r"([0-9a-f]{2}:?)*[0-9a-f]{2}", re.IGNORECASE)


def shown(value: object) -> str:
    """A value as an error message names it: on one line and short, whatever the file has."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 64):
        return str(value)
    names = {int: "a huge number", list: "a list", dict: "a table"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "a date or time")


def suggestion(word: str, known: Iterable[str]) -> str:
    """``, did you mean "pools"?``, or nothing when no known word is like this one."""
    from difflib import get_close_matches  # noqa: PLC0415 - for mistakes only

    close = get_close_matches(word[:60], sorted(known), n=1)
    return f', did you mean "{close[0]}"?' if close else ""


def text(value: object) -> str:
    """Text without control characters, not empty."""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"expected text, not {shown(value)}")
    return value


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, not {shown(value)}")
    return value


def whole(low: int, high: int) -> Callable[[object], int]:
    """A reader of whole numbers, both bounds included."""

    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}, not {shown(value)}")
        return value

    return read


def address(value: object) -> int:
    """An IPv4 address as an integer."""
    try:
        return int(IPv4Address(text(value)))
    except ValueError:
        raise ValueError(f"expected an IPv4 address such as 10.0.1.20, not {shown(value)}") from None


def network(value: object) -> IPv4Network:
    """A network as ``10.0.1.0/24``; the prefix length has to be written, and host bits have to be zero."""
    try:
        host, slash, prefix = text(value).partition("/")
        if not slash or not re.fullmatch("[0-9]{1,2}", prefix):
            raise ValueError
        IPv4Address(host)
        found = IPv4Network(value, strict=False)
    except ValueError:
        raise ValueError(f"expected a network such as 10.0.1.0/24, not {shown(value)}") from None
    if str(found.network_address) != host:
        raise ValueError(f'{value} is an address inside a network, did you mean "{found}"?')
    return found


def mac(value: object) -> bytes:
    """The Ethernet address of one station, six bytes."""
    if not isinstance(value, str) or not _MAC.fullmatch(value):
        raise ValueError(f"expected a MAC address such as 02:00:00:00:01:05, not {shown(value)}")
    found = bytes.fromhex(value.replace(":", "").replace("-", ""))
    if found[0] & 1 or not any(found):
        raise ValueError(f"{value} is not the address of a single station")
    return found


def duration(value: object) -> int:
    """Seconds of ``"90s"``, ``"15m"``, ``"12h"``, ``"7d"``, ``"infinite"`` or a whole number of seconds."""
    if value == "infinite":
        return INFINITE
    seconds = value
    if isinstance(value, str) and (match := _DURATION.fullmatch(value)):
        seconds = int(match[1]) * _UNITS[match[2]]
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 0:
        raise ValueError(f'expected a duration such as "90s", "15m", "12h", "7d" or "infinite", not {shown(value)}')
    if seconds >= INFINITE:
        raise ValueError(f'{shown(value)} is longer than 49710 days, did you mean "infinite"?')
    return seconds


def span(seconds: int) -> str:
    """The shortest way to write a duration, the inverse of `duration`."""
    if seconds == INFINITE:
        return "infinite"
    unit = next((unit for unit in "dhm" if seconds and seconds % _UNITS[unit] == 0), "s")
    return f"{seconds // _UNITS[unit]}{unit}"


def domain(value: object) -> str:
    """A host or domain name (RFC 1123 section 2.1), without the final dot."""
    name = value.removesuffix(".") if isinstance(value, str) else ""
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f"expected a domain name of letters, digits and hyphens, not {shown(value)}")
    return name


def hexadecimal(value: str) -> bytes:
    """The bytes of ``hex:0104ff`` or ``hex:01:04:ff``."""
    digits = value.removeprefix("hex:")
    if not _HEX.fullmatch(digits):
        raise ValueError(f'expected bytes such as "hex:01:04:ff", not {shown(value)}')
    return bytes.fromhex(digits.replace(":", ""))


def client_id(value: object) -> bytes:
    """A client identifier (option 61) of at most 255 bytes. Pairs of hex digits with colons between them, and all
    that starts with ``hex:``, are bytes; anything else is the text itself, without a type byte in front."""
    written = text(value)
    is_bytes = written.startswith("hex:") or re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2})+", written, re.IGNORECASE)
    found = hexadecimal(written) if is_bytes else written.encode()
    if len(found) > 255:
        raise ValueError(f"expected at most 255 bytes, not {len(found)}")
    return found
