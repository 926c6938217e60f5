"""A damaged lease database: the service starts, keeps what can be read, and sets the rest aside."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from dhcpd.leases import Row
from dhcpd.salvage import PAGE_SIZE
from tests.dhcpd.stores import VLAN, crash_image, lease, read, running, write

LEASES = [lease(number) for number in range(300)]
ON_A_PAGE = 20
"""More leases than fit on one page."""


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as an orderly end leaves it: everything is in the database."""
    folder = tmp_path_factory.mktemp("closed")
    write(folder, LEASES)
    return folder


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a power cut leaves it: nearly everything is in the log."""
    folder = tmp_path_factory.mktemp("crashed")
    crash_image(folder / "live", folder / "image", [LEASES[at : at + 5] for at in range(0, 300, 5)])
    return folder / "image"


def damaged(source: Path, target: Path, name: str, change: Callable[[bytearray], object]) -> Path:
    """A copy of a folder with one file changed."""
    shutil.copytree(source, target)
    content = bytearray((target / name).read_bytes())
    change(content)
    (target / name).write_bytes(content)
    return target


def used(folder: Path) -> int:
    """Bytes of the log that hold transactions; the rest is zeros, for those to come."""
    return len((folder / "leases.db-wal").read_bytes().rstrip(b"\0"))


def copy(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def put(at: int, what: bytes) -> Callable[[bytearray], object]:
    def change(content: bytearray) -> None:
        content[at : at + len(what)] = what

    return change


def cut(at: int) -> Callable[[bytearray], object]:
    return lambda content: content.__delitem__(slice(at, None))


def assert_is_set_aside(folder: Path, notes: list[str]) -> None:
    assert any("is damaged" in note for note in notes)
    (bad,) = folder.glob("leases.db.bad-*Z")
    assert list(bad.iterdir())
    assert not (folder / "leases.db.salvaged").exists()
    assert read(folder)[1] == []


def test_sound_folders_are_read_without_a_note(closed: Path, crashed: Path, tmp_path: Path) -> None:
    for source in (closed, crashed):
        folder = copy(source, tmp_path / source.name)
        assert read(folder) == (LEASES, [])
        assert not list(folder.glob("*bad*"))


def test_truncated_anywhere(closed: Path, tmp_path: Path) -> None:
    size = (closed / "leases.db").stat().st_size
    for length in range(512, size, 512):
        folder = damaged(closed, tmp_path / str(length), "leases.db", cut(length))
        rows, notes = read(folder)
        assert set(rows) <= set(LEASES)
        assert len(rows) >= len(LEASES) * length / size - 3 * ON_A_PAGE
        assert_is_set_aside(folder, notes)


def test_truncated_to_nothing_is_a_new_database(closed: Path, tmp_path: Path) -> None:
    assert read(damaged(closed, tmp_path / "x", "leases.db", cut(0))) == ([], [])


def test_any_page_zeroed(closed: Path, tmp_path: Path) -> None:
    for at in range(0, (closed / "leases.db").stat().st_size, PAGE_SIZE):
        folder = damaged(closed, tmp_path / str(at), "leases.db", put(at, bytes(PAGE_SIZE)))
        rows, notes = read(folder)
        assert set(rows) <= set(LEASES)
        assert len(rows) >= len(LEASES) - ON_A_PAGE
        if notes or rows != LEASES:  # else it was a page that is not in use
            assert_is_set_aside(folder, notes)


def test_broken_definition_of_a_table(closed: Path, tmp_path: Path) -> None:
    def change(content: bytearray) -> None:
        content[:] = content.replace(b"CREATE TABLE lease", b"CREATE \xbeABLE lease")

    folder = damaged(closed, tmp_path / "x", "leases.db", change)
    rows, notes = read(folder)
    assert rows == LEASES
    assert_is_set_aside(folder, notes)


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bytes(closed: Path, tmp_path: Path, seed: int) -> None:
    def flip(content: bytearray) -> None:
        for _ in range(dice.randint(1, 4)):
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)

    dice = random.Random(seed)
    rows, _ = read(damaged(closed, tmp_path / "x", "leases.db", flip))
    assert len(set(rows) & set(LEASES)) >= len(LEASES) - 4 * ON_A_PAGE
    assert len({row.address for row in rows}) == len(rows)


def test_garbage_in_place_of_the_database_is_mended_by_a_whole_log(crashed: Path, tmp_path: Path) -> None:
    folder = damaged(crashed, tmp_path / "x", "leases.db", put(0, random.Random(1).randbytes(1 << 20)))
    assert read(folder) == (LEASES, [])


def test_garbage_in_place_of_the_log(crashed: Path, tmp_path: Path) -> None:
    folder = damaged(crashed, tmp_path / "x", "leases.db-wal", put(0, random.Random(1).randbytes(1 << 20)))
    rows, notes = read(folder)
    assert rows == []
    assert_is_set_aside(folder, notes)


def test_broken_header_of_the_log_loses_nothing(crashed: Path, tmp_path: Path) -> None:
    for at in (0, 10, 17, 30):
        folder = damaged(crashed, tmp_path / str(at), "leases.db-wal", put(at, b"\xff\x11"))
        rows, notes = read(folder)
        assert rows == LEASES
        assert_is_set_aside(folder, notes)


def test_log_broken_in_the_middle_loses_one_page_at_most(crashed: Path, tmp_path: Path) -> None:
    middle = used(crashed) // 2
    folder = damaged(crashed, tmp_path / "x", "leases.db-wal", put(middle, b"\xa5\xa5"))
    rows, notes = read(folder)
    assert len(set(rows) & set(LEASES)) >= len(LEASES) - ON_A_PAGE
    assert_is_set_aside(folder, notes)


def test_log_cut_anywhere_keeps_what_is_before(crashed: Path, tmp_path: Path) -> None:
    size = used(crashed)
    for length in range(0, size, size // 20):
        folder = damaged(crashed, tmp_path / str(length), "leases.db-wal", cut(length))
        rows, notes = read(folder)
        assert rows == LEASES[: len(rows)]
        assert len(rows) >= len(LEASES) * length / size - 2 * ON_A_PAGE
        assert not notes


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_only_the_log_is_left(crashed: Path, tmp_path: Path, change: Callable[[Path], object]) -> None:
    folder = copy(crashed, tmp_path / "x")
    change(folder / "leases.db")
    rows, notes = read(folder)
    assert rows == LEASES
    assert_is_set_aside(folder, notes)


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_directory_in_place_of_a_file(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / f"leases.db{suffix}"
    (folder / "something").mkdir(parents=True)
    rows, notes = read(tmp_path)
    assert rows == []
    assert_is_set_aside(tmp_path, notes)
    assert list(tmp_path.glob(f"leases.db.bad-*/leases.db{suffix}/something"))


def test_garbage_shared_memory_file_does_not_matter(crashed: Path, tmp_path: Path) -> None:
    folder = copy(crashed, tmp_path / "x")
    (folder / "leases.db-shm").write_bytes(random.Random(1).randbytes(32768))
    assert read(folder) == (LEASES, [])


def change_database(folder: Path, *statements: str) -> None:
    database = sqlite3.connect(folder / "leases.db")
    for statement in statements:
        database.execute(statement)
    database.commit()
    database.close()


def test_newer_version_is_set_aside_with_its_leases_kept(closed: Path, tmp_path: Path) -> None:
    folder = copy(closed, tmp_path / "x")
    change_database(folder, "PRAGMA user_version = 99")
    rows, notes = read(folder)
    assert rows == LEASES
    assert "version 99 instead of 2" in notes[0]
    assert_is_set_aside(folder, notes)


def test_database_of_another_program_is_set_aside(tmp_path: Path) -> None:
    change_database(tmp_path, "CREATE TABLE photos (name)", "INSERT INTO photos VALUES ('truck')")
    rows, notes = read(tmp_path)
    assert rows == []
    assert_is_set_aside(tmp_path, notes)


@pytest.mark.parametrize(
    "change", ["state = NULL", "client = 'text'", "hostname = x'ff'", "since = 'noon'", "expires = 'soon'"]
)
def test_row_that_makes_no_sense_cannot_be_written(closed: Path, tmp_path: Path, change: str) -> None:
    folder = copy(closed, tmp_path / "x")
    with pytest.raises(sqlite3.IntegrityError):
        change_database(folder, f"UPDATE lease SET {change} WHERE hostname = 'device-3'")


def test_name_that_is_not_text_is_read_as_far_as_it_is(closed: Path, tmp_path: Path) -> None:
    folder = copy(closed, tmp_path / "x")
    change_database(folder, "UPDATE lease SET hostname = CAST(x'61ff62' AS TEXT) WHERE hostname = 'device-3'")
    rows, notes = read(folder)
    assert [row.hostname for row in rows if row not in LEASES] == ["a\ufffdb"]
    assert len(rows) == len(LEASES)
    assert not notes


def test_bad_text_is_replaced(closed: Path, tmp_path: Path) -> None:
    folder = copy(closed, tmp_path / "x")
    change_database(folder, "UPDATE lease SET hostname = CAST(x'61ff' AS TEXT) WHERE hostname = 'device-3'")
    rows, notes = read(folder)
    assert rows[3].hostname == "a\ufffd"
    assert not notes


def test_renewed_and_released_leases_are_salvaged_as_last_written(tmp_path: Path) -> None:
    renewed = [lease(number, since=1_790_000_100) for number in range(300)]
    released: list[Row] = [row._replace(expires=row.since + 50) for row in renewed[:150]]
    crash_image(tmp_path / "live", tmp_path / "x", [LEASES, renewed, released])
    (tmp_path / "x" / "leases.db").unlink()
    assert read(tmp_path / "x")[0] == released + renewed[150:]


def test_five_bad_databases_are_kept(tmp_path: Path) -> None:
    for number in range(8):
        tmp_path.joinpath("leases.db").write_bytes(b"garbage %d" % number * 100)
        read(tmp_path)
    kept = [folder / "leases.db" for folder in tmp_path.glob("leases.db.bad-*")]
    assert sorted(path.read_bytes()[:9] for path in kept) == [b"garbage %d" % number for number in range(3, 8)]


def test_salvage_goes_on_after_a_power_cut_between_its_renames(closed: Path, tmp_path: Path) -> None:
    folder = copy(closed, tmp_path / "x")
    (folder / "leases.db").rename(folder / "leases.db.salvaged")
    (folder / "leases.db").write_bytes(b"garbage")
    (folder / "leases.db-wal").write_bytes(b"more garbage")
    rows, notes = read(folder)
    assert rows == LEASES
    assert not notes
    (bad,) = folder.glob("leases.db.bad-*")
    assert {path.name for path in bad.iterdir()} == {"leases.db", "leases.db-wal"}


def test_damage_while_running_is_repaired_and_the_commit_goes_through(closed: Path, tmp_path: Path) -> None:
    folder = copy(closed, tmp_path / "x")
    with running(folder) as service:
        with (folder / "leases.db").open("r+b") as file:
            file.write(bytes(8 * PAGE_SIZE))
        service.store._database.execute("PRAGMA shrink_memory")
        renewed = [row._replace(since=row.since + 1) for row in LEASES]
        assert service.commit(renewed) is None
        assert list(service.store.load(VLAN)) == renewed
        assert service.store.notes
    assert read(folder) == (renewed, [])
