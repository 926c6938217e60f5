"""What the kernel shows in a namespace, and changes to it, in namespaces of the real kernel."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dhcpd.wire import arp_sender
from leasebroker.netns import Folder, GoneError, Space, apply, inside, look, own_macs
from leasebroker.plan import (
    AddAddress,
    Address,
    Announce,
    Link,
    Operation,
    Promote,
    RemoveAddress,
    RemoveDetour,
    Route,
    SetDefault,
    SetDetour,
    SetMtu,
    View,
)
from tests.dhcpd.script import ip, mac
from tests.lab.netns import wait_until
from tests.leasebroker.boxes import Box, box, opened
from tests.leasebroker.kernel import Kernel, RefusedError

ROUTER, LEASE, DOCKER = ip("10.0.1.1"), ip("10.0.1.20"), ip("10.0.1.240")
DETOUR_TABLE = "27767"
ARP = 0x0806


pytestmark = pytest.mark.usefixtures("needs_root")


@pytest.fixture
def one() -> Iterator[Box]:
    with box() as found:
        yield found


@pytest.fixture
def descriptor(one: Box) -> Iterator[int]:
    with opened(one.path) as found:
        yield found


def ours(address: int, prefix: int = 24, label: str = "eth0:lw") -> Address:
    return Address(2, address, prefix, label)


# -- look


def as_shown(one: Box) -> View:
    """A view made of what ``ip`` prints."""
    links, addresses, routes = one.show("link"), one.show("-4", "addr"), one.show("-4", "route", "show", "default")
    return View(
        tuple(
            Link(
                link["ifindex"], link["ifname"], bytes.fromhex(link["address"].replace(":", "")), link["mtu"],
                "UP" in link["flags"], _promotes(one, link["ifname"]),
            )
            for link in links
        ),
        tuple(
            Address(link["ifindex"], ip(each["local"]), each["prefixlen"], each["label"])
            for link in addresses
            for each in link.get("addr_info", ())
        ),
        tuple(
            Route(
                next(link["ifindex"] for link in links if link["ifname"] == route["dev"]),
                ip(route.get("gateway", "0.0.0.0")), ip(route.get("prefsrc", "0.0.0.0")), route.get("metric", 0),
            )
            for route in routes
            if route["type"] == "unicast"
        ),
    )  # fmt: skip


def _promotes(one: Box, name: str) -> bool:
    with opened(one.path) as descriptor, inside(descriptor):
        return Path(f"/proc/sys/net/ipv4/conf/{name}/promote_secondaries").read_text() == "1\n"


def test_a_view_is_what_ip_shows(one: Box, descriptor: int) -> None:
    assert look(descriptor) == as_shown(one)
    one.ip(
        "addr add 10.0.1.240/24 brd + dev eth0",
        "addr add 10.0.1.20/24 label eth0:lw dev eth0",
        "addr add 10.9.0.5/16 dev eth0",
        "addr add 10.0.1.77/24 dev eth0",
        "addr add 10.0.2.240/24 dev eth1",
        "addr add fd00::5/64 dev eth1",
        "link set eth1 mtu 1400",
        "route add default via 10.0.1.1 src 10.0.1.20",
        "route add default via 10.0.2.1 metric 100",
        "route add default dev eth1 metric 200",
        "route add 10.5.0.0/16 via 10.0.1.1",
        "route add default via 10.0.2.1 table 100",
        "route add unreachable default metric 4000",
    )
    one.promote("eth1", 1)
    view = look(descriptor)
    assert view._replace(defaults=()) == as_shown(one)._replace(defaults=())
    assert [each.name for each in view.links] == ["lo", "eth0", "eth1"]
    assert [each.promotes for each in view.links] == [False, False, True]
    assert [each.address for each in view.addresses[:2]] == [DOCKER, ip("10.9.0.5")]
    assert view.defaults == (
        Route(2, ROUTER, LEASE), Route(3, ip("10.0.2.1"), 0, 100), Route(3, 0, 0, 200),
    )  # fmt: skip
    one.ip("link set eth1 down")
    assert look(descriptor) == as_shown(one)._replace(defaults=(Route(2, ROUTER, LEASE),))


def test_a_detour_counts_when_it_is_whole(one: Box, descriptor: int) -> None:
    one.ip("addr add 10.0.1.20/24 dev eth0")
    wanted = Route(2, ROUTER, LEASE)
    assert (look(descriptor).detour, look(descriptor).is_detour_left) == (None, False)
    apply(descriptor, [SetDetour(wanted)])
    assert (look(descriptor).detour, look(descriptor).is_detour_left) == (wanted, True)
    one.ip("rule del priority 30000")
    assert (look(descriptor).detour, look(descriptor).is_detour_left) == (None, True)
    apply(descriptor, [SetDetour(wanted)])
    assert look(descriptor).detour == wanted
    one.ip(f"route flush table {DETOUR_TABLE}")
    assert (look(descriptor).detour, look(descriptor).is_detour_left) == (None, True)
    apply(descriptor, [RemoveDetour()])
    assert (look(descriptor).detour, look(descriptor).is_detour_left) == (None, False)
    apply(descriptor, [RemoveDetour()])


def test_the_macs_of_the_own_namespace(descriptor: int) -> None:
    with inside(descriptor):
        assert own_macs() == {mac(2), mac(3)}
    assert own_macs().isdisjoint({mac(2), mac(3)})


# -- apply


def addresses(one: Box) -> list[dict[str, Any]]:
    """Of ``eth0``."""
    return [each for link in one.show("-4", "addr", "show", "dev", "eth0") for each in link.get("addr_info", ())]


def test_an_address_comes_with_its_label_and_broadcast(one: Box, descriptor: int) -> None:
    apply(descriptor, [AddAddress(ours(LEASE)), AddAddress(ours(ip("10.7.0.4"), 30, "eth0"))])
    found = [(each["local"], each["prefixlen"], each["broadcast"], each["label"]) for each in addresses(one)]
    assert found == [("10.0.1.20", 24, "10.0.1.255", "eth0:lw"), ("10.7.0.4", 30, "10.7.0.7", "eth0")]


def test_an_address_that_is_there_is_no_error(one: Box, descriptor: int) -> None:
    apply(descriptor, [AddAddress(ours(LEASE)), AddAddress(ours(LEASE))])
    assert [each["local"] for each in addresses(one)] == ["10.0.1.20"]


def test_an_address_goes(one: Box, descriptor: int) -> None:
    apply(descriptor, [AddAddress(ours(LEASE)), AddAddress(ours(LEASE, 16)), RemoveAddress(ours(LEASE))])
    assert [(each["local"], each["prefixlen"]) for each in addresses(one)] == [("10.0.1.20", 16)]


def test_a_link_that_promotes_keeps_its_secondary_addresses(one: Box, descriptor: int) -> None:
    both = [AddAddress(ours(DOCKER, label="eth0")), AddAddress(ours(LEASE))]
    apply(descriptor, [*both, RemoveAddress(ours(DOCKER))])
    assert addresses(one) == []
    apply(descriptor, [*both, Promote(2), RemoveAddress(ours(DOCKER))])
    assert [each["local"] for each in addresses(one)] == ["10.0.1.20"]
    assert not _promotes(one, "eth1")


def test_an_mtu_is_set(one: Box, descriptor: int) -> None:
    apply(descriptor, [SetMtu(2, 1400)])
    assert [link["mtu"] for link in one.show("link")][1:] == [1400, 1500]


def source_of(one: Box, address: str) -> str:
    (found,) = one.show("route", "get", address)
    return f"{found['dev']} {found.get('gateway', 'direct')} {found['prefsrc']}"


def test_a_default_route_replaces_dockers(one: Box, descriptor: int) -> None:
    one.ip("addr add 10.0.1.20/24 dev eth0", "addr add 10.0.1.240/24 dev eth0", "route add default via 10.0.1.1")
    apply(descriptor, [SetDefault(Route(2, ROUTER, DOCKER))])
    assert source_of(one, "192.0.2.1") == "eth0 10.0.1.1 10.0.1.240"
    (found,) = one.show("-4", "route", "show", "default")
    assert found["protocol"] == "dhcp"


def test_a_detour_goes_before_the_default_route_and_behind_all_others(one: Box, descriptor: int) -> None:
    one.ip(
        "addr add 10.0.1.20/24 dev eth0", "addr add 172.17.0.2/16 dev eth1", "route add default via 172.17.0.1",
        "route add 10.5.0.0/16 via 172.17.0.9",
    )  # fmt: skip
    apply(descriptor, [SetDetour(Route(2, ROUTER, LEASE))])
    assert source_of(one, "192.0.2.1") == "eth0 10.0.1.1 10.0.1.20"
    assert source_of(one, "172.17.0.7") == "eth1 direct 172.17.0.2"
    assert source_of(one, "10.5.0.7") == "eth1 172.17.0.9 172.17.0.2"
    assert [route["gateway"] for route in one.show("-4", "route", "show", "default")] == ["172.17.0.1"]
    apply(descriptor, [RemoveDetour()])
    assert source_of(one, "192.0.2.1") == "eth1 172.17.0.1 172.17.0.2"
    assert one.show("rule") == [rule for rule in one.show("rule") if rule["priority"] in (0, 32766, 32767)]


def test_an_announcement_is_heard_by_the_neighbours(one: Box, descriptor: int) -> None:
    """One of them knew another MAC for the address, and sends to the new one from then on."""
    neighbour = Box(one.peer, one.name)
    neighbour.ip("addr add 10.0.1.9/24 dev lan0", "neigh add 10.0.1.20 lladdr 02:00:00:00:0b:ad nud stale dev lan0")
    with opened(neighbour.path) as peer, inside(peer):
        listening = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ARP))
    with listening:
        listening.settimeout(10)
        apply(descriptor, [AddAddress(ours(LEASE)), Announce(2, mac(2), LEASE)])
        frame = listening.recv(1500)
    assert frame[:12] == b"\xff" * 6 + mac(2)
    assert arp_sender(frame) == (LEASE, mac(2))

    def knows() -> bool:
        return ("10.0.1.20", "02:00:00:00:00:02") in [
            (each["dst"], each.get("lladdr")) for each in neighbour.show("neigh")
        ]

    wait_until(knows, 10, "the neighbour to learn the MAC")


# -- what is not there any more


def test_what_is_no_namespace_is_gone(tmp_path: Path) -> None:
    with pytest.raises(GoneError):
        Space(tmp_path / "nothing")
    file = tmp_path / "file"
    file.touch()
    before = descriptors()
    with pytest.raises(GoneError):
        Space(file)
    assert descriptors() == before
    with opened(file) as descriptor:
        for call in (look, lambda each: apply(each, [])):
            with pytest.raises(GoneError):
                call(descriptor)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


MISSING = Address(7, LEASE, 24, "eth0")


@pytest.mark.parametrize(
    "operation",
    [
        SetMtu(7, 1400), SetMtu(2, 1), Promote(7), AddAddress(MISSING), RemoveAddress(MISSING),
        RemoveAddress(ours(LEASE)),
        SetDefault(Route(7, ROUTER, LEASE)), SetDefault(Route(2, ROUTER, LEASE)), SetDetour(Route(2, ROUTER, LEASE)),
        Announce(7, mac(2), LEASE),
    ],
    ids=lambda one: f"{type(one).__name__}",
)  # fmt: skip
def test_what_the_kernel_refuses_is_gone(operation: Operation, one: Box, descriptor: int) -> None:
    """What was done before it stays, what comes behind is not done, and the thread is where it was."""
    home = Path("/proc/thread-self/ns/net").stat().st_ino
    with pytest.raises(GoneError, match=type(operation).__name__):
        apply(descriptor, [SetMtu(3, 1401), operation, SetMtu(3, 1402)])
    assert [link["mtu"] for link in one.show("link", "show", "dev", "eth1")] == [1401]
    assert Path("/proc/thread-self/ns/net").stat().st_ino == home


def test_a_link_that_went_away_is_gone(one: Box, descriptor: int) -> None:
    one.ip("link del eth0")
    with pytest.raises(GoneError):
        apply(descriptor, [AddAddress(ours(LEASE))])
    assert [link.name for link in look(descriptor).links] == ["lo", "eth1"]


# -- what says that something changed


@pytest.mark.parametrize(
    "change",
    [
        "addr add 10.0.1.50/24 dev eth1", "addr del 10.0.1.20/24 dev eth0", "link set eth1 mtu 1400",
        "link del eth1", "route add default via 10.0.1.1", "route del 10.5.0.0/16",
    ],
)  # fmt: skip
def test_a_change_is_noticed(change: str, one: Box) -> None:
    one.ip("addr add 10.0.1.20/24 dev eth0", "route add 10.5.0.0/16 via 10.0.1.1")
    space = Space(one.path)
    try:
        assert space.name == one.name
        assert not is_readable(space)
        one.ip(change)
        assert is_readable(space, 10)
        space.drain()
        assert not is_readable(space)
    finally:
        space.close()


def is_readable(space: Space, seconds: float = 0) -> bool:
    return bool(select.select([space.changes], [], [], seconds)[0])


def test_more_changes_than_the_socket_holds_are_noticed_and_drained(one: Box) -> None:
    space = Space(one.path)
    try:
        space.changes.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        one.ip(*(f"addr add 10.0.3.{number}/24 dev eth0" for number in range(1, 100)))
        assert is_readable(space, 10)
        for _ in range(2):
            space.drain()
        assert not is_readable(space)
    finally:
        space.close()


def test_a_space_that_is_closed_leaves_no_descriptor(one: Box) -> None:
    before = descriptors()
    space = Space(one.path)
    assert descriptors() == before + 2
    space.close()
    assert descriptors() == before


# -- the folder


def test_a_folder_says_what_comes_and_goes(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "netns")
    try:
        assert folder.names() == set()
        for change, names in (
            ((folder.path / "one").touch, {"one"}),
            (lambda: (tmp_path / "two").rename(folder.path / "two"), {"one", "two"}),
            (lambda: (folder.path / "two").rename(tmp_path / "two"), {"one"}),
            ((folder.path / "one").unlink, set()),
        ):
            (tmp_path / "two").touch()
            change()
            assert select.select([folder.events], [], [], 10)[0]
            folder.drain()
            assert not select.select([folder.events], [], [], 0)[0]
            assert folder.names() == names
        folder.path.rmdir()
        assert folder.names() == set()
    finally:
        folder.close()


def test_without_a_place_for_the_folder_nothing_is_left_open(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(FileNotFoundError, match="netns"):
        Folder(tmp_path / "docker" / "netns")
    assert descriptors() == before
    assert list(tmp_path.iterdir()) == []


# -- the model of `tests.leasebroker.kernel`

NUMBERS, IFINDEXES = st.integers(2, 6), st.sampled_from((2, 3))


@st.composite
def addresses_of(draw: st.DrawFn) -> Address:
    ifindex = draw(IFINDEXES)
    number, prefix = draw(NUMBERS), draw(st.sampled_from((24, 24, 16)))
    return Address(ifindex, ip(f"10.0.{ifindex - 1}.{number}"), prefix, f"eth{ifindex - 2}")


def operations(there: Sequence[Address]) -> st.SearchStrategy[Operation]:
    """What mostly has to do with the addresses that are there."""
    present = st.sampled_from(there) if there else addresses_of()
    sources = st.one_of(present, present, addresses_of())
    routes = st.builds(
        lambda ifindex, source, is_named: Route(ifindex, ip(f"10.0.{ifindex - 1}.1"), source.address * is_named),
        IFINDEXES,
        sources,
        st.booleans(),
    )
    new = addresses_of().filter(lambda one: one[:3] not in [each[:3] for each in there])
    return st.one_of(
        new.map(AddAddress),
        new.map(AddAddress),
        new.map(AddAddress),
        present.map(RemoveAddress),
        present.map(RemoveAddress),
        addresses_of().map(RemoveAddress),
        IFINDEXES.map(Promote),
        routes.map(SetDefault),
        routes.map(SetDetour),
        st.just(RemoveDetour()),
        st.builds(SetMtu, IFINDEXES, st.sampled_from((1400, 1500, 40))),
    )


class Both:
    """The kernel's namespace and a model of it, made bare."""

    def __init__(self, one: Box, descriptor: int, promotes: Sequence[bool]) -> None:
        self.descriptor = descriptor
        one.ip(*(line.format(at) for at in (0, 1) for line in ("addr flush dev eth{}", "link set eth{} mtu 1500")))
        apply(descriptor, [RemoveDetour()])
        for at, value in enumerate(promotes):
            one.promote(f"eth{at}", int(value))
        self.kernel = Kernel(look(descriptor).links[1:])

    def do(self, operation: Operation) -> None:
        assert do(self.kernel, operation) == carry_out(self.descriptor, operation), operation
        view = look(self.descriptor)
        assert view._replace(links=view.links[1:]) == self.kernel.view(), operation


