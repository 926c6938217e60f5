"""A container gets a lease from a foreign server (RFC 2131 section 4.4.1), and where each event leads."""

from __future__ import annotations

import pytest

from dhcpd import opt
from dhcpd.leases import BOUND, Row
from leasebroker.states import TRANSITIONS, Event, State
from tests.dhcpd.script import START, ip, packed
from tests.leasebroker.script import LEASE, OTHER_SERVER, Lan

FIFTY, SIXTY = "10.0.1.50", "10.0.1.60"
T1, T2 = LEASE // 2, LEASE * 7 // 8


def bound() -> Lan:
    lan = Lan()
    lan.bind("web", FIFTY)
    return lan


# -- a newcomer


def test_a_container_gets_a_lease_in_four_messages() -> None:
    lan = Lan()
    lan.want("web", "web-1")
    lan.offer("web", FIFTY)
    lan.ack("web", FIFTY)
    assert lan.said == ["discover", f"select {FIFTY}"]
    assert lan.told == [f"bound web {FIFTY}"]
    assert lan.events() == ["granted"]
    who = lan.clients.station("web")
    row = Row(ip(FIFTY), BOUND, b"cweb", who.mac, who.client_id, "web-1", START, START + LEASE)
    assert list(lan.disk.values()) == lan.clients.rows() == [row]


def test_the_request_names_the_server_and_the_discovers_transaction() -> None:
    lan = Lan()
    lan.want("web", "web.example")
    discover = lan.messages["web"]
    lan.offer("web", FIFTY)
    request = lan.messages["web"]
    assert request.options[opt.SERVER_ID] == packed("10.0.1.2")
    assert (request.xid, request.secs) == (discover.xid, discover.secs)
    assert discover.options[opt.HOST_NAME] == request.options[opt.HOST_NAME] == b"web.example"


@pytest.mark.parametrize(("hostname", "said"), [("", None), ("my_web!", b"my_web"), ("\ud800x", b"x")])
def test_a_host_name_is_sent_as_one(hostname: str, said: bytes | None) -> None:
    lan = Lan()
    lan.want("web", hostname)
    assert lan.messages["web"].options.get(opt.HOST_NAME) == said


def test_containers_are_distinct_and_their_exchanges_too() -> None:
    lan = Lan()
    for number, name in enumerate(("web", "db", "cache")):
        lan.want(name)
        lan.offer(name, f"10.0.1.{50 + number}")
    for number, name in enumerate(("web", "db", "cache")):
        lan.ack(name, f"10.0.1.{50 + number}")
    assert lan.told == ["bound web 10.0.1.50", "bound db 10.0.1.51", "bound cache 10.0.1.52"]
    assert len({(one.xid, one.chaddr, one.options[opt.CLIENT_ID]) for one in lan.messages.values()}) == 3


def test_a_wish_is_asked_for_and_the_servers_word_counts() -> None:
    lan = Lan()
    lan.want("web", wish=SIXTY)
    assert lan.said == [f"discover {SIXTY}"]
    lan.offer("web", FIFTY)
    lan.ack("web", FIFTY)
    assert lan.address("web") == FIFTY


def test_wanting_again_says_nothing_and_notes_the_host_name() -> None:
    lan = bound()
    lan.want("web", "renamed")
    assert (lan.said, lan.told) == ([], [])
    lan.sleep(T1)
    assert lan.messages["web"].options[opt.HOST_NAME] == b"renamed"


# -- lost packets


def test_an_unanswered_discover_is_repeated_ever_more_slowly() -> None:
    lan = Lan()
    lan.want("web")
    xid = lan.messages["web"].xid
    heard = lan.sleep(192)
    assert [at for at, _ in heard] == [1, 3, 7, 15, 31, 63, 127, 191]
    assert {what for _, what in heard} == {"discover"}
    assert (lan.messages["web"].xid, lan.messages["web"].secs) == (xid, 191)


def test_a_discover_is_repeated_for_days() -> None:
    lan = Lan()
    lan.want("web")
    assert len(lan.sleep(3 * 86400)) == pytest.approx(3 * 86400 / 64, rel=0.01)
    assert lan.messages["web"].secs == 0xFFFF


def test_an_unanswered_request_is_repeated_then_it_starts_over() -> None:
    lan = Lan()
    lan.want("web")
    lan.offer("web", FIFTY)
    xid = lan.messages["web"].xid
    again = [(at, f"select {FIFTY}") for at in (1, 3, 7)]
    assert lan.sleep(15) == [*again, (15, "discover")]
    assert lan.messages["web"].xid != xid


def test_the_lease_counts_from_the_first_request() -> None:
    """Which of them was answered cannot be told (section 4.4.1)."""
    lan = Lan()
    lan.want("web")
    lan.sleep(2)
    lan.offer("web", FIFTY)
    lan.sleep(4)
    lan.ack("web", FIFTY)
    assert (lan.lease("web").since, lan.lease("web").expires) == (START + 2, START + 2 + LEASE)


def test_a_second_ack_changes_nothing() -> None:
    lan = Lan()
    lan.want("web")
    lan.offer("web", FIFTY)
    lan.ack("web", FIFTY)
    lan.ack("web", SIXTY)
    assert (lan.told, lan.dropped) == ([f"bound web {FIFTY}"], {"another_exchange": 1})


