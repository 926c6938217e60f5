"""Each thing that can be wrong in a configuration file: one mutation of a good one, the place and the message."""

from __future__ import annotations

import pytest

from tests.router.good import changed, errors_of

NOT_TEXT = "expected a Docker name: two or more letters, digits, '_', '.' or '-', a letter or digit first"

NOT_ONE = 'expected an interface name of up to 15 characters, no blanks and none of / : * ; { } " \\, not'
STRANGE = ["eth*", 'a"b', "a;b", "a{b", "a}b", "a\\b", "a/b", "a:b", "a b"]

NAMES = [
    ('name = "vlan1"', "", "vlan[0].name: is missing"),
    ('name = "vlan1"', 'name = "1a"',
     "vlan[0].name: expected up to 32 letters, digits, '_' or '-', a letter first, not '1a'"),
    ('name = "vlan1"', 'name = "wan"', "vlan[0].name: wan has a meaning of its own, choose another name"),
    ('name = "vlan2"', 'name = "vlan1"', "vlan[1].name: vlan1 is taken already by vlan[0]"),
]  # fmt: skip

VLAN = [
    ("pools = []", 'dhcp = "foreign"\npools = []', "vlan[1].dhcp: expected \"own\" or \"external\", not 'foreign'"),
    ("pools = []", 'dhcp = "external"\npools = []',
     "vlan[1].pools: has no effect: another server serves this VLAN (dhcp is external)"),
    ("pools = []", 'dhcp = "external"\nknown_only = true',
     "vlan[1].known_only: has no effect: another server serves this VLAN (dhcp is external)"),
    ("pools = []", 'dhcp = "external"\n[[vlan.reservation]]\nname = "cam"',
     "vlan[1].reservation: has no effect: another server serves this VLAN (dhcp is external)"),
    ("pools = []", 'dhcp = "external"\nguard = true',
     "vlan[1].guard: needs the leases of all nodes, which another server has (dhcp is external)"),
    ("tag = 1", "", "vlan[0].tag: is missing"),
    ("tag = 1", "tag = 0", "vlan[0].tag: expected a whole number from 1 to 4094, not 0"),
    ("tag = 2", "tag = 1", "vlan[1].tag: 1 is taken already by vlan[0]"),
    ('bridge = "br0"', 'bridge = "a bridge"',
     f"vlan[0].bridge: {NOT_ONE} 'a bridge'"),
    *(("\"lan1\"", f"'{name}'", f"vlan[0].interface: {NOT_ONE} {name!r}") for name in STRANGE),
    ("tag = 2", 'tag = 2\nbridge = "br0"', "vlan[1].bridge: br0 is taken already by vlan[0]"),
    ("tag = 2", 'tag = 2\ninterface = "lan1"', "vlan[1].interface: lan1 is taken already by vlan[0]"),
    ("tag = 2", 'tag = 2\nnetwork = "br0net"\nlanding = "10.0.2.240/28"',
     "vlan[1].network: br0net is taken already by vlan[0]"),
    ("br0net", "wan", "vlan[0].network: wan is taken already by wan"),
    ("br0net", "br0/net", f"vlan[0].network: {NOT_TEXT}"),
    ("pools = []", "", "vlan[1].pools: is missing; write [] when only reservations are served"),
    ('bridge = "br0"', "xyz = 1", "vlan[0].xyz: unknown key"),
    ('bridge = "br0"', "pool = 1", 'vlan[0].pool: unknown key, did you mean "pools"?'),
    ('landing = "10.0.1.240/28"', "",
     "vlan[0].landing: is missing: Docker needs a part of the subnet for itself, outside the pools"),
    ("always_broadcast = [", "always_broadcast = 5 # [", "vlan[0].always_broadcast: expected a list, not 5"),
    ("02:00:00:00:01:09", "02:00:00:00:01",
     "vlan[0].always_broadcast[0]: expected a MAC address such as 02:00:00:00:01:05, not '02:00:00:00:01'"),
    ('bridge = "br0"', "probe = 1", "vlan[0].probe: expected true or false, not 1"),
]  # fmt: skip

