"""The small files of the state folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from leasebroker.files import read_site, replace


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "one"
    replace(file, "first")
    replace(file, "second")
    assert [one.name for one in tmp_path.iterdir()] == ["one"]
    assert file.read_text() == "second"


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "one"
    replace(file, "first")
    (tmp_path / "one.new").mkdir()
    with pytest.raises(OSError, match="directory"):
        replace(file, "second")
    assert file.read_text() == "first"


def test_a_machine_keeps_its_site_and_differs_from_others(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    site = read_site(tmp_path)
    assert read_site(tmp_path) == site != read_site(other)


@pytest.mark.parametrize("left", [b"", b"\n", b"\0\0\0\0", b"\xff\xfe"])
def test_a_site_that_is_garbage_is_made_anew(tmp_path: Path, left: bytes) -> None:
    (tmp_path / "site").write_bytes(left)
    site = read_site(tmp_path)
    assert len(site) == 8
    assert read_site(tmp_path) == site
