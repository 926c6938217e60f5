"""The engine's JSON, and what containers ask for."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from leasebroker.containers import (
    AT_REST,
    Container,
    Endpoint,
    Member,
    Network,
    gateway_choice,
    gateway_problem,
    is_transient,
    read_container,
    read_containers,
    read_network,
    wishes,
)
from tests.dhcpd.script import ip, mac
from tests.leasebroker.things import container

# -- reading

LISTED = {
    "Id": "4f2a9c0d1e7b",
    "Names": ["/web"],
    "Image": "tiny",
    "Created": 1_700_000_000,
    "Labels": {"lanward.identity": "shop"},
    "State": "running",
    "NetworkSettings": {
        "Networks": {
            "br0net": {
                "IPAMConfig": {"IPv4Address": "10.0.1.50"},
                "IPAddress": "10.0.1.240",
                "MacAddress": "02:00:00:00:00:07",
            },
            "bridge": {"IPAMConfig": None, "IPAddress": "", "MacAddress": ""},
        }
    },
}
READ = Container(
    "4f2a9c0d1e7b", "web", {"lanward.identity": "shop"}, "running", 1_700_000_000,
    {"br0net": Endpoint(mac(7), ip("10.0.1.240"), ip("10.0.1.50")), "bridge": Endpoint()},
)  # fmt: skip


def test_a_container_is_read() -> None:
    assert read_container(LISTED) == READ


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"Labels": None}, {"labels": {}}),
        ({"NetworkSettings": None}, {"endpoints": {}}),
        ({"NetworkSettings": {"Networks": None}}, {"endpoints": {}}),
        ({"Names": None}, {"name": "4f2a9c0d1e7b"}),
        ({"Names": []}, {"name": "4f2a9c0d1e7b"}),
        ({"Names": ["/front/db", "/web"]}, {"name": "web"}),
        ({"Names": ["/front/db"]}, {"name": "front/db"}),
    ],
)
def test_what_the_engine_leaves_out_is_empty(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert read_container(LISTED | changes) == READ._replace(**expected)


@pytest.mark.parametrize(
    "found",
    [
        None, [], "web", {}, LISTED | {"Created": None}, LISTED | {"Created": "soon"}, LISTED | {"Labels": 5},
        LISTED | {"Names": [7]}, LISTED | {"NetworkSettings": {"Networks": {"br0net": None}}},
        LISTED | {"NetworkSettings": {"Networks": {"br0net": {"MacAddress": "zz"}}}},
        LISTED | {"NetworkSettings": {"Networks": {"br0net": {"IPAddress": "10.0.1"}}}},
        LISTED | {"NetworkSettings": {"Networks": {"br0net": {"IPAddress": "fd00::1"}}}},
        LISTED | {"NetworkSettings": {"Networks": {"br0net": {"IPAddress": ["10.0.1.1"]}}}},
        *({key: value for key, value in LISTED.items() if key != missing} for missing in ("Id", "State", "Names")),
    ],
)  # fmt: skip
def test_a_container_that_is_described_in_an_unknown_way_is_an_error(found: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - what it says is the engine's answer
        read_container(found)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ({"MacAddress": "02-00-00-00-00-07"}, Endpoint(mac(7))),
        ({"MacAddress": "0200.0000.0007"}, Endpoint(mac(7))),
        ({"IPAMConfig": {"IPv4Address": "::ffff:10.0.1.50"}}, Endpoint(requested=ip("10.0.1.50"))),
        ({"IPAddress": "10.0.1.240/24"}, Endpoint(address=ip("10.0.1.240"))),
    ],
)
def test_macs_and_addresses_are_read_in_every_form_that_docker_takes(endpoint: Any, expected: Endpoint) -> None:
    found = read_container(LISTED | {"NetworkSettings": {"Networks": {"br0net": endpoint}}})
    assert found.endpoints == {"br0net": expected}


def test_one_that_cannot_be_read_is_named_and_the_others_are_read() -> None:
    odd = {"Id": "0123456789abcdef", "NetworkSettings": {"Networks": {"br0net": {"MacAddress": "zz"}}}}
    read, unread = read_containers([LISTED | odd | {"Names": ["/odd"]}, LISTED, LISTED | odd | {"Names": [7]}, None])
    assert read == [READ]
    assert list(unread) == ["odd", "0123456789ab", "?"]
    for word in ("container odd", "has no lease", "'zz' is no MAC address", "make it again"):
        assert word in unread["odd"]


INSPECTED = {
    "Id": "net-1",
    "Name": "br0net",
    "Driver": "bridge",
    "IPAM": {
        "Config": [
            {"Subnet": "fd00::/64", "Gateway": "fd00::1"},
            {"Subnet": "10.0.1.0/24", "IPRange": "10.0.1.240/28", "Gateway": "10.0.1.1"},
        ]
    },
    "Internal": False,
    "Options": {"com.docker.network.bridge.name": "br0"},
    "Containers": {
        "4f2a9c0d1e7b": {"Name": "web", "MacAddress": "02:00:00:00:00:07", "IPv4Address": "10.0.1.240/24"},
        "ep-9f8e7d": {"Name": "db", "MacAddress": "", "IPv4Address": ""},
    },
}
READ_NETWORK = Network(
    "net-1", "br0net", "bridge", IPv4Network("10.0.1.0/24"), ip("10.0.1.1"), IPv4Network("10.0.1.240/28"), False,
    {"com.docker.network.bridge.name": "br0"},
    (Member("4f2a9c0d1e7b", "web", mac(7), ip("10.0.1.240")), Member("ep-9f8e7d", "db", b"", 0)),
)  # fmt: skip


def test_a_network_is_read() -> None:
    assert read_network(INSPECTED) == READ_NETWORK


def test_ranges_of_a_network_may_be_named_by_any_address_in_them() -> None:
    pool = {"Subnet": "10.0.1.7/24", "IPRange": "10.0.1.241/28", "Gateway": "10.0.1.1"}
    assert read_network(INSPECTED | {"IPAM": {"Config": [pool]}}) == READ_NETWORK


@pytest.mark.parametrize("ipam", [None, {}, {"Config": None}, {"Config": []}, {"Config": [{"Subnet": "fd00::/64"}]}])
def test_a_network_without_ipv4_has_no_subnet(ipam: Any) -> None:
    found = read_network(INSPECTED | {"IPAM": ipam, "Options": None, "Containers": None})
    assert found == READ_NETWORK._replace(subnet=None, gateway=0, landing=None, options={}, members=())


@pytest.mark.parametrize(
    "found",
    [
        None, {}, [], INSPECTED | {"IPAM": "none"}, INSPECTED | {"Containers": {"a": {}}},
        INSPECTED | {"IPAM": {"Config": [{"Subnet": "10.0.1.7/33"}]}}, INSPECTED | {"Containers": {"a": None}},
        INSPECTED | {"IPAM": {"Config": [{"Subnet": "10.0.1.0/24", "Gateway": "router"}]}},
    ],
)  # fmt: skip
def test_a_network_that_is_described_in_an_unknown_way_is_an_error(found: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - what it says is the engine's answer
        read_network(found)


# -- identities


def identities(*containers: Container) -> dict[str, str]:
    """By the container's id."""
    return {id_: wish.identity for id_, wish in wishes(containers, "br0net").items()}


