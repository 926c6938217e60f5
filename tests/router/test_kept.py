"""Reservations beside the file: what is in force, what is set aside, and what becomes of their own file."""

from __future__ import annotations

import asyncio
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhcpd import database
from dhcpd.decision import Note
from dhcpd.pool import dotted
from leasebroker import files
from router import kept
from router.config import ConfigError, parse
from router.kept import FILE, Keeper
from router.settings import Config, Entry, Kept, Kind
from tests.router.good import GOOD, changed

CAMERA = {"vlan": "vlan1", "name": "camera", "mac": "02:00:00:00:09:01", "address": "10.0.1.50"}
"""Has a place beside the good file."""
BY_ID = {"vlan": "vlan2", "name": "plc", "client_id": "hex:01:ff", "address": "10.0.2.50"}
BY_NAME = {"vlan": "vlan2", "name": "db", "container": "db1"}


def entry(**changes: Any) -> dict[str, Any]:
    """The camera, changed; None leaves a key out."""
    return {key: value for key, value in {**CAMERA, **changes}.items() if value is not None}


def outcome(*entries: Entry, file: str = GOOD) -> list[str]:
    """``in force``, ``in the file`` or why it is set aside, for each."""
    return ["in the file" if one.is_redundant else one.why or "in force" for one in parse(file, entries).kept]


def names(config: Config, vlan: int = 0) -> list[str]:
    return [one.name for one in config.vlans[vlan].scope.reservations]


# -- beside the file


def test_what_has_a_place_is_like_one_of_the_file() -> None:
    block = '[[vlan.reservation]]\nname = "camera"\nmac = "02:00:00:00:09:01"\naddress = "10.0.1.50"\n'
    written = parse(changed('[[vlan]]\nname = "vlan2"', block + '[[vlan]]\nname = "vlan2"'))
    beside = parse(GOOD, [CAMERA])
    assert beside.vlans == written.vlans
    assert beside.kept == (Kept(CAMERA),)


def test_without_any_it_is_the_file() -> None:
    assert parse(GOOD, []) == parse(GOOD)


def test_an_exception_finds_its_node_among_them() -> None:
    file = changed('to = "vlan2/container2"', 'to = "vlan2/plc"')
    target = parse(file, [BY_ID]).allow[0].target
    assert (target.kind, dotted(target.address or 0)) == (Kind.NODE, "10.0.2.50")


@pytest.mark.parametrize(
    ("change", "place", "what"),
    [
        ({"address": "10.0.1.20"}, "vlan1/camera.address", "10.0.1.20 is taken already by vlan[0].reservation[0]"),
        ({"address": "10.0.1.1"}, "vlan1/camera.address", "10.0.1.1 is the router's address"),
        ({"address": "10.0.1.241"}, "vlan1/camera.address", "is in the landing range"),
        ({"address": "10.0.9.9"}, "vlan1/camera.address", "is outside 10.0.1.0/24"),
        ({"address": "10.0.1.255"}, "vlan1/camera.address", "is the broadcast address"),
        ({"mac": "02:00:00:00:01:06"}, "vlan1/camera.mac", "is taken already by vlan[0].reservation[0]"),
        ({"name": "web"}, "vlan1/web.name", "web is taken already by vlan[0].reservation[2]"),
        ({"mac": None, "container": "container1"}, "vlan1/camera.container", "by vlan[0].reservation[2]"),
        ({"mac": None, "client_id": "01:02:00:00:00:01:07"}, "vlan1/camera.client_id", "by vlan[0].reservation[1]"),
        ({"vlan": "gone"}, "gone/camera", "the file has no VLAN of this name"),
        ({"vlan": 7}, "reservations.json[0]", "the file has no VLAN of this name"),
        ({"name": "a b"}, "reservations.json[0].name", "expected letters, digits"),
        ({"name": None}, "reservations.json[0].name", "is missing"),
        ({"mac": "zz"}, "vlan1/camera.mac", "expected a MAC address"),
        ({"mac": None}, "vlan1/camera", "expected mac, client_id or container"),
        ({"container": "web"}, "vlan1/camera.container", "cannot have container as well"),
        ({"address": []}, "vlan1/camera.address", "expected an IPv4 address such as 10.0.1.20, not a list"),
        ({"colour": "red"}, "vlan1/camera.colour", "unknown key"),
    ],
)  # fmt: skip
def test_what_has_no_place_is_set_aside_with_the_reason(change: dict[str, Any], place: str, what: str) -> None:
    config = parse(GOOD, [entry(**change), BY_ID])
    aside, other = config.kept
    assert aside.why is not None
    assert aside.why.startswith(f"{place}: ")
    assert what in aside.why
    assert (other.why, other.is_redundant) == (None, False)
    assert [vlan.scope.reservations for vlan in config.vlans] == [
        vlan.scope.reservations for vlan in parse(GOOD, [BY_ID]).vlans
    ]
    (line,) = kept.problems(config.kept)
    assert line.startswith(aside.why)
    assert line.isprintable()
    assert "lanward unreserve" in line or "edit reservations.json" in line


