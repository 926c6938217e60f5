"""A good configuration file that uses every table, and its mutations."""

from __future__ import annotations

import pytest

from router.config import ConfigError, parse

GOOD = """
[wan]
network = "wan"

[[vlan]]
name = "vlan1"
tag = 1
subnet = "10.0.1.0/24"
router = "10.0.1.1"
pools = ["10.0.1.100-10.0.1.199", "10.0.1.210-10.0.1.219"]
landing = "10.0.1.240/28"
lease_time = "12h"
network = "br0net"
bridge = "br0"
interface = "lan1"
dns = ["1.1.1.1", "9.9.9.9"]
domain = "truck.lan"
routes = "192.168.50.0/24 via 10.0.1.9"
always_broadcast = ["02:00:00:00:01:09"]

[vlan.options]
captive_portal = "https://truck.lan/"
"43" = "hex:01:04:0a"

[[vlan.reservation]]
name = "device1"
mac = ["02:00:00:00:01:05", "02-00-00-00-01-06"]
address = "10.0.1.20"

[[vlan.reservation]]
name = "ip_phone"
client_id = "01:02:00:00:00:01:07"
address = "10.0.1.101"
boot_file = "phone.bin"

[[vlan.reservation]]
name = "web"
container = "container1"
dns = "10.0.1.20"

[[vlan]]
name = "vlan2"
tag = 2
subnet = "10.0.2.0/24"
router = "10.0.2.1"
pools = []

[[allow]]
from = "vlan1"
to = "vlan2/container2"
ports = ["tcp/443", "udp/5000-5010", "icmp"]

[[allow]]
from = "vlan1/device1"
to = "10.0.2.20"

[[publish]]
port = "tcp/8080"
to = "vlan1/web"
to_port = 80

[[publish]]
port = "udp/9000-9010"
to = "10.0.1.20"

[[broadcast]]
name = "gps"
port = 10110
from = "router"
to = ["vlan1", "vlan2"]
group = "239.1.2.3"

[docker]
socket = "/run/docker.sock"

[api]
listen = "127.0.0.1:8067"
token = "secret"
"""


def errors_of(source: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        parse(source)
    return error.value.errors


def changed(old: str, new: str) -> str:
    """The good file with the first ``old`` replaced."""
    assert old in GOOD
    return GOOD.replace(old, new, 1)
