"""What the broker knows follows what the engine shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from dhcpd.decision import Note
from leasebroker.containers import Container, Endpoint, Member, Problem
from leasebroker.known import Known
from tests.dhcpd.script import ip, mac
from tests.leasebroker.things import LEG, LEG2, container, network


class Heard(Known):
    """With its log."""

    def __init__(self, *legs: Any) -> None:
        self.notes: list[Note] = []
        super().__init__(legs or (LEG, LEG2), self.notes.append)

    def show(self, *containers: Container, then: Mapping[str, Container] | None = None) -> set[str]:
        """All that the engine has now, the youngest first."""
        return self.replace(containers, [network()], then=self.containers if then is None else then)


def test_what_is_new_or_changed_is_told() -> None:
    known = Heard()
    web, db = container("web"), container("db")
    assert known.show(db, web) == {"id-db", "id-web"}
    assert known.show(db, web) == set()
    assert known.show(db, web._replace(state="exited")) == {"id-web"}
    assert known.show(db, web._replace(state="exited", endpoints={"br1net": Endpoint()})) == {"id-web"}
    assert known.show(web) == {"id-web"}
    assert known.show() == set()
    assert known.containers == {}


def test_networks_are_those_that_the_engine_shows() -> None:
    known = Heard()
    known.show()
    assert list(known.networks) == ["br0net"]
    known.replace([], [], then=known.containers)
    assert known.networks == {}


def test_a_record_is_made_once_and_follows_its_container() -> None:
    known = Heard()
    web = container("web", state="created")
    known.show(web)
    record = known.record(LEG, web)
    record.address = ip("10.0.1.20")
    known.take([web._replace(name="shop", state="running")])
    assert (record.name, record.state, record.address) == ("shop", "running", ip("10.0.1.20"))
    assert known.record(LEG, known.containers["id-web"]) is record
    known.show(web._replace(name="till", state="exited"))
    assert (record.name, record.state) == ("till", "exited")
    assert known.record(LEG2, web) is not record


def test_a_record_goes_with_its_container_its_connection_or_its_vlan() -> None:
    known = Heard()
    web, db, both = container("web"), container("db"), container("both", networks=("br0net", "br1net"))
    known.show(web, db, both)
    for one, leg in ((web, LEG), (db, LEG), (both, LEG), (both, LEG2)):
        record = known.record(leg, one)
        known.warn(record.title, "it is wrong")
    assert len(known.warnings) == 4
    known.show(db._replace(endpoints={}), both)
    assert set(known.records) == {("id-both", "br0net"), ("id-both", "br1net")}
    known.legs = (LEG2,)
    known.show(both)
    assert set(known.records) == {("id-both", "br1net")}
    assert list(known.warnings) == ["container both on br1net"]


@pytest.mark.parametrize("state", ["created", "running", "paused", "restarting", "exited", "removing", "dead"])
def test_a_container_is_missing_its_lease_while_it_runs_without(state: str) -> None:
    record = Heard().record(LEG, container("web", state=state))
    assert record.is_missing is (state in ("running", "paused"))
    assert not replace(record, pinned_at=1.0).is_missing


def test_of_one_second_the_older_container_has_the_identity() -> None:
    """The engine names the youngest first. Whoever had the identity keeps it when the engine turns the order."""
    known = Heard()
    old, new = (container(name, labels={"identity": "shop"}) for name in ("old", "new"))
    known.show(new, old)
    assert {id_: wish.identity for id_, wish in known.wishes(LEG).items()} == {"id-old": "shop", "id-new": "new"}
    known.show(old, new)
    assert known.wishes(LEG)["id-old"].identity == "shop"
    assert known.wishes(LEG2) == {}


def test_a_name_is_of_the_container_that_the_engine_showed_last() -> None:
    """One that was removed and made again is told of before a look at all says that the first one is gone."""
    known = Heard()
    old, new = container("web", id_="a" * 64, created=1), container("web", id_="b" * 64, created=2)
    known.show(old)
    known.take([new])
    assert {id_: wish.identity for id_, wish in known.wishes(LEG).items()} == {new.id: "web"}
    assert known.wishes(LEG)[new.id].problems == ()
    known.show(old)
    known.take([new])
    assert list(known.wishes(LEG)) == [new.id]


def test_one_whose_name_another_has_now_is_there_again_with_its_record() -> None:
    known = Heard()
    old = container("web", id_="a" * 64, created=1)
    known.show(old)
    record = known.record(LEG, old)
    known.take([container("web", id_="b" * 64, created=2)])
    known.show(container("web", id_="b" * 64, created=2), old._replace(name="web-old"))
    assert known.records["a" * 64, "br0net"] is record
    assert sorted(wish.identity for wish in known.wishes(LEG).values()) == ["web", "web-old"]


def test_an_answer_does_not_undo_what_was_learned_while_it_was_on_its_way() -> None:
    """A container that is made while the engine lists all keeps its record, and one that starts its state."""
    known = Heard()
    web, db = container("web", state="created"), container("db")
    known.show(db)
    then = dict(known.containers)
    known.take([web])
    record = known.record(LEG, web)
    assert known.show(db, then=then) == set()
    assert known.records[web.id, "br0net"] is record
    then = dict(known.containers)
    known.take([web._replace(state="running")])
    known.show(web, then=then)
    assert (record.state, known.containers[web.id].state) == ("running", "running")
    known.show()
    assert (known.containers, known.records) == ({}, {})


def test_names_that_were_exchanged_are_both_there() -> None:
    known = Heard()
    one, two = container("one"), container("two")
    known.show(two, one)
    known.show(two._replace(name="one"), one._replace(name="two"))
    assert {id_: wish.identity for id_, wish in known.wishes(LEG).items()} == {"id-one": "two", "id-two": "one"}


def test_a_wrong_gateway_label_is_a_problem_of_the_wish() -> None:
    known = Heard()
    known.show(
        container("web", labels={"gateway": "vlna2", "address": "?"}), container("db", labels={"gateway": "vlan1"})
    )
    found = known.wishes(LEG)
    assert [problem.partition("=")[0] for problem in found["id-web"].problems] == [
        "container web: label lanward.address", "container web: label lanward.gateway",
    ]  # fmt: skip
    assert found["id-db"].problems == ()


def test_dockers_address_is_the_one_that_the_network_shows_now() -> None:
    known = Heard()
    web = container("web", networks={"br0net": Endpoint(mac(7), ip("10.0.1.241"))})
    assert known.docker_address(LEG, web) == ip("10.0.1.241")
    members = (Member("x", "db", mac(8), ip("10.0.1.242")), Member("y", "web", mac(7), ip("10.0.1.243")))
    known.networks["br0net"] = network(members=members)
    assert known.docker_address(LEG, web) == ip("10.0.1.243")
    known.networks["br0net"] = network(members=members[:1])
    assert known.docker_address(LEG, web) == ip("10.0.1.241")
    assert known.docker_address(LEG, container("web")) == 0


def test_containers_that_cannot_be_read_are_named_for_as_long_as_they_are_there() -> None:
    known = Heard()
    problem = Problem("container odd has no lease", "make it again")
    for unread in ({"odd": problem}, {"odd": problem}):
        known.replace([container("web")], [network()], unread, then=known.containers)
        assert known.warnings == {"container odd": problem}
    assert len(known.notes) == 1
    known.show(container("web"))
    assert known.warnings == {}


def test_a_warning_is_logged_once_for_as_long_as_it_stands() -> None:
    known = Heard()
    for text in ("it is wrong", "it is wrong", "it is worse", None, None, "it is wrong"):
        known.warn("network br0net", text)
    assert [note.fields["what"] for note in known.notes] == ["it is wrong", "it is worse", "it is wrong"]
    assert {(note.level, note.event) for note in known.notes} == {("warning", "containers")}
    assert known.warnings == {"network br0net": "it is wrong"}
    known.warn("network br0net", None)
    assert known.warnings == {}


def test_all_warnings_about_a_container_go_when_it_has_another_name() -> None:
    known = Heard()
    web = container("web")
    known.show(web)
    record = known.record(LEG, web)
    for key in (record.title, f"healed {record.title}", "container web-2 on br0net", "engine"):
        known.warn(key, "it is wrong")
    known.take([web._replace(name="shop")])
    assert set(known.warnings) == {"container web-2 on br0net", "engine"}


def test_warnings_go_with_what_they_are_about() -> None:
    """A change that took long may end after its container is gone."""
    known = Heard()
    web, other = container("web"), container("network", networks=("br1net",))
    known.show(web, other)
    titles = [known.record(LEG, web).title, known.record(LEG2, other).title]
    others = ["engine", "netns", "adoption", "network br0net", "network br1net"]
    for key in (*titles, f"adopted {titles[0]}", *others, "healed container gone on br0net", "network br9net"):
        known.warn(key, "it is wrong")
    known.show(web, other)
    assert set(known.warnings) == {*titles, f"adopted {titles[0]}", *others}
    known.legs = (LEG2,)
    known.show(web, other)
    assert set(known.warnings) == {titles[1], *others} - {"network br0net"}
    known.show()
    assert set(known.warnings) == {"engine", "netns", "adoption", "network br1net"}


def test_a_note_names_the_vlan_the_container_and_the_address() -> None:
    known = Heard()
    record = known.record(LEG, container("web"))
    record.address = ip("10.0.1.20")
    known.note("info", "pinned", record, path="start")
    fields = {"vlan": "vlan1", "container": "web", "address": "10.0.1.20", "path": "start"}
    assert known.notes == [Note("info", "pinned", fields)]
