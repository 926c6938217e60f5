"""What the host needs, planned on paper: steps, refusals, what is ours and what is not."""

from __future__ import annotations

import re
from ipaddress import IPv4Network

import pytest

from leasebroker.containers import Member, Network
from router import underlay
from router.config import parse
from router.settings import Config
from router.underlay import MARK, MARK_RAISED, AddNetwork, Host, HostLink, Step, UnderlayError
from tests.lab.service import REPOSITORY
from tests.router.good import errors_of

EXAMPLE = (REPOSITORY / "lanward.toml").read_text()
CONFIG = parse(EXAMPLE)
BRIDGE_OPTIONS = {
    "com.docker.network.bridge.name": "br0",
    "com.docker.network.bridge.inhibit_ipv4": "true",
}


def host(*links: HostLink, **more: object) -> Host:
    return Host({one.name: one for one in (HostLink("enp2s0"), *links)}, **more)  # type: ignore[arg-type]


def network(**changes: object) -> Network:
    right = Network(
        "0" * 64, "br0net", "bridge", IPv4Network("10.0.1.0/24"), 0x0A000101, IPv4Network("10.0.1.240/28"),
        internal=False, options=BRIDGE_OPTIONS, members=(), labels={MARK: "br0net"},
    )  # fmt: skip
    return right._replace(**changes)  # type: ignore[arg-type]


def done(steps: list[Step], before: Host) -> Host:
    """The host after the steps."""
    links, networks = dict(before.links), dict(before.networks)
    for step in steps:
        match step:
            case underlay.AddSubInterface():
                links[step.name] = HostLink(step.name, "vlan", step.alias, is_up=False, parent=step.trunk, tag=step.tag)
            case underlay.AddBridge():
                links[step.name] = HostLink(step.name, "bridge", MARK, is_up=False)
            case underlay.Silence():
                links[step.name] = links[step.name]._replace(has_ipv6=False)
            case underlay.Enslave():
                links[step.name] = links[step.name]._replace(master=step.bridge)
            case underlay.Raise() | underlay.Lower():
                links[step.name] = links[step.name]._replace(is_up=isinstance(step, underlay.Raise))
            case underlay.RemoveLink():
                del links[step.name]
            case AddNetwork():
                one = step.network
                networks[one.name] = network(
                    name=one.name, driver=one.driver, subnet=one.subnet, gateway=one.gateway, landing=one.landing,
                    options=one.options, labels=one.labels,
                )  # fmt: skip
            case underlay.RemoveNetwork():
                del networks[step.name]
    return Host(links, networks)


def refusal(config: Config, found: Host) -> list[str]:
    with pytest.raises(UnderlayError) as error:
        underlay.up(config, found)
    return str(error.value).splitlines()


def remade(name: str) -> str:
    return (
        "correct docker-compose.yml if Compose made it, and remove it "
        f"(docker compose down, or docker network rm {name}): it is made again"
    )


def with_trunk_up() -> Host:
    return done(underlay.up(CONFIG, host()), host())


def test_an_empty_host_gets_everything_in_an_order_that_the_kernel_takes() -> None:
    steps = underlay.up(CONFIG, host())
    assert [str(one) for one in steps] == [
        "add bridge br0", "add enp2s0.1: VLAN 1 on enp2s0", "make enp2s0.1 a port of br0",
        "bring br0 up", "bring enp2s0.1 up",
        "add bridge br1", "add enp2s0.2: VLAN 2 on enp2s0", "make enp2s0.2 a port of br1",
        "bring br1 up", "bring enp2s0.2 up",
        "add Docker network br0net", "add Docker network br1net",
    ]  # fmt: skip


def test_a_second_up_has_nothing_to_do() -> None:
    assert underlay.up(CONFIG, with_trunk_up()) == []


@pytest.mark.parametrize("is_up", [True, False])
def test_down_leaves_what_was_there_before(is_up: bool) -> None:
    before = Host({"enp2s0": HostLink("enp2s0", is_up=is_up), "br9": HostLink("br9", "bridge")})
    after = done(underlay.up(CONFIG, before), before)
    assert after.links["enp2s0"].is_up
    assert done(underlay.down(after), after) == before