def test_where_another_server_serves_none_is_in_force() -> None:
    external = 'pools = []\n\n[[allow]]\nfrom = "vlan1"'
    file = changed(external, external.replace("pools = []", 'dhcp = "external"'))
    why = "vlan2/plc: another server serves vlan2 (dhcp is external)"
    assert outcome(BY_ID, CAMERA, file=file) == [why, "in force"]


def test_of_two_that_cannot_be_both_the_earlier_one_is_in_force() -> None:
    other = entry(name="other", mac="02:00:00:00:09:02")
    assert outcome(CAMERA, other) == ["in force", "vlan1/other.address: 10.0.1.50 is taken already by vlan1/camera"]
    assert outcome(other, CAMERA)[0] == "in force"
    same = entry(mac="02:00:00:00:09:02", address="10.0.1.51")
    assert outcome(CAMERA, same) == ["in force", "vlan1/camera: the name is taken already by an earlier one"]


def test_what_is_set_aside_takes_no_place() -> None:
    aside = entry(mac="02:00:00:00:01:05")
    assert outcome(aside, CAMERA)[1] == "in force"


def test_what_a_reason_was_is_no_reason_when_the_file_has_changed() -> None:
    there = entry(address="10.0.1.20", name="device9")
    assert outcome(there)[0] != "in force"
    assert outcome(there, file=changed('address = "10.0.1.20"', 'address = "10.0.1.21"')) == ["in force"]


def test_an_error_of_the_file_is_told_as_ever() -> None:
    with pytest.raises(ConfigError) as error:
        parse(changed("tag = 1", "tag = 0"), [entry(address="10.0.1.1")])
    assert [line.split(":")[0] for line in error.value.errors] == ["vlan[0].tag"]


@pytest.mark.parametrize(
    "same",
    [
        {"vlan": "vlan1", "name": "device1", "mac": "02:00:00:00:01:05", "address": "10.0.1.20"},
        {"vlan": "vlan1", "name": "device1", "mac": "02-00-00-00-01-06", "address": "10.0.1.20"},
        {"vlan": "vlan1", "name": "ip_phone", "client_id": "hex:01:02:00:00:00:01:07", "address": "10.0.1.101"},
        {"vlan": "vlan1", "name": "web", "container": "container1"},
    ],
)
def test_what_the_file_has_as_well_is_redundant(same: Entry) -> None:
    config = parse(GOOD, [same])
    assert config.kept == (Kept(same, is_redundant=True),)
    assert config.vlans == parse(GOOD).vlans


@pytest.mark.parametrize(
    "other",
    [
        {"vlan": "vlan1", "name": "device1", "mac": "02:00:00:00:01:05", "address": "10.0.1.21"},
        {"vlan": "vlan1", "name": "device1", "mac": "02:00:00:00:01:09", "address": "10.0.1.20"},
        {"vlan": "vlan1", "name": "device1", "mac": "zz", "address": "10.0.1.20"},
        {"vlan": "vlan1", "name": "device9", "mac": "02:00:00:00:01:05", "address": "10.0.1.20"},
        {"vlan": "vlan1", "name": "web", "container": "container1", "dns": "9.9.9.9"},
        {"vlan": "vlan1", "name": "web", "container": "container1", "boot_file": "a"},
    ],
)
def test_what_differs_from_the_file_is_not_lost(other: Entry) -> None:
    (one,) = parse(GOOD, [other]).kept
    assert one.why is not None
    assert not one.is_redundant


# -- for the file


def pasted(text: str, vlan: str) -> str:
    """The good file with the blocks of a VLAN below its ``[[vlan]]``, where the comment says."""
    sections = {part.split('"')[1]: part for part in text.split("# Of the [[vlan]] with the name ")[1:]}
    block = "# Of the [[vlan]] with the name " + sections[vlan]
    before, after = GOOD.split('[[vlan]]\nname = "vlan2"')
    if vlan == "vlan1":
        return before + block + '\n[[vlan]]\nname = "vlan2"' + after
    vlan2, allow, rest = after.partition("[[allow]]")
    return before + '[[vlan]]\nname = "vlan2"' + vlan2 + block + "\n" + allow + rest


