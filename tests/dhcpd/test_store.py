"""The lease store: durable, last writer wins, and never in the loop's way."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dhcpd import store
from dhcpd.leases import BOUND, DECLINED, FREE, Row
from dhcpd.store import Store, StoreError
from tests.dhcpd.stores import FIRST, VLAN, Running, lease, read, running, write

PROJECT = Path(__file__).parents[2]

COMMIT_FOREVER = """
import sys
from itertools import count
from pathlib import Path
from tests.dhcpd.stores import lease, running

with running(Path(sys.argv[1])) as service:
    for batch in count(int(sys.argv[2])):
        assert service.commit([lease(8 * batch + n) for n in range(8)]) is None
        print(batch, flush=True)
"""

FILL_THE_DISK = """
import os, sys
from itertools import count
from pathlib import Path
from tests.dhcpd.stores import fill, lease, read, running

folder = Path(sys.argv[1])
ballast = folder / "ballast"
with running(folder) as service:
    assert service.commit([lease(0)]) is None
    fill(ballast)
    error = next(filter(None, (service.commit([lease(n)]) for n in range(1, 2000))))
    assert "full" in str(error), error
    assert service.commit([lease(3000)]) is not None
    assert service.touch() is not None
    ballast.unlink()
    assert service.touch() is None
    assert service.commit([lease(4000)]) is None
rows, notes = read(folder)
assert lease(0) in rows and lease(4000) in rows and lease(3000) not in rows, len(rows)
assert not notes, notes
print("done")
"""

DAMAGE_ON_A_FULL_DISK = """
import subprocess, sys
from pathlib import Path
from tests.dhcpd.stores import fill, lease, read, write

folder = Path(sys.argv[1])
write(folder, [lease(number) for number in range(300)])
path, ballast = folder / "leases.db", folder / "ballast"
damaged = path.read_bytes()
damaged = damaged[:4096] + bytes(4096) + damaged[8192:]
path.write_bytes(damaged)
fill(ballast)
for _ in range(2):
    start = [sys.executable, "-c", "import sys, dhcpd.store as s, pathlib; s.Store(pathlib.Path(sys.argv[1]))", folder]
    error = subprocess.run(start, capture_output=True, text=True).stderr.splitlines()[-1]
    assert "StoreError" in error and "is damaged" in error and "full" in error, error
    assert path.read_bytes() == damaged
