"""Which lease a container gets: by its name, its labels, its requests; and that it keeps it."""

from __future__ import annotations

import subprocess
import time
from contextlib import closing
from ipaddress import IPv4Address, IPv4Interface

import docker
import pytest

from tests.docker.managed import Managed
from tests.lab.netns import wait_until
from tests.lab.service import REPOSITORY


def test_a_container_is_on_its_vlan_like_a_device(managed: Managed) -> None:
    managed.edge.place("device1", "10.0.1.20")
    managed.start()
    managed.edge.run("web")
    lease = managed.lease("web")
    assert lease == IPv4Address("10.0.1.100")
    first, docker = managed.edge.addresses("web")
    assert first == IPv4Interface("10.0.1.100/24")
    assert docker.ip in managed.edge.truck.plan.vlan("vlan1").landing
    assert managed.source("web") == ("10.0.1.1", "10.0.1.100")
    assert managed.edge.ping("device1", lease)
    assert managed.edge.ping("web", "10.0.1.20")
    assert managed.edge.ping("web", "198.51.100.9")
    assert not managed.edge.ping("web", "10.0.2.1")
    (row,) = [row for row in managed.service.leases() if row["container"] == "web"]
    assert (row["vlan"], row["kind"], row["state"]) == ("vlan1", "container", "bound")
    assert row["mac"] == managed.container("web")["mac"]


def test_docker_reaches_it_as_before(managed: Managed) -> None:
    """Docker's DNS, health checks and published ports use the address that Docker gave."""
    managed.start()
    serve = ("sh", "-c", "while :; do echo served | nc -l -p 80; done")
    managed.edge.run("web", "br0net", "--network-alias", "www", command=serve)
    managed.edge.run("client", "br0net")
    managed.lease("web")
    managed.lease("client")
    asked = managed.engine.docker("exec", "client", "nc", "-w", "2", "www", "80")
    assert asked == "served"


def test_a_reservation_by_name_is_honoured(managed: Managed) -> None:
    managed.start()
    managed.edge.run("container1")
    assert managed.lease("container1") == IPv4Address("10.0.1.30")


