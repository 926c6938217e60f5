"""What the tests of the lease store share: rows, and a stand-in for the event loop."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

from dhcpd.leases import BOUND, Row
from dhcpd.store import Store

FIRST = 0x0A000100
VLAN = "vlan1"


def lease(number: int, since: int = 1_790_000_000) -> Row:
    """The lease of device ``number``."""
    mac = (0x020000000000 + number).to_bytes(6, "big")
    return Row(FIRST + number, BOUND, b"i\1" + mac, mac, b"\1" + mac, f"device-{number}", since, since + 43200)


def fill(path: Path) -> None:
    """Have a file there with all the room that there is."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass


class Running:
    """A store with its writer, whose loop turns only while `until` waits."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self.calls: SimpleQueue[object] = SimpleQueue()
        self.wakeups = 0
        self.store.start(self.calls.put)

    def turn(self) -> None:
        call = self.calls.get(timeout=20)
        assert callable(call)
        self.wakeups += 1
        call()

    def commit(self, rows: Iterable[Row], vlan: str = VLAN) -> Exception | None:
        """Commit one batch and wait for its result."""
        results: list[Exception | None] = []
        number = self.store.vlan_id(vlan)
        self.store.commit([(number, row) for row in rows], results.append)
        while not results:
            self.turn()
        return results[0]

    def touch(self) -> Exception | None:
        """Try the disk."""
        results: list[Exception | None] = []
        self.store.touch(results.append)
        while not results:
            self.turn()
        return results[0]


@contextmanager
def running(folder: Path) -> Iterator[Running]:
    service = Running(folder)
    try:
        yield service
    finally:
        service.store.close()


def write(folder: Path, rows: Sequence[Row], vlan: str = VLAN) -> None:
    """A store with these rows, closed in order."""
    with running(folder) as service:
        assert service.commit(rows, vlan) is None


def read(folder: Path, vlan: str = VLAN) -> tuple[list[Row], list[str]]:
    """The rows and the notes of a store that is opened, written to and closed."""
    with running(folder) as service:
        rows = [Row._make(row) for row in service.store.load(vlan)]
        assert service.commit([lease(0)], "another") is None
        return rows, list(service.store.notes)


def crash_image(folder: Path, image: Path, batches: Iterable[Sequence[Row]]) -> None:
    """The files as a power cut would leave them after these commits: the log not yet moved into the database."""
    with running(folder) as service:
        for batch in batches:
            assert service.commit(batch) is None
        shutil.copytree(folder, image)
