"""What outlives the process and the container: leases on disk, and clocks that are set."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from dhcpd.leases import BOUND, DECLINED, FREE, Row
from leasebroker import messages, records
from leasebroker.effects import Note
from leasebroker.states import State
from tests.dhcpd.script import START, ip, span
from tests.leasebroker.script import LEASE, VLAN, Lan

FIFTY, SIXTY = "10.0.1.50", "10.0.1.60"


def restarted(pause: float = 0) -> Lan:
    """A container's lease, so many seconds after it was granted, seen by a new process."""
    lan = Lan()
    lan.bind("web", FIFTY)
    lan.now += pause
    lan.restart()
    return lan


# -- the process


def test_a_lease_from_before_is_in_use_at_once_and_confirmed() -> None:
    lan = restarted()
    lan.want("web")
    assert (lan.told, lan.said, lan.state("web")) == ([f"bound web {FIFTY}"], [f"confirm {FIFTY}"], State.REBOOTING)
    assert (lan.lease("web").server, lan.lease("web").mtu) == (0, None)
    lan.ack("web", FIFTY)
    assert (lan.told, lan.state("web"), lan.events()[-1]) == ([f"bound web {FIFTY}"], State.BOUND, "renewed")
    assert lan.disk[ip(FIFTY)].since == START


def test_leases_are_confirmed_one_after_another() -> None:
    """A hundred at once would overrun the socket of the server."""
    lan = Lan(random=random.Random(1))
    names = [f"web{number}" for number in range(100)]
    for number, name in enumerate(names):
        lan.bind(name, f"10.0.1.{50 + number}")
    lan.restart()
    for name in names:
        lan.want(name)
    assert lan.said == []
    times = [at for at, _ in lan.sleep(2)]
    assert len(times) >= 100
    assert len({int(at * 10) for at in times}) > 15


def test_an_mtu_that_is_heard_again_is_told() -> None:
    lan = Lan()
    lan.bind("web", FIFTY, o26=b"\x05\x78")
    lan.restart()
    lan.want("web")
    lan.tick()
    lan.ack("web", FIFTY, o26=b"\x05\x78")
    assert lan.told == [f"bound web {FIFTY}", f"changed web {FIFTY}"]


def test_an_address_that_was_reserved_for_another_meanwhile_is_left() -> None:
    lan = restarted()
    lan.want("web")
    lan.tick()
    lan.nak("web")
    lan.offer("web", SIXTY)
    lan.ack("web", SIXTY)
    assert lan.told == [f"bound web {FIFTY}", f"changed web {SIXTY}"]


def test_a_lease_that_nobody_confirms_is_kept_and_renewed_in_its_time() -> None:
    lan = restarted()
    lan.want("web")
    assert lan.sleep(15) == [(at, f"confirm {FIFTY}") for at in (1, 3, 7)]
    assert (lan.state("web"), lan.address("web")) == (State.BOUND, FIFTY)
    assert lan.sleep(LEASE / 2) == [(LEASE / 2 - 15, f"confirm {FIFTY}")]


def test_a_lease_that_ends_while_it_is_confirmed_is_lost() -> None:
    lan = restarted(LEASE - 5)
    lan.want("web")
    lan.sleep(5)
    assert (lan.told, lan.said[-1]) == ([f"bound web {FIFTY}", f"lost web {FIFTY}"], f"discover {FIFTY}")


def test_a_lease_that_ended_meanwhile_is_a_wish() -> None:
    lan = restarted(LEASE)
    lan.want("web")
    assert (lan.told, lan.said) == ([], [f"discover {FIFTY}"])


def test_a_wish_in_writing_goes_before_the_address_of_old() -> None:
    lan = restarted(LEASE)
    lan.want("web", wish=SIXTY)
    assert lan.said == [f"discover {SIXTY}"]


def test_an_infinite_lease_is_confirmed_too() -> None:
    lan = Lan()
    lan.bind("web", FIFTY, 0xFFFFFFFF)
    lan.restart()
    lan.want("web")
    lan.tick()
    lan.ack("web", FIFTY, 0xFFFFFFFF)
    assert (lan.said, lan.clients.deadline()) == ([f"confirm {FIFTY}"], None)