ballast.unlink()
rows, _ = read(folder)
assert lease(0) in rows and lease(299) in rows, len(rows)
print("done")
"""


def child(program: str, *arguments: object, wrapper: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [*wrapper, sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path) as service:
        yield service


def test_acknowledged_leases_survive_kill_9(tmp_path: Path) -> None:
    batch = 0
    for _ in range(4):
        process = child(COMMIT_FOREVER, tmp_path, batch)
        assert process.stdout is not None
        for _ in range(50):
            assert process.stdout.readline()
        process.kill()
        acknowledged, _ = process.communicate()
        batch = max(batch + 49, *(int(line) for line in acknowledged.splitlines() if line), 0) + 1
        rows, notes = read(tmp_path)
        assert set(rows) >= {lease(number) for number in range(8 * batch)}
        assert not notes


def test_batches_finish_in_order_with_few_wakeups(service: Running) -> None:
    finished: list[int] = []

    def record(batch: int, error: Exception | None) -> None:
        assert error is None
        finished.append(batch)

    number = service.store.vlan_id(VLAN)
    for batch in range(500):
        service.store.commit([(number, lease(batch))], partial(record, batch))
    while len(finished) < 500:
        service.turn()
    assert finished == list(range(500))
    assert service.wakeups < 100


@pytest.fixture
def quick(service: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """On a disk that was quick so far."""
    monkeypatch.setattr(store, "QUICK_SECONDS", 60)
    for batch in range(store.MIN_QUICK):
        assert service.commit([lease(batch)]) is None
    return service


def at_once(service: Running, *numbers: int) -> list[Exception | None]:
    """The results of a batch as soon as it was handed over, when nobody else waits."""
    results: list[Exception | None] = []
    number = service.store.vlan_id(VLAN)
    service.store.commit([(number, lease(one)) for one in numbers], results.append, alone=True)
    return results


def test_a_quick_disk_is_written_at_once(quick: Running) -> None:
    wakeups = quick.wakeups
    assert at_once(quick, 1000, 1001) == [None]
    assert {lease(1000), lease(1001)} <= {Row._make(row) for row in quick.store.load(VLAN)}
    assert quick.wakeups == wakeups


def test_a_disk_that_was_slow_once_is_not(quick: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "QUICK_SECONDS", 0)
    assert at_once(quick, 1000) == [None]
    monkeypatch.setattr(store, "QUICK_SECONDS", 60)
    for batch in range(store.MIN_QUICK):
        assert at_once(quick, batch) == []
        quick.turn()
    assert at_once(quick, 1000) == [None]


def test_nothing_overtakes_a_batch_that_waits(quick: Running) -> None:
    order: list[int] = []
    number = quick.store.vlan_id(VLAN)
    quick.store.commit([(number, lease(1, since=1))], lambda _: order.append(1))
    quick.store.commit([(number, lease(1, since=2))], lambda _: order.append(2), alone=True)
    assert order == []
    while len(order) < 2:
        quick.turn()
    assert order == [1, 2]
    assert lease(1, since=2) in list(quick.store.load(VLAN))


def test_reading_and_writing_do_not_take_each_others_errors(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_SELECT_RECENT", "SELECT * FROM absent WHERE key BETWEEN ? AND ?")
    results: list[Exception | None] = []
    number = service.store.vlan_id(VLAN)
    for batch in range(2000):
        service.store.commit([(number, lease(batch))], results.append)
        with pytest.raises(StoreError, match="no such table"):
            list(service.store.load(VLAN))
    while len(results) < 2000:
        service.turn()
    assert set(results) == {None}


def test_what_takes_long_is_left_to_the_writer(quick: Running) -> None:
    results = [at_once(quick, number) for number in range(store.MAX_RECENT - store.MIN_QUICK)]
    assert results == [[None]] * (len(results) - 1) + [[]]


def test_close_writes_and_reports_what_waits(tmp_path: Path) -> None:
    service = Running(tmp_path)
    results: list[Exception | None] = []
    number = service.store.vlan_id(VLAN)
    for batch in range(300):
        service.store.commit([(number, lease(batch))], results.append)
    service.store.close()
    assert results == [None] * 300
    assert len(read(tmp_path)[0]) == 300


def test_batch_of_many_statements_is_one_transaction(service: Running) -> None:
    assert service.commit([lease(number) for number in range(1000)]) is None
    bad = lease(1)._replace(since=1 << 70)
    error = service.commit([*(lease(number, since=1_800_000_000) for number in range(500)), bad])
    assert isinstance(error, OverflowError)
    assert list(service.store.load(VLAN)) == [lease(number) for number in range(1000)]


def test_vlans_are_kept_apart_and_for_later(tmp_path: Path) -> None:
    write(tmp_path, [lease(1)], "vlan1")
    write(tmp_path, [lease(1, since=1), lease(2)], "vlan2")
    with running(tmp_path) as service:
        assert list(service.store.load("vlan2")) == [lease(1, since=1), lease(2)]
        assert list(service.store.load("vlan1")) == [lease(1)]
        assert not list(service.store.load("vlan3"))
        assert service.store.latest() == lease(1).since


def test_two_vlans_never_share_a_number(service: Running) -> None:
    number = service.store.vlan_id("vlan1")
    service.store._names[service.store.vlan_id("rival")] = "somebody else's"
    assert len({number, service.store.vlan_id("rival"), service.store.vlan_id("vlan2")}) == 3
    assert service.store.vlan_id("vlan1") == number


def test_rows_of_the_highest_addresses_and_infinite_leases(tmp_path: Path) -> None:
    rows = [lease(0)._replace(address=0, expires=None), lease(0)._replace(address=0xFFFFFFFF, hostname="ü")]
    write(tmp_path, rows)
    assert read(tmp_path)[0] == rows


def test_a_doubt_in_the_clock_is_kept_and_is_no_stamp(tmp_path: Path) -> None:
    for doubt in (None, 1_800_000_000, 40, None):
        with running(tmp_path) as service:
            results: list[Exception | None] = []
            service.store.keep_doubt(doubt, results.append)
            service.turn()
            assert results == [None]
        with running(tmp_path) as service:
            assert service.store.doubt() == doubt
            assert service.store.latest() == 0


def test_empty_store_has_no_stamp(service: Running) -> None:
    assert service.store.latest() == 0


def test_freed_rows_are_deleted(tmp_path: Path) -> None:
    write(tmp_path, [lease(1), lease(2)])
    write(tmp_path, [Row(FIRST + 1, FREE, b"", b"", b"", "", 0, None)])
    assert read(tmp_path)[0] == [lease(2)]
    with sqlite3.connect(tmp_path / "leases.db") as database:
        assert database.execute("SELECT count(*) FROM lease WHERE state = 0").fetchone() == (0,)
    database.close()


def test_database_is_readable_in_the_shell(tmp_path: Path) -> None:
    write(tmp_path, [lease(7)])
    with sqlite3.connect(tmp_path / "leases.db") as database:
        (row,) = database.execute("SELECT vlan, address, state, mac, hostname FROM readable").fetchall()
    database.close()
    assert row == ("vlan1", "10.0.1.7", "bound", "020000000007", "device-7")


def test_second_service_is_refused_and_told_who_has_the_folder(service: Running, tmp_path: Path) -> None:
    process = child(
        "import sys; from pathlib import Path; from dhcpd.store import Store; Store(Path(sys.argv[1]))", tmp_path
    )
    _, errors = process.communicate()
    (holder,) = (tmp_path / "leases.lock").read_text().split()
    assert f"StoreError: {tmp_path} is in use by process {holder};" in errors
    assert service.commit([lease(1)]) is None


def test_open_shell_does_not_keep_the_service_from_starting(tmp_path: Path) -> None:
    write(tmp_path, [lease(1)])
    shell = sqlite3.connect(tmp_path / "leases.db", isolation_level=None)
    try:
        shell.execute("SELECT * FROM lease").fetchone()
        assert read(tmp_path) == ([lease(1)], [])
    finally:
        shell.close()


def test_foreign_write_transaction_fails_the_commit_and_no_later_one(tmp_path: Path) -> None:
    write(tmp_path, [lease(1)])
    shell = sqlite3.connect(tmp_path / "leases.db", isolation_level=None)
    try:
        shell.execute("SELECT * FROM lease").fetchone()
        with running(tmp_path) as service:
            shell.execute("BEGIN IMMEDIATE")
            assert "locked" in str(service.commit([lease(2)]))
            shell.execute("ROLLBACK")
            assert service.commit([lease(3)]) is None
    finally:
        shell.close()
    assert read(tmp_path)[0] == [lease(1), lease(3)]


def test_missing_folder_is_created(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b", [lease(1)])
    assert read(tmp_path / "a" / "b") == ([lease(1)], [])


@pytest.mark.parametrize("below", ["", "state"])
def test_file_in_place_of_the_folder(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file.*: .*; name a state folder that can be written"):
        Store(tmp_path / "file" / below)


def in_private_mount(program: str, folder: Path, mount: str) -> str:
    """The output of a program that runs with ``mount`` done, or a skip where mounting is not permitted."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("no permission for a private mount namespace")
    wrapper = ("unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh")
    output, errors = child(program, folder, wrapper=wrapper).communicate()
    assert not errors
    return output


