"""The composition root: what a reload takes over, and what the log is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from dhcpd import store
from dhcpd.decision import Note
from dhcpd.link import LinkError
from dhcpd.pool import dotted
from dhcpd.store import Store, StoreError
from router import app as module
from router import discipline
from router.app import App
from router.config import ConfigError, parse
from router.forwarding import Forwarding
from tests.dhcpd.test_server import FakeLink
from tests.wire.segment import vlan

Links = list[FakeLink]


@pytest.fixture
def links(monkeypatch: pytest.MonkeyPatch) -> Iterator[Links]:
    """Every link that is opened, the interface ``absent`` excepted."""
    opened: Links = []

    def open_link(interface: str) -> FakeLink:
        if interface == "absent":
            raise LinkError("interface absent does not exist")
        opened.append(FakeLink())
        opened[-1].interface = interface
        return opened[-1]

    monkeypatch.setattr(module, "Link", open_link)
    yield opened
    for one in opened:
        one.close()


class FakeForwarding:
    """A kernel that takes all rules, for interfaces that are there."""

    def check(self, _config: object, interfaces: dict[str, str], _now: float) -> None:
        self.checked = interfaces

    def update(self, *_: object) -> None:
        pass

    def committed(self, *_: object) -> bool:
        return False

    def step(self) -> None:
        pass


class Service:
    """An app that runs for one scenario."""

    def __init__(self, folder: Path) -> None:
        self.notes: list[Note] = []
        self.file = folder / "lanward.toml"
        self.state = folder / "state"
        self.state.mkdir()

    def run(self, config: str, scenario: Callable[[App], object]) -> None:
        """Start, call ``scenario``, stop."""
        self.file.write_text(config)
        app = App(self.file, self.state, self.notes.append)

        async def until_done(_loop: object) -> None:
            app.forwarding = cast(Forwarding, FakeForwarding())
            scenario(app)

        app._until_stopped = until_done  # type: ignore[method-assign, assignment]
        asyncio.run(app.run())

    def reload(self, app: App, config: str) -> tuple[list[str], list[str]]:
        self.file.write_text(config)
        return app.reload()

    def told(self, event: str) -> list[dict[str, Any]]:
        return [note.fields for note in self.notes if note.event == event]


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def leg(number: int, **settings: object) -> str:
    return vlan(number, **({"interface": f"leg{number}"} | settings))


def is_open(link: FakeLink) -> bool:
    return link.udp.fileno() >= 0


def test_a_bad_configuration_is_found_before_anything_is_opened(service: Service, links: Links) -> None:
    with pytest.raises(ConfigError):
        service.run("nonsense", lambda _: None)
    assert not links
    assert not list(service.state.iterdir())


def test_all_links_are_closed_at_the_end(service: Service, links: Links) -> None:
    service.run(leg(1) + leg(2), lambda app: app.servers)
    assert [is_open(one) for one in links] == [False, False]


def test_a_start_that_fails_halfway_closes_what_it_opened(service: Service, links: Links) -> None:
    with pytest.raises(LinkError):
        service.run(leg(1) + leg(2, interface="absent"), lambda _: None)
    assert [is_open(one) for one in links] == [False]


def test_a_reload_that_is_refused_changes_nothing(service: Service, links: Links) -> None:
    def scenario(app: App) -> None:
        before, config = dict(app.servers), app.config
        errors, changes = service.reload(app, leg(1) + leg(2) + leg(3, interface="absent"))
        assert (errors, changes) == (["interface absent does not exist"], [])
        assert (app.servers, app.config) == (before, config)
        assert [is_open(one) for one in links] == [True, False]

    service.run(leg(1), scenario)
    (refused,) = service.told("reload_refused")
    assert refused["errors"] == ["interface absent does not exist"]


def test_a_reload_that_cannot_read_the_leases_changes_nothing(
    service: Service, links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own question fails, and nothing that the writer does: an authorizer, asked on the writer's thread while this
    one sets it, would stop both for good."""

    def scenario(app: App) -> None:
        before, config = dict(app.servers), app.config
        with monkeypatch.context() as patch:
            patch.setattr(store, "_SELECT_RECENT", "SELECT * FROM absent WHERE key BETWEEN ? AND ?")
            errors, changes = service.reload(app, leg(3) + leg(1, lease_time="1h"))
        assert errors == [f"{service.state / 'leases.db'} cannot be read: no such table: absent"]
        assert changes == []
        assert (app.servers, app.config) == (before, config)
        assert app.servers["vlan1"].is_serving()
        assert [is_open(one) for one in links] == [True, False]
        errors, _ = service.reload(app, leg(3) + leg(1, lease_time="1h"))
        assert not errors
        assert {name: server.is_serving() for name, server in app.servers.items()} == {"vlan1": True, "vlan3": True}

    service.run(leg(1), scenario)


