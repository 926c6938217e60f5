"""A VLAN with a DHCP server of another make: its containers have their leases from there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest

from dhcpd.leases import Row
from dhcpd.store import Store
from leasebroker import messages
from leasebroker.files import read_site
from tests.docker.managed import SHOW, Managed
from tests.lab import netns
from tests.lab.netns import wait_until
from tests.lab.service import REPOSITORY
from tests.wire.foreign import Dnsmasq, ForeignServer, Kea, Site

FIRST, LAST = IPv4Address("10.0.1.100"), IPv4Address("10.0.1.149")
SERVER = IPv4Address("10.0.1.20")
OWN = (REPOSITORY / "lanward.toml").read_text()


def _external() -> str:
    """The repository's configuration, with another server on vlan1."""
    first, second, rest = re.split(r"(?=^\[\[vlan\]\])", OWN, flags=re.MULTILINE)
    kept = [line for line in second.splitlines() if not re.match(r"pools|lease_time|dns|domain", line)]
    vlan1 = "\n".join(kept).partition("[[vlan.reservation]]")[0]
    return f'{first}{vlan1}\ndhcp = "external"\n\n{rest}'


EXTERNAL = _external()


@pytest.fixture
def site(managed: Managed) -> Site:
    """device1 as the machine that runs the VLAN's server."""
    managed.edge.place("device1", str(SERVER))
    vlan = managed.edge.truck.plan.vlan("vlan1")
    host = managed.edge.truck.netns("device1")
    return Site(host, "eth0", vlan.subnet, IPv4Address(str(vlan.router)), SERVER, FIRST, LAST)


@pytest.fixture
def serve(site: Site, tmp_path: Path) -> Iterator[Callable[[type[ForeignServer]], ForeignServer]]:
    made: list[ForeignServer] = []

    def start(kind: type[ForeignServer]) -> ForeignServer:
        if kind.path() is None:
            pytest.skip(f"{kind.program} is neither installed nor unpacked (sh tests/wire/servers.sh)")
        home = tmp_path / kind.name
        home.mkdir()
        made.append(kind(site, home))
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.stop()


Serve = Callable[[type[ForeignServer]], ForeignServer]
Count = Callable[[int, int], int]
Figure = Callable[[str, object], None]


@pytest.mark.parametrize("kind", [Dnsmasq, Kea], ids=["dnsmasq", "kea"])
def test_a_container_has_its_lease_from_the_vlans_server(
    managed: Managed, serve: Serve, kind: type[ForeignServer]
) -> None:
    server = serve(kind)
    managed.start(EXTERNAL)
    managed.edge.run("web")
    managed.edge.run("db")
    leases = {managed.lease("web"), managed.lease("db")}
    assert len(leases) == 2
    assert all(FIRST <= one <= LAST and server.ends(one) for one in leases)
    assert managed.source("web") == ("10.0.1.1", str(managed.lease("web")))
    assert managed.edge.ping("device1", managed.lease("web"))
    assert managed.edge.ping("web", "198.51.100.9")
    assert "mtu 1400" in managed.edge.out("web", "ip", "link")
    (row,) = [row for row in managed.service.leases() if row["container"] == "web"]
    assert (row["vlan"], row["state"], row["address"]) == ("vlan1", "bound", str(managed.lease("web")))
    managed.edge.run("other", "br1net")
    assert managed.lease("other", "br1net") == IPv4Address("10.0.2.100")
    assert managed.warnings() == []


def test_the_lease_is_there_at_the_first_instruction(
    managed: Managed, serve: Serve, count: Count, record_property: Figure
) -> None:
    rounds = count(10, 40)
    serve(Dnsmasq)
    managed.start(EXTERNAL)
    command = ("sh", "-c", f"{SHOW}; exec sleep 100000")
    late = 0
    for name in (f"c{number}" for number in range(rounds)):
        managed.edge.run(name, command=command)
        address = IPv4Interface(managed.engine.docker("logs", name).split()[3]).ip
        late += address != managed.lease(name)
        managed.engine.docker("rm", "--force", name)
    record_property("figure", f"another server's, of {rounds} at the first instruction: {rounds - late}")
    assert late < count(rounds, 3), "where other work takes the processors many are late"


def test_it_has_its_address_again_after_rm_and_over_a_restart(managed: Managed, serve: Serve) -> None:
    serve(Dnsmasq)
    managed.start(EXTERNAL)
    managed.edge.run("web")
    managed.edge.run("db")
    web, db = managed.lease("web"), managed.lease("db")
    managed.engine.docker("rm", "--force", "web")
    managed.service.kill9()
    managed.service.start()
    assert managed.lease("db") == db
    assert managed.status()["pins"].get("drift", 0) == 0
    managed.edge.run("web")
    assert managed.lease("web") == web


