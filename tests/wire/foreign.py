"""A VLAN with a foreign DHCP server: the router's namespace, the server's behind a bridge, and real servers for it."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import ClassVar, NamedTuple

import pytest

from tests.lab import netns
from tests.lab.netns import wait_until
from tests.lab.service import REPOSITORY, Service
from tests.wire.segment import toml

SUBNET = IPv4Network("10.77.0.0/24")
ROUTER, SERVER = IPv4Address("10.77.0.1"), IPv4Address("10.77.0.2")
FIRST, LAST = IPv4Address("10.77.0.100"), IPv4Address("10.77.0.149")
UNPACKED = REPOSITORY / ".cache" / "servers"
"""Where ``tests/wire/servers.sh`` puts the servers that are not installed."""

_numbers = itertools.count(1)


class Site(NamedTuple):
    """Where a foreign server runs, and what it serves."""

    netns: str
    interface: str = "br0"
    subnet: IPv4Network = SUBNET
    router: IPv4Address = ROUTER
    server: IPv4Address = SERVER
    first: IPv4Address = FIRST
    last: IPv4Address = LAST


class Lan:
    """The namespaces `router`, with the leg ``leg0``, and `server`, with the bridge ``br0`` that ``leg0`` is on."""

    def __init__(self) -> None:
        prefix = f"{netns.prefix(os.getpid())}{next(_numbers)}-f-"
        self.router, self.server = f"{prefix}router", f"{prefix}server"


@contextmanager
def foreign_lan() -> Iterator[Lan]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    lan = Lan()
    try:
        netns.batch(f"netns add {name}" for name in (lan.router, lan.server))
        for name in (lan.router, lan.server):
            netns.write_sysctls(
                name, dict.fromkeys(("ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"), 1)
            )
        netns.batch(
            [
                "link set lo up",
                "link add br0 type bridge",
                f"address add {SERVER}/{SUBNET.prefixlen} dev br0",
                "link set br0 up",
                f"link add port0 type veth peer name leg0 netns {lan.router}",
                "link set port0 master br0 up",
            ],
            lan.server,
        )
        netns.batch(
            ["link set lo up", f"address add {ROUTER}/{SUBNET.prefixlen} dev leg0", "link set leg0 up"], lan.router
        )
        yield lan
    finally:
        netns.delete([lan.router, lan.server])


class ForeignServer(ABC):
    """A DHCP server. Its leases outlive `stop`; what it prints goes into a file in ``home``."""

    name: ClassVar[str]
    program: ClassVar[str]
    lease, t1 = 120, 3
    """Seconds of a lease, and until it is renewed."""

    def __init__(self, site: Site, home: Path) -> None:
        self.site = site
        self.home = home
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def path(cls) -> str | None:
        """The program, installed or unpacked."""
        return shutil.which(cls.program, path=f"/usr/sbin:/usr/bin:{UNPACKED}/usr/sbin")

    @abstractmethod
    def command(self, reserved: Mapping[bytes, IPv4Address]) -> list[str]:
        """Write the configuration, with reservations by hardware address, and return the command."""

    @abstractmethod
    def ends(self, address: IPv4Address) -> float:
        """When the lease of an address ends by the server's own record, in seconds since the epoch; 0 without one."""

    def start(self, reserved: Mapping[bytes, IPv4Address] | None = None) -> None:
        """Run the server, and return when it has its port."""
        command = [*netns.enter(self.site.netns), *self.command(reserved or {})]
        environment = {"KEA_PIDFILE_DIR": str(self.home), "KEA_LOCKFILE_DIR": str(self.home)}
        if any(one.startswith(str(UNPACKED)) for one in command):
            environment["LD_LIBRARY_PATH"] = f"{UNPACKED}/usr/lib/{os.uname().machine}-linux-gnu"
            environment["KEA_LFC_EXECUTABLE"] = f"{UNPACKED}/usr/sbin/kea-lfc"
        with (self.home / "output").open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=os.environ | environment,
            )  # fmt: skip
        sockets = Path(f"/proc/{self._process.pid}/net/udp")
        wait_until(lambda: ":0043 " in sockets.read_text(), 20, f"{self.name} to listen")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def _write(self, name: str, text: str) -> str:
        (self.home / name).write_text(text)
        return str(self.home / name)


class Dnsmasq(ForeignServer):
    """Its leases are 120 seconds at least, so T1 is set by option 58."""

    name = program = "dnsmasq"

    def command(self, reserved: Mapping[bytes, IPv4Address]) -> list[str]:
        site = self.site
        lines = [
            "port=0", "user=root", f"interface={site.interface}", "bind-interfaces", "dhcp-authoritative", "no-ping",
            f"dhcp-range={site.first},{site.last},{site.subnet.netmask},{self.lease}",
            f"dhcp-option=3,{site.router}", "dhcp-option=26,1400", f"dhcp-option=58,{self.t1}",
            f"dhcp-leasefile={self.home / 'leases'}", f"pid-file={self.home / 'pid'}",
            *(f"dhcp-host={mac.hex(':')},{address}" for mac, address in reserved.items()),
        ]  # fmt: skip
        return [str(self.path()), "-k", "-C", self._write("conf", "\n".join(lines) + "\n"), "--log-facility=-"]

    def ends(self, address: IPv4Address) -> float:
        rows = (line.split() for line in (self.home / "leases").read_text().splitlines())
        return max((float(row[0]) for row in rows if row[2] == str(address)), default=0)