PLAN = [
    ('subnet = "10.0.1.0/24"', "", "vlan[0].subnet: is missing"),
    ('subnet = "10.0.1.0/24"', 'subnet = "10.0.1.0"',
     "vlan[0].subnet: expected a network such as 10.0.1.0/24, not '10.0.1.0'"),
    ('subnet = "10.0.1.0/24"', 'subnet = "10.0.1.7/24"',
     'vlan[0].subnet: 10.0.1.7/24 is an address inside a network, did you mean "10.0.1.0/24"?'),
    ('subnet = "10.0.1.0/24"', 'subnet = "10.0.0.0/7"',
     "vlan[0].subnet: 10.0.0.0/7 has the wrong size, expected /8 to /30"),
    ('subnet = "10.0.2.0/24"', 'subnet = "10.0.2.0/31"',
     "vlan[1].subnet: 10.0.2.0/31 has the wrong size, expected /8 to /30"),
    ('subnet = "10.0.1.0/24"', 'subnet = "127.0.0.0/8"', "vlan[0].subnet: 127.0.0.0/8 is not for hosts"),
    ('subnet = "10.0.2.0/24"', 'subnet = "10.0.0.0/16"', "vlan[1].subnet: 10.0.0.0/16 overlaps 10.0.1.0/24 of vlan[0]"),
    ('router = "10.0.1.1"', "", "vlan[0].router: is missing"),
    ('router = "10.0.1.1"', "router = 5", "vlan[0].router: expected an IPv4 address such as 10.0.1.20, not 5"),
    ('router = "10.0.1.1"', 'router = "10.0.3.1"', "vlan[0].router: 10.0.3.1 is outside 10.0.1.0/24"),
    ('router = "10.0.1.1"', 'router = "10.0.1.0"', "vlan[0].router: 10.0.1.0 is the network address of 10.0.1.0/24"),
    ('router = "10.0.2.1"', 'router = "10.0.2.255"',
     "vlan[1].router: 10.0.2.255 is the broadcast address of 10.0.2.0/24"),
    ('router = "10.0.1.1"', 'router = "10.0.1.150"',
     "vlan[0].pools[0]: 10.0.1.100-10.0.1.199 contains the router's address 10.0.1.150"),
    ('router = "10.0.1.1"', 'router = "10.0.1.241"',
     "vlan[0].landing: 10.0.1.240/28 contains the router's address 10.0.1.241"),
    ("10.0.1.240/28", "10.0.2.240/28", "vlan[0].landing: 10.0.2.240/28 is outside 10.0.1.0/24"),
    ("10.0.1.240/28", "10.0.1.255/32", "vlan[0].landing: 10.0.1.255/32 has no address for a host"),
    ("10.0.1.240/28", "10.0.1.216/29",
     "vlan[0].pools[1]: 10.0.1.210-10.0.1.219 overlaps the landing range 10.0.1.216/29"),
    ("10.0.1.100-10.0.1.199", "10.0.1.100",
     "vlan[0].pools[0]: expected a range such as \"10.0.1.100-10.0.1.199\", not '10.0.1.100'"),
    ("10.0.1.100-10.0.1.199", "10.0.1.199-10.0.1.100",
     "vlan[0].pools[0]: '10.0.1.199-10.0.1.100' ends before it starts"),
    ("10.0.1.210-10.0.1.219", "10.0.2.7-10.0.2.9", "vlan[0].pools[1]: 10.0.2.7 is outside 10.0.1.0/24"),
    ("10.0.1.210-10.0.1.219", "10.0.1.210-10.0.2.9", "vlan[0].pools[1]: 10.0.2.9 is outside 10.0.1.0/24"),
    ("10.0.1.210-10.0.1.219", "10.0.1.199-10.0.1.201",
     "vlan[0].pools[1]: 10.0.1.199-10.0.1.201 overlaps 10.0.1.100-10.0.1.199 of vlan[0].pools[0]"),
    ("pools = []", 'pools = ["10.0.2.200-10.0.2.255"]',
     "vlan[1].pools[0]: 10.0.2.255 is the broadcast address of 10.0.2.0/24"),
    ("pools = []", 'pools = "10.0.2.100-10.0.2.199"', "vlan[1].pools: expected a list, not '10.0.2.100-10.0.2.199'"),
]  # fmt: skip

DURATION = 'expected a duration such as "90s", "15m", "12h", "7d" or "infinite", not'