def test_a_container_is_known_by_its_name_or_its_label() -> None:
    assert identities(container("web")) == {"id-web": "web"}
    assert identities(container("web", labels={"identity": "shop"})) == {"id-web": "shop"}
    found = wishes([container("web", labels={"identity": "shop"})], "br0net")["id-web"]
    assert (found.hostname, found.address, found.problems) == ("shop", None, ())


def test_only_those_on_the_network_are_asked() -> None:
    assert identities(container("web"), container("db", networks=("br1net",)), container("off", networks=())) == {
        "id-web": "web"
    }


@pytest.mark.parametrize("turned", [False, True])
def test_an_identity_belongs_to_the_container_that_was_created_first(turned: bool) -> None:
    there = [
        container("old", created=1, labels={"identity": "shop"}),
        container("new", created=2, labels={"identity": "shop", "address": "10.0.1.50"}),
    ]
    found = wishes(there[::-1] if turned else there, "br0net")
    assert (found["id-old"].identity, found["id-new"].identity) == ("shop", "new")
    assert found["id-old"].problems == ()
    assert found["id-new"].address is None
    (problem,) = found["id-new"].problems
    for word in ("container new", "identity shop", "container old", "as new", "lanward.identity"):
        assert word in problem


def test_of_one_second_the_one_that_is_listed_first_has_the_identity() -> None:
    there = [container(name, labels={"identity": "shop"}) for name in ("one", "two")]
    assert identities(*there) == {"id-one": "shop", "id-two": "two"}
    assert identities(*there[::-1]) == {"id-one": "one", "id-two": "shop"}


