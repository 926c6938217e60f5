"""What a Docker engine leaves behind when it is killed, found by its folder, and removed.

The folder's name says who owns the engine, `/tmp/lw-<pid>-<number>-engine`, so that leftovers of a dead owner can be
told from a running engine. The engine's processes carry the folder in their environment; its containers are in control
groups of that name.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.lab import netns

FOLDER = Path("/tmp")  # a unix socket's path has at most 107 characters, so never a long TMPDIR
MARK = "LANWARD_ENGINE"
_CGROUPS = Path("/sys/fs/cgroup")
_SHIM_SOCKET = re.compile(r"/run/containerd/s/[0-9a-f]+")
_numbers = itertools.count(1)


def new_home() -> Path:
    """Return the name of a folder for an engine of this process."""
    return FOLDER / f"{netns.prefix(os.getpid())}{next(_numbers)}-engine"


def homes(start: str = "lw-") -> list[Path]:
    """Return the folders of engines whose names begin with `start`."""
    return sorted(FOLDER.glob(f"{start}*-engine"))


def processes(home: Path) -> list[int]:
    """Return the ids of the processes of the engine in this folder, and of its containers."""
    mark = f"{MARK}={home}".encode()
    marked = [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal() and mark in _environment(p)]
    inside = [int(line) for group in cgroups(home) for line in _lines(group / "cgroup.procs")]
    return sorted({*marked, *inside})


def mounts(home: Path) -> list[str]:
    """Return the mount points below an engine's folder, each before those that it lies on."""
    points = [line.split()[4] for line in _lines(Path("/proc/self/mountinfo"))]
    return sorted((point for point in points if point.startswith(f"{home}/")), reverse=True)


def cgroups(home: Path) -> list[Path]:
    """Return the engine's control groups in every hierarchy, parents first."""
    tops = [_CGROUPS, *(p for p in _CGROUPS.iterdir() if (p / "cgroup.procs").exists())]
    own = [top / home.name for top in tops if (top / home.name).is_dir()]
    return [path for top in own for path in sorted([top, *(p for p in top.rglob("*") if p.is_dir())])]


def note_shim_sockets(home: Path) -> None:
    """Keep the names of the sockets of the shims that run: after a kill the next engine does not remove them."""
    with (home / "shim-sockets").open("a") as noted:
        for file in home.glob("exec/containerd/daemon/*/*/*/*"):
            if file.name in {"address", "bootstrap.json"}:
                noted.write(file.read_text() + "\n")


def remove(home: Path) -> None:
    """Remove an engine with its processes, mounts, control groups and files, whatever state it is in."""
    note_shim_sockets(home)  # before, because a containerd that sees its shim die forgets it
    end_processes(home)
    netns.wait_until(lambda: _unmounted(home), 10, f"the mounts of the engine in {home} to be gone")
    netns.wait_until(lambda: _ungrouped(home), 10, f"the control groups of the engine in {home} to be gone")
    for path in _SHIM_SOCKET.findall((home / "shim-sockets").read_text()):
        Path(path).unlink(missing_ok=True)
    shutil.rmtree(home)


def end_processes(home: Path) -> None:
    """Kill an engine with its containers, and wait until they are gone."""

    def none_left() -> bool:
        left = processes(home)
        for pid in left:
            netns.kill(pid)
        return not left

    netns.wait_until(none_left, 10, f"the processes of the engine in {home} to end")


def _unmounted(home: Path) -> bool:
    if points := mounts(home):
        subprocess.run(["umount", "--lazy", *points], capture_output=True, check=False)
    return not mounts(home)


def _ungrouped(home: Path) -> bool:
    """A group is busy for a moment after its last process was killed."""
    for group in reversed(cgroups(home)):
        with suppress(OSError):
            group.rmdir()
    return not cgroups(home)


def sweep() -> list[str]:
    """Remove the engines whose owner is dead, and return the names of their folders."""
    dead = [p for p in homes() if (m := netns.OWNED.match(p.name)) and not Path("/proc", m["pid"]).exists()]
    for home in dead:
        remove(home)
    return [home.name for home in dead]


def program(pid: int) -> str:
    """Return the name of a process's program, at most 15 characters; nothing when it is gone."""
    return "".join(_lines(Path(f"/proc/{pid}/comm")))


def _environment(process: Path) -> list[bytes]:
    try:
        return (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
