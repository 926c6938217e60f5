"""The bus: what happens reaches who watches, in order, and nobody who is slow costs more than his queue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from dhcpd.decision import Note
from dhcpd.identity import container_key
from dhcpd.leases import BOUND, DECLINED, FREE, Row
from router.events import KEPT, MAX_SUBSCRIBERS, Bus, BusyError, Event, Subscription
from tests.dhcpd.script import START, ip, mac


def row(address: str = "10.0.1.100", **changes: Any) -> Row:
    made = Row(ip(address), BOUND, b"m\1" + mac(1), mac(1), b"", "gps", int(START), int(START) + 60)
    return made._replace(**changes)


def note(number: int) -> Note:
    return Note("info", "granted", {"number": number})


def waiting(subscription: Subscription) -> tuple[list[bytes], int] | None:
    return asyncio.run(subscription.take(0.01))


def numbers(blocks: list[bytes]) -> list[int]:
    return [json.loads(one.partition(b"data: ")[2])["number"] for one in blocks]


def test_a_note_goes_to_the_log_and_to_the_bus() -> None:
    logged: list[Note] = []
    bus = Bus(lambda: 1_800_000_000.25)
    bus.tee(logged.append)(Note("warning", "pool_full", {"vlan": "vlan1", "size": 3}))
    assert [one.event for one in logged] == ["pool_full"]
    (event,) = bus.latest(10)
    assert json.loads(event.text()) == {
        "id": event.id, "at": "2027-01-15T08:00:00.250Z", "level": "warning", "event": "pool_full",
        "vlan": "vlan1", "size": 3,
    }  # fmt: skip


def test_no_field_of_a_note_can_pretend_to_be_the_events_own() -> None:
    bus = Bus()
    bus.put(Note("info", "granted", {"id": "x", "at": "y", "event": "z", "level": "w"}))
    shown = json.loads(bus.latest(1)[0].text())
    assert (shown["event"], shown["level"], type(shown["id"])) == ("granted", "info", int)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "bound"),
        ({"expires": None}, "bound"),
        ({"expires": int(START)}, "expired"),
        ({"state": DECLINED, "client": b""}, "declined"),
        ({"state": FREE, "client": b"", "mac": b"", "hostname": ""}, "free"),
    ],
)
def test_a_lease_tells_its_state(changes: dict[str, Any], state: str) -> None:
    bus = Bus()
    bus.changed("vlan1", [row(**changes)], START)
    shown = json.loads(bus.latest(1)[0].text())
    assert (shown["event"], shown["vlan"], shown["address"], shown["state"]) == ("lease", "vlan1", "10.0.1.100", state)


def test_a_lease_names_its_container() -> None:
    bus = Bus()
    bus.changed("vlan1", [row(client=container_key("web"), mac=b"", hostname="")], START)
    shown = json.loads(bus.latest(1)[0].text())
    assert (shown["container"], shown["mac"], shown["hostname"]) == ("web", None, None)


def test_the_end_of_a_lease_is_a_change_too() -> None:
    bus = Bus()
    bus.tee(lambda _: None)(Note("info", "expired", {"vlan": "vlan1", "address": "10.0.1.100", "mac": "02:00"}))
    _, lease = [json.loads(one.text()) for one in bus.latest(2)]
    assert (lease["event"], lease["state"], lease["address"]) == ("lease", "expired", "10.0.1.100")


def test_a_subscriber_gets_what_happens_from_then_on() -> None:
    bus = Bus()
    bus.put(note(1))
    one = bus.subscribe()
    bus.put(note(2))
    bus.put(note(3))
    news = waiting(one)
    assert news is not None
    assert (numbers(news[0]), news[1]) == ([2, 3], 0)
    assert waiting(one) == ([], 0)


@pytest.fixture
def rendered(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ids of the events that were, in this order."""
    ids: list[int] = []

    def block(event: Event, really: Callable[[Event], bytes] = Event.block) -> bytes:
        ids.append(event.id)
        return really(event)

    monkeypatch.setattr(Event, "block", block)
    return ids