@pytest.mark.parametrize("number", range(12))
def test_what_was_done_before_a_failure_can_be_undone(number: int) -> None:
    before = Host({"enp2s0": HostLink("enp2s0", is_up=False)})
    steps = underlay.up(CONFIG, before)[: number + 1]
    after = done(steps, before)
    assert done(underlay.undo(steps), after) == before


def test_a_network_as_docker_wants_it() -> None:
    (first, *_) = [one.network for one in underlay.up(CONFIG, host()) if isinstance(one, AddNetwork)]
    assert (first.driver, str(first.subnet), first.gateway, str(first.landing)) == (
        "bridge", "10.0.1.0/24", 0x0A000101, "10.0.1.240/28",
    )  # fmt: skip
    assert first.options == BRIDGE_OPTIONS
    assert first.labels["com.docker.compose.network"] == "br0net"


def test_a_network_for_the_wan() -> None:
    uplink = 'network = "wan"\nparent = "wlan0"\nsubnet = "192.168.1.0/24"\ngateway = "192.168.1.1"'
    uplink += '\nlanding = "192.168.1.240/28"'
    config = parse(re.sub('^network = "wan".*$', uplink, EXAMPLE, flags=re.MULTILINE))
    assert refusal(config, host()) == ["there is no interface wlan0: name the one to the internet in [wan] parent"]
    before = host(HostLink("wlan0"))
    after = done(underlay.up(config, before), before)
    assert after.networks["wan"].options == {"parent": "wlan0", "ipvlan_mode": "l2"}
    assert after.networks["wan"].landing == IPv4Network("192.168.1.240/28")
    assert underlay.up(config, after) == []
    unbounded = {**after.networks, "wan": after.networks["wan"]._replace(landing=None)}
    (line,) = refusal(config, after._replace(networks=unbounded))
    assert line.startswith("network wan: its --ip-range is not set, [wan] says 192.168.1.240/28; ")
    wrong = {**after.networks, "wan": after.networks["wan"]._replace(gateway=0xC0A80102)}
    assert refusal(config, after._replace(networks=wrong)) == [
        "network wan: it is 192.168.1.0/24 by 192.168.1.2, [wan] says 192.168.1.0/24 by 192.168.1.1; " + remade("wan")
    ]


IN_THE_WAY = [
    (Host({}), "there is no interface enp2s0: name the one with the cable to the switch in [trunk] (ip -brief link)"),
    (host(HostLink("br0", "bridge")),
     "bridge br0 exists and was not made by lanward: remove it (ip link del br0), or name another bridge for vlan1"),
    (host(HostLink("br0", "veth")),
     "br0, the bridge of vlan1, exists and is no bridge: name another in the configuration"),
    (host(HostLink("enp2s0.1", "vlan", parent="enp2s0", tag=1)),
     "enp2s0.1 exists and was not made by lanward: remove it (ip link del enp2s0.1), and what makes it at boot"),
    (host(HostLink("lan", "vlan", parent="enp2s0", tag=2)),
     "lan exists and was not made by lanward: remove it (ip link del lan), and what makes it at boot"),
    (host(networks={"br0net": network(driver="macvlan")}),
     "network br0net: its driver is macvlan, not bridge; " + remade("br0net")),
    (host(networks={"br0net": network(options={})}),
     "network br0net: its com.docker.network.bridge.inhibit_ipv4 is not set, not true; " + remade("br0net")),
]  # fmt: skip


@pytest.mark.parametrize(("found", "line"), IN_THE_WAY)
def test_what_is_in_the_way_is_one_line_with_its_cure(found: Host, line: str) -> None:
    assert refusal(CONFIG, found) == [line]


def test_a_network_with_another_subnet() -> None:
    (line,) = refusal(CONFIG, host(networks={"br0net": network(subnet=IPv4Network("10.9.0.0/24"))}))
    assert line.startswith(
        "network br0net: its subnet is 10.9.0.0/24, that of vlan1 is 10.0.1.0/24; correct docker-compose.yml"
    )


