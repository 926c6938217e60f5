"""Real DHCP clients on a device of the truck, all behind one interface.

Each keeps its files in a folder of its own and configures its interface by a script of ours, so nothing of the
machine's is touched, /etc/resolv.conf included.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import ClassVar

from tests.lab import netns
from tests.lab.netns import wait_until
from tests.lab.scripts import APPLY_LEASE, PRIVATE_DHCPCD, PRIVATE_NETWORKD


@dataclass(frozen=True)
class Lease:
    """What a client was told: address with prefix, router, name servers, domain and lease time in seconds."""

    address: IPv4Interface
    router: IPv4Address | None
    dns: tuple[IPv4Address, ...]
    domain: str
    seconds: int


class Client(ABC):
    """A DHCP client on `eth0` of the namespace `name`; `home` is a folder for its files."""

    program: ClassVar[str]
    renew_signal: ClassVar[signal.Signals | None] = None
    """What makes the client renew at once; without one it does so at T1 only."""
    follows_its_cable: ClassVar[bool] = False
    """Whether the client asks for an INIT-REBOOT when its link comes back."""

    def __init__(self, name: str, home: Path, hostname: str) -> None:
        self.netns = name
        self.hostname = hostname
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.events = home / "events"
        self.events.touch()
        self.script = home / "script"
        self.script.write_text(APPLY_LEASE.replace("@EVENTS@", str(self.events)))
        self.script.chmod(0o755)
        self.process: subprocess.Popen[bytes] | None = None

    @classmethod
    def missing(cls) -> str | None:
        """Return the program's name when this machine does not have it."""
        return None if shutil.which(cls.program, path="/usr/sbin:/sbin:/usr/bin:/lib/systemd") else cls.program

    @abstractmethod
    def command(self) -> list[str]:
        """Return the command that runs the client in the foreground."""

    def start(self, timeout: float = 15.0) -> Lease:
        """Run the client and return the lease that it bound within `timeout` seconds, else raise TimeoutError."""
        self.launch()
        return self.next_lease(0, timeout)

    def launch(self) -> None:
        """Run the client without waiting for a lease; what earlier runs reported is forgotten."""
        self.events.write_text("")
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*netns.enter(self.netns), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def renew(self, timeout: float = 15.0) -> Lease:
        """Make the client renew, or where it cannot be asked wait until its T1, and return the renewed lease."""
        seen = len(self.leases())
        if self.renew_signal:
            self._signal(self.renew_signal)
        return self.next_lease(seen, timeout)

    @abstractmethod
    def release(self) -> None:
        """Give the lease back and end."""

    def stop(self) -> None:
        """End the client at once, as by a power cut: nothing is sent and its files stay."""
        netns.end_processes([self.netns])
        if self.process:
            self.process.wait()
        self.process = None

    def reboot(self, timeout: float = 15.0) -> Lease:
        """Cut the power and start again, with the lease still in the client's files."""
        self.stop()
        self.forget_interface()
        return self.start(timeout)

    def forget_interface(self) -> None:
        """Take the addresses off the interface, as a reboot does."""
        netns.batch(["addr flush dev eth0"], self.netns)

    def kernel_address(self) -> IPv4Interface | None:
        """Return the address that is on the interface."""
        command = [*netns.enter(self.netns), "ip", "-4", "-o", "addr", "show", "dev", "eth0"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found = re.search(r"inet (\S+)", shown)
        return IPv4Interface(found[1]) if found else None

    def leases(self) -> list[Lease]:
        """Return every lease that the client reported since it was started, oldest first."""
        lines = (line.split("|") for line in self.events.read_text().splitlines())
        bound = (fields for fields in lines if fields[0].lower() in {"bound", "renew", "rebind", "reboot"})
        return [_parse_lease(fields[1:]) for fields in bound]

    def next_lease(self, seen: int, timeout: float = 15.0) -> Lease:
        """Wait for the lease after the first `seen` of `leases()`, and until it is in use, and return it."""
        wait_until(lambda: len(self.leases()) > seen, timeout, f"a lease for {self.program}")
        lease = self.leases()[seen]
        wait_until(lambda: self.uses(lease), timeout, f"{self.program} to use {lease}")
        return lease

    def await_loss(self) -> None:
        """Return when a client that follows its cable has seen that it is pulled."""
        wait_until(self.has_seen_loss, 5, f"{self.program} to notice that its link is down")

    def has_seen_loss(self) -> bool:
        """Whether the client knows that its cable is pulled, if it cares."""
        return True

    def uses(self, lease: Lease) -> bool:
        """Whether the kernel sends what is for the internet to the lease's router, from the lease's address."""
        command = [*netns.enter(self.netns), "ip", "route", "get", "198.51.100.9"]
        route = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        return f"via {lease.router} dev eth0 src {lease.address.ip} " in route

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            raise RuntimeError(f"{self.program} is not running")
        self.process.send_signal(number)

    def _private(self, script: str, *command: str) -> list[str]:
        prepare = script.replace("@HOME@", str(self.home))
        return ["unshare", "--uts", "--mount", "--propagation", "private", "sh", "-c", prepare, "sh", *command]


def _parse_lease(fields: list[str]) -> Lease:
    address, netmask, routers, dns, domain, seconds = fields
    return Lease(
        IPv4Interface(f"{address}/{netmask}"),
        IPv4Address(routers.split()[0]) if routers else None,
        tuple(IPv4Address(server) for server in dns.split()),
        domain,
        int(seconds or 0),
    )


class Udhcpc(Client):
    """BusyBox udhcpc, found in most small devices. It keeps no lease on disk: a reboot asks for its last address."""

    program = "udhcpc"
    renew_signal = signal.SIGUSR1

    def command(self) -> list[str]:
        last = self.home / "last-address"
        ask = ["-r", last.read_text()] if last.exists() else []
        options = ["-f", "-i", "eth0", "-t", "20", "-T", "1", "-s", str(self.script), "-x", f"hostname:{self.hostname}"]
        return ["udhcpc", *options, *ask]

    def release(self) -> None:
        self._signal(signal.SIGUSR2)
        wait_until(lambda: self.kernel_address() is None, 5, "udhcpc to release")
        self.stop()

    def reboot(self, timeout: float = 15.0) -> Lease:
        (self.home / "last-address").write_text(str(self.leases()[-1].address.ip))
        return super().reboot(timeout)


class Dhclient(Client):
    """ISC dhclient; a restart with its lease file is an INIT-REBOOT. It renews at T1 only."""

    program = "dhclient"

    def command(self) -> list[str]:
        config = self.home / "dhclient.conf"
        wanted = "subnet-mask, broadcast-address, routers, domain-name, domain-name-servers"
        config.write_text(f'request {wanted};\nsend host-name "{self.hostname}";\ninitial-interval 1;\n')
        return ["dhclient", "-4", "-d", *self._files(), "eth0"]

    def _files(self) -> list[str]:
        named = {"-sf": "script", "-cf": "dhclient.conf", "-lf": "leases", "-pf": "pid"}
        return [word for option, name in named.items() for word in (option, str(self.home / name))]

    def release(self) -> None:
        command = [*netns.enter(self.netns), "dhclient", "-4", "-r", *self._files(), "eth0"]
        subprocess.run(command, capture_output=True, check=True)
        self.stop()


class Dhcpcd(Client):
    """Roy Marples' dhcpcd; a restart with its lease file is an INIT-REBOOT."""

    program = "dhcpcd"
    checks: ClassVar[bool] = False
    """Whether it asks by ARP for the address before it uses it (RFC 5227), which takes some seconds."""
    renew_signal = signal.SIGUSR1
    follows_its_cable = True

    def command(self) -> list[str]:
        (self.home / "dhcpcd.conf").write_text(
            f"hostname {self.hostname}\nipv4only\nduid\nnoipv4ll\nnodelay\nenv dhcpcd=1\nscript {self.script}\n"
            "option domain_name_servers, domain_name\n" + "noarp\n" * (not self.checks)
        )
        return self._private(PRIVATE_DHCPCD, *self._dhcpcd("-B"))

    def _dhcpcd(self, option: str) -> list[str]:
        return ["dhcpcd", "-4", "-f", str(self.home / "dhcpcd.conf"), option, "eth0"]

    def release(self) -> None:
        self._signal(signal.SIGALRM)
        wait_until(lambda: self.kernel_address() is None, 5, "dhcpcd to release")
        self.stop()


class Networkd(Client):
    """systemd-networkd without systemd: /run and /sys are private, D-Bus and udev absent. It renews at T1 only.

    It forgets its lease when it ends, and does an INIT-REBOOT when its link comes back.
    """

    program = "systemd-networkd"
    follows_its_cable = True

    def command(self) -> list[str]:
        lines = ["[Match]", "Name=eth0", "[Network]", "DHCP=ipv4", "LinkLocalAddressing=no", "IPv6AcceptRA=no"]
        lines += ["IgnoreCarrierLoss=no", "[DHCPv4]", f"Hostname={self.hostname}", "UseDomains=yes", "UseHostname=no"]
        lines += ["DUIDType=link-layer", ""]
        environment = ["NETWORK_FILE=" + "\n".join(lines), "SYSTEMD_LOG_LEVEL=debug"]
        return ["env", *environment, *self._private(PRIVATE_NETWORKD)]

    def launch(self) -> None:
        shutil.rmtree(self.home / "run", ignore_errors=True)
        (self.home / "log").unlink(missing_ok=True)
        super().launch()

    def leases(self) -> list[Lease]:
        """Return the present lease once for each ACK: networkd's file does not change when the lease stays the same."""
        acks = (self.home / "log").read_text().count("DHCPv4 client: ACK")
        files = (self.home / "run/systemd/netif/leases").glob("[0-9]*")
        return [lease for file in files if (lease := _networkd_lease(file)) for _ in range(acks)]

    def reboot(self, timeout: float = 15.0) -> Lease:
        seen = len(self.leases())
        netns.batch(["link set eth0 down"], self.netns)
        self.await_loss()
        netns.batch(["link set eth0 up"], self.netns)
        return self.next_lease(seen, timeout)

    def has_seen_loss(self) -> bool:
        """It tries a RELEASE at the loss, which must not find the link back already."""
        log = (self.home / "log").read_text()
        return log.rfind("DHCP lease lost") > log.rfind("DHCPv4 client: ACK")

    def release(self) -> None:
        self._signal(signal.SIGTERM)
        wait_until(lambda: not netns.processes([self.netns]), 5, "networkd to end")
        self.stop()


def _networkd_lease(file: Path) -> Lease | None:
    try:
        text = file.read_text()
    except FileNotFoundError:  # networkd lost the lease in the meantime
        return None
    values = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    names = ("ADDRESS", "NETMASK", "ROUTER", "DNS", "DOMAINNAME", "LIFETIME")
    return _parse_lease([values.get(name, "") for name in names]) if "ADDRESS" in values else None


CLIENTS: tuple[type[Client], ...] = (Udhcpc, Dhclient, Dhcpcd, Networkd)
