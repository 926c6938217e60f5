"""What a reload says: one sentence for each change between two files."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from dhcpd.pool import Range
from dhcpd.settings import Boot, Reservation, Scope
from router import settings
from router.changes import diff
from router.config import Config, parse
from router.settings import (
    Allow,
    Api,
    Broadcast,
    Docker,
    Keep,
    Kept,
    Kind,
    Node,
    Ports,
    Publish,
    Trunk,
    Uplink,
    Vlan,
    Wan,
)
from tests.router.good import GOOD, changed


def test_the_same_file_changes_nothing() -> None:
    assert diff(parse(GOOD), parse(GOOD)) == []


@pytest.mark.parametrize(
    ("old", "new", "forth", "back"),
    [
        (', "10.0.1.210-10.0.1.219"', "",
         ["vlan1: pool 10.0.1.100-10.0.1.199, 10.0.1.210-10.0.1.219 is now 10.0.1.100-10.0.1.199"],
         ["vlan1: pool 10.0.1.100-10.0.1.199 is now 10.0.1.100-10.0.1.199, 10.0.1.210-10.0.1.219"]),
        ('lease_time = "12h"', 'lease_time = "90m"', ["vlan1: lease_time 12h is now 90m"],
         ["vlan1: lease_time 90m is now 12h"]),
        ("tag = 2", "tag = 3", ["vlan2: tag 2 is now 3"], ["vlan2: tag 3 is now 2"]),
        ("tag = 2", "tag = 2\nknown_only = true",
         ["vlan2: known_only false is now true"], ["vlan2: known_only true is now false"]),
        ("tag = 2", "tag = 2\nguard = true",
         ["vlan2: guard false is now true"], ["vlan2: guard true is now false"]),
        ("tag = 2", "tag = 2\nencrypted_only = true",
         ["vlan2: encrypted_only false is now true"], ["vlan2: encrypted_only true is now false"]),
        ("tag = 2", 'tag = 2\nrouter_ports = ["udp/53", "tcp/53"]',
         ["vlan2: router_ports udp/53, tcp/53 added"], ["vlan2: router_ports udp/53, tcp/53 removed"]),
        ("tag = 2", 'tag = 2\nbridge = "br1"', ["vlan2: bridge br1 added"], ["vlan2: bridge br1 removed"]),
        ("tag = 2", 'tag = 2\nboot_file = "a.0"', ["vlan2: boot_file a.0 added"], ["vlan2: boot_file a.0 removed"]),
        ('domain = "truck.lan"', 'domain = "bus.lan"',
         ["vlan1: option domain_name truck.lan is now bus.lan"],
         ["vlan1: option domain_name bus.lan is now truck.lan"]),
        ('routes = "192.168.50.0/24 via 10.0.1.9"', "",
         ["vlan1: option classless_static_routes 0.0.0.0/0 via 10.0.1.1, 192.168.50.0/24 via 10.0.1.9 removed"],
         ["vlan1: option classless_static_routes 0.0.0.0/0 via 10.0.1.1, 192.168.50.0/24 via 10.0.1.9 added"]),
        ('router = "10.0.2.1"', 'router = "10.0.2.2"',
         ["vlan2: router 10.0.2.1 is now 10.0.2.2"], ["vlan2: router 10.0.2.2 is now 10.0.2.1"]),
        ("pools = []",
         'pools = []\n[[vlan.reservation]]\nname = "cam"\nmac = "02:00:00:00:00:01"\naddress = "10.0.2.20"',
         ["vlan2: reservation cam added (10.0.2.20)"], ["vlan2: reservation cam removed"]),
        ('address = "10.0.1.101"', 'address = "10.0.1.102"',
         ["vlan1: reservation ip_phone: address 10.0.1.101 is now 10.0.1.102"],
         ["vlan1: reservation ip_phone: address 10.0.1.102 is now 10.0.1.101"]),
        ('dns = "10.0.1.20"', "", ["vlan1: reservation web: option domain_name_servers 10.0.1.20 removed"],
         ["vlan1: reservation web: option domain_name_servers 10.0.1.20 added"]),
        ('to = "10.0.2.20"', 'to = "10.0.2.21"',
         ["allow vlan1/device1 to 10.0.2.20 removed", "allow vlan1/device1 to 10.0.2.21 added"],
         ["allow vlan1/device1 to 10.0.2.21 removed", "allow vlan1/device1 to 10.0.2.20 added"]),
        ("to_port = 80", "", ["publish tcp/8080 to vlan1/web port 80 removed", "publish tcp/8080 to vlan1/web added"],
         ["publish tcp/8080 to vlan1/web removed", "publish tcp/8080 to vlan1/web port 80 added"]),
        ('group = "239.1.2.3"', "",
         ["broadcast gps (udp/10110 group 239.1.2.3) from router to vlan1, vlan2 removed",
          "broadcast gps (udp/10110) from router to vlan1, vlan2 added"],
         ["broadcast gps (udp/10110) from router to vlan1, vlan2 removed",
          "broadcast gps (udp/10110 group 239.1.2.3) from router to vlan1, vlan2 added"]),
        ("pools = []", 'dhcp = "external"', ["vlan2: dhcp own is now external"], ["vlan2: dhcp external is now own"]),
        ('[wan]\nnetwork = "wan"', '[wan]\nnetwork = "uplink"',
         ["wan: network wan is now uplink"], ["wan: network uplink is now wan"]),
        ("/run/docker.sock", "/docker.sock",
         ["docker: socket /run/docker.sock is now /docker.sock"],
         ["docker: socket /docker.sock is now /run/docker.sock"]),
        ("[docker]", "[docker]\nadopt = false",
         ["docker: adopt true is now false"], ["docker: adopt false is now true"]),
        ('listen = "127.0.0.1:8067"', 'listen = "127.0.0.1:8068"',
         ["api: listen 127.0.0.1:8067 is now 127.0.0.1:8068, from the next start on"],
         ["api: listen 127.0.0.1:8068 is now 127.0.0.1:8067, from the next start on"]),
        ('token = "secret"', 'token = "other"', ["api: token changed"], ["api: token changed"]),
        ('[api]\nlisten = "127.0.0.1:8067"\ntoken = "secret"', "",
         ["api: listen 127.0.0.1:8067 removed"],
         ["api: listen 127.0.0.1:8067 added, from the next start on"]),
    ],
)  # fmt: skip
def test_a_change_is_one_sentence(old: str, new: str, forth: list[str], back: list[str]) -> None:
    before, after = parse(GOOD), parse(changed(old, new))
    assert diff(before, after) == forth
    assert diff(after, before) == back


def test_a_vlan_comes_and_goes() -> None:
    more = '\n[[vlan]]\nname = "vlan3"\ntag = 3\nsubnet = "10.0.3.0/24"\nrouter = "10.0.3.1"\npools = []\n'
    assert diff(parse(GOOD), parse(GOOD + more)) == ["vlan3: added (10.0.3.0/24, tag 3)"]
    assert diff(parse(GOOD + more), parse(GOOD)) == ["vlan3: removed"]


WHOLE = parse(
    changed(
        '[wan]\nnetwork = "wan"',
        '[wan]\nnetwork = "wan"\nparent = "wlan0"\nsubnet = "192.168.7.0/24"\ngateway = "192.168.7.1"\n'
        'landing = "192.168.7.240/28"\n[trunk]\ninterface = "lan0"',
    ).replace("tag = 2", 'tag = 2\nbridge = "br1"')
)
"""A file in which nothing is left out that has settings of its own."""

NET, VLAN2 = IPv4Network("172.16.0.0/28"), Node(Kind.VLAN, "vlan2", "vlan2")
APART = {
    (Config, "vlans"), (Vlan, "scope"), (Scope, "reservations"),  # what is in them has its own sentences
    (Config, "kept"), (Scope, "landing"),  # follow from reservations and from the VLAN's landing
    (Scope, "max_offers"),  # no file sets it
}  # fmt: skip

OTHER: dict[type, dict[str, Any]] = {
    Config: {
        "wan": None, "allow": (), "publish": (), "broadcast": (), "docker": Docker("/run/other.sock"), "api": None,
        "trunk": None, "history": Keep(1),
    },
    Vlan: {
        "tag": 9, "network": "other", "landing": NET, "interface": "other", "bridge": "other", "encrypted_only": True,
        "guard": True, "router_ports": (Ports("tcp", 80, 80),),
    },
    Scope: {
        "name": "other", "subnet": NET, "router": 9, "pools": (Range(1, 2),), "lease_time": 601,
        "min_lease_time": 61, "max_lease_time": 86401, "t1": 0.4, "t2": 0.9, "options": {42: bytes(4)},
        "boot": Boot(9), "authoritative": False, "match_client_id": False, "known_only": True,
        "always_broadcast": frozenset(), "probe": False, "quarantine": 61, "is_external": True,
    },
    Reservation: {
        "name": "other", "macs": (bytes(6),), "client_id": b"other", "container": "other", "address": 9,
        "options": {42: bytes(4)}, "boot": Boot(9),
    },
    Boot: {"next_server": 9, "server_name": "other", "file": "other"},
    Wan: {"network": "other", "interface": "other", "uplink": None},
    Uplink: {"parent": "other", "subnet": NET, "gateway": 9, "landing": NET},
    Docker: {"socket": "/run/other.sock", "netns": "/run/other", "adopt": False},
    Trunk: {"interface": "other"},
    Api: {"host": "10.0.0.1", "port": 9, "token": "other", "hosts": ("other",)},
    Keep: {"max_age": 1, "max_size": 9 << 20},
    Allow: {"source": VLAN2, "target": VLAN2, "ports": ()},
    Publish: {"ports": Ports("tcp", 9, 9), "target": VLAN2, "to_port": 9},
    Broadcast: {"name": "other", "port": 9, "source": VLAN2, "targets": (), "group": None},
}  # fmt: skip
"""Another value for each field of the settings."""


PATHS: dict[type, str] = {
    Config: "", Vlan: "vlans", Scope: "vlans.scope", Reservation: "vlans.scope.reservations", Boot: "vlans.scope.boot",
    Wan: "wan", Uplink: "wan.uplink", Docker: "docker", Trunk: "trunk", Api: "api", Keep: "history", Allow: "allow",
    Publish: "publish", Broadcast: "broadcast",
}  # fmt: skip


def with_another(one: Any, path: str, name: str, value: object) -> Any:
    """The settings with another value at the end of the path; of several at a part of it, in the first."""
    if isinstance(one, tuple):
        return (with_another(one[0], path, name, value), *one[1:])
    part, _, rest = path.partition(".")
    if not part:
        return replace(one, **{name: value})
    return replace(one, **{part: with_another(getattr(one, part), rest, name, value)})


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, one.name) for kind in OTHER for one in fields(kind) if (kind, one.name) not in APART],
)
def test_no_setting_changes_without_a_sentence(kind: type, name: str) -> None:
    after = with_another(WHOLE, PATHS[kind], name, OTHER[kind][name])
    assert after != WHOLE
    assert diff(WHOLE, after)
    assert diff(after, WHOLE)


def test_every_kind_of_settings_is_looked_at() -> None:
    kinds = {one for one in vars(settings).values() if is_dataclass(one)}
    assert kinds - OTHER.keys() == {Node, Ports, Kept}