def test_it_follows_a_changed_address(managed: Managed, serve: Serve) -> None:
    server = serve(Dnsmasq)
    managed.start(EXTERNAL)
    managed.edge.run("web")
    before = managed.lease("web")
    server.stop()
    mac = messages.station(read_site(managed.service.state), "br0net", "web").mac
    server.start({mac: IPv4Address("10.0.1.55")})
    wait_until(lambda: managed.is_on_link("web", "10.0.1.55"), 30, "web to have the address that the server has for it")
    assert managed.lease("web") == IPv4Address("10.0.1.55")
    assert before not in [one.ip for one in managed.edge.addresses("web")]
    assert managed.source("web") == ("10.0.1.1", "10.0.1.55")


@pytest.mark.one_engine
def test_a_lease_that_is_over_leaves_the_link(managed: Managed, serve: Serve) -> None:
    """Another station may have the address by then (RFC 2131 section 4.4.5): Docker's own is left."""
    server = serve(Dnsmasq)
    managed.start(EXTERNAL)
    managed.edge.run("web")
    lease = managed.lease("web")
    server.stop()
    managed.service.kill9()
    _end_leases(managed.service.state)
    managed.service.start()
    wait_until(lambda: not managed.is_on_link("web", str(lease)), 30, "the lease to leave the link")
    (docker,) = managed.edge.addresses("web")
    assert docker.ip in managed.edge.truck.plan.vlan("vlan1").landing
    assert managed.edge.ping("web", "198.51.100.9")
    (warning,) = managed.warnings()
    assert "web has no lease on vlan1: see that its DHCP server runs" in warning


def _end_leases(state: Path) -> None:
    """As if the machine had been off for longer than its leases."""
    store = Store(state)
    rows = [Row._make(row) for row in store.load("vlan1")]
    store.start(lambda call: call())
    store.commit([(store.vlan_id("vlan1"), row._replace(expires=row.since)) for row in rows], lambda _: None)
    store.close()


@pytest.mark.one_engine
def test_an_address_that_a_squatter_has_is_declined(managed: Managed, serve: Serve) -> None:
    serve(Dnsmasq)
    squatted = IPv4Address("10.0.1.101")
    netns.batch([f"addr add {squatted}/24 dev eth0"], managed.edge.truck.netns("device1"))
    managed.start(EXTERNAL)
    managed.edge.run("web", "br0net", "--ip", str(squatted))
    wait_until(lambda: managed.service.events("declined"), 10, "the address to be declined")
    wait_until(lambda: managed.container("web")["address"] not in (None, str(squatted)), 40, "another lease for web")
    assert managed.lease("web") != squatted
    assert len(managed.service.events("declined")) == 1


def test_an_address_can_be_asked_for_before_the_container_exists(managed: Managed, serve: Serve) -> None:
    serve(Dnsmasq)
    managed.start(EXTERNAL)
    address = managed.service.ask("lease", "vlan1", "web").strip()
    assert FIRST <= IPv4Address(address) <= LAST
    managed.edge.run("web", "br0net", "--ip", address)
    assert managed.lease("web") == IPv4Address(address)


@pytest.mark.one_engine
def test_a_silent_server_is_told_and_the_rest_works(managed: Managed, site: Site) -> None:
    del site
    managed.start(EXTERNAL)
    managed.edge.run("web")
    managed.edge.run("other", "br1net")
    assert managed.lease("other", "br1net") == IPv4Address("10.0.2.100")
    wait_until(managed.warnings, 20, "a warning about web")
    assert "web has no lease on vlan1: see that its DHCP server runs" in managed.warnings()[0]
    assert managed.edge.ping("web", "198.51.100.9")


@pytest.mark.one_engine
def test_a_vlan_changes_between_its_own_server_and_another(managed: Managed, serve: Serve) -> None:
    serve(Dnsmasq)
    managed.start(OWN)
    managed.edge.run("container1")
    assert managed.lease("container1") == IPv4Address("10.0.1.30")
    managed.service.reload(managed.edge.config(EXTERNAL))
    wait_until(lambda: not managed.is_on_link("container1", "10.0.1.30"), 20, "another lease on the link")
    assert FIRST <= managed.lease("container1") <= LAST
    managed.service.reload(managed.edge.config(OWN))
    wait_until(lambda: managed.is_on_link("container1", "10.0.1.30"), 20, "the reserved address again")
