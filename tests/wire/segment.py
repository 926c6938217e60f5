"""VLANs without a switch: a namespace for the service, one for all clients, and a veth pair for each VLAN.

Devices speak from packet sockets of this process, thousands of them at once by the load generator.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.bench import loadgen
from tests.lab import netns
from tests.lab.service import Service

_CLONE_NEWNET = 0x40000000
_LOAD_SECONDS = 100
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)

Figures = dict[str, Any]


def toml(**settings: object) -> str:
    """Lines of a TOML table."""
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())


def vlan(number: int = 1, **settings: object) -> str:
    """A ``[[vlan]]``: 10.``number``.0.0/16 with 51,200 addresses for devices, and ``settings``; None leaves one out."""
    base = f"10.{number}"
    written = {
        "name": f"vlan{number}",
        "tag": number,
        "subnet": f"{base}.0.0/16",
        "router": f"{base}.0.1",
        "pools": [f"{base}.1.0-{base}.200.255"],
        "probe": False,
    } | settings
    return "[[vlan]]\n" + toml(**{key: value for key, value in written.items() if value is not None})


def reservation(**settings: object) -> str:
    """A reservation of the ``[[vlan]]`` before it."""
    return "[[vlan.reservation]]\n" + toml(**settings)


@contextmanager
def inside(name: str) -> Iterator[None]:
    """The sockets that this thread opens in the block belong to the namespace."""
    with Path("/proc/thread-self/ns/net").open() as home, (netns.FOLDER / name).open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class Segment:
    """The namespaces `server` and `clients` and the service between them, as a context manager.

    VLAN n joins ``leg<n>`` of the server, with 10.n.0.1/16, to ``lan<n>`` of the clients.
    """

    def __init__(self, home: Path, vlans: int = 1) -> None:
        if os.geteuid() != 0:
            pytest.skip("network namespaces need root")
        prefix = f"{netns.prefix(os.getpid())}{next(_numbers)}-s-"
        self.server, self.clients = f"{prefix}server", f"{prefix}clients"
        self.vlans = range(1, vlans + 1)
        self.service = Service(netns.enter(self.server), home)

    def __enter__(self) -> Self:
        try:
            netns.batch(f"netns add {name}" for name in (self.server, self.clients))
            for name in (self.server, self.clients):
                quiet = dict.fromkeys(("ipv6/conf/all/disable_ipv6", "ipv6/conf/default/disable_ipv6"), 1)
                netns.write_sysctls(name, quiet)
            netns.batch(
                ["link set lo up", *(line for number in self.vlans for line in self._wires(number))], self.server
            )
            netns.batch((f"link set lan{number} up" for number in self.vlans), self.clients)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        self.service.kill9()
        netns.delete([self.server, self.clients])

    def _wires(self, number: int) -> list[str]:
        peer = f"peer name lan{number} netns {self.clients}"
        return [
            f"link add leg{number} address {self.server_mac(number).hex(':')} type veth {peer}",
            f"address add {self.router(number)} dev leg{number}",
            f"link set leg{number} up",
        ]

    @staticmethod
    def router(number: int = 1) -> IPv4Interface:
        return IPv4Interface(f"10.{number}.0.1/16")

    @staticmethod
    def server_mac(number: int = 1) -> bytes:
        return bytes((2, 0xFD, 0, 0, 0, number))

    def unplug(self, number: int = 1) -> None:
        """Take the VLAN's veth pair away."""
        netns.batch([f"link del leg{number}"], self.server)

    def plug(self, number: int = 1) -> None:
        """Put the VLAN's veth pair in place again: new interfaces of the old names."""
        netns.batch(self._wires(number), self.server)
        netns.batch([f"link set lan{number} up"], self.clients)

    # -- load

    def load(self, mode: str, *files: Path, **options: str | float | bool) -> Figures:
        """What the load generator reports after its run (see ``tests/bench/loadgen.c``)."""
        started = self.start_load(mode, *files, **options)
        output, errors = started.communicate(timeout=_LOAD_SECONDS)
        assert started.returncode == 0, errors
        figures: Figures = json.loads(output)
        return figures

    def start_load(self, mode: str, *files: Path, **options: str | float | bool) -> subprocess.Popen[str]:
        """The load generator, running on all VLANs."""
        words = [*netns.enter(self.clients), str(_generator()), mode]
        words += ["--iface", ",".join(f"lan{number}" for number in self.vlans)]
        for name, value in options.items():
            words += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
        words += map(str, files)
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    # -- the service

    def status(self, number: int = 1) -> dict[str, Any]:
        """One VLAN of ``lanward status --json``."""
        found = json.loads(self.service.ask("status", "--json"))["vlans"]
        status: dict[str, Any] = next(one for one in found if one["name"] == f"vlan{number}")
        return status

    def states(self) -> dict[str, str]:
        """The state of each address in the lease table."""
        return {row["address"]: row["state"] for row in self.service.leases()}


def _generator() -> Path:
    if shutil.which("cc") is None and not (loadgen.CACHE / "loadgen").exists():
        pytest.skip("the load generator needs a C compiler (gcc, libc6-dev)")
    return loadgen.build()
