"""Who had an address when: what is kept, how long, and what becomes of it when the disk does not do as it should."""

from __future__ import annotations

import errno
import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dhcpd.identity import container_key
from dhcpd.leases import BOUND, DECLINED, FREE, Row
from router import history as module
from router.history import History
from router.periods import FILE_NAME, Question, read
from router.settings import Keep
from tests.dhcpd.script import START, ip, mac
from tests.lab.netns import wait_until

HOUR = 3600
GPS = ip("10.0.1.100")


def row(number: int = 1, since: int = START, until: int | None = START + HOUR, **changes: Any) -> Row:
    """A lease of device ``number``."""
    made = Row(GPS, BOUND, mac(number), mac(number), b"", f"node{number}", since, until)
    return made._replace(**changes)


@contextmanager
def keeping(folder: Path, keep: Keep | None = None) -> Iterator[History]:
    made = History(folder, keep or Keep())
    made.start()
    try:
        yield made
    finally:
        made.close()


def kept(folder: Path, *changes: tuple[Row, float], keep: Keep | None = None) -> list[dict[str, Any]]:
    """What is there after these changes of ``vlan1``, each written by itself."""
    for one, now in changes:
        with keeping(folder, keep) as history:
            history.put("vlan1", [one], now)
    return read(folder / FILE_NAME, Question())


def times(one: dict[str, Any]) -> tuple[int, int | None]:
    since, until = one["since"], one["until"]
    seconds = [
        None if text is None else int(datetime.fromisoformat(text).timestamp()) - START for text in (since, until)
    ]
    assert seconds[0] is not None
    return seconds[0], seconds[1]


def test_a_container_whose_mac_is_not_known_yet_is_found_by_its_own_name_only(tmp_path: Path) -> None:
    kept(tmp_path, (row(mac=b"", client=b"cweb", hostname=""), START))
    path = tmp_path / FILE_NAME
    assert [one["container"] for one in read(path, Question(node="web"))] == ["web"]
    assert read(path, Question(node="printer")) == []


def test_a_lease_is_a_period(tmp_path: Path) -> None:
    (one,) = kept(tmp_path, (row(client=b"i\1ab", client_id=b"\1ab"), START))
    assert one == {
        "vlan": "vlan1", "address": "10.0.1.100", "state": "bound", "mac": "02:00:00:00:00:01", "client_id": "01:61:62",
        "hostname": "node1", "container": None, "since": "2027-01-15T08:00:00Z", "until": "2027-01-15T09:00:00Z",
    }  # fmt: skip


def test_a_renewal_makes_it_longer(tmp_path: Path) -> None:
    (one,) = kept(tmp_path, *((row(since=START + t, until=START + t + HOUR), START + t) for t in (0, 1800, 3600)))
    assert times(one) == (0, 3600 + HOUR)


def renewals(*names: str) -> list[Row]:
    """A lease of one device and its renewals, a minute apart, each with the name it gives itself then."""
    return [
        row(since=START + 60 * n, until=START + 60 * n + HOUR, hostname=hostname) for n, hostname in enumerate(names)
    ]


@pytest.mark.parametrize(
    ("names", "periods"),
    [
        (["alice", "renamed"], [("renamed", (60, 60 + HOUR)), ("alice", (0, 60))]),
        (["alice", "renamed", "alice"], [("alice", (120, 120 + HOUR)), ("renamed", (60, 120)), ("alice", (0, 60))]),
        (["", "alice", "alice"], [("alice", (0, 120 + HOUR))]),
        (["alice", "", "alice"], [("alice", (0, 120 + HOUR))]),
        (["alice", "", "bob"], [("bob", (120, 120 + HOUR)), ("alice", (0, 120))]),
    ],
)
def test_another_name_is_another_period(
    tmp_path: Path, names: list[str], periods: list[tuple[str, tuple[int, int]]]
) -> None:
    for place in ("alone", "together"):
        (tmp_path / place).mkdir()
    alone = kept(tmp_path / "alone", *((one, one.since) for one in renewals(*names)))
    with keeping(tmp_path / "together") as history:
        for one in renewals(*names):
            history.put("vlan1", [one], one.since)
    together = read(tmp_path / "together" / FILE_NAME, Question())
    for found in (alone, together):
        assert [(one["hostname"], times(one)) for one in found] == periods


def test_a_release_ends_it(tmp_path: Path) -> None:
    (one,) = kept(tmp_path, (row(), START), (row(until=START + 60), START + 60))
    assert times(one) == (0, 60)


