"""The journal of connections to be restored, and what is written into Docker's record, against a scripted engine."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from dhcpd.decision import Note
from leasebroker.adoption import Journal, adopt, endpoint_settings, heal, repair
from leasebroker.caretaker import QUIET_SECONDS, RETRY_SECONDS, Caretaker
from leasebroker.containers import Member, Network
from leasebroker.docker_feed import Engine, EngineError, Line, NotFoundError
from leasebroker.known import Known, Record
from tests.dhcpd.script import ip
from tests.leasebroker import things
from tests.leasebroker.things import LEG

ID = "0123456789abcdef0123"
LEASE = ip("10.0.1.20")
WANTED = {"Aliases": ["shop"], "IPAMConfig": {"IPv4Address": "10.0.1.20"}}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "adoption.json"


# -- the journal


def test_what_is_put_is_there_after_a_restart(path: Path) -> None:
    journal = Journal(path)
    assert not journal
    journal.put(ID, "br0net", WANTED)
    journal.put(ID, "br1net", {})
    again = Journal(path)
    assert bool(again)
    assert list(again) == [(ID, "br0net", WANTED), (ID, "br1net", {})]
    again.remove(ID, "br0net")
    again.remove(ID, "br2net")
    assert list(Journal(path)) == [(ID, "br1net", {})]
    again.remove(ID, "br1net")
    assert not Journal(path)
    assert [each.name for each in path.parent.iterdir()] == ["adoption.json"]


def test_a_connection_is_there_once_as_it_was_last(path: Path) -> None:
    journal = Journal(path)
    journal.put(ID, "br0net", {})
    journal.put(ID, "br0net", WANTED)
    assert list(Journal(path)) == [(ID, "br0net", WANTED)]


def whole(path: Path) -> str:
    Journal(path).put(ID, "br0net", WANTED)
    return path.read_text()


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\0" * 512, b"\xff\xfe\xfa", b"{}}", b"7", b"null", b"[7]", b'[{"container": "a"}]', b'[["a", "b", {}]]',
        b'[{"container": [], "network": "b", "settings": {}}]', b"[" * 100_000,
    ],
)  # fmt: skip
def test_garbage_is_an_empty_journal_and_is_kept(path: Path, text: bytes) -> None:
    path.write_bytes(text)
    journal = Journal(path)
    assert not journal
    assert path.with_suffix(".bad").read_bytes() == text
    journal.put(ID, "br0net", WANTED)
    assert list(Journal(path)) == [(ID, "br0net", WANTED)]


def test_a_torn_file_is_an_empty_journal_wherever_it_ends(path: Path) -> None:
    text = whole(path)
    for length in range(len(text)):
        path.write_text(text[:length])
        assert not Journal(path)
        assert not path.exists()


def test_what_can_not_be_read_is_kept(path: Path) -> None:
    path.mkdir()
    assert not Journal(path)
    assert path.with_suffix(".bad").is_dir()


def test_a_draft_that_a_death_left_is_no_journal(path: Path) -> None:
    whole(path)
    path.with_suffix(".new").write_text("[{")
    journal = Journal(path)
    assert list(journal) == [(ID, "br0net", WANTED)]
    journal.put(ID, "br1net", {})
    assert len(list(Journal(path))) == 2


@contextmanager
def full_disk() -> Iterator[None]:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        yield


def test_a_disk_that_refuses_leaves_the_journal_as_it_was(path: Path) -> None:
    text = whole(path)
    journal = Journal(path)
    with full_disk():
        for network in ("br0net", "br1net"):
            with pytest.raises(OSError, match="No space left"):
                journal.put(ID, network, {})
    assert list(journal) == [(ID, "br0net", WANTED)]
    assert path.read_text() == text


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "gone" / "adoption.json")
    assert not journal
    with pytest.raises(OSError, match="gone"):
        journal.put(ID, "br0net", WANTED)


# -- an engine with one container


class Death(BaseException):
    """The router is killed."""


class Docker:
    """Answers as the engine does; ``calls`` are the changes in their order. ``refuses`` raises where it wants to."""

    def __init__(self, **state: Any) -> None:
        self.calls: list[str] = []
        self.refuses: Callable[[str], object] = str
        self.forgets = False
        self.members: tuple[Member, ...] = ()
        self.networks: dict[str, Any] = {"br0net": {"Aliases": ["shop", ID[:12]], "IPAMConfig": None}}
        self.found: dict[str, Any] = {
            "Id": ID,
            "Name": "/web",
            "State": {"Status": "exited", "Error": ""} | state,
            "HostConfig": {"AutoRemove": False, "RestartPolicy": {"Name": "always"}},
            "Config": {},
            "NetworkSettings": {"Networks": self.networks},
        }

    def inspect(self, id_: str) -> Any:
        if id_ != ID:
            raise NotFoundError(id_)
        return self.found

    def network(self, name: str) -> Network:
        assert name == "br0net"
        return things.network(members=self.members)

    def forgets_macs(self) -> bool:
        return self.forgets

    def disconnect(self, network: str, id_: str) -> None:
        self._call(f"disconnect {network} {id_ == ID}")
        del self.networks[network]

    def connect(self, network: str, id_: str, settings: Any) -> None:
        self._call(f"connect {network} {id_ == ID} {settings['IPAMConfig'].get('IPv4Address')}")
        self.networks[network] = settings

    def start(self, id_: str) -> None:
        self._call(f"start {id_ == ID}")

    def _call(self, call: str) -> None:
        self.refuses(call)
        self.calls.append(call)

    def as_engine(self) -> Engine:
        return cast(Engine, self)


def adopted(docker: Docker, path: Path) -> bool:
    return adopt(docker.as_engine(), Journal(path), ID, "br0net", LEASE)


def test_a_lease_is_adopted_once(path: Path) -> None:
    docker = Docker()
    assert adopted(docker, path)
    assert docker.calls == ["disconnect br0net True", "connect br0net True 10.0.1.20"]
    assert docker.networks["br0net"] == WANTED
    assert not Journal(path)
    assert not adopted(docker, path)
    assert len(docker.calls) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda docker: docker.found["State"].update(Status="running"),
        lambda docker: docker.found["State"].update(Status="restarting"),
        lambda docker: docker.found["HostConfig"].update(AutoRemove=True),
        lambda docker: docker.networks.pop("br0net"),
    ],
    ids=["it runs", "it restarts", "it is to be removed", "it is not connected"],
)
def test_what_is_not_to_be_touched_is_not(change: Callable[[Docker], object], path: Path) -> None:
    docker = Docker()
    change(docker)
    assert not adopted(docker, path)
    assert docker.calls == []


@pytest.mark.parametrize("forgets", [False, True])
@pytest.mark.parametrize("where", ["container", "connection"])
def test_a_mac_of_its_own_is_not_lost(where: str, forgets: bool, path: Path) -> None:
    docker = Docker()
    docker.forgets = forgets
    place = docker.found["Config"] if where == "container" else docker.networks["br0net"]
    place["MacAddress"] = "02:00:00:00:00:07"
    assert adopted(docker, path) is not forgets
    if where == "connection":
        assert docker.networks["br0net"]["MacAddress"] == "02:00:00:00:00:07"


def test_a_connection_is_made_again_as_it_was() -> None:
    settings = {
        "Links": ["db:database"], "Aliases": ["shop", ID[:12], "till"], "DriverOpts": {"a": "b"}, "GwPriority": 5,
        "IPAMConfig": {"IPv4Address": "10.0.1.50", "IPv6Address": "fd00::5"}, "IPAddress": "10.0.1.240",
        "MacAddress": "",
    }  # fmt: skip
    kept = {"Links": ["db:database"], "Aliases": ["shop", "till"], "DriverOpts": {"a": "b"}, "GwPriority": 5}
    address, other = {"IPv4Address": "10.0.1.20"}, {"IPv6Address": "fd00::5"}
    assert endpoint_settings(settings, ID, LEASE) == kept | {"IPAMConfig": other | address}
    assert endpoint_settings(settings, ID, None) == kept | {"IPAMConfig": other}
    assert endpoint_settings({"Aliases": None}, ID, None) == {"Aliases": [], "IPAMConfig": {}}


def test_a_refused_address_leaves_no_container_without_its_network(path: Path) -> None:
    def taken(call: str) -> None:
        if call.endswith("10.0.1.20"):
            raise EngineError("Address already in use")

    docker = Docker()
    docker.refuses = taken
    adopted(docker, path)
    assert docker.calls == ["disconnect br0net True", "connect br0net True None"]
    assert not Journal(path)


def test_an_address_that_docker_has_given_to_another_is_not_adopted_yet(path: Path) -> None:
    """A start with it would be refused for as long as the other runs."""
    docker = Docker()
    docker.members = (Member("another", "web-old", b"", LEASE), Member("third", "db", b"", LEASE + 1))
    with pytest.raises(EngineError, match=r"given 10\.0\.1\.20 to web-old"):
        adopted(docker, path)
    assert docker.calls == []
    docker.members = docker.members[1:]
    assert adopted(docker, path)


def test_an_unwritable_journal_leaves_the_container_alone(tmp_path: Path) -> None:
    docker = Docker()
    with pytest.raises(OSError, match="gone"):
        adopted(docker, tmp_path / "gone" / "adoption.json")
    assert docker.calls == []


# -- repair


def dying(start: str) -> Callable[[str], None]:
    def refuses(call: str) -> None:
        if call.startswith(start):
            raise Death

    return refuses


@pytest.mark.parametrize(("at", "repaired"), [("disconnect", []), ("connect", ["web"])])
def test_a_death_in_between_is_repaired(at: str, repaired: list[str], path: Path) -> None:
    docker = Docker()
    docker.refuses = dying(at)
    with pytest.raises(Death):
        adopted(docker, path)
    assert list(Journal(path)) == [(ID, "br0net", WANTED)]
    docker.refuses = str
    assert repair(docker.as_engine(), Journal(path)) == (repaired, [])
    assert "br0net" in docker.networks
    assert not Journal(path)


def test_a_refused_connection_is_repaired_next_time(path: Path) -> None:
    def away(call: str) -> None:
        if call.startswith("connect"):
            raise EngineError("nobody listens")

    docker = Docker()
    docker.refuses = away
    with pytest.raises(EngineError):
        adopted(docker, path)
    for _ in range(2):
        again = repair(docker.as_engine(), Journal(path))
        assert again == ([], ["container web could not be connected to br0net again: nobody listens"])
        assert list(Journal(path)) == [(ID, "br0net", WANTED)]
    docker.refuses = str
    assert repair(docker.as_engine(), Journal(path)) == (["web"], [])


def test_a_refused_connection_holds_up_no_other(path: Path) -> None:
    """Nor what comes after the repair: it is a warning until the connection is made."""

    def full(call: str) -> None:
        if "br1net" in call:
            raise EngineError("no available addresses")

    journal = Journal(path)
    for name in ("br0net", "br1net", "br2net"):
        journal.put(ID, name, WANTED)
    docker = Docker()
    docker.networks.clear()
    docker.refuses = full
    known = Known((LEG,), lambda _: None)
    caretaker = Caretaker(known, cast(Line, AtOnce(docker)), path.parent)
    asyncio.run(caretaker.repair())
    assert set(docker.networks) == {"br0net", "br2net"}
    assert list(Journal(path)) == [(ID, "br1net", WANTED)]
    assert "web could not be connected to br1net again" in known.warnings["adoption"]
    docker.refuses = str
    asyncio.run(caretaker.repair())
    assert set(docker.networks) == {"br0net", "br1net", "br2net"}
    assert known.warnings == {}
    assert not Journal(path)


def test_what_can_not_be_struck_off_is_repaired_all_the_same(path: Path) -> None:
    journal = Journal(path)
    for network in ("br0net", "br1net", "br2net"):
        journal.put(ID, network, WANTED)
    docker = Docker()
    with full_disk(), pytest.raises(OSError, match="No space left"):
        repair(docker.as_engine(), journal)
    assert set(docker.networks) == {"br0net", "br1net", "br2net"}
    assert list(journal) == list(Journal(path))
    assert repair(docker.as_engine(), journal) == ([], [])
    assert not journal
    assert not Journal(path)


def test_a_full_disk_is_a_warning_until_there_is_room(path: Path) -> None:
    """The look at the engine goes on."""
    Journal(path).put(ID, "br0net", WANTED)
    notes: list[Note] = []
    known = Known((LEG,), notes.append)
    caretaker = Caretaker(known, cast(Line, AtOnce(Docker())), path.parent)
    with full_disk():
        asyncio.run(caretaker.repair())
        assert list(known.warnings) == ["adoption"]
        assert "make room" in known.warnings["adoption"]
        asyncio.run(caretaker.repair())
    asyncio.run(caretaker.repair())
    assert known.warnings == {}
    assert len(notes) == 1


class AtOnce:
    """A `Line` without a thread."""

    def __init__(self, docker: Docker) -> None:
        self._docker = docker

    async def ask(self, question: Callable[[Engine], Any]) -> Any:
        return question(self._docker.as_engine())


def test_a_container_that_is_gone_is_struck_off(path: Path) -> None:
    journal = Journal(path)
    journal.put("another", "br0net", WANTED)
    journal.put(ID, "br1net", WANTED)
    docker = Docker()
    assert repair(docker.as_engine(), journal) == (["web"], [])
    assert docker.calls == ["connect br1net True 10.0.1.20"]
    assert not Journal(path)


def test_a_network_that_is_gone_is_struck_off(path: Path) -> None:
    def gone(call: str) -> None:
        raise NotFoundError(call)

    journal = Journal(path)
    journal.put(ID, "br1net", WANTED)
    docker = Docker()
    docker.refuses = gone
    assert repair(docker.as_engine(), journal) == ([], [])
    assert not Journal(path)


# -- heal

REFUSED = {"Status": "exited", "Error": "failed to set up container networking: Address already in use"}
CONNECTIVITY = "driver failed programming external connectivity on endpoint web (0123)"


def healed(docker: Docker, path: Path) -> bool:
    return heal(docker.as_engine(), Journal(path), ID, "br0net")


@pytest.mark.parametrize("policy", ["always", "unless-stopped", "on-failure"])
def test_a_start_that_was_refused_for_its_address_is_made_without_it(policy: str, path: Path) -> None:
    docker = Docker(**REFUSED)
    docker.found["HostConfig"]["RestartPolicy"] = {"Name": policy}
    docker.networks["br0net"]["IPAMConfig"] = {"IPv4Address": "10.0.1.20"}
    assert healed(docker, path)
    assert docker.calls == ["disconnect br0net True", "connect br0net True None", "start True"]
    assert not Journal(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda docker: docker.found["State"].update(Error=""),
        lambda docker: docker.found["State"].update(Error="no such file"),
        lambda docker: docker.found["State"].update(
            Error=f"{CONNECTIVITY}: failed to bind host port for 0.0.0.0:8099:10.0.1.77:80/tcp: address already in use"
        ),
        lambda docker: docker.found["State"].update(
            Error=f"{CONNECTIVITY}: userland proxy: listen tcp4 0.0.0.0:8099: bind: address already in use"
        ),
        lambda docker: docker.networks["br0net"].update(IPAMConfig=None),
        lambda docker: docker.networks["br0net"].update(IPAMConfig={"IPv6Address": "fd00::5"}),
        lambda docker: docker.found["State"].update(Status="running"),
        lambda docker: docker.found["HostConfig"].update(RestartPolicy={"Name": "no"}),
        lambda docker: docker.found["HostConfig"].update(RestartPolicy=None),
        lambda docker: docker.networks.pop("br0net"),
    ],
)
def test_what_has_another_reason_is_left_alone(change: Callable[[Docker], object], path: Path) -> None:
    docker = Docker(**REFUSED)
    docker.networks["br0net"]["IPAMConfig"] = {"IPv4Address": "10.0.1.20"}
    change(docker)
    assert not healed(docker, path)
    assert docker.calls == []


# -- when


class Resting:
    """A caretaker with one container at rest, which has a lease. ``now`` is the loop's clock."""

    def __init__(self, docker: Docker, state: Path) -> None:
        self.known = Known((LEG,), lambda _: None)
        self.known.records[ID, "br0net"] = Record(LEG, ID, "web", state="exited", address=LEASE)
        self.caretaker = Caretaker(self.known, cast(Line, AtOnce(docker)), state)

    def tend(self, now: float) -> float | None:
        return asyncio.run(self.caretaker.tend(now))


