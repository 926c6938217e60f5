"""Text that others chose, host names above all, where it is shown or written down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as escape
from typing import Any

_encode = json.JSONEncoder(default=str, check_circular=False).encode


def members(fields: Mapping[str, Any]) -> str:
    """``, "name": value`` of each, in JSON; what that has not is written as text. Half as long as ``json`` takes: it is
    done for every lease."""
    return "".join([f", {escape(key)}: {_value(one)}" for key, one in fields.items()])


def _value(one: object) -> str:
    if type(one) is str:
        return escape(one)
    return "null" if one is None else _encode(one)


def harmless(text: str) -> str:
    """On one line of a terminal: control characters, escapes and marks of direction are spelled out (``\\x1b``)."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def quoted(text: str) -> str:
    """As a TOML basic string, of visible characters only. Lone surrogates have none (TOML 1.0.0, string)."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(one: str) -> str:
    if one in '"\\':
        return "\\" + one
    if one.isprintable():
        return one
    code = ord(one)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def hardware_address(text: str) -> bytes | None:
    """The six bytes of a MAC as people write it, with colons, hyphens or nothing in between; None when it is none."""
    digits = text.replace(":", "").replace("-", "")
    try:
        return bytes.fromhex(digits) if len(digits) == 12 else None
    except ValueError:
        return None