def test_all_that_is_in_the_way_is_said_at_once() -> None:
    assert len(refusal(CONFIG, host(HostLink("br0", "bridge"), HostLink("br1", "bridge")))) == 2


def test_the_bridge_that_docker_made_for_the_network_is_used_and_not_removed() -> None:
    before = host(HostLink("br0", "bridge"), networks={"br0net": network(labels={})})
    after = done(underlay.up(CONFIG, before), before)
    assert after.links["enp2s0.1"].master == "br0"
    assert done(underlay.down(after), after) == before


def test_a_bridge_that_was_there_before_docker_used_it_is_refused() -> None:
    """Compose makes the network before we look, and Docker takes any bridge of that name."""
    docker = {"br0net": network(labels={})}
    port = HostLink("eth1", master="br0")
    (line,) = refusal(CONFIG, host(HostLink("br0", "bridge"), port, networks=docker))
    assert line.startswith("bridge br0 was there before Docker used it, and has the port eth1: name another bridge for")
    container = HostLink("veth1", "veth", master="br0")
    before = host(HostLink("br0", "bridge"), container, networks=docker)
    after = done(underlay.up(CONFIG, before), before)
    later = after._replace(links={**after.links, "eth1": port})  # somebody's wish
    assert underlay.up(CONFIG, later) == []


def test_the_bridge_that_docker_made_is_silenced_before_it_has_a_port() -> None:
    before = host(HostLink("br0", "bridge", has_ipv6=True), networks={"br0net": network(labels={})})
    steps = underlay.up(CONFIG, before)
    assert steps[0] == underlay.Silence("br0")
    assert underlay.up(CONFIG, done(steps, before)) == []


def test_a_bridge_that_docker_made_again_gets_its_port_back() -> None:
    """As after a reboot of the engine."""
    after = with_trunk_up()
    links = {**after.links, "enp2s0.1": after.links["enp2s0.1"]._replace(master="")}
    assert underlay.up(CONFIG, after._replace(links=links)) == [underlay.Enslave("enp2s0.1", "br0")]


def test_what_the_configuration_does_not_want_any_more_goes() -> None:
    config = parse(EXAMPLE.replace("tag = 2", "tag = 7"))
    assert [str(one) for one in underlay.up(config, with_trunk_up())] == [
        "remove enp2s0.2", "add enp2s0.7: VLAN 7 on enp2s0", "make enp2s0.7 a port of br1", "bring enp2s0.7 up",
    ]  # fmt: skip


def test_a_bridge_that_is_not_wanted_any_more_stays_while_a_container_is_on_it() -> None:
    config = parse(EXAMPLE.replace('"br1"', '"br7"').replace('"br1net"', '"br7net"'))
    after = with_trunk_up()
    gone = {"remove br1"}
    assert gone <= {str(one) for one in underlay.up(config, after._replace(networks={}))}
    links = {**after.links, "veth0": HostLink("veth0", "veth", master="br1")}
    assert not gone & {str(one) for one in underlay.up(config, Host(links))}


def test_down_waits_for_the_containers() -> None:
    after = with_trunk_up()
    member = Member("1", "web", b"", 0)
    busy = {**after.networks, "br0net": after.networks["br0net"]._replace(members=(member,))}
    with pytest.raises(UnderlayError, match=r"network br0net has containers: stop them first .*: web"):
        underlay.down(after._replace(networks=busy))


def test_the_trunk_goes_down_only_when_it_was() -> None:
    before = Host({"enp2s0": HostLink("enp2s0", is_up=False)})
    after = done(underlay.up(CONFIG, before), before)
    assert after.links["enp2s0.1"].alias == MARK_RAISED
    assert with_trunk_up().links["enp2s0.1"].alias == MARK


@pytest.mark.parametrize(
    ("program", "cure"),
    [
        ("NetworkManager", "unmanaged-devices=interface-name:enp2s0;interface-name:enp2s0.1;interface-name:br0;"),
        ("dhcpcd", "denyinterfaces enp2s0 enp2s0.1 br0 enp2s0.2 br1"),
        ("systemd-network", "Name=enp2s0 enp2s0.1 br0 enp2s0.2 br1"),
    ],
)
def test_who_fights_over_the_interfaces_is_warned_of(program: str, cure: str) -> None:
    (line,) = underlay.warnings(CONFIG, host(programs=frozenset({program, "bash"})))
    assert cure in line