@pytest.mark.parametrize(
    "changes",
    [{"subnet": IPv4Network("10.0.2.0/24")}, {"router": ip(FIFTY)}, {"avoid": (span("10.0.1.48-10.0.1.63"),)},
     {"network": "another"}, {"site": "truck7"}],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_a_lease_that_does_not_fit_the_configuration_is_a_wish(changes: dict[str, object]) -> None:
    lan = restarted()
    lan.vlan = replace(VLAN, **changes)  # type: ignore[arg-type]
    lan.restart()
    assert lan.clients.leases(lan.now) == {}
    lan.want("web")
    assert (lan.told, lan.said) == ([], [f"discover {FIFTY}"])


def test_rows_of_others_are_left_alone() -> None:
    """Devices and quarantines of the time when the VLAN had our own server."""
    mac = b"\2\0\0\0\0\1"
    rows = [
        Row(ip("10.0.1.51"), BOUND, mac, mac, b"", "device", START, None),
        Row(ip("10.0.1.52"), DECLINED, b"", mac, b"", "", START, None),
        Row(ip("10.0.1.53"), FREE, b"cweb", mac, b"", "", START, None),
    ]
    lan = Lan(rows)
    assert lan.clients.rows() == []


def test_a_lease_of_our_own_server_is_a_wish() -> None:
    lan = Lan([Row(ip(FIFTY), BOUND, b"cweb", b"", b"", "web", START, None)])
    lan.want("web")
    assert (lan.told, lan.said) == ([], [f"discover {FIFTY}"])


# -- the container


def test_a_container_that_comes_back_has_its_address() -> None:
    lan = Lan()
    lan.bind("web", FIFTY)
    lan.clients.forget("web")
    assert lan.sleep(1000) == []
    assert lan.clients.lease("web") is None
    assert list(lan.clients.leases(lan.now)) == ["web"]
    lan.want("web")
    assert lan.told == [f"bound web {FIFTY}"]


def test_a_forgotten_container_renews_nothing_and_hears_nothing() -> None:
    lan = Lan()
    lan.bind("web", FIFTY)
    lan.sleep(LEASE / 2)
    lan.clients.forget("web")
    lan.clients.forget("web")
    lan.ack("web", FIFTY)
    assert lan.dropped == {"another_client": 1}
    assert lan.sleep(LEASE) == []
    assert lan.clients.leases(lan.now) == {}
    lan.want("web")
    assert lan.said[-1] == f"discover {FIFTY}"


def test_an_address_that_went_to_another_container_is_no_wish() -> None:
    lan = Lan()
    lan.bind("web", FIFTY)
    lan.clients.forget("web")
    lan.bind("db", FIFTY)
    assert [row.client for row in lan.disk.values()] == [b"cdb"]
    lan.want("web")
    assert (lan.told, lan.said) == ([], ["discover"])


def test_more_containers_than_the_cap_are_refused_with_a_word() -> None:
    lan = Lan(limit=2)
    for name in ("web", "db", "cache", "queue"):
        lan.want(name)
    assert (len(lan.said), lan.events()) == (2, ["too_many_containers"])
    lan.clients.forget("db")
    lan.want("cache")
    assert len(lan.said) == 3


def test_equal_hardware_addresses_are_refused_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in 2**46, but then one container would hear the answers to another."""
    monkeypatch.setattr(messages, "station", lambda *_: messages.Station(b"\2\0\0\0\0\1", b"\0web"))
    lan = Lan()
    lan.clients.want("db", "db", None, lan.now)
    assert lan.clients.want("web", "web", None, lan.now)[0] == Note(
        "warning", "same_hardware_address", {"vlan": "vlan1", "container": "web", "mac": "02:00:00:00:00:01"}
    )
    assert list(lan.clients.states()) == ["db"]


def test_the_containers_of_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORDS", 3)
    lan = Lan()
    for number in range(5):
        lan.bind(f"web{number}", f"10.0.1.{50 + number}")
        lan.clients.forget(f"web{number}")
        lan.now += 1
    assert sorted(lan.disk) == [ip("10.0.1.52"), ip("10.0.1.53"), ip("10.0.1.54")]
    assert lan.clients.rows() == [lan.disk[address] for address in sorted(lan.disk)]


# -- the clock


@pytest.mark.parametrize("jump", [86400 * 365, -3600])
def test_a_lease_of_this_run_moves_along_with_the_clock(jump: int) -> None:
    lan = Lan()
    lan.bind("web", FIFTY)
    lan.sleep(100)
    lan.set_clock(jump)
    assert lan.disk[ip(FIFTY)].expires == lan.lease("web").expires == START + LEASE + jump
    assert lan.sleep(LEASE / 2 - 100) == [(LEASE / 2 - 100, f"confirm {FIFTY}")]
    lan.ack("web", FIFTY)
    assert lan.told == []


def test_a_clock_may_be_set_twice() -> None:
    lan = Lan()
    lan.bind("web", FIFTY)
    lan.set_clock(-86400)
    lan.bind("db", SIXTY)
    lan.set_clock(1000)
    ends = {name: lan.lease(name).expires for name in ("web", "db")}
    assert ends == dict.fromkeys(("web", "db"), START - 86400 + 1000 + LEASE)
    assert {row.expires for row in lan.disk.values()} == set(ends.values())


def test_an_older_lease_keeps_its_time() -> None:
    lan = restarted(100)
    lan.want("web")
    lan.tick()
    lan.set_clock(1000)
    assert lan.disk[ip(FIFTY)].expires == lan.lease("web").expires == START + LEASE
    lan.set_clock(-1200)
    assert lan.disk[ip(FIFTY)].since == lan.now == START - 100
    assert lan.lease("web").expires == START - 100 + LEASE


def test_a_waiting_client_waits_no_longer_after_a_step() -> None:
    lan = Lan()
    lan.want("web")
    lan.sleep(10)
    lan.set_clock(-86400)
    assert lan.sleep(6)[0][0] == 5
