"""The whole system on a real trunk, inside a guest of `tests.lab.guest`: what README tells a user to do, and the table.

    internet --- wlan0  host  enp2s0 --- trunk  switch --- device1, device2

Prints a line for each check, and ends with 1 when one fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.lab import netns
from tests.lab.service import REPOSITORY

ENGINE = REPOSITORY / ".cache/engines/20.10"
LAB = REPOSITORY / ".cache/lab"
INTERNET = "192.168.1.1"
ROUTERS = {"device1": "10.0.1.1", "device2": "10.0.2.1"}
COMPOSE = {
    "1.29": ["/usr/bin/python3", str(LAB / "compose-1.29/usr/bin/docker-compose")],
    "2": [str(LAB / "compose-2/usr/libexec/docker/cli-plugins/docker-compose")],
}
COMPOSE_ENVIRONMENT = {"PYTHONPATH": str(LAB / "compose-1.29/usr/lib/python3/dist-packages")}
OUTSIDE = "198.51.100.9"
"""What stands for the internet behind the uplink's own network."""
ECHO = """import socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)
socketserver.ThreadingTCPServer(("", 7), Echo).serve_forever()
"""
TALK = """import socket, sys, time
one, worst, end = socket.create_connection((sys.argv[1], 7), 10), 0, time.time() + float(sys.argv[2])
one.settimeout(30)
while time.time() < end:
    start = time.time()
    one.sendall(b"hello\\n")
    assert one.recv(100) == b"hello\\n"
    worst = max(worst, time.time() - start)
    time.sleep(0.05)
print(round(worst, 2))
"""
LEASE = """#!/bin/sh
case $1 in bound|renew) ip addr flush dev $interface; ip addr add $ip/24 dev $interface
    ip route replace default via ${router%% *};; deconfig) ip link set $interface up;; esac
"""


def image_missing() -> str | None:
    """Why there is no image to run, in one sentence; None when there is."""
    if (LAB / "missing").exists():
        return (LAB / "missing").read_text().strip()
    return None if (LAB / "lanward.tar").exists() else "make image has not run"