def test_a_name_that_another_claims_belongs_to_whoever_was_first() -> None:
    thief = container("thief", created=1, labels={"identity": "web"})
    web = container("web", id_="0123456789abcdef", created=2)
    assert identities(thief, web) == {"id-thief": "web", "0123456789abcdef": "web@br0net"}
    assert identities(thief._replace(created=3), web) == {"0123456789abcdef": "web", "id-thief": "thief"}


def test_many_that_claim_one_identity_have_one_each() -> None:
    there = [container(f"c{number}", created=number, labels={"identity": "c3"}) for number in range(6)]
    found = identities(*there)
    assert found["id-c0"] == "c3"
    assert len(set(found.values())) == 6


def held(*containers: Container, **identities: str) -> list[str]:
    """What they go by, in their order, when some go by ``identities`` already."""
    found = wishes(containers, "br0net", {f"id-{name}": identity for name, identity in identities.items()})
    return [found[one.id].identity for one in containers]


def test_one_that_runs_keeps_what_it_goes_by() -> None:
    one, two = (container(name, created=at, labels={"identity": "gps"}) for at, name in enumerate(("one", "two")))
    assert held(one, two) == ["gps", "two"]
    assert held(one, two, two="gps") == ["one", "gps"]
    assert held(two, two="two") == ["two"]
    assert held(one._replace(created=5), two, two="two") == ["gps", "two"]
    assert held(container("web"), two, web="web@br0net") == ["web@br0net", "gps"]


def test_one_that_does_not_run_has_what_it_claims_when_that_is_free() -> None:
    two = container("two", labels={"identity": "gps"}, state="exited")
    assert held(two, two="two") == ["gps"]
    assert held(container("one", created=1, labels={"identity": "gps"}), two, two="gps") == ["gps", "two"]


def test_what_is_not_a_containers_any_more_is_not_kept() -> None:
    assert held(container("shop"), shop="web") == ["shop"]
    assert held(container("shop"), shop="") == ["shop"]
    one, two = (container(name, created=at, labels={"identity": "gps"}) for at, name in enumerate(("one", "two")))
    assert held(one, two, two="web") == ["gps", "two"]


def test_who_keeps_another_identity_than_the_one_it_claims_is_named() -> None:
    found = wishes([container("two", labels={"identity": "gps"})], "br0net", {"id-two": "two"})
    (problem,) = found["id-two"].problems
    for word in ("container two", "identity gps", "as two", "start it again"):
        assert word in problem


# -- labels


@pytest.mark.parametrize(
    ("labels", "requested", "address"),
    [
        ({}, "", None),
        ({}, "10.0.1.60", "10.0.1.60"),
        ({"address": "10.0.1.50"}, "", "10.0.1.50"),
        ({"address": "10.0.1.50"}, "10.0.1.60", "10.0.1.50"),
        ({"address": "here"}, "10.0.1.60", "10.0.1.60"),
    ],
)
def test_an_address_is_asked_for_by_label_or_by_ip(labels: dict[str, str], requested: str, address: str | None) -> None:
    endpoint = Endpoint(requested=ip(requested) if requested else 0)
    found = wishes([container(labels=labels, networks={"br0net": endpoint})], "br0net")["id-web"]
    assert found.address == (None if address is None else ip(address))


def test_a_host_name_is_asked_for_by_label() -> None:
    found = wishes([container(labels={"hostname": "till-7", "identity": "shop"})], "br0net")["id-web"]
    assert (found.identity, found.hostname) == ("shop", "till-7")


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("address", "10.0.1"), ("address", ""), ("address", "10.0.1.20/24"), ("address", "fd00::1"),
        ("address", "a\nb"),
        ("identity", ""), ("identity", "x"), ("identity", "two words"), ("identity", "-web"), ("identity", "käse"),
    ],
)  # fmt: skip
def test_a_label_that_is_no_good_is_named_and_ignored(label: str, value: str) -> None:
    found = wishes([container(labels={label: value})], "br0net")["id-web"]
    assert (found.identity, found.address) == ("web", None)
    (problem,) = found.problems
    for word in ("container web", f"lanward.{label}={value!r}", "expected", "ignored"):
        assert word in problem
    assert "\n" not in problem