def test_a_lease_is_adopted_when_the_container_is_quiet_and_again_when_it_is_another(tmp_path: Path) -> None:
    docker = Docker()
    resting = Resting(docker, tmp_path)
    assert resting.tend(100) == QUIET_SECONDS
    assert resting.tend(101) == QUIET_SECONDS - 1
    assert docker.calls == []
    assert resting.tend(100 + QUIET_SECONDS) is None
    assert docker.networks["br0net"] == WANTED
    resting.known.records[ID, "br0net"].address = LEASE + 1
    assert resting.tend(110) is None
    assert docker.networks["br0net"]["IPAMConfig"] == {"IPv4Address": "10.0.1.21"}
    assert resting.known.counts["adopted"] == 2


@pytest.mark.parametrize("call", ["disconnect", "connect"])
def test_a_change_that_failed_is_made_after_a_pause(call: str, tmp_path: Path) -> None:
    def refuses(made: str) -> None:
        if made.startswith(call):
            raise EngineError("context deadline exceeded")

    docker = Docker()
    docker.refuses = refuses
    resting = Resting(docker, tmp_path)
    resting.tend(0)
    assert resting.tend(10) == RETRY_SECONDS
    assert list(resting.known.warnings) == ["adopted container web on br0net"]
    tried = list(docker.calls)
    assert resting.tend(15) == RETRY_SECONDS - 5
    assert docker.calls == tried
    docker.refuses = str
    asyncio.run(resting.caretaker.repair())
    assert resting.tend(10 + RETRY_SECONDS) is None
    assert docker.networks["br0net"] == WANTED
    assert resting.known.warnings == {}


def test_what_failed_with_a_container_that_is_gone_is_forgotten(tmp_path: Path) -> None:
    def refuses(_: str) -> None:
        raise EngineError("context deadline exceeded")

    docker = Docker()
    docker.refuses = refuses
    resting = Resting(docker, tmp_path)
    resting.tend(0)
    resting.tend(10)
    assert resting.known.warnings
    resting.known.records.clear()
    assert resting.tend(20) is None
    assert resting.known.warnings == {}


def test_the_journal_is_json_that_an_operator_can_read(path: Path) -> None:
    assert json.loads(whole(path)) == [{"container": ID, "network": "br0net", "settings": WANTED}]