class Lab:
    """The world around the host, and the host that this guest is."""

    def __init__(self, compose: str) -> None:
        self.failed = 0
        self.home = Path(tempfile.mkdtemp(prefix="lanward"))
        self._compose = COMPOSE[compose]
        libraries = [str(one) for one in ENGINE.glob("**/*-linux-gnu")]
        programs = [str(ENGINE / "usr/bin"), str(ENGINE / "usr/sbin")]
        os.environ["PATH"] = ":".join([*programs, os.environ["PATH"]])
        os.environ["LD_LIBRARY_PATH"] = ":".join(libraries)
        os.environ.update(COMPOSE_ENVIRONMENT)

    def check(self, what: str, fine: object) -> None:
        self.failed += not fine
        print(f"{time.monotonic():7.1f} {'ok  ' if fine else 'FAIL'} {what}", flush=True)

    def out(self, *command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.home)
        return done.stdout.strip() + done.stderr.strip()

    def compose(self, *arguments: str) -> str:
        return self.out(*self._compose, *arguments)

    # -- the world

    def build(self) -> None:
        netns.batch([f"netns add {name}" for name in ("switch", "device1", "device2", "internet")])
        netns.batch(["link add enp2s0 type veth peer name trunk netns switch"])
        netns.batch(["link add wlan0 type veth peer name eth0 netns internet", "link set wlan0 up"])
        lines = ["link add sw type bridge vlan_filtering 1 vlan_default_pvid 0", "link set sw up"]
        lines += ["link set trunk master sw up"]
        tags = [f"vlan add dev trunk vid {tag}" for tag in (1, 2)]
        for tag in (1, 2):
            lines += [f"link add p{tag} type veth peer name eth0 netns device{tag}", f"link set p{tag} master sw up"]
            tags += [f"vlan add dev p{tag} vid {tag} pvid untagged"]
        netns.batch(lines, "switch")
        netns.batch(tags, "switch", tool="bridge")
        for tag in (1, 2):
            netns.batch([f"link set eth0 address 02:00:00:00:0{tag}:05 up", "link set lo up"], f"device{tag}")
        netns.batch(
            [f"addr add {INTERNET}/24 dev eth0", "link set eth0 up", "link set lo up", f"addr add {OUTSIDE}/32 dev lo"],
            "internet",
        )
        subprocess.Popen([*netns.enter("internet"), sys.executable, "-c", ECHO])
        self.data = Path("/run/engine")
        self.data.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "engine", str(self.data)], check=True)
        self.start_engine()
        self.out("docker", "load", "--input", str(LAB / "lanward.tar"))
        self.import_busybox()
        for name in ("docker-compose.yml", "lanward.toml"):
            shutil.copy(REPOSITORY / name, self.home)

    def start_engine(self) -> None:
        log = (self.home / "engine.log").open("ab")
        options = ["--data-root", str(self.data), "--bip", "172.31.255.1/24", "--userland-proxy=false"]
        self.engine = subprocess.Popen(["dockerd", *options], stdout=log, stderr=log)
        netns.wait_until(lambda: "Server" in self.out("docker", "version"), 120, "the engine to answer")

    def import_busybox(self) -> None:
        root = self.home / "busybox/bin"
        root.mkdir(parents=True)
        shutil.copy(ENGINE / "bin/busybox", root)
        subprocess.run([root / "busybox", "--install", "-s", root], check=True)
        for link in root.iterdir():
            if link.is_symlink():
                link.unlink()
                link.symlink_to("busybox")
        self.out("sh", "-c", f"tar -C {root.parent} -c . | docker import - busybox")

    # -- questions

    def enter(self, node: str) -> list[str]:
        if node in ROUTERS:
            return netns.enter(node)
        return ["nsenter", f"--net=/proc/{self.out('docker', 'inspect', '-f', '{{.State.Pid}}', node)}/ns/net"]

    def address(self, node: str) -> str:
        """The first one of a node's first link with one."""
        shown = self.out(*self.enter(node), "ip", "-4", "-o", "addr", "show", "scope", "global")
        return shown.split()[3].partition("/")[0] if shown else ""

    def ping(self, node: str, address: str) -> bool:
        command = [*self.enter(node), str(ENGINE / "bin/busybox"), "ping", "-c1", "-W2", address]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def are_pinned(self) -> bool:
        return self.address("container1") == "10.0.1.30" and self.address("container2").startswith("10.0.2.1")

    def plug(self, device: str) -> None:
        script = self.home / "lease.sh"
        script.write_text(LEASE)
        script.chmod(0o755)
        ask = ["busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "5", "-T", "2", "-s", str(script)]
        self.out(*netns.enter(device), *ask)

    def is_ready(self, since: str) -> bool:
        return '"ready"' in self.out("docker", "logs", "--since", since, "router")

    def await_ready(self, action: Callable[[], object]) -> None:
        since = self.out("date", "-u", "+%Y-%m-%dT%H:%M:%S.%NZ")
        action()
        try:
            netns.wait_until(lambda: self.is_ready(since), 90, "the router to be ready")
        except TimeoutError:
            print(self.out("docker", "logs", "--tail", "20", "router"), flush=True)
            raise

    # -- the checks

    def table(self) -> None:
        """All 28 rows."""
        nodes = ["container1", "device1", "container2", "device2"]
        where = {node: self.address(node) for node in nodes}
        targets = {**where, "router, vlan1": "10.0.1.1", "router, vlan2": "10.0.2.1", "internet": OUTSIDE}
        for source in [*nodes, "router"]:
            for target, address in targets.items():
                if target == source or (source == "router" and target not in nodes):
                    continue
                same = source == "router" or target == "internet" or source[-1] == target[-1]
                self.check(f"{source} to {target}: {'yes' if same else 'no'}", self.ping(source, address) is same)

    def addresses(self) -> dict[str, str]:
        return {node: self.address(node) for node in ("device1", "device2", "container1", "container2")}

    def links(self) -> str:
        return "\n".join(sorted(line.split()[0] for line in self.out("ip", "-br", "link").splitlines()))

    def adoption(self) -> None:
        """A container at rest gets its lease into Docker's record, and starts with it."""
        record = '{{(index .NetworkSettings.Networks "br0net").%s}}'
        self.out("docker", "stop", "--time", "1", "container1")
        asked = ("docker", "inspect", "--format", record % "IPAMConfig.IPv4Address", "container1")
        netns.wait_until(lambda: self.out(*asked) == "10.0.1.30", 60, "container1 to be adopted")
        self.out("docker", "start", "container1")
        given = self.out("docker", "inspect", "--format", record % "IPAddress", "container1")
        self.check("container1 is adopted at rest, and starts with its lease", given == "10.0.1.30")

    def restart(self) -> None:
        mac = self.out(*self.enter("router"), "ip", "-br", "link")
        seen = self.out(*netns.enter("device1"), "ip", "neigh", "show", ROUTERS["device1"])
        talks = [
            subprocess.Popen(
                [*self.enter(node), sys.executable, "-c", TALK, OUTSIDE, "40"], stdout=subprocess.PIPE, text=True
            )
            for node in ("device1", "container2")
        ]
        self.await_ready(lambda: self.out("docker", "restart", "router"))
        worst = [one.communicate()[0].strip() for one in talks]
        self.check(f"TCP by the router survives its restart (seconds without an answer: {worst})", all(worst))
        macs = [line.split()[2] for line in mac.splitlines() if "eth" in line]
        after = self.out(*self.enter("router"), "ip", "-br", "link")
        self.check("the router has the same MACs", all(one in after for one in macs))
        again = self.out(*netns.enter("device1"), "ip", "neigh", "show", ROUTERS["device1"])
        self.check("no ARP change for a device", seen.split()[4:5] == again.split()[4:5])

    def reboot(self) -> None:
        """The engine ends with all its containers and starts again; the router last."""
        before = self.addresses()
        self.out("docker", "update", "--restart=no", "router")
        self.engine.terminate()
        self.engine.wait(60)
        self.start_engine()
        self.out("docker", "start", "container1", "container2")
        self.await_ready(lambda: self.out("docker", "start", "router"))
        for device in ROUTERS:
            self.plug(device)
        self.check(f"after a reboot all have their addresses: {before}", self.addresses() == before)
        self.check(
            "and the trunk is where it was",
            "nothing to do" in self.compose("run", "--rm", "underlay", "underlay", "up"),
        )


def main(compose: str) -> int:
    lab = Lab(compose)
    lab.build()
    before = lab.links()
    lab.await_ready(lambda: lab.compose("--profile", "example", "up", "-d"))
    for device in ROUTERS:
        lab.plug(device)
    lab.check("device1 has its reservation, through switch, trunk and bridge", lab.address("device1") == "10.0.1.20")
    lab.check("device2 has a lease", lab.address("device2").startswith("10.0.2.1"))
    netns.wait_until(lab.are_pinned, 60, "the containers to be pinned")
    lab.check("both containers are pinned", lab.are_pinned())
    leases = lab.out("docker", "exec", "router", "lanward", "leases")
    lab.check("there are leases for these four only", len(leases.splitlines()) == 5)
    print(leases)
    lab.table()
    lab.check(
        "underlay up again changes nothing", "nothing to do" in lab.compose("run", "--rm", "underlay", "underlay", "up")
    )
    lab.adoption()
    lab.restart()
    lab.reboot()
    pid = lab.out("docker", "inspect", "-f", "{{.State.Pid}}", "router")
    print("memory:", lab.out("grep", "VmRSS", f"/proc/{pid}/status"))
    lab.compose("--profile", "example", "stop")
    lab.compose("--profile", "example", "rm", "-f")
    lab.compose("run", "--rm", "underlay", "underlay", "down")
    lab.compose("--profile", "example", "down")
    after = lab.links()
    lab.check("after down the host's interfaces are as they were", after == before)
    if after != before:
        print(before, after, sep="\n--\n")
    return int(lab.failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