def test_full_disk_fails_commits_until_there_is_space(tmp_path: Path) -> None:
    assert in_private_mount(FILL_THE_DISK, tmp_path, f"mount -t tmpfs -o size=256k none {tmp_path}") == "done\n"


def test_damaged_database_waits_for_space(tmp_path: Path) -> None:
    assert in_private_mount(DAMAGE_ON_A_FULL_DISK, tmp_path, f"mount -t tmpfs -o size=1m none {tmp_path}") == "done\n"


def test_read_only_folder_is_refused(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from dhcpd.store import Store, StoreError
try:
    Store(Path(sys.argv[1]))
except StoreError as error:
    print(error)
"""
    output = in_private_mount(program, tmp_path, f"mount -t tmpfs -o ro none {tmp_path}")
    assert output == f"{tmp_path}: Read-only file system; name a state folder that can be written\n"


rows = st.builds(
    Row,
    address=st.integers(FIRST, FIRST + 5),
    state=st.sampled_from([FREE, BOUND, DECLINED]),
    client=st.binary(max_size=300),
    mac=st.binary(max_size=16),
    client_id=st.binary(max_size=300),
    hostname=st.text(st.characters(codec="utf-8"), max_size=63),
    since=st.integers(0, 1 << 34),
    expires=st.none() | st.integers(0, 1 << 34),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(rows, max_size=5), max_size=6))
def test_last_writer_wins(batches: list[list[Row]]) -> None:
    expected = {row.address: row for batch in batches for row in batch}
    with tempfile.TemporaryDirectory() as folder:
        with running(Path(folder)) as service:
            for batch in batches:
                assert service.commit(batch) is None
        loaded, notes = read(Path(folder))
    assert loaded == [expected[address] for address in sorted(expected) if expected[address].state != FREE]
    assert not notes


def test_a_touch_is_written_to_the_disk(service: Running, tmp_path: Path) -> None:
    log = tmp_path / "leases.db-wal"
    service.commit([lease(0)])
    before = log.read_bytes()
    assert service.touch() is None
    assert log.read_bytes() != before