def test_a_lease_that_had_ended_begins_anew(tmp_path: Path) -> None:
    later = START + 3 * HOUR
    found = kept(tmp_path, (row(), START), (row(since=later, until=later + HOUR), later))
    assert [times(one) for one in found] == [(3 * HOUR, 4 * HOUR), (0, HOUR)]


def test_another_holder_ends_what_was_before(tmp_path: Path) -> None:
    found = kept(tmp_path, (row(until=None), START), (row(2, START + 60, START + 120), START + 60))
    assert [(one["hostname"], times(one)) for one in found] == [("node2", (60, 120)), ("node1", (0, 60))]


def test_a_node_that_moves_leaves_its_address(tmp_path: Path) -> None:
    free = Row(GPS, FREE, b"", b"", b"", "", START, START + HOUR)
    (one,) = kept(tmp_path, (row(), START), (free, START + 60))
    assert times(one) == (0, 60)


def test_a_conflict_is_told_with_the_squatter(tmp_path: Path) -> None:
    declined = row(9, START + 60, START + 660, state=DECLINED, client=b"", hostname="")
    latest, _ = kept(tmp_path, (row(), START), (declined, START + 60))
    assert (latest["state"], latest["mac"], times(latest)) == ("declined", "02:00:00:00:00:09", (60, 660))


def test_a_containers_interface_may_become_known_later(tmp_path: Path) -> None:
    key = container_key("web")
    (one,) = kept(tmp_path, (row(client=key, mac=b""), START), (row(client=key, since=START + 5), START + 5))
    assert (one["container"], one["mac"]) == ("web", "02:00:00:00:00:01")


def test_a_clock_that_was_set_back_moves_the_period(tmp_path: Path) -> None:
    (one,) = kept(tmp_path, (row(), START), (row(since=START - HOUR, until=START), START - HOUR))
    assert times(one) == (-HOUR, 0)


def test_changes_of_one_moment_are_told_in_their_order(tmp_path: Path) -> None:
    with keeping(tmp_path) as history:
        history.put("vlan1", [row(), row(2, START + 1, START + 9), row(3, START + 2), row(3, START + 3)], START + 3)
    found = read(tmp_path / FILE_NAME, Question())
    assert [one["hostname"] for one in found] == ["node3", "node2", "node1"]


QUESTIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["node3", "node1", "node2", "node1"]),
    ({"address": GPS}, ["node3", "node2", "node1"]),
    ({"address": GPS, "vlan": "vlan2"}, []),
    ({"address": GPS, "vlan": "nowhere"}, []),
    ({"vlan": "vlan2"}, ["node1"]),
    ({"address": GPS, "at": START + 59}, ["node1"]),
    ({"address": GPS, "at": START + 60}, ["node2"]),
    ({"address": GPS, "at": START + 150}, []),
    ({"address": GPS, "at": START - 1}, []),
    ({"since": START + 100}, ["node3", "node1", "node2"]),
    ({"node": "node2"}, ["node2"]),
    ({"node": "02:00:00:00:00:01"}, ["node1", "node1"]),
    ({"node": "zz"}, []),
    ({"node": "\udcff"}, []),
    ({"limit": 1}, ["node3"]),
    ({"limit": -5}, ["node3"]),
]


@pytest.mark.parametrize(("asked", "names"), QUESTIONS)
def test_questions(tmp_path: Path, asked: dict[str, Any], names: list[str]) -> None:
    with keeping(tmp_path) as history:
        history.put("vlan1", [row(until=START + 60), row(2, START + 60, START + 120)], START + 60)
        history.put("vlan2", [row(1, START + 70, None, address=ip("10.0.2.100"))], START + 70)
        history.put("vlan1", [row(3, START + 200)], START + 200)
    assert [one["hostname"] for one in read(tmp_path / FILE_NAME, Question(**asked))] == names


def test_nothing_was_kept_yet(tmp_path: Path) -> None:
    assert read(tmp_path / FILE_NAME, Question()) == []


# -- bounds


def test_what_ended_long_ago_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0)
    keep = Keep(max_age=10 * 86400)
    later = START + 11 * 86400
    (one,) = kept(tmp_path, (row(), START), (row(2, later, later + HOUR), later), keep=keep)
    assert one["hostname"] == "node2"


