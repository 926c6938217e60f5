"""What is known of another server's leases: who waits for one, and whose new address is somebody else's."""

from __future__ import annotations

from dhcpd.pool import dotted
from leasebroker.effects import Bound, Changed, Lease, Lost
from leasebroker.granted import CONFLICT_SECONDS, PATIENCE_SECONDS, Granted
from tests.dhcpd.script import START, ip, mac

FIFTY, SIXTY, SERVER = ip("10.0.1.50"), ip("10.0.1.60"), ip("10.0.1.2")
OWN, OTHER = mac(1), mac(2)


def lease(address: int, server: int = SERVER) -> Lease:
    return Lease(address, START, START + 3600, server)


def test_a_container_waits_for_its_lease_and_then_is_late_once() -> None:
    granted = Granted()
    granted.wait("web", START)
    assert granted.is_waiting("web", START + PATIENCE_SECONDS - 1)
    assert granted.overdue(START + PATIENCE_SECONDS - 1) == []
    assert granted.overdue(START + PATIENCE_SECONDS) == ["web"]
    granted.wait("web", START + PATIENCE_SECONDS)
    assert not granted.is_waiting("web", START + PATIENCE_SECONDS)
    assert granted.overdue(START + 2 * PATIENCE_SECONDS) == []


def test_who_has_a_lease_does_not_wait() -> None:
    granted = Granted()
    granted.wait("web", START)
    granted.tell(Bound("web", lease(FIFTY)), START + 1)
    assert granted.lease("web") == lease(FIFTY)
    assert not granted.is_waiting("web", START + 1)
    assert granted.overdue(START + PATIENCE_SECONDS) == []


def test_who_has_lost_its_lease_is_late_at_once() -> None:
    granted = Granted()
    granted.tell(Bound("web", lease(FIFTY)), START)
    granted.tell(Lost("web", lease(FIFTY)), START + 1)
    granted.wait("web", START + 1)
    assert granted.lease("web") is None
    assert not granted.is_waiting("web", START + 1)
    granted.tell(Bound("web", lease(SIXTY)), START + 2)
    granted.keep(())
    granted.wait("web", START + 3)
    assert granted.is_waiting("web", START + 3)


def test_a_new_address_is_asked_for_and_one_that_was_had_is_not() -> None:
    granted = Granted()
    assert granted.tell(Bound("web", lease(FIFTY, server=0)), START) is None
    assert granted.tell(Changed("web", lease(FIFTY), lease(FIFTY, server=0)), START) is None
    assert dotted(granted.tell(Changed("web", lease(SIXTY), lease(FIFTY)), START) or 0) == "10.0.1.60"
    assert dotted(granted.tell(Bound("db", lease(FIFTY)), START) or 0) == "10.0.1.50"


def test_an_answer_of_another_station_is_a_conflict_once() -> None:
    granted = Granted()
    granted.see("web", OWN)
    granted.tell(Bound("web", lease(FIFTY)), START)
    assert granted.heard(FIFTY, OWN, START) is None
    assert granted.heard(SIXTY, OTHER, START) is None
    assert granted.heard(FIFTY, OTHER, START) == "web"
    assert granted.heard(FIFTY, OTHER, START) is None


def test_a_late_answer_is_no_conflict() -> None:
    granted = Granted()
    granted.tell(Bound("web", lease(FIFTY)), START)
    assert granted.heard(FIFTY, OTHER, START + CONFLICT_SECONDS) is None


def test_a_step_of_the_clock_moves_what_waits() -> None:
    granted = Granted()
    granted.wait("db", START)
    granted.tell(Bound("web", lease(FIFTY)), START)
    granted.step(1000)
    assert granted.is_waiting("db", START + 1000)
    assert granted.heard(FIFTY, OTHER, START + 1000 + CONFLICT_SECONDS) is None
    assert granted.heard(FIFTY, OTHER, START + 1000) == "web"
