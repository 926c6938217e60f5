"""Real Docker engines, each inside a network namespace of its own: unpacked, not installed, gone after the block."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import tarfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab import netns, remains
from tests.lab.service import REPOSITORY

UNPACKED = REPOSITORY / ".cache/engines"
IMAGE = "lanward-test"
IDLE = "trap exit TERM; while :; do sleep 3600 & wait; done"
"""What a container of the image does by default: nothing, until it is told to end."""


def why_missing(version: str) -> str | None:
    """Why this engine cannot be run here, in one sentence; None when it can."""
    if os.geteuid() != 0:
        return "a Docker engine needs root"
    if (UNPACKED / version / "usr/sbin/dockerd").exists():
        return None
    reason = UNPACKED / f"{version}.missing"
    return f"engine {version}: {reason.read_text().strip() if reason.exists() else 'make engines has not run'}"


class Engine:
    """A Docker engine behind its own socket, as a context manager: nothing of it remains after the block.

    `netns` is the name of the network namespace it runs in: its bridges, NAT and filter rules are made there.
    """

    def __init__(self, version: str, netns: str, *, live_restore: bool = False) -> None:
        self.version = version
        self.live_restore = live_restore
        self._where = netns
        self._unpacked = UNPACKED / version
        self.home = remains.new_home()
        self.socket = self.home / "docker.sock"
        self.netns = self.home / "exec/netns"
        """The folder with the containers' network namespaces, and for a while with empty files of removed ones."""
        self.log = self.home / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.home.mkdir(mode=0o700)
        try:
            self.start()
            self._import_image()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def start(self, timeout: float = 60.0) -> None:
        """Run the engine and return when it answers; raise RuntimeError with the end of its log if it ends instead."""
        self._write_settings()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*netns.enter(self._where), "dockerd", "--config-file", str(self.home / "daemon.json")],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        netns.wait_until(lambda: self._answers() or not self.running, timeout, f"engine {self.version} to answer")
        if not self.running:
            raise RuntimeError(f"engine {self.version} did not start:\n{self.log.read_text()[-2000:]}")

    def stop(self, timeout: float = 30.0) -> None:
        """End the engine in order, and its containers unless they are live-restored."""
        if self.process:
            own = self._own_processes()
            self.process.send_signal(signal.SIGTERM)
            self._await_end(own, timeout)

    def kill9(self) -> None:
        """End the engine and its containerd as the kernel would for want of memory; its containers go on."""
        if self.process:
            own = self._own_processes()
            remains.note_shim_sockets(self.home)
            for pid in own:
                os.kill(pid, signal.SIGKILL)
            self._await_end(own, 10)

    def restart(self) -> None:
        """End the engine in order and start it again."""
        self.stop()
        self.start()

    @property
    def running(self) -> bool:
        """Whether the engine's process runs."""
        return self.process is not None and self.process.poll() is None

    def docker(self, *arguments: str, check: bool = True, timeout: float = 60.0, feed: bytes | None = None) -> str:
        """Return what a docker command printed, stripped; raise RuntimeError when it fails and `check` is set."""
        done = subprocess.run(
            [str(self._unpacked / "usr/bin/docker"), "-H", f"unix://{self.socket}", *arguments],
            env={**os.environ, "DOCKER_CONFIG": str(self.home / "client")},
            input=feed,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.decode().strip()}")
        return done.stdout.decode().strip()

    def network(
        self, name: str, subnet: object, gateway: object, landing: object, bridge: str, *, inhibit_ipv4: bool = True
    ) -> None:
        """Create a bridge network on the bridge of that name, which may exist."""
        options = [f"com.docker.network.bridge.name={bridge}"]
        if inhibit_ipv4:
            options.append("com.docker.network.bridge.inhibit_ipv4=true")
        addresses = [f"--subnet={subnet}", f"--gateway={gateway}", f"--ip-range={landing}"]
        self.docker("network", "create", "--driver=bridge", *addresses, *(f"-o={one}" for one in options), name)

    def networks(self) -> set[str]:
        """Return the names of the networks that there are."""
        return set(self.docker("network", "ls", "--format", "{{.Name}}").split())

    def remove_networks(self, *names: str) -> None:
        """Remove networks; a busy engine may count an endpoint of a removed container for a moment."""

        def are_gone() -> bool:
            self.docker("network", "rm", *names, check=False)
            return self.networks().isdisjoint(names)

        netns.wait_until(are_gone, 20, f"the networks {' and '.join(names)} to be removed")

    def run(self, name: str, network: str, *options: str, command: tuple[str, ...] = ()) -> int:
        """Run a container of the image in the background and return the process id of its first process."""
        self.docker("run", "--detach", "--name", name, "--network", network, *options, IMAGE, *command)
        return self.pid(name)

    def pid(self, name: str) -> int:
        """Return the process id of the container's first process; 0 when it does not run."""
        return int(self.docker("inspect", "--format", "{{.State.Pid}}", name))

    def namespaces(self) -> list[str]:
        """Return the paths of the network namespaces that containers have now."""
        return [point for point in remains.mounts(self.home) if point.startswith(f"{self.netns}/")]

    def remove_containers(self) -> None:
        """Remove all containers at once, running or not."""
        if found := self.docker("ps", "--all", "--quiet", "--no-trunc").split():
            self.docker("rm", "--force", "--volumes", *found)

    def _environment(self) -> dict[str, str]:
        programs = [self._unpacked / "usr/bin", self._unpacked / "usr/sbin"]
        libraries = [str(one) for one in self._unpacked.glob("**/*-linux-gnu")]
        return {
            **os.environ,
            "PATH": ":".join([*map(str, programs), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]),
            "LD_LIBRARY_PATH": ":".join(libraries),
            remains.MARK: str(self.home),
        }

    def _write_settings(self) -> None:
        """In a file of its own, so that the machine's /etc/docker/daemon.json has no say."""
        settings = {
            "data-root": str(self.home / "root"),
            "exec-root": str(self.home / "exec"),
            "pidfile": str(self.home / "pid"),
            "hosts": [f"unix://{self.socket}"],
            "storage-driver": "overlay2",
            "exec-opts": ["native.cgroupdriver=cgroupfs"],  # by name, below the parent, on any machine
            "cgroup-parent": f"/{self.home.name}",
            "live-restore": self.live_restore,
        }
        if self.version.startswith("20."):
            settings["deprecated-key-path"] = str(self.home / "key.json")
        (self.home / "daemon.json").write_text(json.dumps(settings))

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as asking, suppress(OSError):
            asking.settimeout(10)
            asking.connect(str(self.socket))
            asking.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return asking.recv(64).split()[1:2] == [b"200"]
        return False

    def _await_end(self, own: list[int], timeout: float) -> None:
        """Until they are no zombies either: the next engine would take its containerd for one that still runs."""
        if self.process:
            self.process.wait(timeout)
            self.process = None
        gone = [Path(f"/proc/{pid}") for pid in own]
        netns.wait_until(lambda: not any(p.exists() for p in gone), timeout, f"engine {self.version} to end")

    def _own_processes(self) -> list[int]:
        return [pid for pid in remains.processes(self.home) if remains.program(pid) in {"dockerd", "containerd"}]

    def _import_image(self) -> None:
        command = json.dumps(["sh", "-c", IDLE])
        self.docker("import", "--change", f"CMD {command}", "-", IMAGE, feed=_busybox(self._unpacked / "bin/busybox"))

    def _close(self) -> None:
        with netns.signals_held():
            remains.remove(self.home)
            if self.process:
                self.process.wait()
                self.process = None


def _busybox(program: Path) -> bytes:
    """An image's files: busybox under all its names."""
    names = subprocess.run([str(program), "--list"], capture_output=True, text=True, check=True).stdout.split()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(program, "bin/busybox")
        for name in names:
            if name != "busybox":
                link = tarfile.TarInfo(f"bin/{name}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        for folder in ("dev", "etc", "proc", "sys", "tmp"):
            one = tarfile.TarInfo(folder)
            one.type, one.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(one)
    return packed.getvalue()