def test_an_address_of_the_host_on_a_bridge_is_warned_of() -> None:
    (line,) = underlay.warnings(CONFIG, host(HostLink("br0", "bridge", MARK, addresses=("10.0.1.5/24",))))
    assert line.startswith("br0 has the address 10.0.1.5/24, so that the VLAN reaches the host: ip address del")


def uplink(**changes: str) -> str:
    """A `[wan]` whose Docker network is made here."""
    good = {"parent": "wlan0", "subnet": "192.168.1.0/24", "gateway": "192.168.1.1", "landing": "192.168.1.240/28"}
    return "\n".join(f'{key} = "{value}"' for key, value in {"network": "wan", **good, **changes}.items())


CONFIG_ERRORS = [
    ('interface = "enp2s0"', "", "trunk.interface: is missing"),
    ('interface = "enp2s0"', 'interface = "enp2s0a123456"\nmore = 1', "trunk.more: unknown key"),
    ('interface = "enp2s0"', 'interface = "enp2s0a12345678"',
     "trunk.interface: enp2s0a12345678.1, for vlan1, is longer than 15 characters"),
    ('bridge = "br1"', "", "vlan[1].bridge: is missing: with [trunk] each VLAN has a bridge on the host"),
    ('network = "wan"', 'network = "wan"\nparent = "wlan0"\nsubnet = "192.168.1.0/24"',
     "wan.gateway: is missing: it goes with parent"),
    ('network = "wan"', ('network = "wan"\nparent = "wlan0"\nsubnet = "192.168.1.0/24"\ngateway = "192.168.2.1"\n'
     'landing = "192.168.1.240/28"'), "wan.gateway: 192.168.2.1 is outside 192.168.1.0/24"),
    ('network = "wan"', ('network = "wan"\nparent = "wlan0"\nsubnet = "192.168.1.0/24"\ngateway = "192.168.1.1"\n'
     'landing = "192.168.2.240/28"'), "wan.landing: 192.168.2.240/28 is outside 192.168.1.0/24"),
    ('network = "wan"', uplink(gateway="192.168.1.0"),
     "wan.gateway: 192.168.1.0 is the network address of 192.168.1.0/24"),
    ('network = "wan"', uplink(gateway="192.168.1.255"),
     "wan.gateway: 192.168.1.255 is the broadcast address of 192.168.1.0/24"),
    ('network = "wan"', uplink(gateway="192.168.1.241"),
     "wan.landing: 192.168.1.240/28 contains the gateway's address 192.168.1.241"),
    ('network = "wan"', uplink(subnet="10.0.1.0/24", gateway="10.0.1.1", landing="10.0.1.240/28"),
     "vlan[0].subnet: 10.0.1.0/24 overlaps 10.0.1.0/24 of wan"),
    ('network = "wan"', uplink(subnet="10.0.0.0/16", gateway="10.0.0.1", landing="10.0.9.0/24"),
     "vlan[1].subnet: 10.0.2.0/24 overlaps 10.0.0.0/16 of wan"),
    ('network = "wan"', uplink(parent="br1"), "vlan[1].bridge: br1 is taken already by wan"),
    *(('bridge = "br0"', f'bridge = "{name}"', f"vlan[0].bridge: {name} is the trunk, or its interface for a VLAN")
      for name in ("enp2s0", "enp2s0.1", "enp2s0.2")),
    ('network = "wan"', 'interface = "eth1"\nparent = "wlan0"\nsubnet = "192.168.1.0/24"\ngateway = "192.168.1.1"',
     "wan.parent: is for a [wan] with a network"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "line"), CONFIG_ERRORS)
def test_errors_in_the_file_have_their_place(old: str, new: str, line: str) -> None:
    assert old in EXAMPLE
    assert line in errors_of(EXAMPLE.replace(old, new, 1))
