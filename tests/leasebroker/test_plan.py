"""What is done inside a namespace, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leasebroker.plan import (
    LABEL,
    AddAddress,
    Address,
    Link,
    Pin,
    RemoveDetour,
    Route,
    SetDefault,
    SetDetour,
    View,
    plan,
)
from tests.dhcpd.script import ip, mac
from tests.leasebroker.kernel import Kernel, are_siblings, said

ROUTER, LEASE, DOCKER, OLD = "10.0.1.1", "10.0.1.20", "10.0.1.240", "10.0.1.50"
ETH0 = Link(2, "eth0", mac(2), 1500, is_up=True, promotes=False)
ETH1 = Link(3, "eth1", mac(3), 1500, is_up=True, promotes=False)
BY_ROUTER = Route(2, ip(ROUTER), ip(LEASE))
BY_DOCKER = Route(2, ip(ROUTER), 0)
ELSEWHERE = Route(3, ip("172.17.0.1"), 0)


def has(*texts: str, link: Link = ETH0) -> tuple[Address, ...]:
    """Addresses of a link, ours with a star: ``10.0.1.20*``."""
    return tuple(Address(link.ifindex, ip(one.rstrip("*")), 24, link.name + LABEL * one.endswith("*")) for one in texts)


def pin(address: str = LEASE, **changes: Any) -> Pin:
    fields: dict[str, Any] = {"mac": ETH0.mac, "address": ip(address), "prefix": 24, "docker": ip(DOCKER)}
    return Pin(**(fields | changes))


def steps(view: View, *pins: Pin) -> list[str]:
    return [said(one) for one in plan(view, pins)]


@pytest.mark.parametrize(
    ("there", "wanted"),
    [
        (
            ["10.0.1.240"],
            [
                "add eth0 10.0.1.20/24 eth0:lw",
                "promote eth0",
                "remove eth0 10.0.1.240/24",
                "add eth0 10.0.1.240/24 eth0",
                "announce eth0 10.0.1.20",
            ],
        ),
        (["10.0.1.20", "10.0.1.240"], []),
        (["10.0.1.20*", "10.0.1.240"], []),
        (["10.0.1.20*"], ["add eth0 10.0.1.240/24 eth0"]),
        (["10.0.1.240", "10.0.1.20*"], ["promote eth0", "remove eth0 10.0.1.240/24", "add eth0 10.0.1.240/24 eth0"]),
        (
            ["10.0.1.50*", "10.0.1.240"],
            [
                "add eth0 10.0.1.20/24 eth0:lw",
                "promote eth0",
                "remove eth0 10.0.1.50/24",
                "remove eth0 10.0.1.240/24",
                "add eth0 10.0.1.240/24 eth0",
                "announce eth0 10.0.1.20",
            ],
        ),
        (["10.0.1.20*", "10.0.1.50*", "10.0.1.240"], ["remove eth0 10.0.1.50/24"]),
        (["10.0.1.20*", "10.0.1.77", "10.0.1.240"], []),
        (
            ["10.0.1.77", "10.0.1.20*", "10.0.1.240"],
            ["promote eth0", "remove eth0 10.0.1.77/24", "add eth0 10.0.1.77/24 eth0"],
        ),
        (
            [],
            ["add eth0 10.0.1.20/24 eth0:lw", "add eth0 10.0.1.240/24 eth0", "announce eth0 10.0.1.20"],
        ),
    ],
    ids=[
        "new", "docker gave it", "as it shall be", "docker's is missing", "docker's is first", "another lease before",
        "an old one left", "somebody else's stays", "somebody else's goes behind", "a bare link",
    ],
)  # fmt: skip
def test_the_lease_is_first_and_dockers_address_stays(there: list[str], wanted: list[str]) -> None:
    assert steps(View((ETH0,), has(*there)), pin()) == wanted


def test_a_link_that_promotes_is_not_told_to() -> None:
    view = View((ETH0._replace(promotes=True),), has(DOCKER, LEASE))
    assert steps(view, pin()) == ["remove eth0 10.0.1.240/24", "add eth0 10.0.1.240/24 eth0"]


def test_addresses_of_other_subnets_and_links_are_left_alone() -> None:
    wide = Address(2, ip("10.0.1.99"), 16, "eth0:lw")
    view = View((ETH0, ETH1), (wide, *has(LEASE, DOCKER), *has("10.0.1.50*", "10.9.0.5*", link=ETH1)))
    assert steps(view, pin()) == []


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_address_that_is_anothers_goes_wherever_it_stands(at: int) -> None:
    there = [LEASE, DOCKER]
    there.insert(at, "10.0.1.77")
    assert "remove eth0 10.0.1.77/24" in steps(View((ETH0,), has(*there)), pin(not_its=frozenset({ip("10.0.1.77")})))
    assert "add eth0 10.0.1.77/24 eth0" not in steps(
        View((ETH0,), has(*there)), pin(not_its=frozenset({ip("10.0.1.77")}))
    )


def test_dockers_address_goes_when_it_is_anothers_and_does_not_come_back() -> None:
    anothers = pin(not_its=frozenset({ip(DOCKER)}))
    assert steps(View((ETH0,), has(LEASE, DOCKER)), anothers) == ["remove eth0 10.0.1.240/24"]
    assert steps(View((ETH0,), has(LEASE)), anothers) == []


def test_without_an_address_of_dockers_none_is_added() -> None:
    assert steps(View((ETH0,), has(LEASE)), pin(docker=0)) == []
    assert steps(View((ETH0,), has(LEASE)), pin(docker=ip(LEASE))) == []


def test_an_address_of_ours_that_docker_gives_now_stays() -> None:
    assert steps(View((ETH0,), has("10.0.1.20*", "10.0.1.50*")), pin(docker=ip(OLD))) == []


def test_a_label_fits_into_what_kernels_keep() -> None:
    link = ETH0._replace(name="a-name-of-15-by")
    added = plan(View((link,)), [pin(docker=0)])[0]
    assert isinstance(added, AddAddress)
    assert added.address.label == "a-name-of-15:lw"
    assert len(added.address.label.encode()) == 15


def test_the_mtu_comes_first() -> None:
    assert steps(View((ETH0,), has(LEASE, DOCKER)), pin(mtu=1400)) == ["mtu eth0 1400"]
    assert steps(View((ETH0,), has(LEASE, DOCKER)), pin(mtu=1500)) == []
    assert steps(View((ETH0,), has(DOCKER)), pin(mtu=1400))[0] == "mtu eth0 1400"


@pytest.mark.parametrize("links", [(), (ETH1,), (ETH0._replace(is_up=False),)], ids=["none", "another", "down"])
def test_a_link_that_is_not_there_or_not_up_waits(links: tuple[Link, ...]) -> None:
    assert steps(View(links, has(DOCKER)), pin(gateway=ip(ROUTER))) == []


DEFAULT, DETOUR = "default eth0 10.0.1.1 from 10.0.1.20", "detour eth0 10.0.1.1 from 10.0.1.20"


@pytest.mark.parametrize(
    ("routes", "changes", "wanted"),
    [
        ([BY_ROUTER], {}, []),
        ([BY_DOCKER], {}, [DEFAULT]),
        ([BY_DOCKER], {"is_started": False}, [DEFAULT]),
        ([BY_DOCKER], {"gateway": 0}, []),
        ([Route(2, ip(ROUTER), ip(OLD))], {}, [DEFAULT]),
        ([BY_ROUTER._replace(metric=100)], {}, [DEFAULT]),
        ([BY_ROUTER._replace(metric=100), BY_ROUTER], {}, []),
        ([], {}, [DEFAULT]),
        ([], {"is_started": False}, []),
        ([], {"is_alone": False}, [DETOUR]),
        ([], {"is_alone": False, "is_started": False}, []),
        ([ELSEWHERE], {"is_alone": False}, [DETOUR]),
        ([ELSEWHERE], {"is_alone": False, "is_started": False}, [DETOUR]),
        ([ELSEWHERE], {"is_alone": False, "gateway": 0}, []),
        ([BY_ROUTER._replace(metric=100), ELSEWHERE], {"is_alone": False}, [DETOUR]),
        ([BY_DOCKER, ELSEWHERE._replace(metric=100)], {"is_alone": False}, [DEFAULT]),
        ([Route(2, ip("10.0.1.2"), 0)], {}, [DETOUR]),
        ([Route(3, ip(ROUTER), 0)], {}, [DETOUR]),
    ],
    ids=[
        "as it shall be", "docker's", "docker's, about to start", "not its link", "an earlier source", "another metric",
        "another metric as well", "none", "none yet", "none and two networks", "none yet and two networks",
        "another network's", "another network's, about to start", "another network's, and right", "the best counts",
        "the best is docker's", "another gateway of the subnet",
        "another link to a gateway of that address",
    ],
)  # fmt: skip
def test_the_default_route(routes: list[Route], changes: dict[str, Any], wanted: list[str]) -> None:
    view = View((ETH0, ETH1), has(LEASE, DOCKER), tuple(routes))
    assert steps(view, pin(**({"gateway": ip(ROUTER)} | changes))) == wanted


@pytest.mark.parametrize(
    ("routes", "detour", "is_left", "wanted"),
    [
        ([ELSEWHERE], BY_ROUTER, True, []),
        ([ELSEWHERE], BY_ROUTER._replace(source=ip(OLD)), True, [DETOUR]),
        ([ELSEWHERE], None, True, [DETOUR]),
        ([BY_ROUTER], BY_ROUTER, True, ["no detour"]),
        ([BY_ROUTER], None, True, ["no detour"]),
        ([BY_DOCKER], BY_ROUTER, True, [DEFAULT, "no detour"]),
        ([], BY_ROUTER, True, [DEFAULT, "no detour"]),
    ],
)
def test_a_detour_goes_when_the_default_route_is_the_routers(
    routes: list[Route], detour: Route | None, is_left: bool, wanted: list[str]
) -> None:
    view = View((ETH0, ETH1), has(LEASE, DOCKER), tuple(routes), detour, is_left)
    assert steps(view, pin(gateway=ip(ROUTER))) == wanted


def test_the_route_comes_after_its_source_and_before_the_announcement() -> None:
    view = View((ETH0,), has(DOCKER), (BY_DOCKER,))
    assert steps(view, pin(gateway=ip(ROUTER)))[-2:] == [DEFAULT, "announce eth0 10.0.1.20"]


def test_of_several_links_one_has_the_default_route() -> None:
    view = View((ETH0, ETH1), (*has(DOCKER), *has("10.0.2.240", link=ETH1)), (BY_DOCKER,))
    one = pin(gateway=ip(ROUTER), is_alone=False)
    two = pin("10.0.2.20", mac=ETH1.mac, docker=ip("10.0.2.240"), is_alone=False)
    found = steps(view, one, two)
    assert [step for step in found if "default" in step or "detour" in step] == [DEFAULT]
    assert [step for step in found if step.startswith("announce")] == [
        "announce eth0 10.0.1.20",
        "announce eth1 10.0.2.20",
    ]
    assert found[found.index("announce eth0 10.0.1.20") + 1] == "add eth1 10.0.2.20/24 eth1:lw"


# -- from any view

LINKS = (ETH0, ETH1)
NUMBERS = st.integers(2, 7)
PREFIXES = st.sampled_from((24, 24, 24, 16))
FLAG = st.booleans()


def base(link: Link) -> int:
    return ip(f"10.0.{link.ifindex - 1}.0")


@st.composite
def kernels(draw: st.DrawFn) -> Kernel:
    """A namespace in which somebody, or an earlier router, has worked."""
    links = [
        link._replace(promotes=draw(FLAG), is_up=draw(st.integers(0, 9)) > 0, mtu=draw(st.sampled_from((1400, 1500))))
        for link in LINKS
    ]
    kernel = Kernel(links)
    for link in links:
        for number, prefix in draw(st.lists(st.tuples(NUMBERS, PREFIXES), unique=True, max_size=6)):
            label = link.name + LABEL * draw(FLAG)
            kernel.do(AddAddress(Address(link.ifindex, base(link) + number, prefix, label)))
    reachable = [link for link in links if link.is_up and kernel.addresses[link.ifindex]]
    metrics: set[int] = draw(st.sets(st.sampled_from((0, 100)))) if reachable else set()
    for metric in metrics:
        kernel.defaults[metric] = draw(routes(kernel, reachable))._replace(metric=metric)
    if draw(FLAG) and reachable:
        kernel.detour = draw(routes(kernel, reachable))
    kernel.has_rules = draw(FLAG)
    return kernel


@st.composite
def routes(draw: st.DrawFn, kernel: Kernel, links: list[Link]) -> Route:
    """By the router, with or without a source of ours, or by somebody else."""
    link = draw(st.sampled_from(links))
    if draw(FLAG):
        return Route(link.ifindex, base(link) + 254, 0)
    sources = [0, *(one.address for one in kernel.addresses[link.ifindex])]
    return Route(link.ifindex, base(link) + 1, draw(st.sampled_from(sources)))


@st.composite
def pins(draw: st.DrawFn) -> list[Pin]:
    """One for each of some links; the default route is by one of them, or by none."""
    chosen: list[Link] = draw(st.lists(st.sampled_from(LINKS), unique=True, min_size=1))
    by = draw(st.none() | st.sampled_from(chosen))
    is_alone, is_started = draw(FLAG) and len(chosen) == 1, draw(FLAG)
    found = []
    for link in chosen:
        address = base(link) + draw(NUMBERS)
        found.append(
            Pin(
                link.mac,
                address,
                24,
                gateway=base(link) + 1 if link is by else 0,
                mtu=draw(st.sampled_from((0, 1400))),
                docker=draw(st.just(0) | NUMBERS.map(base(link).__add__)),
                is_alone=is_alone,
                is_started=is_started,
                not_its=frozenset(draw(st.sets(NUMBERS.map(base(link).__add__), max_size=3)) - {address}),
            )
        )
    return found


def siblings(kernel: Kernel, link: Link, one: Pin) -> list[Address]:
    like = Address(link.ifindex, one.address, one.prefix, "")
    return [address for address in kernel.addresses[link.ifindex] if are_siblings(address, like)]


def check_any_view(kernel: Kernel, wanted: list[Pin]) -> None:
    by_mac = {link.mac: link for link in kernel.links.values()}
    pinned = [(by_mac[one.mac], one) for one in wanted if by_mac[one.mac].is_up]
    others = {link.ifindex: list(kernel.addresses[link.ifindex]) for link in LINKS}
    before = {(route.metric, route.ifindex) for route in kernel.view().defaults}
    for operation in plan(kernel.view(), wanted):
        bare = {link.ifindex for link, one in pinned if not siblings(kernel, link, one)}
        kernel.do(operation)
        assert bare >= {link.ifindex for link, one in pinned if not siblings(kernel, link, one)}
    if not before <= {(route.metric, route.ifindex) for route in kernel.view().defaults}:
        for operation in plan(kernel.view(), wanted):
            assert isinstance(operation, SetDefault | SetDetour | RemoveDetour)
            kernel.do(operation)
    assert plan(kernel.view(), wanted) == []
    for link, one in pinned:
        found = [address.address for address in siblings(kernel, link, one)]
        assert found[0] == one.address
        assert not one.not_its & set(found)
        assert one.docker in {0, *one.not_its, *found}
        like = Address(link.ifindex, one.address, one.prefix, "")
        kept = [address for address in others[link.ifindex] if not are_siblings(address, like)]
        assert [address for address in kernel.addresses[link.ifindex] if not are_siblings(address, like)] == kept
        foreign = {
            address.address for address in others[link.ifindex] if not address.label.endswith(LABEL)
        } - one.not_its
        assert foreign <= {address.address for address in kernel.addresses[link.ifindex]}
        if one.gateway and one.is_started:
            by = (link.ifindex, one.gateway, one.address)
            view = kernel.view()
            assert by in {route[:3] for route in (view.detour, *view.defaults[:1]) if route is not None}


def test_from_any_view_one_plan_leads_to_the_pins(count: Callable[[int, int], int]) -> None:
    """And on the way no link is without an address of its subnet that had one, and nothing is asked of the kernel that
    it refuses. When an old address took a default route with it, a second look sees to the routes."""

    @settings(max_examples=count(1000, 30_000), deadline=None)
    @given(kernels(), pins())
    def check(kernel: Kernel, wanted: list[Pin]) -> None:
        check_any_view(kernel, wanted)

    check()