TIMES = [
    ('lease_time = "12h"', 'lease_time = "12 h"', f"vlan[0].lease_time: {DURATION} '12 h'"),
    ('lease_time = "12h"', "lease_time = -1", f"vlan[0].lease_time: {DURATION} -1"),
    ('lease_time = "12h"', "lease_time = 1.5", f"vlan[0].lease_time: {DURATION} 1.5"),
    ('lease_time = "12h"', "lease_time = 0", "vlan[0].lease_time: expected at least one second, not 0"),
    ('lease_time = "12h"', 'lease_time = "60000d"',
     "vlan[0].lease_time: '60000d' is longer than 49710 days, did you mean \"infinite\"?"),
    ('lease_time = "12h"', 'min_lease_time = "1d"', "vlan[0].min_lease_time: 1d is more than lease_time (12h)"),
    ('lease_time = "12h"', 'max_lease_time = "1h"', "vlan[0].max_lease_time: 1h is less than lease_time (12h)"),
    ('lease_time = "12h"', "t1 = 2", "vlan[0].t1: expected a part of the lease time such as 0.5, not 2"),
    ('lease_time = "12h"', "t2 = nan", "vlan[0].t2: expected a part of the lease time such as 0.5, not nan"),
    ('lease_time = "12h"', "t1 = 0.9", "vlan[0].t1: 0.9 is not less than t2 (0.875)"),
]  # fmt: skip

OPTIONS = [
    ("captive_portal =", "captive_protal =",
     'vlan[0].options.captive_protal: unknown option, did you mean "captive_portal"?'),
    ("captive_portal =", "subnet_mask =",
     "vlan[0].options.subnet_mask: option 1 (subnet_mask) cannot be set: it follows from subnet"),
    ('"43" =', "51 =", "vlan[0].options.51: option 51 (lease_time) cannot be set: set lease_time of the VLAN"),
    ('"43" =', '"a b" =', "vlan[0].options.'a b': unknown option"),
    ('"43" =', "6 =", "vlan[0].options.6: domain_name_servers is set already by vlan[0].dns"),
    ("[vlan.options]\ncaptive_portal = \"https://truck.lan/\"\n\"43\" = \"hex:01:04:0a\"", "options = 5",
     "vlan[0].options: expected a table [options], not 5"),
    ('dns = ["1.1.1.1"', 'dns = ["1.1.1"', "vlan[0].dns: expected an IPv4 address such as 10.0.1.20, not '1.1.1'"),
    ("via 10.0.1.9", "10.0.1.9",
     "vlan[0].routes: expected a route such as \"192.168.50.0/24 via 10.0.1.9\", not '192.168.50.0/24 10.0.1.9'"),
    ("via 10.0.1.9", "via 10.0.2.9",
     "vlan[0].routes: 10.0.2.9, the router to 192.168.50.0/24, is outside 10.0.1.0/24"),
    ('routes = "192.168.50.0/24 via 10.0.1.9"', 'routes = "hex:ff"',
     "vlan[0].routes: the bytes are no list of routes (RFC 3442)"),
    ('bridge = "br0"', f'server_name = "{"x" * 64}"', "vlan[0].server_name: expected at most 63 bytes"),
]  # fmt: skip

RESERVATION = [
    ('name = "device1"', "", "vlan[0].reservation[0].name: is missing"),
    ('name = "device1"', 'name = "device/1"',
     "vlan[0].reservation[0].name: expected letters, digits, '_', '.' or '-', a letter or digit first, not 'device/1'"),
    ('name = "web"', 'name = "device1"',
     "vlan[0].reservation[2].name: device1 is taken already by vlan[0].reservation[0]"),
    ('container = "container1"', "", "vlan[0].reservation[2]: expected mac, client_id or container"),
    ('container = "container1"', 'container = "container1"\nclient_id = "a"',
     "vlan[0].reservation[2].container: a reservation with client_id cannot have container as well"),
    ('container = "container1"', 'container = "a"', f"vlan[0].reservation[2].container: {NOT_TEXT}"),
    ('container = "container1"', 'mac = "02:00:00:00:01:06"',
     "vlan[0].reservation[2].mac: 02:00:00:00:01:06 is taken already by vlan[0].reservation[0]"),
    ('container = "container1"', 'client_id = "hex:01020000000107"',
     "vlan[0].reservation[2].client_id: 01:02:00:00:00:01:07 is taken already by vlan[0].reservation[1]"),
    ('name = "ip_phone"\nclient_id = "01:02:00:00:00:01:07"', 'name = "ip_phone"\ncontainer = "container1"',
     "vlan[0].reservation[2].container: container1 is taken already by vlan[0].reservation[1]"),
    ('container = "container1"', "mac = []", "vlan[0].reservation[2].mac: expected at least one value"),
    ("02-00-00-00-01-06", "ff:ff:ff:ff:ff:ff",
     "vlan[0].reservation[0].mac[1]: ff:ff:ff:ff:ff:ff is not the address of a single station"),
    ("01:02:00:00:00:01:07", "x" * 256, "vlan[0].reservation[1].client_id: expected at most 255 bytes, not 256"),
    ('address = "10.0.1.20"', 'address = "10.0.1.1"',
     "vlan[0].reservation[0].address: 10.0.1.1 is the router's address"),
    ('address = "10.0.1.20"', 'address = "10.0.1.242"',
     "vlan[0].reservation[0].address: 10.0.1.242 is in the landing range 10.0.1.240/28"),
    ('address = "10.0.1.20"', 'address = "10.0.2.20"',
     "vlan[0].reservation[0].address: 10.0.2.20 is outside 10.0.1.0/24"),
    ('address = "10.0.1.101"', 'address = "10.0.1.20"',
     "vlan[0].reservation[1].address: 10.0.1.20 is taken already by vlan[0].reservation[0]"),
    ('boot_file = "phone.bin"', 'hostname = "-"',
     "vlan[0].reservation[1].hostname: expected a domain name of letters, digits and hyphens, not '-'"),
    ('boot_file = "phone.bin"', 'file = "phone.bin"',
     'vlan[0].reservation[1].file: unknown key, did you mean "boot_file"?'),
    ('boot_file = "phone.bin"', 'dns = "x"',
     "vlan[0].reservation[1].dns: expected an IPv4 address such as 10.0.1.20, not 'x'"),
]  # fmt: skip

