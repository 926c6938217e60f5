"""The image and the Compose file as shipped, on a real engine and this machine's kernel: how soon, how big, what a
restart does. The trunk is not in it, and the WAN is a bridge: for those see `tests.lab.test_trunk`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.lab import netns
from tests.lab.edge import Edge
from tests.lab.service import REPOSITORY
from tests.lab.trunk import COMPOSE, COMPOSE_ENVIRONMENT, ECHO, LAB, OUTSIDE, TALK, image_missing

Figure = Callable[[str, object], None]

pytestmark = pytest.mark.one_engine

LANDING = "10.0.{}.224/27"
"""Room for 30 containers, where the example has it for 14."""
WORLD = "192.168.1.1"
OVERRIDE = """
services:
  underlay: !reset null
  router:
    build: !reset null
    depends_on: !reset null
    volumes:
      - {config}:/etc/lanward/lanward.toml:ro
      - {socket}:/var/run/docker.sock
      - {namespaces}:/var/run/docker/netns:rslave
networks:
  br0net: !override {{name: br0net, external: true}}
  br1net: !override {{name: br1net, external: true}}
  wan: !override {{name: wan, external: true}}
"""


class Shipped:
    """The router as `docker compose up` starts it."""

    def __init__(self, edge: Edge, home: Path) -> None:
        self.edge = edge
        self._home = home

    def up(self) -> None:
        config = (REPOSITORY / "lanward.toml").read_text()
        for number in (1, 2):
            config = config.replace(f"10.0.{number}.240/28", LANDING.format(number))
        (self._home / "lanward.toml").write_text(config)
        places = {"config": self._home / "lanward.toml", "socket": self.edge.engine.socket}
        override = OVERRIDE.format(namespaces=self.edge.engine.netns, **places)
        (self._home / "override.yml").write_text(override)
        self._compose("up", "--detach", "--no-build", "router")
        self.await_ready()

    def down(self) -> None:
        self._compose("down", "--volumes", "--timeout", "5")

    def restart(self) -> None:
        self.edge.engine.docker("restart", "router")
        self.await_ready()

    def await_ready(self) -> None:
        netns.wait_until(lambda: self.ready_at() > self.started_at(), 30, "the router to be ready")

    def started_at(self) -> float:
        return _seconds(self.edge.engine.docker("inspect", "--format", "{{.State.StartedAt}}", "router"))

    def ready_at(self) -> float:
        """When the last `ready` was logged, by the engine's clock; 0 when it never was."""
        lines = self.edge.engine.docker("logs", "--timestamps", "router").splitlines()
        return max((_seconds(line.split()[0]) for line in lines if '"event": "ready"' in line), default=0.0)

    def lanward(self, *arguments: str) -> str:
        return self.edge.engine.docker("exec", "router", "lanward", *arguments)

    def containers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.lanward("status", "--json"))["docker"]["containers"]
        return found

    def _compose(self, *arguments: str) -> None:
        files = ["--file", str(REPOSITORY / "docker-compose.yml"), "--file", str(self._home / "override.yml")]
        environment = os.environ | COMPOSE_ENVIRONMENT | {"DOCKER_HOST": f"unix://{self.edge.engine.socket}"}
        command = [*COMPOSE["2"], "--project-name", "lanward", *files, *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr


def _seconds(written: str) -> float:
    """The engine writes nanoseconds, without trailing zeros."""
    whole, _, fraction = written.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{whole}+00:00").timestamp() + float(f"0.{fraction or 0}")


@pytest.fixture
def shipped(edge: Edge, tmp_path: Path) -> Iterator[Shipped]:
    """The edge machine with the image, the networks and an internet; the truck has no part in the routing."""
    if reason := image_missing():
        pytest.skip(reason)
    engine = edge.engine
    if not engine.docker("images", "--quiet", "lanward"):
        engine.docker("load", "--input", str(LAB / "lanward.tar"))
    with wired(edge), internet(edge):
        one = Shipped(edge, tmp_path)
        try:
            one.up()
            yield one
        finally:
            one.down()
            engine.remove_containers()


@contextmanager
def wired(edge: Edge) -> Iterator[None]:
    """Networks as the Compose file has them, but for the landing ranges and the WAN's driver."""
    engine, router = edge.engine, edge.truck.netns("router")
    netns.batch(["link set leg1 down", "link set leg2 down"], router)
    engine.remove_networks("br0net", "br1net")
    try:
        for n in (1, 2):
            engine.network(f"br{n - 1}net", f"10.0.{n}.0/24", f"10.0.{n}.1", LANDING.format(n), f"br{n - 1}")
        engine.network("wan", "192.168.1.0/24", WORLD, "192.168.1.240/28", "wan0")
        engine.netns.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", engine.netns, engine.netns], check=True)
        subprocess.run(["mount", "--make-shared", engine.netns], check=True)
        yield
    finally:
        engine.remove_containers()
        subprocess.run(["umount", "--lazy", engine.netns], check=False)
        engine.remove_networks("br0net", "br1net", "wan")
        netns.batch(["link set leg1 up", "link set leg2 up"], router)


@contextmanager
def internet(edge: Edge) -> Iterator[None]:
    """A container on the WAN that is the uplink's gateway, with a TCP echo behind it."""
    edge.run("world", "wan", "--cap-add=NET_ADMIN")
    inside = edge.enter("world")
    for address, link in ((f"{WORLD}/24", "eth0"), (f"{OUTSIDE}/32", "lo")):
        subprocess.run([*inside, "ip", "addr", "add", address, "dev", link], check=True)
    with subprocess.Popen([*inside, sys.executable, "-c", ECHO]) as echo:
        try:
            yield
        finally:
            echo.kill()


def plug(edge: Edge, device: str) -> None:
    """Have the device get its lease by DHCP."""
    edge.truck.plug(device)
    edge.out(device, "busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-s", str(script(edge)))


def script(edge: Edge) -> Path:
    path = edge.engine.home / "lease.sh"
    path.write_text(LEASE)
    path.chmod(0o755)
    return path


def test_it_is_ready_soon(shipped: Shipped, record_property: Figure) -> None:
    seconds = shipped.ready_at() - shipped.started_at()
    record_property("figure", f"ready {seconds:.2f} s after the start of the container")
    assert seconds < 3


def test_connections_survive_its_restart(shipped: Shipped, record_property: Figure) -> None:
    edge = shipped.edge
    plug(edge, "device1")
    edge.run("talker", "br1net")
    netns.wait_until(lambda: any(one["pinned"] for one in shipped.containers()), 10, "the container to be pinned")
    talks = [
        subprocess.Popen([*edge.enter(one), sys.executable, "-c", TALK, OUTSIDE, "12"], stdout=-1, stderr=-1, text=True)
        for one in ROUTERS
    ]
    netns.wait_until(lambda: all(map(mac, neighbours(edge))), 10, "them to talk by the router")
    before = neighbours(edge)
    shipped.restart()
    answers = [one.communicate(timeout=60) for one in talks]
    assert [one.returncode for one in talks] == [0, 0], answers
    worst = [float(out) for out, _ in answers]
    record_property("figure", f"restart: no answer for {worst[0]:.2f} s (device), {worst[1]:.2f} s (container)")
    assert max(worst) < 2
    assert list(map(mac, neighbours(edge))) == list(map(mac, before))


def test_its_memory_with_fifty_containers(shipped: Shipped, record_property: Figure) -> None:
    names = [f"c{number}" for number in range(50)]
    networks = [f"br{number % 2}net" for number in range(50)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(shipped.edge.run, names, networks))
    netns.wait_until(lambda: len(pinned(shipped)) == 50, 30, "50 containers to be pinned")
    status = Path(f"/proc/{shipped.edge.engine.pid('router')}/status").read_text()
    memory = int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1024
    record_property("figure", f"{memory:.1f} MiB resident with 2 VLANs and 50 containers")
    assert memory < 90
    assert shipped.edge.engine.docker("inspect", "--format", "{{.State.Health.Status}}", "router") != "unhealthy"


def test_its_log_does_not_fill_the_disk(shipped: Shipped) -> None:
    log = json.loads(shipped.edge.engine.docker("inspect", "--format", "{{json .HostConfig.LogConfig}}", "router"))
    assert log == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


def test_its_times_are_in_the_zone_of_the_host(shipped: Shipped) -> None:
    read = shipped.edge.engine.docker("exec", "router", "od", "-An", "-v", "-tx1", "/etc/localtime")
    assert bytes.fromhex(read) == Path("/etc/localtime").read_bytes()


def pinned(shipped: Shipped) -> list[str]:
    return [one["container"] for one in shipped.containers() if one["pinned"]]


def neighbours(edge: Edge) -> list[str]:
    """What each of the two knows of its router."""
    return [edge.out(one, "ip", "neigh", "show", "to", router) for one, router in ROUTERS.items()]


def mac(neighbour: str) -> str:
    """The MAC in a line of `ip neigh`; nothing when there is none."""
    found = re.search(r"lladdr (\S+)", neighbour)
    return found[1] if found else ""


ROUTERS = {"device1": "10.0.1.1", "talker": "10.0.2.1"}
LEASE = """#!/bin/sh
[ "$1" != bound ] || { ip addr flush dev $interface; ip addr add $ip/$mask dev $interface
ip route replace default via ${router%% *}; }
"""
