"""Text that others chose comes out harmless, and back from TOML as it was."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.client import lease_table, reservation_table, status_table
from router.text import harmless, quoted

HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07", "<script>alert(1)</script>", "a\"b'c\\d", "two\nlines\r\n", "nul\0byte", "\x7f\x9b31m",
    "\u202eevil\u202c", "\u2066left\u2069", "zero\u200bwidth", "line\u2028end", "\U000e0041tag", '""" # """', "\ud800",
]  # fmt: skip
visible = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize("text", ["gps", "", "caf\u00e9 \u4e2d\u6587", "<script>", "a'b\"c\\d"])
def test_what_a_terminal_only_shows_stays_as_it_is(text: str) -> None:
    assert harmless(text) == text


def test_what_a_terminal_obeys_is_spelled_out() -> None:
    assert harmless("\x1b[2J\n\u202e\U000e0041") == r"\x1b[2J\n\u202e\U000e0041"


@given(st.text())
def test_anything_is_one_visible_line(text: str) -> None:
    assert harmless(text).isprintable()
    assert harmless(harmless(text)) == harmless(text)


@given(visible)
def test_a_quoted_text_is_the_same_in_toml(text: str) -> None:
    assert quoted(text).isprintable()
    assert tomllib.loads(f"key = {quoted(text)}\n") == {"key": text}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_table_lets_a_name_through(name: str) -> None:
    lease = {
        "vlan": "vlan1", "address": "10.0.1.1", "kind": "device", "state": "bound", "mac": None, "hostname": name,
        "container": None, "expires": None,
    }  # fmt: skip
    reservation: dict[str, Any] = {
        "vlan": name, "name": name, "mac": None, "macs": [], "client_id": name, "container": None, "address": name,
        "origin": "state", "problem": name,
    }  # fmt: skip
    container = {
        "vlan": "vlan1", "container": name, "state": "running", "address": None, "pinned": None, "path": None,
        "problems": [name],
    }  # fmt: skip
    status = {
        "version": "1", "since": "now", "config": "f", "vlans": [], "firewall": {"error": name, "repairs": 0},
        "docker": {"containers": [container], "warnings": [name + "!"]},
    }  # fmt: skip
    for lines in (lease_table([lease]), reservation_table([reservation]), status_table(status)):
        assert all(line.isprintable() for line in lines)