SINGLE = 'expected one node such as "vlan1/device1" or "10.0.1.20", not'

EXCEPTIONS = [
    ('from = "vlan1"', "", "allow[0].from: is missing"),
    ('from = "vlan1"', 'from = "vlan9"', "allow[0].from: no VLAN has the name 'vlan9', did you mean \"vlan2\"?"),
    ('from = "vlan1"', 'from = "vlan1/a b"',
     "allow[0].from: expected letters, digits, '_', '.' or '-', a letter or digit first, not 'a b'"),
    ('from = "vlan1"', 'from = "10.0.9.1"', "allow[0].from: 10.0.9.1 is in no VLAN of this file"),
    ('from = "vlan1"', 'from = "10.0.1"', "allow[0].from: expected an IPv4 address such as 10.0.1.20, not '10.0.1'"),
    ('to = "vlan2/container2"', 'to = "vlan1"', "allow[0].to: vlan1 is the same as from"),
    ("tcp/443", "tcp/", 'allow[0].ports[0]: expected ports such as "tcp/443", "udp/5000-5010" or "icmp", not \'tcp/\''),
    ("tcp/443", "tcp/70000", "allow[0].ports[0]: expected a whole number from 1 to 65535, not 70000"),
    ("udp/5000-5010", "udp/5010-5000", "allow[0].ports[1]: udp/5010-5000 ends before it starts"),
    ('ports = ["tcp', 'ports = [] # ["tcp', "allow[0].ports: expected at least one value"),
    ("tcp/8080", "icmp", "publish[0].port: expected tcp or udp with a port; icmp has none"),
    ("tcp/8080", "udp/9005", "publish[1].port: udp/9000-9010 is published already by publish[0]"),
    ('to = "vlan1/web"', 'to = "vlan1"', f"publish[0].to: {SINGLE} 'vlan1'"),
    ('to = "vlan1/web"', 'to = "wan"', f"publish[0].to: {SINGLE} 'wan'"),
    ('to = "vlan1/web"', 'to = "10.0.1.1"', "publish[0].to: 10.0.1.1 is the router's address"),
    ('to = "vlan1/web"', 'to = "10.0.2.0"', "publish[0].to: 10.0.2.0 is the network address of 10.0.2.0/24"),
    ('to = "vlan1/web"', 'to = "10.0.1.255"', "publish[0].to: 10.0.1.255 is the broadcast address of 10.0.1.0/24"),
    ("to_port = 80", 'to_port = "udp/80"', "publish[0].to_port: expected one port of the same protocol, not 'udp/80'"),
    ('port = "udp/9000-9010"', 'port = "udp/9000-9010"\nto_port = 65530',
     "publish[1].to_port: udp/9000-9010 moved to 65530 ends above 65535"),
    ('port = "udp/9000-9010"', 'port = "udp/9000-9512"\nto_port = 9001',
     "publish[1].to_port: udp/9000-9512 has 513 ports, of which at most 512 can be moved"),
    ('name = "gps"', 'name = ""',
     "broadcast[0].name: expected letters, digits, '_', '.' or '-', a letter or digit first, not ''"),
    ("[docker]", '[[broadcast]]\nname = "gps"\nport = 1\nfrom = "vlan1"\nto = "vlan2"\n[docker]',
     "broadcast[1].name: gps is taken already by broadcast[0]"),
    ("port = 10110", "", "broadcast[0].port: is missing"),
    ('from = "router"', 'from = "wan"', "broadcast[0].from: expected a VLAN or \"router\", not 'wan'"),
    ('from = "router"', 'from = "vlan2"', "broadcast[0].to[1]: vlan2 is the same as from"),
    ('to = ["vlan1", "vlan2"]', "", "broadcast[0].to: is missing"),
    ('to = ["vlan1", "vlan2"]', 'to = ["vlan1", "vlan1"]',
     "broadcast[0].to[1]: vlan1 is taken already by broadcast[0].to[0]"),
    ('to = ["vlan1", "vlan2"]', 'to = "vlan1/device1"', "broadcast[0].to: expected a VLAN, not 'vlan1/device1'"),
    ("239.1.2.3", "10.0.1.5",
     "broadcast[0].group: 10.0.1.5 is no multicast group, expected 224.0.0.0 to 239.255.255.255"),
]  # fmt: skip