class Kea(ForeignServer):
    name, program = "kea", "kea-dhcp4"

    def command(self, reserved: Mapping[bytes, IPv4Address]) -> list[str]:
        site = self.site
        subnet = {
            "id": 1, "subnet": str(site.subnet), "interface": site.interface,
            "pools": [{"pool": f"{site.first} - {site.last}"}],
            "option-data": [{"name": "routers", "data": str(site.router)}, {"name": "interface-mtu", "data": "1400"}],
            "reservations": [{"hw-address": mac.hex(":"), "ip-address": str(ip)} for mac, ip in reserved.items()],
        }  # fmt: skip
        settings = {
            "interfaces-config": {"interfaces": [site.interface], "dhcp-socket-type": "raw"},
            "lease-database": {"type": "memfile", "persist": True, "name": str(self.home / "leases.csv")},
            "valid-lifetime": self.lease, "renew-timer": self.t1, "rebind-timer": self.lease * 7 // 8,
            "authoritative": True, "subnet4": [subnet],
            "loggers": [{"name": "kea-dhcp4", "output_options": [{"output": "stdout"}], "severity": "INFO"}],
        }  # fmt: skip
        return [str(self.path()), "-c", self._write("kea.json", json.dumps({"Dhcp4": settings}))]

    def ends(self, address: IPv4Address) -> float:
        files = [file for file in self.home.glob("leases.csv*") if file.suffix != ".pid"]
        rows = (line.split(",") for file in files for line in file.read_text().splitlines())
        return max((float(row[4]) for row in rows if row[0] == str(address)), default=0)


class IscDhcpd(ForeignServer):
    """It extends no lease of which less than a quarter is over (``dhcp-cache-threshold``), so T1 is behind that."""

    name, program = "isc-dhcpd", "dhcpd"
    lease, t1 = 20, 8

    def command(self, reserved: Mapping[bytes, IPv4Address]) -> list[str]:
        site = self.site
        hosts = "".join(
            f"host h{number} {{ hardware ethernet {mac.hex(':')}; fixed-address {address}; }}\n"
            for number, (mac, address) in enumerate(reserved.items())
        )
        text = (
            f"authoritative; ping-check false; ddns-update-style none; default-lease-time {self.lease};\n"
            f"min-lease-time 1; option dhcp-renewal-time {self.t1}; option interface-mtu 1400;\n"
            f"subnet {site.subnet.network_address} netmask {site.subnet.netmask} {{\n"
            f"  range {site.first} {site.last}; option routers {site.router};\n}}\n{hosts}"
        )
        leases = self.home / "leases"
        leases.touch()
        files = ["-cf", self._write("conf", text), "-lf", str(leases), "-pf", str(self.home / "pid")]
        return [str(self.path()), "-4", "-d", "--no-pid", *files, site.interface]

    def ends(self, address: IPv4Address) -> float:
        found = re.findall(rf"lease {re.escape(str(address))} \{{.*?ends \d (.*?);", self._leases(), re.DOTALL)
        times = (datetime.strptime(one, "%Y/%m/%d %H:%M:%S").replace(tzinfo=UTC) for one in found)
        return max((one.timestamp() for one in times), default=0)

    def _leases(self) -> str:
        return (self.home / "leases").read_text()


class Lanward(ForeignServer):
    """Our own server, as the one of another machine."""

    name = program = "lanward"

    def __init__(self, site: Site, home: Path) -> None:
        super().__init__(site, home)
        self.service = Service(netns.enter(site.netns), home)

    @classmethod
    def path(cls) -> str | None:
        return cls.program

    def command(self, reserved: Mapping[bytes, IPv4Address]) -> list[str]:
        raise NotImplementedError

    def start(self, reserved: Mapping[bytes, IPv4Address] | None = None) -> None:
        site = self.site
        config = "[[vlan]]\n" + toml(
            name="vlan1", tag=1, subnet=str(site.subnet), router=str(site.server), interface=site.interface, mtu=1400,
            probe=False, pools=[f"{site.first}-{site.last}"], lease_time=f"{self.lease}s", t1=self.t1 / self.lease,
        )  # fmt: skip
        config += "[vlan.options]\n" + toml(routers=str(site.router))
        for number, (mac, address) in enumerate((reserved or {}).items()):
            config += "[[vlan.reservation]]\n" + toml(name=f"h{number}", mac=mac.hex(":"), address=str(address))
        self.service.start(config)

    def stop(self) -> None:
        self.service.stop()

    def ends(self, address: IPv4Address) -> float:
        rows = (row for row in self.service.leases() if row["address"] == str(address))
        return max((datetime.fromisoformat(row["expires"]).timestamp() for row in rows), default=0)


SERVERS: tuple[type[ForeignServer], ...] = (Dnsmasq, Lanward, Kea, IscDhcpd)
