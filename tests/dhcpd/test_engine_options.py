"""What the engine tells which client; the bytes are `test_replies`' subject."""

from __future__ import annotations

import pytest

from dhcpd import opt
from dhcpd.settings import INFINITE
from tests.dhcpd.script import Vlan, packed

DAY = 86400


def lease(value: int) -> dict[str, bytes | None]:
    return {"o51": value.to_bytes(4, "big")}


def test_the_lease_time_is_the_configured_one_with_its_two_renewal_times() -> None:
    offer = Vlan(lease_time=8000).client(1).discover()
    assert [offer.seconds(code) for code in (51, 58, 59)] == [8000, 4000, 7000]


def test_renewal_times_can_be_set() -> None:
    offer = Vlan(lease_time=1000, t1=0.25, t2=0.5).client(1).discover()
    assert [offer.seconds(code) for code in (58, 59)] == [250, 500]


@pytest.mark.parametrize(
    ("wanted", "given"),
    [(1, 120), (120, 120), (3600, 3600), (7 * DAY, 7 * DAY), (30 * DAY, 7 * DAY), (INFINITE, 7 * DAY)],
)
def test_a_client_may_choose_its_lease_time_within_bounds(wanted: int, given: int) -> None:
    vlan = Vlan()
    client = vlan.client(1)
    offer = client.discover(**lease(wanted))
    ack = client.select(offer, **lease(wanted))
    assert offer.seconds(51) == ack.seconds(51) == given
    assert [ack.seconds(58), ack.seconds(59)] == [given // 2, given * 7 // 8]
    (row,) = vlan.disk.values()
    assert row.expires == vlan.now + given


def test_an_offered_lease_time_is_granted_though_the_request_does_not_name_it() -> None:
    """RFC 2131 section 4.3.1."""
    vlan = Vlan()
    client = vlan.client(1)
    offer = client.discover(**lease(3600))
    old = vlan.engine
    vlan.reload(options={})
    vlan.engine.inherit(old)
    ack = client.select(offer)
    assert offer.seconds(51) == ack.seconds(51) == 3600
    assert client.renew().seconds(51) == DAY // 2
    assert client.select(vlan.client(1).discover(**lease(3600)), **lease(7200)).seconds(51) == 7200


@pytest.mark.parametrize("wanted", [b"", b"\1", b"\0\0\1", b"\0\0\0\0\1"])
def test_a_lease_time_of_the_wrong_length_is_no_wish(wanted: bytes) -> None:
    assert Vlan().client(1).discover(o51=wanted).seconds(51) == DAY // 2


def test_a_lease_may_be_infinite() -> None:
    vlan = Vlan(lease_time=INFINITE, max_lease_time=INFINITE)
    client = vlan.client(1)
    ack = client.select(client.discover())
    assert [ack.seconds(code) for code in (51, 58, 59)] == [INFINITE] * 3
    (row,) = vlan.disk.values()
    assert row.expires is None
    assert vlan.engine.deadline() is None or vlan.engine.deadline() == 0
    vlan.sleep(1000 * DAY)
    assert vlan.state(client.address) == "bound"
    vlan.restart()
    assert client.renew().kind == "ack"


def test_a_wish_for_an_infinite_lease_is_granted_where_it_may_be() -> None:
    vlan = Vlan(max_lease_time=INFINITE)
    assert vlan.client(1).discover(**lease(INFINITE)).seconds(51) == INFINITE


def test_inform_has_the_configuration_in_the_order_of_the_request() -> None:
    assert Vlan().client(1, wants=bytes((6, 3, 51))).inform("10.0.1.50").codes == [53, 54, 6, 3]


def test_relay_information_is_echoed_last_in_every_reply() -> None:
    client = Vlan().client(1, giaddr="10.0.1.9", client_id=b"\0id")
    agent = {"o82": b"\x01\x04port\x02\x03mac"}
    offer = client.discover(**agent)
    replies = [offer, client.select(offer, **agent), client.inform("10.0.1.50", **agent)]
    assert [one.codes[-1] for one in replies] == [82, 82, 82]
    assert {one.options[82] for one in replies} == {agent["o82"]}


def test_a_long_option_arrives_whole() -> None:
    """RFC 3396."""
    routes = bytes(range(200)) * 2
    vlan = Vlan(options={1: packed("255.255.255.0"), 121: routes})
    reply = vlan.client(1, wants=bytes((1, 121))).discover(o57=(1200).to_bytes(2, "big"))
    assert reply.options[121] == routes
    assert reply.codes.count(121) == 2


def test_a_client_identifier_in_parts_is_one() -> None:
    """RFC 3396."""
    vlan = Vlan()
    client = vlan.client(1, client_id=b"\0" + b"x" * 299)
    assert client.discover(o57=b"\x05\xdc").options[61] == client.client_id
    assert client.join() == vlan.client(2, client_id=client.client_id).join()


def test_a_reply_that_is_too_long_keeps_the_lease() -> None:
    vlan = Vlan(options={1: packed("255.255.255.0"), 3: packed("10.0.1.1"), **{200 + n: b"x" * 200 for n in range(5)}})
    ack = vlan.client(1, wants=None).discover()
    assert len(ack.payload) <= 548
    assert {opt.MESSAGE_TYPE, opt.SERVER_ID, opt.LEASE_TIME, 1, 3} <= ack.options.keys()
    assert len(vlan.client(1, wants=None).discover(o57=b"\x05\xdc").payload) > 1200