REST = [
    ('[wan]\nnetwork = "wan"', "[wan]", "wan: expected network or interface"),
    ('[wan]\nnetwork = "wan"', '[wan]\nnetwork = "wan"\ninterface = "eth1"',
     "wan.interface: [wan] with a network cannot have an interface as well"),
    ('[wan]\nnetwork = "wan"', 'wan = "wan"', "wan: expected a table [wan], not 'wan'"),
    ('[wan]\nnetwork = "wan"', '[wan]\ninterface = "lan1"', "vlan[0].interface: lan1 is taken already by wan"),
    ('[wan]\nnetwork = "wan"', '[wan]\ninterface = "br0"', "vlan[0].bridge: br0 is taken already by wan"),
    ('[wan]\nnetwork = "wan"', '[wan]\ninterface = "eth*"', f"wan.interface: {NOT_ONE} 'eth*'"),
    ('[wan]\nnetwork = "wan"', 'vlans = 1\n[wan]\nnetwork = "wan"', 'vlans: unknown key, did you mean "vlan"?'),
    ('from = "vlan1"', 'from = "router"\nform = 1', 'allow[0].form: unknown key, did you mean "from"?'),
    ("[docker]\nsocket =", "[docker]\nsock =", 'docker.sock: unknown key, did you mean "socket"?'),
    ("/run/docker.sock", "run/docker.sock", "docker.socket: expected an absolute path, not 'run/docker.sock'"),
    ("127.0.0.1:8067", "8067", "api.listen: expected an address and a port such as 127.0.0.1:8067, not '8067'"),
    ('token = "secret"', "", "api.token: is missing: the API on TCP is open only to who knows it"),
    ('token = "secret"', 'token = "my secret"', "api.token: expected visible ASCII characters without spaces"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "error"), [*VLAN, *PLAN, *TIMES, *OPTIONS, *RESERVATION, *EXCEPTIONS, *REST])
def test_an_error_says_its_place_and_what_is_expected(old: str, new: str, error: str) -> None:
    assert errors_of(changed(old, new)) == [error]


@pytest.mark.parametrize(("old", "new", "error"), NAMES)
def test_a_wrong_name_is_reported_first(old: str, new: str, error: str) -> None:
    assert errors_of(changed(old, new))[0] == error


@pytest.mark.parametrize("source", ["", "vlan = []", "[wan]\nnetwork = 'wan'"])
def test_a_file_without_a_vlan_is_refused(source: str) -> None:
    assert errors_of(source) == ["vlan: at least one [[vlan]] is needed"]


def test_without_a_wan_nothing_goes_there() -> None:
    source = changed('[wan]\nnetwork = "wan"', "").replace('from = "vlan1"', 'from = "wan"', 1)
    assert errors_of(source) == [
        "allow[0].from: there is no [wan] in this file",
        "publish[0]: there is no [wan] to publish on",
        "publish[1]: there is no [wan] to publish on",
    ]


@pytest.mark.parametrize("key", ["token", "tokn"])
def test_no_error_tells_the_token(key: str) -> None:
    source = changed('token = "secret"', f'{key} = "my secret"')
    assert not any("my secret" in line for line in errors_of(source))
