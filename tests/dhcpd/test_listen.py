"""What is heard of other servers and of claims: whatever the bytes, however many, and when it is over."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhcpd.listen import (
    ASK_SECONDS,
    ASK_SELDOM_SECONDS,
    HOLD_SECONDS,
    MAX_HEARD,
    Claim,
    Heard,
    Mirror,
    Rival,
    question,
    rival,
)
from dhcpd.wire import BROADCAST, BROADCAST_MAC, Message, Type, arp_announcement, decode, encode, udp_frame
from tests.dhcpd.script import ip, mac, packed

SERVER = "10.0.1.9"


def frame(kind: int = Type.OFFER, **changes: Any) -> bytes:
    options = {53: bytes((kind,)), 54: packed(SERVER)}
    message = Message(op=2, yiaddr=ip("10.0.1.77"), chaddr=mac(1), options=options)
    for key, value in changes.items():
        setattr(message, key, value)
    return udp_frame(mac(9), BROADCAST_MAC, ip("10.0.1.8"), BROADCAST, 68, encode(message))


@pytest.mark.parametrize("kind", [Type.OFFER, Type.ACK, Type.NAK])
def test_a_servers_answer_names_the_server(kind: int) -> None:
    assert rival(frame(kind)) == Rival(ip(SERVER), mac(9))


def test_a_server_that_does_not_name_itself_is_known_by_its_packets() -> None:
    assert rival(frame(options={53: bytes((Type.OFFER,))})) == Rival(ip("10.0.1.8"), mac(9))


@pytest.mark.parametrize("changes", [{"op": 1}, {"options": {54: packed(SERVER)}}, {"options": {53: b"\1"}}])
def test_what_is_no_servers_answer(changes: dict[str, Any]) -> None:
    assert rival(frame(**changes)) is None


@given(st.binary(max_size=400))
def test_no_frame_is_a_problem(data: bytes) -> None:
    rival(data)


@given(st.integers(0, 600), st.binary(max_size=3))
def test_no_damaged_frame_is_a_problem(length: int, tail: bytes) -> None:
    rival(frame()[:length] + tail)


def test_our_question_is_one_that_every_server_answers_by_broadcast() -> None:
    asked = question(mac(5), 77)
    message = decode(asked[42:])
    assert (asked[:6], asked[6:12], asked[34:38]) == (BROADCAST_MAC, mac(5), bytes.fromhex("00440043"))
    assert (message.op, message.xid, message.flags, message.options[53]) == (1, 77, 0x8000, bytes((Type.DISCOVER,)))


# -- what counts, and how long


def test_a_server_counts_until_it_was_silent_for_long() -> None:
    heard, one = Heard(), Rival(ip(SERVER), mac(9))
    assert heard.hear(one, 0)
    assert not heard.hear(one, 50)
    assert heard.rivals(50 + HOLD_SECONDS - 1) == [one]
    assert heard.rivals(50 + HOLD_SECONDS) == []


def test_a_claim_counts_when_it_is_repeated() -> None:
    heard, one = Heard(), Claim(ip("10.0.1.100"), mac(9))
    heard.hear(one, 0)
    heard.hear(one, 0.2)
    assert heard.claims(0.5) == []
    heard.hear(one, 1.5)
    assert heard.claims(2) == [one]
    heard.retract(one)
    assert heard.claims(2) == []


def test_a_claim_is_asked_about_until_it_is_sure() -> None:
    heard, one = Heard(), Claim(ip("10.0.1.100"), mac(9))
    assert [heard.hear(one, now) for now in (0, 0.9, 1.0, 2.0)] == [True, True, False, False]
    for number in range(MAX_HEARD):
        heard.hear(Claim(number, mac(number)), 2.0)
    assert not heard.hear(Claim(MAX_HEARD, mac(1)), 2.0), "nobody is asked about what there is no room for"


ROUTER_MAC, OWN = mac(1), arp_announcement(mac(1), ip("10.0.1.1"))


def test_a_station_with_our_mac_is_another() -> None:
    mirror, other = Mirror(ROUTER_MAC, 7), arp_announcement(mac(9), ip("10.0.1.100"))
    assert mirror.claims([other, other]) == ([Claim(ip("10.0.1.100"), mac(9))], False)
    assert mirror.claims([OWN]) == ([Claim(ip("10.0.1.1"), ROUTER_MAC)], True)
    assert mirror.claims([OWN, Mirror(ROUTER_MAC, 8).echo]) == ([Claim(ip("10.0.1.1"), ROUTER_MAC)], True)


def test_what_the_network_sends_back_is_our_own() -> None:
    mirror, other = Mirror(ROUTER_MAC, 7), arp_announcement(mac(9), ip("10.0.1.100"))
    assert mirror.claims([OWN, other, mirror.echo.ljust(60, b"\0")]) == ([Claim(ip("10.0.1.100"), mac(9))], False)
    assert mirror.claims([OWN]) == ([], False)


def test_we_ask_seldom_and_more_often_while_something_is_wrong() -> None:
    heard = Heard()
    assert heard.is_question_due(0)
    assert not heard.is_question_due(ASK_SELDOM_SECONDS - 1)
    assert heard.is_question_due(ASK_SELDOM_SECONDS)
    heard.hear(Rival(ip(SERVER), mac(9)), ASK_SELDOM_SECONDS)
    assert heard.is_question_due(ASK_SELDOM_SECONDS + ASK_SECONDS)
    assert HOLD_SECONDS > 3 * ASK_SECONDS


def test_what_is_remembered_is_bounded() -> None:
    heard = Heard()
    for number in range(10 * MAX_HEARD):
        heard.hear(Claim(number, mac(number)), 0)
    assert len(heard.unsure()) == MAX_HEARD
    heard.claims(HOLD_SECONDS)
    assert heard.unsure() == []
