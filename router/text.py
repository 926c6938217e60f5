"""Text that others chose, host names above all, where it is shown or written down."""

from __future__ import annotations


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