def test_a_second_offer_changes_nothing() -> None:
    lan = Lan()
    lan.want("web")
    lan.offer("web", FIFTY)
    lan.offer("web", SIXTY)
    lan.offer("web", SIXTY, o54=packed(OTHER_SERVER))
    assert lan.said == ["discover", f"select {FIFTY}"]
    assert lan.dropped == {"unexpected": 1, "another_server": 1}


# -- refusals


def test_a_refused_request_starts_over_but_not_at_the_speed_of_the_wire() -> None:
    lan = Lan()
    lan.want("web")
    pauses = []
    for _ in range(9):
        lan.offer("web", FIFTY)
        lan.nak("web")
        before = lan.now
        while lan.said[-1] != "discover":
            lan.sleep(0.5)
        pauses.append(lan.now - before)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    lan.offer("web", FIFTY)
    lan.ack("web", FIFTY)
    lan.sleep(LEASE)
    lan.offer("web", FIFTY)
    lan.nak("web")
    assert lan.sleep(1)[0] == (1, f"discover {FIFTY}"), "an ACK in between ends the count"


@pytest.mark.parametrize("when", [T1, T2])
def test_an_address_follows_a_refusal_without_a_gap(when: int) -> None:
    lan = bound()
    lan.sleep(when)
    lan.nak("web")
    assert (lan.address("web"), lan.disk, lan.told) == (FIFTY, {}, [])
    assert lan.said[-1] == "discover"
    lan.offer("web", SIXTY)
    lan.ack("web", SIXTY)
    assert lan.told == [f"changed web {SIXTY}"]
    assert list(lan.disk) == [ip(SIXTY)]


def test_a_refused_address_is_given_up_when_no_other_comes() -> None:
    lan = bound()
    lan.sleep(T1)
    lan.nak("web")
    lan.sleep(4)
    assert lan.told == []
    lan.sleep(1)
    assert (lan.told, lan.address("web")) == ([f"lost web {FIFTY}"], None)
    assert lan.said[-1] == "discover", "and not asked for"
    lan.offer("web", SIXTY)
    lan.ack("web", SIXTY)
    assert lan.told[1:] == [f"bound web {SIXTY}"]


def test_a_refused_address_is_given_up_while_another_is_requested() -> None:
    lan = bound()
    lan.sleep(T1)
    lan.nak("web")
    lan.offer("web", SIXTY)
    lan.sleep(5)
    assert (lan.told, lan.state("web")) == ([f"lost web {FIFTY}"], State.REQUESTING)
    assert lan.said[-3:] == [f"select {SIXTY}"] * 3, "the exchange goes on"
    assert lan.clients.deadline() == lan.now + 2
    lan.ack("web", SIXTY)
    assert lan.told[1:] == [f"bound web {SIXTY}"]


def test_a_refused_address_that_is_offered_again_was_never_gone() -> None:
    lan = bound()
    lan.sleep(T1)
    lan.nak("web")
    lan.offer("web", FIFTY)
    lan.ack("web", FIFTY)
    assert (lan.told, list(lan.disk), lan.lease("web").expires) == ([], [ip(FIFTY)], lan.now + LEASE)


# -- the table


def arrange(state: State) -> Lan:
    """A container in that state, with a lease when the state has one."""
    lan = Lan()
    if state in {State.SELECTING, State.REQUESTING}:
        lan.want("web")
        if state == State.REQUESTING:
            lan.offer("web", FIFTY)
        return lan
    lan.bind("web", FIFTY)
    if state == State.REBOOTING:
        lan.restart()
        lan.want("web")
        lan.tick()
    lan.sleep({State.RENEWING: T1, State.REBINDING: T2}.get(state, 0))
    return lan


def cause(lan: Lan, event: Event) -> None:
    if event == Event.OFFER:
        lan.offer("web", SIXTY)
    elif event == Event.ACK:
        lan.ack("web", FIFTY)
    elif event == Event.NAK:
        lan.nak("web")
    elif event == Event.DECLINE:
        lan.decline("web")
    elif event in {Event.T1, Event.T2, Event.EXPIRY}:
        lan.now = START + {Event.T1: T1, Event.T2: T2, Event.EXPIRY: LEASE}[event]
        lan.tick()
    else:
        lan.sleep({Event.RETRY: 1, Event.SILENCE: 15}[event])


HAPPEN = [(state, event) for state, row in TRANSITIONS.items() for event in row]
ONLY_TAKEN_BACK = {
    (State.SELECTING, Event.EXPIRY), (State.SELECTING, Event.DECLINE),
    (State.REQUESTING, Event.EXPIRY), (State.REQUESTING, Event.DECLINE),
}  # fmt: skip
"""With an address that was taken back, which tests above have."""


@pytest.mark.parametrize(("state", "event"), sorted(set(HAPPEN) - ONLY_TAKEN_BACK))
def test_what_happens_leads_where_the_table_says(state: State, event: Event) -> None:
    lan = arrange(state)
    assert lan.state("web") == state
    cause(lan, event)
    assert lan.state("web") == TRANSITIONS[state][event]


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", [Event.OFFER, Event.ACK, Event.NAK])
def test_what_is_not_in_the_table_changes_nothing(state: State, event: Event) -> None:
    if event in TRANSITIONS[state]:
        return
    lan = arrange(state)
    before, said, told = lan.address("web"), list(lan.said), list(lan.told)
    cause(lan, event)
    assert (lan.state("web"), lan.address("web"), lan.said, lan.told) == (state, before, said, told)
    assert sum(lan.dropped.values()) == 1
