"""What a reload says: one sentence for each change between two files."""

from __future__ import annotations

import pytest

from router.changes import diff
from router.config import parse
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
        ('token = "secret"', 'token = "other"', ["api: token changed"], ["api: token changed"]),
        ('[api]\nlisten = "127.0.0.1:8067"\ntoken = "secret"', "",
         ["api: listen 127.0.0.1:8067 removed"], ["api: listen 127.0.0.1:8067 added"]),
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
