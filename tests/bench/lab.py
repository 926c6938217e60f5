"""Two network namespaces, one for a DHCP server and one for its clients, joined by a veth pair per VLAN."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

SERVER_CPU = "0"
CLIENT_CPU = "1"
RUNTIME = Path("/run/netns")


def cpu_list() -> tuple[str, str]:
    """Processors of the server and of the load generator; the same one twice on a machine with one."""
    return (SERVER_CPU, CLIENT_CPU) if (os.cpu_count() or 1) > 1 else (SERVER_CPU, SERVER_CPU)


def server_interface(vlan: int) -> str:
    return f"lws{vlan}"


def client_interface(vlan: int) -> str:
    return f"lwc{vlan}"


def server_mac(vlan: int) -> str:
    return f"02:fd:00:00:00:{vlan:02x}"


@dataclass(frozen=True)
class Subnet:
    """The addresses of VLAN number `vlan`: 10.x.0.0/`prefix`, the server at .0.1, a pool from .1.0 on."""

    vlan: int = 0
    prefix: int = 16
    pool_size: int = 65_000

    @property
    def base(self) -> int:
        return (10 << 24) + (self.vlan << (32 - self.prefix))

    @property
    def network(self) -> str:
        return dotted(self.base)

    @property
    def netmask(self) -> str:
        return dotted(0xFFFFFFFF << (32 - self.prefix) & 0xFFFFFFFF)

    @property
    def server(self) -> str:
        return dotted(self.base + 1)

    @property
    def relay(self) -> str:
        return dotted(self.base + 2)

    @property
    def first(self) -> str:
        return dotted(self.base + 256)

    @property
    def last(self) -> str:
        return dotted(self.base + 256 + self.pool_size - 1)


def dotted(address: int) -> str:
    return ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))


class Lab:
    """Context manager: the namespaces exist inside it; leaving it removes them with all their links."""

    def __init__(self, subnets: list[Subnet]) -> None:
        self.subnets = subnets
        self.server_ns = f"lw-bench-s{os.getpid()}"
        self.client_ns = f"lw-bench-c{os.getpid()}"

    def __enter__(self) -> "Lab":
        try:
            for namespace in (self.server_ns, self.client_ns):
                ip("netns", "add", namespace)
                quiet = "echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6"
                subprocess.run([*self.inside(namespace), "sh", "-c", quiet], check=True)
            ip("-n", self.server_ns, "-batch", "-", text="\n".join(self._server_commands()))
            ip("-n", self.client_ns, "-batch", "-", text="\n".join(self._client_commands()))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for namespace in (self.server_ns, self.client_ns):
            if (RUNTIME / namespace).exists():
                ip("netns", "del", namespace)

    def inside(self, namespace: str) -> list[str]:
        """The prefix of a command that shall run in a namespace, keeping its process id."""
        return ["nsenter", f"--net={RUNTIME / namespace}", "--"]

    def _server_commands(self) -> list[str]:
        lines = ["link set lo up"]
        for s in self.subnets:
            name = server_interface(s.vlan)
            peer = f"peer name {client_interface(s.vlan)} netns {self.client_ns}"
            lines += [
                f"link add {name} address {server_mac(s.vlan)} type veth {peer}",
                f"address add {s.server}/{s.prefix} dev {name}",
                f"link set {name} up",
            ]
        return lines

    def _client_commands(self) -> list[str]:
        return [f"link set {client_interface(s.vlan)} up" for s in self.subnets]


def ip(*arguments: str, text: str | None = None) -> None:
    """Runs iproute2; raises `subprocess.CalledProcessError` with its words on standard error."""
    subprocess.run(["ip", *arguments], check=True, input=text, text=True)