@pytest.mark.parametrize("one", [CAMERA, BY_ID, BY_NAME, entry(address=None), entry(mac=None, client_id='a"b\\c')])
def test_what_is_pasted_into_the_file_is_the_same_there_and_no_longer_kept(one: Entry) -> None:
    config = parse(GOOD, [one])
    file = pasted(kept.export(config.kept), one["vlan"])
    assert parse(file).vlans == config.vlans
    assert parse(file, [one]).kept == (Kept(one, is_redundant=True),)


def test_each_block_is_under_its_vlan() -> None:
    text = kept.export(parse(GOOD, [CAMERA, BY_ID, entry(name="b", mac="02:00:00:00:09:02", address=None)]).kept)
    assert text.splitlines() == [
        '# Of the [[vlan]] with the name "vlan1": paste it below that, and before the next [[vlan]].',
        "",
        "[[vlan.reservation]]",
        'name = "camera"',
        'mac = "02:00:00:00:09:01"',
        'address = "10.0.1.50"',
        "",
        "[[vlan.reservation]]",
        'name = "b"',
        'mac = "02:00:00:00:09:02"',
        "",
        '# Of the [[vlan]] with the name "vlan2": paste it below that, and before the next [[vlan]].',
        "",
        "[[vlan.reservation]]",
        'name = "plc"',
        'client_id = "hex:01:ff"',
        'address = "10.0.2.50"',
    ]


def test_nothing_kept_is_nothing_to_paste() -> None:
    assert kept.export(()) == ""


def test_what_is_set_aside_is_a_comment_with_the_reason() -> None:
    text = kept.export(parse(GOOD, [entry(address="10.0.1.1"), entry(vlan="gone")]).kept)
    assert all(line.startswith("#") for line in text.splitlines() if line)
    assert "# left out: vlan1/camera.address: 10.0.1.1 is the router's address" in text
    assert '# [[vlan.reservation]]\n# name = "camera"' in text
    assert tomllib.loads(text) == {}


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@given(
    st.fixed_dictionaries(
        {"vlan": st.sampled_from(["vlan1", "vlan2"]) | anything},
        optional={
            "name": st.sampled_from(["a", "b", "web"]) | anything,
            "mac": st.sampled_from(["02:00:00:00:09:01", "02:00:00:00:01:05"]) | anything,
            "client_id": anything,
            "container": st.sampled_from(["db1", "container1"]) | anything,
            "address": st.sampled_from(["10.0.1.50", "10.0.2.50", "10.0.1.1"]) | anything,
        },
    )
)
def test_whatever_is_kept_is_in_force_and_exported_or_set_aside_with_a_reason(one: Entry) -> None:
    config = parse(GOOD, [one])
    (became,) = config.kept
    text = kept.export(config.kept)
    assert text.replace("\n", "").isprintable()
    if became.why is None and not became.is_redundant:
        assert parse(pasted(text, one["vlan"])).vlans == config.vlans
    else:
        assert tomllib.loads(text) == {}
        assert config.vlans == parse(GOOD).vlans


sensible = st.builds(
    lambda vlan, name, known, address: {"vlan": vlan, "name": name} | known | address,
    st.sampled_from(["vlan1", "vlan2", "gone"]),
    st.sampled_from(["a", "b", "web", "device1"]),
    st.sampled_from([{"mac": f"02:00:00:00:0{one}:0{one}"} for one in range(4)] + [
        {"mac": "02:00:00:00:01:05"}, {"client_id": "01:02:00:00:00:01:07"}, {"client_id": "hex:01:02:00:00:00:01:07"},
        {"container": "container1"}, {"container": "db1"},
    ]),
    st.sampled_from([{}] + [{"address": f"10.0.{one}.{two}"} for one in (1, 2) for two in (1, 20, 50, 51, 101, 241)]),
)  # fmt: skip


@given(st.lists(sensible, max_size=8))
def test_those_in_force_could_all_be_in_the_file_and_none_is_lost(entries: list[Entry]) -> None:
    config = parse(GOOD, entries)
    assert [one.entry for one in config.kept] == entries
    file = GOOD
    for vlan in ("vlan1", "vlan2"):
        found = [one for one in config.kept if one.why is None and not one.is_redundant and one.entry["vlan"] == vlan]
        if found:
            before, here, after = file.partition(f'[[vlan]]\nname = "{vlan}"\n')
            rest, table, others = after.partition("[[vlan]]" if vlan == "vlan1" else "[[allow]]")
            file = before + here + rest + kept.export(found) + "\n" + table + others
    assert parse(file).vlans == config.vlans
    aside = [one.entry for one in config.kept if one.why is not None]
    assert all(one.is_redundant for one in parse(file, [one for one in entries if one not in aside]).kept)
    assert all(line.isprintable() for line in kept.problems(config.kept))