def test_a_clock_that_is_years_ahead_for_a_while_erases_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uptime, years = [0.0], 10**9
    monkeypatch.setattr(module, "GATHER_SECONDS", 0.0)
    monkeypatch.setattr(module, "monotonic", lambda: uptime[0])

    def left(history: History, up: float, now: int) -> int:
        uptime[0] = up
        history.put("vlan1", [row(2, START + now, None, address=GPS + 1)], START + now)
        wait_until(lambda: not history._waiting, 5, "the change is written")
        return len(read(tmp_path / FILE_NAME, Question(address=GPS)))

    with keeping(tmp_path) as history:
        history.put("vlan1", [row()], START)
        assert left(history, 10, years)
        assert left(history, 3500, years + 3490)
        assert left(history, 3700, 3700)
        assert left(history, 20_000, 20_000)
        assert left(history, 20_010, years)
        assert left(history, 23_600, years + 3590)
        assert not left(history, 23_620, years + 3610)


def test_it_is_looked_for_what_is_too_old_once_a_day() -> None:
    tending, hours = module.Tending(), range(75)
    assert [hour for hour in hours if tending.is_due(START + hour * HOUR, 50 + hour * HOUR)] == [1, 25, 49, 73]


def test_what_goes_on_stays_however_old(tmp_path: Path) -> None:
    later = START + 11 * 86400
    found = kept(tmp_path, (row(until=None), START), (row(2, later, None, address=GPS + 1), later), keep=Keep(86400))
    assert {one["hostname"] for one in found} == {"node1", "node2"}


def test_a_history_at_its_largest_forgets_the_oldest(tmp_path: Path) -> None:
    keep = Keep(max_size=8 << 20)
    total, at = 150_000, 0
    with keeping(tmp_path, keep) as history:
        permanent = row(until=None, address=GPS - 1, hostname="permanent")
        history.put("vlan1", [permanent], START)
        while at < total:
            if history._waiting < module.MAX_WAITING // 2:
                rows = [row(n, START + n, START + n + 1, address=GPS + n % 5000) for n in range(at, at + 2000)]
                history.put("vlan1", rows, START + at + 2000)
                at += 2000
            assert history.size() <= keep.max_size
            time.sleep(0.001)
    assert history.lost == 0
    assert history.size() <= keep.max_size
    path = tmp_path / FILE_NAME
    with closing(sqlite3.connect(path)) as database:
        count, first = database.execute(
            "SELECT count(*), min(since) FROM period WHERE hostname <> 'permanent'"
        ).fetchone()
    assert 20_000 < count < total
    assert first > START + 50_000
    assert read(path, Question(node="permanent"))
    assert read(path, Question())[0]["hostname"] == f"node{total - 1}"


# -- what may happen to the file


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with keeping(tmp_path) as history:
        history.put("vlan1", [row()], START)
    assert [one["hostname"] for one in read(path, Question())] == ["node1"]
    assert (tmp_path / "history.db.bad").read_bytes() == content
    (note,) = history.notes
    assert "a new one was begun" in note


def test_a_file_of_another_version_is_set_aside(tmp_path: Path) -> None:
    kept(tmp_path, (row(), START))
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as database:
        database.execute("PRAGMA user_version = 7")
    (one,) = kept(tmp_path, (row(2), START))
    assert one["hostname"] == "node2"


