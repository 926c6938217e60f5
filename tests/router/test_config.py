"""The configuration file: what is read from it, and that every error is found and says its place."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dhcpd.options import show
from dhcpd.pool import Range
from dhcpd.settings import INFINITE, Scope
from leasebroker.identity import container_key
from router.config import Config, ConfigError, load, parse
from router.settings import Kind, Ports
from tests.router.good import GOOD, changed, errors_of

EXAMPLE = Path(__file__).parents[2] / "lanward.toml"


@pytest.fixture
def good() -> Config:
    return parse(GOOD)


def written(scope: Scope) -> dict[int, str]:
    return {code: show(code, data) for code, data in scope.options.items()}


def ip(text: str) -> int:
    return int(IPv4Address(text))


def test_the_example_is_good_also_with_all_its_comments_switched_on() -> None:
    assert [scope.name for scope in load(EXAMPLE).scopes] == ["vlan1", "vlan2"]
    everything = parse(re.sub(r"(?m)^# (?=\[|\w+ = |\")", "", EXAMPLE.read_text()))
    assert everything.allow
    assert everything.publish
    assert everything.broadcast
    assert everything.api
    assert everything.vlans[1].scope.known_only


def test_the_address_plan(good: Config) -> None:
    one = good.vlans[0]
    assert (one.tag, one.network, one.bridge, one.interface) == (1, "br0net", "br0", "lan1")
    assert (one.scope.subnet, one.scope.router) == (IPv4Network("10.0.1.0/24"), ip("10.0.1.1"))
    assert [str(pool) for pool in one.scope.pools] == ["10.0.1.100-10.0.1.199", "10.0.1.210-10.0.1.219"]
    assert one.landing == IPv4Network("10.0.1.240/28")
    assert one.scope.landing == Range(ip("10.0.1.240"), ip("10.0.1.254"))


def test_only_what_is_written_is_offered_beside_the_plan(good: Config) -> None:
    assert written(good.scopes[1]) == {1: "hex:ff:ff:ff:00", 3: "10.0.2.1", 28: "10.0.2.255"}
    routes = "0.0.0.0/0 via 10.0.1.1, 192.168.50.0/24 via 10.0.1.9"
    assert written(good.scopes[0]) == {
        1: "hex:ff:ff:ff:00", 3: "10.0.1.1", 28: "10.0.1.255", 6: "1.1.1.1, 9.9.9.9", 15: "truck.lan", 121: routes,
        249: routes, 114: "https://truck.lan/", 43: "hex:01:04:0a",
    }  # fmt: skip


def test_reservations(good: Config) -> None:
    device, phone, web = good.scopes[0].reservations
    assert device.macs == (bytes.fromhex("020000000105"), bytes.fromhex("020000000106"))
    assert (device.address, device.options, device.boot) == (ip("10.0.1.20"), {12: b"device1"}, None)
    assert phone.client_id == bytes.fromhex("01020000000107")
    assert phone.options == {12: b"ip-phone"}
    assert phone.boot is not None
    assert phone.boot.file == "phone.bin"
    assert (web.container, web.address) == ("container1", None)
    assert web.options == {12: b"web", 6: bytes((10, 0, 1, 20))}


@pytest.mark.parametrize(
    ("client_id", "expected"),
    [("cam", b"cam"), ("hex:00ff", b"\x00\xff"), ("00:63:61:6d", b"\0cam"), ("aa:b", b"aa:b")],
)
def test_a_client_identifier_is_text_or_hex(client_id: str, expected: bytes) -> None:
    config = parse(changed("01:02:00:00:00:01:07", client_id))
    assert config.scopes[0].reservations[1].client_id == expected


def test_a_reservation_with_another_router_gets_a_default_route_by_it() -> None:
    config = parse(changed('boot_file = "phone.bin"', 'options = { routers = "10.0.1.2", host_name = "tel" }'))
    phone = config.scopes[0].reservations[1]
    assert {code: show(code, data) for code, data in phone.options.items() if code != 249} == {
        3: "10.0.1.2", 12: "tel", 121: "0.0.0.0/0 via 10.0.1.2, 192.168.50.0/24 via 10.0.1.9",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "times"),
    [
        ("", (43200, 120, 604800)),
        ('lease_time = "30s"', (30, 30, 604800)),
        ('lease_time = "30d"', (2592000, 120, 2592000)),
        ("lease_time = 900", (900, 120, 604800)),
        ('lease_time = "infinite"', (INFINITE, 120, INFINITE)),
        ('min_lease_time = "15m"\nmax_lease_time = "1d"', (43200, 900, 86400)),
    ],
)
def test_lease_times(lines: str, times: tuple[int, int, int]) -> None:
    scope = parse(changed('lease_time = "12h"', lines)).scopes[0]
    assert (scope.lease_time, scope.min_lease_time, scope.max_lease_time) == times


def test_settings_of_a_vlan() -> None:
    lines = (
        "t1 = 0.3\nt2 = 0.6\nauthoritative = false\nmatch_client_id = false\nknown_only = true\nprobe = false\n"
        'quarantine = "5m"\nnext_server = "10.0.1.9"\nserver_name = "tftp"\nboot_file = "pxe.0"\nmtu = 1400\n'
        'ntp = "10.0.1.1"\ndomain_search = ["a.lan", "b.lan"]'
    )
    scope = parse(changed('lease_time = "12h"', lines)).scopes[0]
    assert (scope.t1, scope.t2, scope.quarantine) == (0.3, 0.6, 300)
    assert (scope.authoritative, scope.match_client_id, scope.known_only, scope.probe) == (False, False, True, False)
    assert (scope.boot.next_server, scope.boot.server_name, scope.boot.file) == (ip("10.0.1.9"), "tftp", "pxe.0")
    assert {code: written(scope)[code] for code in (26, 42, 119)} == {26: "1400", 42: "10.0.1.1", 119: "a.lan, b.lan"}
    assert scope.always_broadcast == {bytes.fromhex("020000000109")}


def test_exceptions(good: Config) -> None:
    first, second = good.allow
    assert (first.source.kind, first.target.kind, first.target.name) == (Kind.VLAN, Kind.NODE, "container2")
    assert first.ports == (Ports("tcp", 443, 443), Ports("udp", 5000, 5010), Ports("icmp"))
    assert (second.source.address, second.target.vlan, second.ports) == (ip("10.0.1.20"), "vlan2", ())
    assert [(str(one.ports), one.to_port) for one in good.publish] == [("tcp/8080", 80), ("udp/9000-9010", 9000)]
    gps = good.broadcast[0]
    assert (gps.source.kind, [one.vlan for one in gps.targets]) == (Kind.ROUTER, ["vlan1", "vlan2"])
    assert gps.group == ip("239.1.2.3")


@pytest.mark.parametrize("published", ["udp/1-65535", 'udp/9000-9511"\nto_port = "udp/9001'])
def test_a_range_may_be_long_when_its_ports_stay_and_512_when_they_move(published: str) -> None:
    config = parse(changed('to_port = 80\n\n[[publish]]\nport = "udp/9000-9010', f'\n[[publish]]\nport = "{published}'))
    assert config.publish[1].ports.last - config.publish[1].ports.first + 1 in (65535, 512)


def test_docker_and_the_api(good: Config) -> None:
    assert (good.docker.socket, good.docker.netns) == ("/run/docker.sock", "/var/run/docker/netns")
    assert good.api is not None
    assert (good.api.host, good.api.port, good.api.token) == ("127.0.0.1", 8067, "secret")
    assert "secret" not in repr(good)


def test_wan_docker_and_api_may_be_absent() -> None:
    config = parse('[[vlan]]\nname = "a"\ntag = 9\nsubnet = "10.9.0.0/16"\nrouter = "10.9.0.1"\npools = []')
    assert (config.wan, config.api, config.allow) == (None, None, ())


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "latin1").write_bytes(b"# \xe9")
    for name, message in {"absent": "No such file or directory", "latin1": "byte 2 is not UTF-8"}.items():
        with pytest.raises(ConfigError) as error:
            load(tmp_path / name)
        assert error.value.errors == [f"{tmp_path / name}: {message}"]


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "bom").write_text(GOOD, encoding="utf-8-sig")
    assert load(tmp_path / "bom") == parse(GOOD)


def test_all_errors_are_listed_at_once() -> None:
    source = GOOD
    for old, new in {
        'network = "wan"': 'netwrk = "wan"',
        "tag = 1": "tag = 4095",
        "10.0.1.210-10.0.1.219": "10.0.2.7-10.0.2.9",
        "tag = 2": 'tag = "two"',
        'to = "vlan2/container2"': 'to = "vlan3/container2"',
        "port = 10110": "port = 0",
    }.items():
        source = source.replace(old, new, 1)
    assert errors_of(source) == [
        "wan: expected network or interface",
        'wan.netwrk: unknown key, did you mean "network"?',
        "vlan[0].tag: expected a whole number from 1 to 4094, not 4095",
        "vlan[0].pools[1]: 10.0.2.7 is outside 10.0.1.0/24",
        "vlan[1].tag: expected a whole number from 1 to 4094, not 'two'",
        "allow[0].to: no VLAN has the name 'vlan3', did you mean \"vlan2\"?",
        "broadcast[0].port: expected a whole number from 1 to 65535, not 0",
    ]


def test_a_vlan_with_errors_is_still_known_by_its_name() -> None:
    assert errors_of(changed("tag = 2", "tag = 0")) == ["vlan[1].tag: expected a whole number from 1 to 4094, not 0"]


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("a = \n", "line 1, column 5: Invalid value"),
        ("[vlan", "end of document: Expected ']' at the end of a table declaration"),
        ("a = 1\na = 2", "end of document: Cannot overwrite a value"),
        ("a = " + "[" * 5000, "the file is nested too deeply"),
        ("a = " + "1" * 5000, "a number has thousands of digits"),
        ("vlan = 0x" + "f" * 5000, "vlan: expected tables, each written [[vlan]]"),
    ],
)
def test_what_is_no_toml_is_one_error_with_its_line(source: str, error: str) -> None:
    assert errors_of(source)[0].startswith(error)


@given(st.text())
def test_any_text_is_a_configuration_or_a_configuration_error(source: str) -> None:
    assert all(line.isprintable() for line in errors_of(source))


KEYS = st.sampled_from(sorted(set(re.findall(r"\b[a-z][a-z0-9_]+\b", GOOD)))) | st.text(max_size=5)
WORDS = st.sampled_from(sorted(set(re.findall(r'"([^"]*)"', GOOD))))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | WORDS | st.dates()
TREES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=6
)
TABLES = st.dictionaries(KEYS, TREES, max_size=6)


@given(tree=st.fixed_dictionaries({}, optional={"wan": TREES, "docker": TREES, "api": TREES, "x\n": TREES}),
       tables=st.dictionaries(st.sampled_from(["vlan", "allow", "publish", "broadcast"]), st.lists(TABLES, max_size=2)),
       rest=TABLES)  # fmt: skip
def test_any_tree_is_a_configuration_or_a_configuration_error(
    tree: dict[str, Any], tables: dict[str, Any], rest: dict[str, Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("router.config.tomllib.loads", lambda _: {**rest, **tree, **tables})
        assert all(line.isprintable() for line in errors_of(""))


@given(st.sampled_from(GOOD.splitlines()), st.text(max_size=30))
def test_a_good_file_with_one_line_changed_is_good_or_a_configuration_error(line: str, new: str) -> None:
    key, equals, _ = line.partition(" = ")
    with suppress(ConfigError):
        parse(GOOD.replace(line, f"{key}{equals}{new}", 1))


def test_what_the_firewall_needs_to_know_of_a_vlan() -> None:
    first, second = parse(
        changed("tag = 1", 'tag = 1\nguard = true\nencrypted_only = true\nrouter_ports = ["udp/53", "icmp"]')
    ).vlans
    assert (first.guard, first.encrypted_only) == (True, True)
    assert first.router_ports == (Ports("udp", 53, 53), Ports("icmp"))
    assert (second.guard, second.encrypted_only, second.router_ports) == (False, False, ())


def test_router_ports_are_checked_one_by_one() -> None:
    assert errors_of(changed("tag = 1", 'tag = 1\nguard = 1\nrouter_ports = ["udp/53", "sctp/9"]')) == [
        "vlan[0].guard: expected true or false, not 1",
        'vlan[0].router_ports[1]: expected ports such as "tcp/443", "udp/5000-5010" or "icmp", not \'sctp/9\'',
    ]


def test_the_key_of_a_container_is_its_name() -> None:
    assert container_key("container1") == b"ccontainer1"


@pytest.mark.parametrize("name", ["", "a", "-a", "a b", "a/b", "caf\u00e9", "ab\n"])
def test_a_name_that_docker_refuses_is_no_container(name: str) -> None:
    with pytest.raises(ValueError, match="expected a Docker name"):
        container_key(name)