# -- their own file


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert kept.read(tmp_path) == ((), None)
    kept.write(tmp_path, [CAMERA, BY_ID])
    assert kept.read(tmp_path) == ((CAMERA, BY_ID), None)
    assert [one.name for one in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    "left", [b"", b"{", b"\0" * 100, b"\xff\xfe", b"7", b"[]", b"{}", b'{"reservations": 7}', b'{"reservations": [7]}',
             b"[" * 100_000, b"9" * 5000]
)  # fmt: skip
def test_a_damaged_file_has_nothing_and_says_so(tmp_path: Path, left: bytes) -> None:
    (tmp_path / FILE).write_bytes(left)
    entries, damage = kept.read(tmp_path)
    assert entries == ()
    assert damage is not None
    assert damage.startswith(f"{tmp_path / FILE}: damaged")


@pytest.mark.parametrize("cut", range(0, 300, 7))
def test_a_file_that_was_cut_short_is_damaged_never_something_else(tmp_path: Path, cut: int) -> None:
    kept.write(tmp_path, [CAMERA, BY_ID])
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[: min(cut, len(whole) - 3)])
    assert kept.read(tmp_path)[0] == ()
    assert kept.read(tmp_path)[1]


def test_a_power_cut_at_any_step_of_the_writing_leaves_the_one_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not synced is lost with the power: the draft's content before its sync, the names before the folder's."""
    kept.write(tmp_path, [CAMERA])
    steps: list[tuple[str, str]] = []
    rename = Path.rename

    def synced(path: Path) -> None:
        steps.append(("sync", path.name))
        database.sync(path)

    def renamed(path: Path, target: Path) -> Path:
        steps.append(("rename", path.name))
        return rename(path, target)

    monkeypatch.setattr(files, "sync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    kept.write(tmp_path, [BY_ID])
    draft = "reservations.new"
    assert steps == [("sync", draft), ("rename", draft), ("sync", tmp_path.name)]
    (tmp_path / draft).write_text("{")
    assert kept.read(tmp_path) == ((BY_ID,), None)
    kept.write(tmp_path, [CAMERA])
    assert kept.read(tmp_path) == ((CAMERA,), None)


def test_the_oldest_damaged_files_go(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / FILE).write_text(str(number))
        kept.set_aside(tmp_path)
    assert [one.read_text() for one in sorted(tmp_path.iterdir())] == ["3", "4", "5", "6", "7"]


def test_an_address_is_the_address_and_no_name() -> None:
    odd = entry(name="10.0.1.50", address="10.0.1.51")
    bare = entry(name="10.0.1.52", address=None)
    assert kept.called([odd, CAMERA, bare], "vlan1", "10.0.1.50") == [CAMERA]
    assert kept.called([odd, CAMERA, bare], "vlan1", "10.0.1.51") == [odd]
    assert kept.called([odd, CAMERA, bare], "vlan1", "10.0.1.52") == [bare]
    assert kept.called([odd], "vlan1", "10.0.1.50") == []
    assert kept.called([CAMERA, odd], "vlan1", "camera") == [CAMERA]
    assert kept.called([CAMERA], "vlan2", "camera") == []


@pytest.mark.parametrize(
    ("change", "handle"),
    [
        ({"address": "10.0.1.20"}, "camera"),
        ({"name": "10.0.1.60", "address": "10.0.1.20"}, "10.0.1.20"),
        ({"name": "10.0.1.60", "address": None, "mac": "02:00:00:00:01:06"}, "10.0.1.60"),
    ],
)
def test_the_cure_names_what_is_set_aside_so_that_it_is_found(change: dict[str, Any], handle: str) -> None:
    (aside,) = parse(GOOD, [entry(**change)]).kept
    assert kept.problem(aside).endswith(f" or: lanward unreserve vlan1 {handle}")
    assert kept.called([aside.entry], "vlan1", handle) == [aside.entry]


# -- while the service runs


class Running:
    """A `Keeper` and what it tells."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.notes: list[Note] = []
        self.keeper = Keeper(state, self.notes.append)

    def told(self) -> list[tuple[str, str]]:
        told, self.notes[:] = [(one.level, one.event) for one in self.notes], []
        return told

    def tidy(self, file: str = GOOD) -> None:
        self.keeper.tidy(parse(file, self.keeper.entries).kept)

    def take(self, file: str, *entries: Entry) -> bool:
        return self.keeper.take(entries, parse(file, entries).kept)

    def on_disk(self) -> list[Entry]:
        found: list[Entry] = json.loads((self.state / FILE).read_text())["reservations"]
        return found


