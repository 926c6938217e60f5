"""Who a container is to a foreign server, and which of a server's answers count."""

from __future__ import annotations

import pytest

from dhcpd.wire import Message, Type, decode, encode
from leasebroker import messages
from tests.dhcpd.script import ip, packed
from tests.leasebroker.script import LEASE, OTHER_SERVER, Lan, options, seconds

FIFTY = "10.0.1.50"
WEB = messages.station("", "br0net", "web")


def test_an_identity_is_the_same_for_good() -> None:
    """A change here gives every container another address at its next start."""
    assert messages.Station(b"\x82\x8d\xf6\xa6\x51\x87", b"\0lanward/br0net/web") == WEB


@pytest.mark.parametrize("who", [("", "br0net", "db"), ("", "br1net", "web"), ("truck7", "br0net", "web")])
def test_an_identity_is_nobody_elses(who: tuple[str, str, str]) -> None:
    other = messages.station(*who)
    assert (other.mac != WEB.mac, other.client_id != WEB.client_id) == (True, True)
    assert other.client_id == b"\0" + "/".join(["lanward", *filter(None, who)]).encode()


def test_hardware_addresses_are_local_unicast_ones() -> None:
    macs = {messages.station("", "br0net", f"web{number}").mac for number in range(1000)}
    assert len(macs) == 1000
    assert {mac[0] & 3 for mac in macs} == {2}


def test_a_long_name_is_cut_and_stays_distinct() -> None:
    one, two = (messages.station("", "br0net", "x" * 300 + end) for end in "ab")
    assert len(one.client_id) == len(two.client_id) == messages.MAX_CLIENT_ID
    assert one.client_id != two.client_id
    longest = messages.station("", "br0net", "x" * (messages.MAX_CLIENT_ID - 16))
    assert (len(longest.client_id), longest.client_id[-1:]) == (messages.MAX_CLIENT_ID, b"x")


def test_every_message_asks_for_a_broadcast_and_has_no_ciaddr() -> None:
    said = [
        messages.discover(WEB, "web", 1, 2, None),
        messages.select(WEB, "web", 1, 2, ip(FIFTY), ip("10.0.1.2")),
        messages.confirm(WEB, "web", 1, ip(FIFTY)),
    ]
    for message in map(decode, said):
        assert (message.flags, message.ciaddr, message.chaddr) == (0x8000, 0, WEB.mac)
        assert (message.options[61], message.options[12]) == (WEB.client_id, b"web")
        assert list(message.options[55]) == [1, 3, 6, 15, 26, 28, 42, 51, 54, 58, 59, 119, 121]


# -- answers that change nothing

WRONG: dict[str, dict[str, object]] = {
    "another_client": {"chaddr": b"\2\2\2\2\2\2"},
    "another_exchange": {"xid": 0xBAD},
    "not_a_reply": {"op": 1},
    "unsupported_type": {"o53": b"\x08"},
    "no_server_id": {"o54": None},
    "no_lease_time": {"o51": b"\0\0\x0e"},
    "bad_lease_time": {"o51": seconds(0)},
}


@pytest.mark.parametrize("reason", WRONG)
@pytest.mark.parametrize("kind", [Type.OFFER, Type.ACK])
def test_a_wrong_answer_changes_nothing(reason: str, kind: int) -> None:
    lan = Lan()
    lan.want("web")
    if kind == Type.ACK:
        lan.offer("web", FIFTY)
    said = list(lan.said)
    lan.reply("web", kind, FIFTY, **({"o51": seconds(LEASE)} | WRONG[reason]))
    assert (lan.dropped, lan.told, lan.said) == ({reason: 1}, [], said)


def test_an_answer_to_another_identifier_changes_nothing() -> None:
    """RFC 6842: a server sends the identifier back."""
    lan = Lan()
    lan.want("web")
    lan.offer("web", FIFTY, o61=b"\0lanward/br0net/db")
    assert lan.dropped == {"another_client": 1}
    lan.offer("web", FIFTY, o61=WEB.client_id)
    assert lan.said[-1] == f"select {FIFTY}"


def test_only_the_chosen_server_counts_in_requesting() -> None:
    lan = Lan()
    lan.want("web")
    lan.offer("web", FIFTY)
    lan.ack("web", FIFTY, o54=packed(OTHER_SERVER))
    lan.nak("web", o54=packed(OTHER_SERVER))
    assert (lan.dropped, lan.told) == ({"another_server": 2}, [])