def test_a_start_that_cannot_read_the_leases_closes_what_it_opened(
    service: Service, links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreadable(opened: Store) -> None:
        opened._database.execute("DROP TABLE recent")

    monkeypatch.setattr(Store, "doubt", unreadable)
    with pytest.raises(StoreError):
        service.run(leg(1), lambda _: None)
    assert [is_open(one) for one in links] == [False]


def test_a_reload_keeps_the_links_and_the_engines_that_did_not_change(service: Service, links: Links) -> None:
    def scenario(app: App) -> None:
        before = {name: server.engine for name, server in app.servers.items()}
        errors, changes = service.reload(app, leg(1) + leg(2, lease_time="1h"))
        assert (errors, changes) == ([], ["vlan2: lease_time 12h is now 1h"])
        assert app.servers["vlan1"].engine is before["vlan1"]
        assert app.servers["vlan2"].engine is not before["vlan2"]
        assert len(links) == 2
        assert all(map(is_open, links))

    service.run(leg(1) + leg(2), scenario)


def test_a_reload_asks_the_kernel_about_the_interfaces_that_are_there(service: Service, links: Links) -> None:
    """A flowtable on one that is away would be refused."""

    def scenario(app: App) -> None:
        app.servers["vlan2"].stop()
        links[1].close()
        app.lost_interfaces.add("vlan2")
        gone = leg(2, interface="absent")
        app.config = replace(app.config, vlans=parse(leg(1) + gone, ()).vlans)
        errors, changes = service.reload(app, leg(1, lease_time="1h") + gone)
        assert (errors, changes) == ([], ["vlan1: lease_time 12h is now 1h"])
        assert cast(FakeForwarding, app.forwarding).checked == {"vlan1": "leg1"}
        assert app.lost_interfaces == {"vlan2"}

    service.run(leg(1) + leg(2), scenario)


def test_a_reload_goes_on_counting(service: Service, links: Links) -> None:
    def scenario(app: App) -> None:
        app.servers["vlan1"].errors["send"] += 1
        app.servers["vlan1"].engine.dropped["short"] += 1
        unwritten = app.servers["vlan1"].unwritten
        service.reload(app, leg(1, lease_time="1h"))
        server = app.servers["vlan1"]
        assert (server.errors, server.engine.dropped) == ({"send": 1}, {"short": 1})
        assert server.unwritten is unwritten

    service.run(leg(1), scenario)
    assert len(links) == 1


def test_vlans_may_swap_their_interfaces(service: Service, links: Links) -> None:
    def scenario(app: App) -> None:
        errors, _ = service.reload(app, leg(1, interface="leg2") + leg(2, interface="leg1"))
        assert not errors
        assert {name: server.link.interface for name, server in app.servers.items()} == {
            "vlan1": "leg2",
            "vlan2": "leg1",
        }
        assert len(links) == 2

    service.run(leg(1) + leg(2), scenario)


def test_a_removed_vlan_lets_go_of_its_interface(service: Service, links: Links) -> None:
    service.run(leg(1) + leg(2), lambda app: service.reload(app, leg(1)))
    assert service.told("reloaded")[0]["changes"] == ["vlan2: removed"]
    assert len(links) == 2


def test_a_clock_that_was_wrong_moves_the_leases_of_the_runs_before(
    service: Service, links: Links, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = 40.0
    monkeypatch.setattr(time, "time", lambda: wall)
    monkeypatch.setattr(module, "monotonic", lambda: 40.0)
    monkeypatch.setattr(discipline, "is_disciplined", lambda: wall > 1_000_000_000)

    def live(app: App) -> list[str]:
        return [dotted(one.address) for one in app.servers["vlan1"].engine.book if one.is_live(app.now())]

    def grant(app: App) -> None:
        server = app.servers["vlan1"]
        _, decision = server.engine.lease_container("web", b"", "web", None, app.now())
        app.store.commit([(server.vlan_id, row) for row in decision.rows], lambda _: None)

    def set_the_clock(app: App) -> None:
        nonlocal wall
        before = live(app)
        wall = 1_800_000_000
        app._follow_the_clock()
        assert live(app) == before != []

    service.run(leg(1), grant)
    wall += 60
    service.run(leg(1), set_the_clock)
    service.run(leg(1), lambda app: live(app) != [] or pytest.fail("a lease is lost"))
    with closing(Store(service.state)) as kept:
        assert kept.doubt() == 1_800_000_000
    assert len(links) == 3


def test_drops_are_told_once_and_once_a_second(service: Service, links: Links) -> None:
    def scenario(app: App) -> None:
        dropped = app.servers["vlan1"].engine.dropped
        for now in (100.0, 100.1, 100.9, 101.0, 102.0, 103.0):
            app._report_drops(now)
            dropped["short"] += now < 102

    service.run(leg(1), scenario)
    assert [told["vlans"]["vlan1"]["short"] for told in service.told("dropped")] == [1, 3]
    assert links


def test_drops_of_a_vlan_that_was_away_are_told_again(service: Service, links: Links) -> None:
    def scenario(app: App) -> None:
        app.servers["vlan2"].engine.dropped["short"] += 5
        app._report_drops(1)
        for now, config in enumerate((leg(1), leg(1) + leg(2)), 10):
            service.reload(app, config)
            app._report_drops(now)
        app.servers["vlan2"].engine.dropped["short"] += 1
        app._report_drops(20)

    service.run(leg(1) + leg(2), scenario)
    assert [told["vlans"]["vlan2"]["short"] for told in service.told("dropped")] == [5, 1]
    assert links