def test_a_start_with_nothing_kept_writes_nothing(tmp_path: Path) -> None:
    running = Running(tmp_path)
    running.tidy()
    assert (running.told(), list(tmp_path.iterdir())) == ([], [])


def test_a_start_sets_a_damaged_file_aside_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{")
    running = Running(tmp_path)
    running.tidy()
    (note,) = running.notes
    (aside,) = tmp_path.iterdir()
    assert (note.level, note.event) == ("error", "reservations_damaged")
    assert aside.name.startswith(f"{FILE}.bad-")
    assert aside.name in note.fields["what"]
    assert asyncio.run(running.keeper.write([CAMERA])) == []
    assert running.on_disk() == [CAMERA]


def test_a_start_drops_what_the_file_has_and_tells_it_once(tmp_path: Path) -> None:
    same = {"vlan": "vlan1", "name": "web", "container": "container1"}
    kept.write(tmp_path, [same, CAMERA])
    running = Running(tmp_path)
    running.tidy()
    assert running.notes == [Note("info", "reservations_in_file", {"reservations": 1, "names": ["vlan1/web"]})]
    assert running.on_disk() == [CAMERA]
    again = Running(tmp_path)
    again.tidy()
    assert again.told() == []


def test_what_is_set_aside_is_kept_and_told_once_for_each_reason(tmp_path: Path) -> None:
    aside = entry(address="10.0.1.20")
    kept.write(tmp_path, [aside])
    running = Running(tmp_path)
    running.tidy()
    assert running.told() == [("warning", "reservations_set_aside")]
    assert not running.take(GOOD, aside)
    assert running.told() == []
    assert not running.take(changed('address = "10.0.1.20"', 'address = "10.0.1.22"'), aside)
    assert running.told() == []
    assert not running.take(GOOD, aside)
    assert running.told() == [("warning", "reservations_set_aside")]
    assert running.on_disk() == [aside]


def test_what_a_vlan_that_is_gone_had_is_kept_until_it_is_back(tmp_path: Path) -> None:
    running = Running(tmp_path)
    without = GOOD.replace('"vlan2"', '"vlan3"').replace("vlan2/", "vlan3/")
    assert not running.take(without, BY_ID)
    assert running.keeper.entries == (BY_ID,)
    assert running.told() == [("warning", "reservations_set_aside")]
    assert names(parse(GOOD, running.keeper.entries), 1) == ["plc"]


@pytest.mark.parametrize("number", [21, 4096])
def test_a_long_list_is_a_short_line(tmp_path: Path, number: int) -> None:
    running = Running(tmp_path)
    running.take(GOOD, *(entry(vlan="gone", name=f"n{one}") for one in range(number)))
    (note,) = running.notes
    assert (note.fields["reservations"], len(note.fields["problems"])) == (number, kept.MAX_TOLD)


@pytest.fixture
def full_disk(tmp_path: Path) -> Callable[[], None]:
    """Makes that no draft can be written."""
    return lambda: (tmp_path / FILE).with_suffix(".new").mkdir()


def test_a_disk_that_refuses_is_an_error_and_changes_nothing(tmp_path: Path, full_disk: Callable[[], None]) -> None:
    running = Running(tmp_path)
    assert asyncio.run(running.keeper.write([CAMERA])) == []
    full_disk()
    (error,) = asyncio.run(running.keeper.write([BY_ID]))
    assert error.startswith(f"{tmp_path / FILE}: ")
    assert running.told() == [("error", "reservations_not_written")]
    assert running.on_disk() == [CAMERA]


def test_a_start_goes_on_when_the_disk_refuses(tmp_path: Path, full_disk: Callable[[], None]) -> None:
    same = {"vlan": "vlan1", "name": "web", "container": "container1"}
    kept.write(tmp_path, [same])
    full_disk()
    running = Running(tmp_path)
    running.tidy()
    assert [event for _, event in running.told()] == ["reservations_in_file", "reservations_not_written"]
    assert running.keeper.entries == ()


def test_a_damaged_file_that_stays_in_the_way_is_not_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> str:
        raise OSError(30, "Read-only file system")

    (tmp_path / FILE).write_text("{")
    monkeypatch.setattr(kept, "set_aside", refuse)
    running = Running(tmp_path)
    running.tidy()
    (error,) = asyncio.run(running.keeper.write([CAMERA]))
    assert "damaged" in error
    assert (tmp_path / FILE).read_text() == "{"