def test_the_model_does_as_the_kernel(one: Box, descriptor: int, count: Callable[[int, int], int]) -> None:
    """Where it is not told to add what is there: the model refuses that, the kernel replaces it."""

    @settings(max_examples=count(40, 500), deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.data(), st.tuples(st.booleans(), st.booleans()), st.integers(5, 25))
    def check(data: st.DataObject, promotes: tuple[bool, bool], length: int) -> None:
        both = Both(one, descriptor, promotes)
        for _ in range(length):
            both.do(data.draw(operations(both.kernel.view().addresses)))

    check()


@pytest.mark.parametrize("removed", range(6))
def test_whatever_is_removed_the_model_orders_the_rest_as_the_kernel(removed: int, one: Box, descriptor: int) -> None:
    both = Both(one, descriptor, (True, True))
    there = [ours(ip(f"10.0.1.{number}"), prefix, "eth0") for number in (2, 3) for prefix in (16, 24, 20)]
    for address in there:
        both.do(AddAddress(address))
    both.do(RemoveAddress(there[removed]))
    for address in there[:removed] + there[removed + 1 :]:
        both.do(RemoveAddress(address))


def do(kernel: Kernel, operation: Operation) -> bool:
    try:
        kernel.do(operation)
    except RefusedError:
        return False
    return True


def carry_out(descriptor: int, operation: Operation) -> bool:
    try:
        apply(descriptor, [operation])
    except GoneError:
        return False
    return True
