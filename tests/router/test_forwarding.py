"""The rules as the running service keeps them, in a real kernel that now and then takes none."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import cast

import pytest

from dhcpd.decision import Note
from dhcpd.engine import Engine
from dhcpd.leases import BOUND, Row
from dhcpd.server import Server
from router import firewall as module
from router.config import Config
from router.forwarding import RETRY_SECONDS, Forwarding
from router.nfnetlink import FirewallError
from tests.lab.routed import ADDRESSES, Routed
from tests.router.test_rules import configuration

NOW = 1_800_000_000.0
GUARDED = configuration(1, settings="guard = true")
PUBLISHED = configuration(1, '[[publish]]\nport = "tcp/8080"\nto = "vlan1/cam"\n')
MAC, OTHER = bytes.fromhex("020000010101"), bytes.fromhex("020000010102")
HOUR = 3600


def lease(address: str, mac: bytes = MAC, hostname: str = "", since: float = NOW) -> Row:
    return Row(int(IPv4Address(address)), BOUND, mac, mac, b"", hostname, int(since), int(since) + HOUR)


class Kept:
    """A `Forwarding` of the router, the servers that it looks at, and what it logs."""

    def __init__(self, nodes: Routed, config: Config, *rows: Row) -> None:
        self.notes: list[Note] = []
        self.config = config
        self.nodes = nodes
        with nodes.on("router"):
            self.forwarding = Forwarding(self.notes.append)
        self.is_there = True
        link = SimpleNamespace(interface="leg1", is_there=lambda: self.is_there)
        server = SimpleNamespace(link=link, engine=Engine(config.vlans[0].scope, rows, NOW))
        self.servers = {"vlan1": cast(Server, server)}

    def watch(self, now: float) -> None:
        with self.nodes.on("router"):
            self.forwarding.watch(self.config, self.servers, now)

    def committed(self, row: Row) -> bool:
        return self.forwarding.committed("vlan1", [row], NOW)

    def granted(self, row: Row, now: float) -> None:
        """A lease of a device is on the disk, and what is due by it is done."""
        self.servers["vlan1"].engine.book.grant(row, row.mac)
        assert self.committed(row)
        with self.nodes.on("router"):
            self.forwarding.update(self.config, self.servers, now)

    def published(self) -> str:
        return self.nodes.truck.run("router", "nft", "list", "map", "inet", "lanward", "publish").stdout

    def members(self) -> str:
        return self.nodes.truck.run("router", "nft", "list", "set", "inet", "lanward", "guard_vlan1").stdout

    def told(self, event: str) -> list[Note]:
        return [note for note in self.notes if note.event == event]


@pytest.fixture
def kept(nodes: Routed) -> Iterator[Kept]:
    """Of a guarded VLAN with one lease, before the first look."""
    made = Kept(nodes, GUARDED, lease(ADDRESSES["container1"]))
    yield made
    made.forwarding.close()
    nodes.truck.run("router", "nft", "flush", "ruleset")


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A kernel that takes no rules, until the patch is undone."""

    def refuse(*_: object) -> None:
        raise FirewallError("the kernel refuses the rules: no memory")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_nft", refuse)
        yield patched


def test_what_was_refused_is_tried_again_with_all_members(kept: Kept, refusing: pytest.MonkeyPatch) -> None:
    kept.watch(NOW)
    refusing.undo()
    kept.watch(NOW + RETRY_SECONDS / 2)
    assert not kept.members()
    kept.watch(NOW + RETRY_SECONDS)
    assert ADDRESSES["container1"] in kept.members()
    assert kept.forwarding.error is None
    assert [note.fields["error"] for note in kept.told("firewall_failed")] == [
        "the kernel refuses the rules: no memory"
    ]


def test_a_lease_does_not_hide_that_the_rules_were_refused(kept: Kept, refusing: pytest.MonkeyPatch) -> None:
    kept.watch(NOW)
    kept.committed(lease("10.0.1.77"))
    assert kept.forwarding.error == "the kernel refuses the rules: no memory"
    refusing.undo()
    kept.watch(NOW + RETRY_SECONDS)
    assert kept.told("rules_applied")


def test_leases_that_changed_while_the_leg_was_away_count_when_it_is_back(kept: Kept) -> None:
    kept.watch(NOW)
    kept.is_there = False
    kept.watch(NOW)
    book = kept.servers["vlan1"].engine.book
    gone = book.release(book.by_owner[MAC], int(NOW))
    come = lease("10.0.1.77")._replace(mac=OTHER, client=OTHER)
    book.grant(come, OTHER)
    for row in (gone, come):
        kept.committed(row)
    kept.is_there = True
    kept.watch(NOW)
    assert "10.0.1.77" in kept.members()
    assert ADDRESSES["container1"] not in kept.members()


def test_a_lease_that_meets_no_table_is_a_member_with_the_next_look(kept: Kept) -> None:
    kept.watch(NOW)
    kept.nodes.truck.run("router", "nft", "delete", "table", "inet", "lanward")
    row = lease("10.0.1.77")
    kept.servers["vlan1"].engine.book.grant(row, MAC)
    kept.committed(row)
    assert "is gone" in str(kept.forwarding.error)
    kept.watch(NOW + RETRY_SECONDS)
    assert "10.0.1.77" in kept.members()
    assert kept.forwarding.error is None


@pytest.fixture
def named(nodes: Routed) -> Iterator[Kept]:
    """With a published port of who calls itself cam, and has a lease; after the first look."""
    made = Kept(nodes, PUBLISHED, lease("10.0.1.101", hostname="cam"))
    made.watch(NOW)
    yield made
    made.forwarding.close()
    nodes.truck.run("router", "nft", "flush", "ruleset")


def test_a_name_does_not_go_to_a_newcomer_while_the_lease_of_its_holder_lives(named: Kept) -> None:
    named.granted(lease("10.0.1.100", OTHER, "cam", NOW + 60), NOW + 60)
    assert "10.0.1.101" in named.published()
    assert named.forwarding.status()["nodes"] == {"vlan1/cam": "10.0.1.101"}
    assert [line.partition(": that means ") for line in named.forwarding.troubles()["shared_name"]] == [
        (
            "vlan1/cam: several nodes have this name (10.0.1.100, 10.0.1.101), and an exception is for it",
            ": that means ",
            "10.0.1.101, who had it first",
        )
    ]
    named.watch(NOW + HOUR)
    assert "10.0.1.100" in named.published()
    assert named.forwarding.troubles()["shared_name"] == []


def test_an_exception_does_not_go_to_another_with_the_address_of_its_node(named: Kept) -> None:
    named.granted(lease("10.0.1.101", OTHER, "door", NOW + 2 * HOUR), NOW + 2 * HOUR)
    assert "10.0.1.101" not in named.published()
    assert named.forwarding.nodes == {}


def test_after_a_restart_a_name_that_several_have_is_nobodys(nodes: Routed) -> None:
    made = Kept(nodes, PUBLISHED, lease("10.0.1.101", hostname="cam"), lease("10.0.1.100", OTHER, "cam"))
    made.watch(NOW)
    (line,) = made.forwarding.troubles()["shared_name"]
    assert line.endswith("that means nobody until one is left")
    assert "10.0.1.10" not in made.published()
    made.forwarding.close()
    nodes.truck.run("router", "nft", "flush", "ruleset")
