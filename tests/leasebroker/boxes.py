"""Namespaces that look like containers', joined to one that looks like their bridge."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from leasebroker.netns import inside
from tests.lab import netns

_numbers = itertools.count(1)


class Box:
    """A namespace with ``eth0`` and ``eth1`` (links 2 and 3, up, hardware addresses 02:00:00:00:00:02 and :03); their
    other ends are ``lan0`` and ``lan1`` of the namespace ``peer``."""

    def __init__(self, name: str, peer: str) -> None:
        self.name, self.peer = name, peer
        self.path = netns.FOLDER / name

    def ip(self, *lines: str) -> None:
        netns.batch(lines, self.name)

    def show(self, *words: str) -> Any:
        """What ``ip -j -d`` shows in it."""
        return shown(self.name, *words)

    def promote(self, name: str, value: int) -> None:
        with opened(self.path) as descriptor, inside(descriptor):
            Path(f"/proc/sys/net/ipv4/conf/{name}/promote_secondaries").write_text(str(value))


def shown(namespace: str, *words: str) -> Any:
    command = ["ip", "-n", namespace, "-j", "-d", *words]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout or b"[]")


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A descriptor of a file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def namespaces(count: int) -> Iterator[Sequence[str]]:
    """So many empty namespaces."""
    prefix = f"{netns.prefix(os.getpid())}{next(_numbers)}-b-"
    names = [f"{prefix}{number}" for number in range(count)]
    try:
        netns.batch(f"netns add {name}" for name in names)
        yield names
    finally:
        netns.delete(names)


@contextmanager
def box() -> Iterator[Box]:
    with namespaces(2) as (name, peer):
        for at, index in enumerate((2, 3)):
            mac = f"02:00:00:00:00:0{index}"
            netns.batch([f"link add eth{at} index {index} address {mac} type veth peer lan{at} netns {peer}"], name)
            netns.batch([f"link set eth{at} up"], name)
            netns.batch([f"link set lan{at} up"], peer)
        yield Box(name, peer)