def test_what_nobody_watched_is_not_rendered(rendered: list[int]) -> None:
    bus = Bus()
    for _ in range(2):
        for number in range(20):
            bus.put(note(number))
        one = bus.subscribe()
        bus.put(note(20))
        assert waiting(one) is not None
        assert rendered == [bus.last]
        rendered.clear()
        bus.unsubscribe(one)


def test_an_event_is_rendered_once_for_all(rendered: list[int]) -> None:
    bus = Bus()
    quick, slow = bus.subscribe(), bus.subscribe()
    for number in range(KEPT + 7):
        bus.put(note(number))
        if number % 100 == 0:
            waiting(quick)
    assert [len(blocks) for blocks, _ in filter(None, map(waiting, (quick, slow)))] == [6, KEPT]
    assert rendered == sorted(set(rendered))


def test_who_resumes_gets_what_was_before_the_others_came() -> None:
    bus = Bus()
    for number in range(5):
        bus.put(note(number))
    seen = bus.latest(3)[0].id
    first = bus.subscribe()
    bus.put(note(5))
    assert waiting(first) is not None
    news = waiting(bus.subscribe(after=seen))
    assert news is not None
    assert (numbers(news[0]), news[1]) == ([3, 4, 5], 0)


def test_a_slow_subscriber_loses_the_oldest_and_learns_how_many() -> None:
    bus = Bus()
    one = bus.subscribe()
    for number in range(KEPT + 7):
        bus.put(note(number))
    news = waiting(one)
    assert news is not None
    assert (numbers(news[0]), news[1]) == (list(range(7, KEPT + 7)), 7)
    bus.put(note(9))
    news = waiting(one)
    assert news is not None
    assert (numbers(news[0]), news[1]) == ([9], 0)


def test_more_changes_at_once_than_are_kept_are_lost_too() -> None:
    bus = Bus()
    one = bus.subscribe()
    bus.changed("vlan1", [row() for _ in range(KEPT + 7)], START)
    news = waiting(one)
    assert news is not None
    assert (len(news[0]), news[1]) == (KEPT, 7)


def test_an_id_of_a_former_run_is_a_gap_whatever_the_clock() -> None:
    former, bus = Bus(lambda: 20.0), Bus(lambda: 20.0)
    for number in range(100):
        former.put(note(number))
        bus.put(note(number))
    news = waiting(bus.subscribe(after=former.latest(50)[0].id))
    assert news is not None
    assert (news[0], news[1]) == ([], 1)


def test_a_subscriber_goes_on_after_the_last_that_it_saw() -> None:
    bus = Bus()
    for number in range(5):
        bus.put(note(number))
    seen = bus.latest(5)[1].id
    news = waiting(bus.subscribe(after=seen))
    assert news is not None
    assert (numbers(news[0]), news[1]) == ([2, 3, 4], 0)
    assert waiting(bus.subscribe(after=bus.latest(1)[0].id)) == ([], 0)


@pytest.mark.parametrize("after", [0, 17, 1 << 60])
def test_what_is_not_kept_any_more_is_a_gap(after: int) -> None:
    bus = Bus()
    for number in range(KEPT + 100):
        bus.put(note(number))
    news = waiting(bus.subscribe(after=after))
    assert news is not None
    assert news[0] == []
    assert news[1] > 0


def test_subscribers_are_counted() -> None:
    bus = Bus()
    all_of_them = [bus.subscribe() for _ in range(MAX_SUBSCRIBERS)]
    with pytest.raises(BusyError, match="end one"):
        bus.subscribe()
    bus.unsubscribe(all_of_them[0])
    bus.subscribe()


def test_the_end_of_the_bus_ends_its_subscriptions() -> None:
    bus = Bus()
    one = bus.subscribe()
    bus.close()
    assert waiting(one) is None