def test_damage_that_shows_while_it_runs(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    with keeping(tmp_path) as history:
        history.put("vlan1", [row(n, address=GPS + n) for n in range(20_000)], START)
        wait_until(lambda: path.exists() and len(read(path, Question(limit=1000))) == 1000, 20, "the rows")
    path.write_bytes(path.read_bytes()[:8192] + b"\xaa" * (path.stat().st_size - 8192))
    with keeping(tmp_path) as history:
        history.put("vlan1", [row(n, START + 9, address=GPS + n) for n in range(20_000)], START + 9)
        wait_until(lambda: history.notes, 20, "the file to be set aside")
        wait_until(lambda: path.exists() and len(read(path, Question(limit=1000))) == 1000, 20, "the rows")
    assert (tmp_path / "history.db.bad").exists()
    assert history.lost == 0


def test_a_reader_that_finds_damage_has_it_set_aside(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    kept(tmp_path, (row(), START))
    with keeping(tmp_path) as history:
        wait_until(lambda: history._database, 10, "the file to be open")
        path.write_bytes(b"damaged" * 1000)
        with pytest.raises(sqlite3.DatabaseError):
            history.answer(Question())
        history.put("vlan1", [row(2)], START)
        wait_until(lambda: history.notes, 10, "the file to be set aside")
    assert [one["hostname"] for one in read(path, Question())] == ["node2"]


def fill_the_disk(history: History) -> sqlite3.Connection:
    """SQLite's own bound stands for the disk's: the same error, at the same places."""
    history.put("vlan1", [row()], START)
    wait_until(lambda: history._database and history.size() and not history._waiting, 10, "the first row")
    assert history._database is not None
    history._database.execute("PRAGMA max_page_count = 12")
    return history._database


def test_a_full_disk_is_told_and_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    with keeping(tmp_path) as history:
        database = fill_the_disk(history)
        history.put("vlan1", [row(n, address=GPS + n) for n in range(5000)], START)
        wait_until(lambda: history.problem, 10, "the problem")
        assert "full" in str(history.problem)
        history.put("vlan1", [row(9999, address=GPS - 7)], START)
        database.execute("PRAGMA max_page_count = 4294967294")
        wait_until(lambda: history.problem is None, 10, "the problem to be over")
        wait_until(lambda: history.answer(Question(node="node9999")), 10, "what waited")
    assert history.lost == 0


def test_a_vlan_that_comes_while_the_disk_is_full_is_found_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    with keeping(tmp_path) as history:
        database = fill_the_disk(history)
        history.put("vlan2", [row(n, address=GPS + n) for n in range(5000)], START)
        wait_until(lambda: history.problem, 10, "the problem")
        database.execute("PRAGMA max_page_count = 4294967294")
        wait_until(lambda: not history._waiting, 20, "what waited")
    assert len(read(tmp_path / FILE_NAME, Question(vlan="vlan2", limit=1000))) == 1000


def test_a_damaged_file_that_cannot_be_set_aside_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fails is damaged first, and then mounted read-only."""
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)
    path, replace, is_writable = tmp_path / FILE_NAME, Path.replace, False

    def refused(one: Path, target: Path) -> Path:
        if not is_writable:
            raise OSError(errno.EROFS, "Read-only file system")
        return replace(one, target)

    monkeypatch.setattr(Path, "replace", refused)
    with keeping(tmp_path) as history:
        history.put("vlan1", [row()], START)
        wait_until(lambda: history._database and not history._waiting, 10, "the first row")
        assert history._database is not None
        history._database.execute("DROP TABLE period")
        history.put("vlan1", [row(2, START + 5)], START + 5)
        wait_until(lambda: history.problem, 10, "the problem")
        assert "Read-only" in str(history.problem)
        is_writable = True
        wait_until(lambda: history.problem is None, 10, "the problem to be over")
    assert [one["hostname"] for one in read(path, Question())] == ["node2"]
    assert history.lost == 0


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    history = History(tmp_path / "absent", Keep())
    for number in range(15):
        history.put("vlan1", [row(number)], START)
    assert (history.lost, history._waiting) == (5, 10)
    history.close()


def test_a_folder_that_cannot_be_written_does_not_end_the_service(tmp_path: Path) -> None:
    with keeping(tmp_path / "absent") as history:
        history.put("vlan1", [row()], START)
        wait_until(lambda: history.problem, 10, "the problem")
    assert history.lost == 1


# -- how large, how fast


def test_a_million_changes(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    """A million leases of different nodes, the worst there is: none makes another's period longer."""
    rng = random.Random(7)
    total, addresses = 1_000_000, 50_000
    path = tmp_path / FILE_NAME
    at, began = 0, time.monotonic()
    with keeping(tmp_path, Keep(max_age=10**9)) as history:
        while at < total:
            if history._waiting < module.MAX_WAITING - 5000:
                rows = [
                    row(
                        n,
                        START + n,
                        START + n + HOUR,
                        address=GPS + rng.randrange(addresses),
                        hostname=f"tablet-{n:06}",
                    )
                    for n in range(at, at + 5000)
                ]
                history.put("vlan1", rows, START + at + 5000)
                at += 5000
            time.sleep(0.001)
    seconds = time.monotonic() - began
    size = history.size()
    assert history.lost == 0
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM period").fetchone() == (total,)
    times = []
    for _ in range(200):
        asked = Question(address=GPS + rng.randrange(addresses), at=START + rng.randrange(total))
        start = time.perf_counter()
        read(path, asked)
        times.append(time.perf_counter() - start)
    start = time.perf_counter()
    assert len(read(path, Question(node="tablet-777777"))) == 1
    by_node = time.perf_counter() - start
    times.sort()
    record_property(
        "figure",
        f"{total:,} changes: {size / 2**20:.0f} MiB, {seconds:.0f} s to write; who had an address: "
        f"median {times[100] * 1e3:.1f} ms, worst of 200 {times[-1] * 1e3:.1f} ms; by a name {by_node * 1e3:.0f} ms",
    )
    assert size < 150 << 20
    assert times[-1] < 0.05