def test_all_labels_that_are_no_good_are_named() -> None:
    found = wishes([container(labels={"address": "?", "identity": "?"})], "br0net")["id-web"]
    assert len(found.problems) == 2


# -- Compose


COMPOSE = {"com.docker.compose.project": "shop"}


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("0123456789ab_shop_web_1", COMPOSE, True),
        ("0123456789ab_shop_web_1", {}, False),
        ("shop_web_1", COMPOSE, False),
        ("0123456789_shop_web_1", COMPOSE, False),
        ("0123456789ag_shop_web_1", COMPOSE, False),
        ("shop_0123456789ab_web", COMPOSE, False),
        ("0123456789ab__", COMPOSE, False),
    ],
)
@pytest.mark.parametrize("state", ["created", "exited", "running", "paused"])
def test_names_that_compose_gives_for_the_time_being(
    name: str, labels: dict[str, str], expected: bool, state: str
) -> None:
    """Until the container runs: it was left with that name, and may have it for long."""
    is_at_rest = state in AT_REST
    assert is_transient(container(name, state=state)._replace(labels=labels)) is (expected and is_at_rest)


def test_one_that_runs_by_composes_name_for_the_time_being_is_known_by_its_own() -> None:
    left = container("0123456789ab_shop_web_1")._replace(labels=COMPOSE)
    assert identities(left) == {left.id: "shop_web_1"}
    new = container("shop_web_1", created=200)._replace(labels=COMPOSE)
    assert identities(left._replace(state="exited"), new)[new.id] == "shop_web_1"
    both = identities(left, new)
    assert both[new.id] == "shop_web_1" != both[left.id]


def test_a_container_that_compose_replaces_gives_its_identity_to_the_new_one() -> None:
    compose = COMPOSE | {"lanward.identity": "gps"}
    old = container("0123456789ab_shop_web_1", created=1, state="exited")._replace(labels=compose)
    new = container("shop_web_1", created=2, state="created")._replace(labels=compose)
    found = wishes([old, new], "br0net")
    assert (found[new.id].identity, found[new.id].problems) == ("gps", ())


# -- the default route

LEGS = [("vlan1", "br0net"), ("vlan2", "br1net"), ("vlan3", "br2net")]


@pytest.mark.parametrize(
    ("networks", "label", "expected"),
    [
        (["br0net"], None, "br0net"),
        (["br1net", "br0net"], None, "br0net"),
        (["br1net", "br0net"], "vlan2", "br1net"),
        (["br1net", "br0net"], "br1net", "br1net"),
        (["br1net", "br0net"], "vlan3", "br0net"),
        (["br1net", "br0net"], "", "br0net"),
        (["br1net", "br0net"], "false", None),
        (["br1net", "br0net"], "False", None),
        (["br1net", "bridge"], None, "br1net"),
        (["br1net", "bridge"], "bridge", "br1net"),
        (["bridge"], None, None),
        ([], "vlan1", None),
    ],
)
def test_by_whose_router_the_default_route_goes(networks: list[str], label: str | None, expected: str | None) -> None:
    labels = {} if label is None else {"gateway": label}
    assert gateway_choice(container(networks=networks, labels=labels), LEGS) == expected


@pytest.mark.parametrize("label", [None, "false", "FALSE", "vlan1", "br1net"])
def test_a_gateway_label_that_is_good(label: str | None) -> None:
    labels = {} if label is None else {"gateway": label}
    assert gateway_problem(container(networks=["br1net", "br0net"], labels=labels), LEGS) is None


@pytest.mark.parametrize("label", ["vlna2", "", "vlan3", "br2net", "true"])
def test_a_gateway_label_that_is_wrong_is_named(label: str) -> None:
    problem = gateway_problem(container(networks=["br1net", "br0net"], labels={"gateway": label}), LEGS)
    assert problem is not None
    for word in ("container web", f"lanward.gateway={label!r}", "(vlan1, vlan2)", "false", "goes by vlan1"):
        assert word in problem


def test_a_gateway_label_of_a_container_on_no_vlan_is_not_ours() -> None:
    assert gateway_problem(container(networks=["bridge"], labels={"gateway": "eth1"}), LEGS) is None