GARBAGE = {
    "short": b"",
    "no_magic_cookie": bytes(300),
    "truncated_option": encode(Message(op=2))[:240] + b"\x35",
    "bad_overload": encode(Message(op=2, options={52: b"\x07"})),
}


@pytest.mark.parametrize("reason", GARBAGE)
def test_garbage_is_counted(reason: str) -> None:
    lan = Lan()
    lan.want("web")
    lan.receive(GARBAGE[reason])
    assert lan.dropped == {reason: 1}


# -- addresses that no container may have

UNUSABLE = {
    "0.0.0.0": "foreign_address",
    "10.0.2.50": "foreign_address",
    "10.0.1.0": "foreign_address",
    "10.0.1.255": "foreign_address",
    "10.0.1.1": "reserved_address",
    "10.0.1.240": "reserved_address",
    "10.0.1.60": "duplicate_address",
}


@pytest.mark.parametrize("address", UNUSABLE)
def test_an_address_that_cannot_be_is_not_taken(address: str) -> None:
    lan = Lan()
    lan.bind("db", "10.0.1.60")
    lan.want("web")
    lan.offer("web", address)
    assert (lan.said, lan.dropped, lan.events()[-1]) == (["discover"], {UNUSABLE[address]: 1}, UNUSABLE[address])
    lan.offer("web", FIFTY)
    lan.ack("web", address)
    assert (lan.address("web"), lan.state("web")) == (None, "requesting")


def test_an_address_that_is_being_given_up_is_not_taken_yet() -> None:
    lan = Lan()
    lan.bind("db", FIFTY)
    lan.sleep(LEASE / 2)
    lan.nak("db")
    lan.want("web")
    lan.offer("web", FIFTY)
    assert lan.dropped == {"duplicate_address": 1}
    lan.sleep(5)
    assert lan.told == [f"lost db {FIFTY}"]
    lan.offer("web", FIFTY)
    lan.ack("web", FIFTY)
    assert lan.told[1:] == [f"bound web {FIFTY}"]


def test_an_unusable_address_is_warned_about_once_a_minute() -> None:
    lan = Lan()
    lan.want("web")
    for _ in range(100):
        lan.offer("web", "10.0.2.50")
    assert lan.events() == ["foreign_address"]
    assert lan.notes[0].fields == {
        "vlan": "vlan1", "container": "web", "address": "10.0.2.50", "server": "10.0.1.2",
    }  # fmt: skip
    lan.sleep(60)
    lan.offer("web", "10.0.2.50")
    assert lan.events() == ["foreign_address"] * 2


# -- what the server says of the network


@pytest.mark.parametrize(
    "said",
    [{}, {"o1": packed("255.255.255.0")}, {"o3": packed("10.0.1.1") + packed("10.0.1.9")}],
)
def test_a_server_that_agrees_is_not_mentioned(said: dict[str, bytes]) -> None:
    lan = Lan()
    lan.bind("web", FIFTY, **said)
    assert lan.events() == ["granted"]


def test_a_server_that_names_another_network_is_mentioned_once() -> None:
    lan = Lan()
    other = {"o1": packed("255.255.0.0"), "o3": packed("10.0.1.9")}
    for number, name in enumerate(("web", "db", "cache")):
        lan.bind(name, f"10.0.1.{50 + number}", **other)
        lan.sleep(100)
    warnings = [note for note in lan.notes if note.level == "warning"]
    assert [note.fields for note in warnings] == [
        {"vlan": "vlan1", "server": "10.0.1.2", "netmask": "255.255.0.0", "router": "10.0.1.9"}
    ]
    lan.bind("four", "10.0.1.54", o3=packed("10.0.1.1"))
    lan.bind("five", "10.0.1.55", **other)
    assert lan.events().count("server_disagrees") == 2


def test_a_lease_has_the_options_that_were_asked_for() -> None:
    lan = Lan()
    given = {"o6": packed("10.0.1.9"), "o15": b"truck.example", "o200": b"secret"}
    lan.bind("web", FIFTY, **given)
    expected = options(o6=given["o6"], o15=given["o15"], o51=seconds(LEASE), o54=packed("10.0.1.2"))
    assert lan.lease("web").options == expected
