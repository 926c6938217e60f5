"""Network namespaces by name, with few forks: the material of the virtual truck.

A name says who owns it, `lw-<pid>-<number>-<node>`, so that leftovers of a dead owner can be told from the
namespaces of a running one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path("/run/netns")
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a program to end."""
OWNED = re.compile(r"lw-(?P<pid>\d+)-\d+-")


def prefix(pid: int) -> str:
    """What the names of all namespaces owned by process `pid` begin with."""
    return f"lw-{pid}-"


def existing(start: str = "") -> list[str]:
    """Return the names of the machine's namespaces that begin with `start`."""
    return sorted(p.name for p in FOLDER.glob(f"{start}*")) if FOLDER.is_dir() else []


def enter(netns: str) -> list[str]:
    """Return the command prefix that runs a program inside `netns`, with the machine's own mounts."""
    return ["nsenter", f"--net={FOLDER / netns}"]


def batch(commands: Iterable[str], netns: str | None = None, tool: str = "ip") -> None:
    """Run `ip` (or `bridge`) commands in one process; raise RuntimeError naming the first that fails."""
    text = "\n".join(commands)
    if not text:
        return
    where = ["-n", netns] if netns else []
    done = subprocess.run([tool, *where, "-batch", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{tool} in {netns or 'this namespace'}: {done.stderr.strip()}\n{text}")


def write_sysctls(netns: str, values: dict[str, int]) -> None:
    """Write the `net.*` settings given as paths below /proc/sys/net, e.g. `ipv4/ip_forward`."""
    script = ";".join(f"echo {value} >/proc/sys/net/{path}" for path, value in values.items())
    subprocess.run([*enter(netns), "sh", "-ec", script], check=True)


def processes(names: Collection[str]) -> list[int]:
    """Return the ids of the processes that run inside any of the namespaces."""
    inodes = {(FOLDER / name).stat().st_ino for name in names if (FOLDER / name).exists()}
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdecimal() and _netns_inode(p) in inodes]


def _netns_inode(process: Path) -> int:
    try:
        return (process / "ns/net").stat().st_ino
    except OSError:
        return 0


def end_processes(names: Collection[str], timeout: float = 2.0) -> None:
    """Kill what runs inside the namespaces, and wait until it is gone."""

    def none_left() -> bool:
        left = processes(names)
        for pid in left:
            kill(pid)
        return not left

    wait_until(none_left, timeout, "the processes inside the namespaces to end")


def kill(pid: int) -> None:
    """Kill a process, and collect it when it is a child of ours; one that is gone is ignored."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, os.WNOHANG)
    except (ProcessLookupError, ChildProcessError):
        pass


def delete(names: Sequence[str]) -> None:
    """Remove the namespaces with the processes inside; names that do not exist are ignored."""
    end_processes(names)
    batch(f"netns del {name}" for name in names if (FOLDER / name).exists())


@contextmanager
def signals_held() -> Iterator[None]:
    """The signals that end a program wait until the block is done."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def sweep() -> list[str]:
    """Remove the namespaces whose owner is dead, and return their names."""
    dead = [n for n in existing() if (m := OWNED.match(n)) and not Path("/proc", m["pid"]).exists()]
    delete(dead)
    return dead


def wait_until(condition: Callable[[], object], timeout: float, what: str) -> None:
    """Return as soon as `condition` holds; raise TimeoutError naming `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {what}")
        time.sleep(0.005)