def test_a_removed_container_has_its_address_again(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web")
    managed.edge.run("other")
    first = managed.lease("web")
    managed.lease("other")
    for _ in range(3):
        managed.engine.docker("rm", "--force", "web")
        managed.edge.run("web")
        assert managed.lease("web") == first


def test_a_container_that_is_made_again_at_once_is_the_same_one(managed: Managed) -> None:
    """As programs do it by the engine's API: made before a look at all says that the first one is gone."""
    managed.start()
    managed.edge.run("web")
    first = managed.lease("web")
    with closing(docker.APIClient(base_url=f"unix://{managed.engine.socket}")) as api:
        for _ in range(5):
            api.remove_container("web", force=True)
            host = api.create_host_config(network_mode="br0net")
            api.start(api.create_container("lanward-test", name="web", host_config=host))
            assert managed.lease("web") == first
    assert {row["container"] for row in managed.service.leases()} == {None, "container1", "web"}
    assert not managed.service.events("containers")


def test_a_name_with_a_dot_is_no_pattern(managed: Managed) -> None:
    """Docker's filter by name takes one: `app.1` would match the younger `app-1` as well."""
    managed.start()
    for name in ("app.1", "app-1"):
        managed.edge.run(name)
    before = [managed.lease("app.1"), managed.lease("app-1")]
    managed.service.kill9()
    managed.start()
    assert [managed.lease("app.1"), managed.lease("app-1")] == before
    assert before[1] not in {one.ip for one in managed.edge.addresses("app.1")}


def test_the_identity_label_goes_before_the_name(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web-1", "br0net", "--label", "lanward.identity=web", "--label", "lanward.hostname=shop")
    first = managed.lease("web-1")
    managed.engine.docker("rm", "--force", "web-1")
    managed.edge.run("web-2", "br0net", "--label", "lanward.identity=web")
    assert managed.lease("web-2") == first
    assert [row["container"] for row in managed.service.leases() if row["address"] == str(first)] == ["web"]


def test_who_runs_keeps_its_address_when_the_other_claimant_is_made_again(managed: Managed) -> None:
    claim = ("--label", "lanward.identity=gps")
    managed.start()
    before = {}
    for name in ("one", "two"):
        managed.edge.run(name, "br0net", *claim)
        before[name] = managed.lease(name)
    for _ in range(2):
        managed.engine.docker("rm", "--force", "one")
        wait_until(lambda: not managed.container("one"), 5, "its removal to be seen")
        managed.edge.run("one", "br0net", *claim)
        assert {name: managed.lease(name) for name in before} == before


def test_a_container_whose_name_is_claimed_by_another_has_one_address(managed: Managed) -> None:
    managed.start()
    managed.edge.run("other", "br0net", "--label", "lanward.identity=web")
    managed.lease("other")
    found = set()
    for _ in range(3):
        managed.edge.run("web")
        found.add(managed.lease("web"))
        managed.engine.docker("rm", "--force", "web")
    assert len(found) == 1


def test_what_compose_leaves_with_a_name_for_the_time_being_has_its_lease(managed: Managed) -> None:
    """An interrupted replacement: the new container is started later as it is."""
    compose = ("--label", "com.docker.compose.project=shop")
    managed.start()
    managed.edge.run("shop-web-1", "br0net", *compose)
    first = managed.lease("shop-web-1")
    left = f"{managed.container('shop-web-1')['id'][:12]}_shop-web-1"
    managed.engine.docker("create", "--name", left, "--network", "br0net", *compose, "lanward-test")
    managed.engine.docker("rm", "--force", "shop-web-1")
    managed.engine.docker("start", left)
    assert managed.lease(left) == first


def test_the_second_claimant_of_an_identity_has_its_own_address(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web")
    managed.edge.run("rival", "br0net", "--label", "lanward.identity=web")
    assert managed.lease("web") != managed.lease("rival")
    assert managed.container("rival")["identity"] == "rival"
    (warning,) = managed.warnings()
    assert "rival claims the identity web of container web" in warning


@pytest.mark.parametrize(
    "option",
    [["--label", "lanward.address=10.0.1.77"], ["--ip", "10.0.1.77"], ["--ip", "::ffff:10.0.1.77"]],
    ids=["label", "ip", "mapped"],
)
def test_an_address_that_is_asked_for_is_given_when_it_is_free(managed: Managed, option: list[str]) -> None:
    """Also outside the pools, and then for good."""
    managed.start()
    managed.edge.run("web", "br0net", *option)
    assert managed.lease("web") == IPv4Address("10.0.1.77")
    managed.engine.docker("rm", "--force", "web")
    managed.service.stop()
    managed.service.start()
    managed.edge.run("web")
    assert managed.lease("web") == IPv4Address("10.0.1.77")


@pytest.mark.parametrize("mac", ["02-42-0a-00-01-55", "0242.0a00.0155"])
def test_a_mac_may_be_written_as_docker_takes_it(managed: Managed, mac: str) -> None:
    managed.engine.docker("create", "--name", "odd", "--network", "br0net", "--mac-address", mac, "lanward-test")
    managed.start()
    managed.edge.run("web")
    managed.lease("web")
    managed.engine.docker("start", "odd")
    managed.lease("odd")
    assert managed.container("odd")["mac"] == "02:42:0a:00:01:55"


def test_an_address_that_is_anothers_is_not_given_nor_kept_on_the_link(managed: Managed) -> None:
    """10.0.1.20 is reserved for device1: the container would take it from the device."""
    managed.start()
    managed.edge.run("web", "br0net", "--ip", "10.0.1.20")
    assert managed.lease("web") == IPv4Address("10.0.1.100")
    assert managed.edge.addresses("web") == [IPv4Interface("10.0.1.100/24")]
    (warning,) = managed.warnings()
    assert "web asks for 10.0.1.20" in warning


def test_a_lease_that_is_a_devices_now_goes_from_the_link_also_when_there_is_no_other(managed: Managed) -> None:
    """The container falls back to the address that Docker gave."""
    text = (REPOSITORY / "lanward.toml").read_text().replace("10.0.1.100-10.0.1.199", "10.0.1.100-10.0.1.100")
    managed.start(text)
    managed.edge.run("web")
    assert managed.lease("web") == IPv4Address("10.0.1.100")
    docker = managed.edge.addresses("web")[1]
    managed.service.reload(managed.edge.config(text.replace('address = "10.0.1.20"', 'address = "10.0.1.100"')))
    wait_until(lambda: managed.edge.addresses("web") == [docker], 5, "the container to have Docker's address only")
    wait_until(lambda: managed.source("web") == ("10.0.1.1", str(docker.ip)), 5, "the route to have it as its source")
    (warning,) = managed.warnings()
    assert "container web has no lease on vlan1" in warning


def test_a_label_with_a_bad_address_is_named(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web", "br0net", "--label", "lanward.address=10.0.1.300")
    assert managed.lease("web") == IPv4Address("10.0.1.100")
    (warning,) = managed.warnings()
    assert "label lanward.address='10.0.1.300'" in warning


def test_a_container_on_two_vlans_has_two_leases_and_one_way_out(managed: Managed) -> None:
    managed.start()
    managed.engine.docker("create", "--name", "gate", "--network", "br1net", "lanward-test")
    managed.engine.docker("network", "connect", "br0net", "gate")
    managed.engine.docker("start", "gate")
    assert managed.lease("gate", "br1net") == IPv4Address("10.0.2.100")
    assert managed.lease("gate", "br0net") == IPv4Address("10.0.1.100")
    wait_until(lambda: managed.source("gate") == ("10.0.1.1", "10.0.1.100"), 5, "the way out by the first VLAN")


def test_the_gateway_label_chooses_the_way_out(managed: Managed) -> None:
    managed.start()
    managed.edge.run("gate", "br0net", "--label", "lanward.gateway=vlan2")
    managed.engine.docker("network", "connect", "br1net", "gate")
    managed.lease("gate", "br1net")
    wait_until(lambda: managed.source("gate") == ("10.0.2.1", "10.0.2.100"), 5, "the way out by vlan2")
    managed.engine.docker("network", "create", "--subnet", "10.9.0.0/24", "a-third")
    managed.engine.docker("network", "connect", "a-third", "gate")
    managed.engine.docker("network", "disconnect", "br1net", "gate")
    wait_until(lambda: managed.source("gate") == ("10.0.1.1", "10.0.1.100"), 5, "the way out by what is left")
    managed.engine.docker("network", "disconnect", "a-third", "gate")
    managed.engine.docker("network", "rm", "a-third")


def test_a_gateway_label_that_names_no_vlan_is_named(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web", "br0net", "--label", "lanward.gateway=vlna2")
    managed.lease("web")
    (warning,) = managed.warnings()
    assert "label lanward.gateway='vlna2'" in warning


def test_docker_may_keep_the_way_out(managed: Managed) -> None:
    managed.start()
    managed.edge.run("own", "br0net", "--label", "lanward.gateway=false")
    lease = managed.lease("own")
    assert managed.edge.addresses("own")[0].ip == lease
    assert managed.edge.routes("own") == ["default via 10.0.1.1 dev eth0"]


def test_containers_and_devices_share_one_book(managed: Managed) -> None:
    """A container has what is reserved for no device, and asks for nothing that a device holds."""
    managed.start()
    for number in range(4):
        managed.edge.run(f"c{number}")
    leases = [managed.lease(f"c{number}") for number in range(4)]
    assert leases == [IPv4Address(f"10.0.1.{100 + number}") for number in range(4)]


def test_drift_is_repaired(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web")
    lease = str(managed.lease("web"))
    wait_until(lambda: managed.container("web")["state"] == "running", 5, "the container to be known to run")
    managed.edge.out("web", "ip", "addr", "del", f"{lease}/24", "dev", "eth0")
    wait_until(lambda: managed.is_on_link("web", lease), 5, "the address to be back")
    managed.edge.out("web", "ip", "route", "replace", "default", "via", "10.0.1.9")
    wait_until(lambda: managed.source("web") == ("10.0.1.1", lease), 5, "the route to be back")
    managed.edge.out("web", "ip", "route", "del", "default")
    wait_until(lambda: managed.source("web") == ("10.0.1.1", lease), 5, "the route to be back")
    assert managed.service.events("pin_repaired")


def test_a_link_that_has_lost_all_addresses_has_them_again(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web")
    lease = str(managed.lease("web"))
    before = managed.edge.addresses("web")
    wait_until(lambda: managed.container("web")["state"] == "running", 5, "the container to be known to run")
    managed.edge.out("web", "ip", "addr", "flush", "dev", "eth0")
    wait_until(lambda: managed.edge.addresses("web") == before, 5, "the addresses to be back")
    wait_until(lambda: managed.source("web") == ("10.0.1.1", lease), 5, "the route to be back")


def test_a_link_that_is_down_is_not_shown_as_pinned(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web")
    managed.lease("web")
    wait_until(lambda: managed.container("web")["state"] == "running", 5, "the container to be known to run")
    managed.edge.out("web", "sh", "-c", "ip link set eth0 down; ip addr flush dev eth0")
    wait_until(lambda: managed.container("web")["pinned"] is None, 5, "the lease to be gone")
    managed.edge.out("web", "ip", "link", "set", "eth0", "up")
    managed.lease("web")


@pytest.mark.one_engine
def test_a_container_that_undoes_each_repair_is_a_warning(managed: Managed) -> None:
    """And costs the others nothing: it waits for its next repair, also for the one after it has given up."""
    managed.start()
    managed.edge.run("web")
    lease = str(managed.lease("web"))
    wait_until(lambda: managed.container("web")["state"] == "running", 5, "the container to be known to run")
    undo = f"while :; do ip addr del {lease}/24 dev eth0 2>/dev/null; sleep 0.02; done"
    with subprocess.Popen([*managed.edge.enter("web"), "sh", "-c", undo]) as fighting:
        try:
            wait_until(managed.warnings, 20, "a warning")
            (warning,) = managed.warnings()
            before = managed.paths().get("drift", 0)
            time.sleep(3)
            assert managed.paths().get("drift", 0) - before <= 5
            assert len(managed.service.events("pin_repaired")) <= 25
        finally:
            fighting.kill()
    assert "something in container web changes its addresses or routes again and again" in warning
    wait_until(lambda: managed.is_on_link("web", lease), 30, "the lease to be back")


def test_a_route_that_the_engine_rewrites_is_set_again(managed: Managed) -> None:
    managed.start()
    managed.edge.run("web")
    lease = str(managed.lease("web"))
    managed.engine.docker("network", "connect", "br1net", "web")
    managed.lease("web", "br1net")
    wait_until(lambda: managed.source("web") == ("10.0.1.1", lease), 5, "the route by the first VLAN")
    managed.engine.docker("network", "disconnect", "br1net", "web")
    wait_until(lambda: managed.source("web") == ("10.0.1.1", lease), 5, "the route by the only VLAN")
