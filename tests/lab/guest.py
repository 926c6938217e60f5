"""A guest with a kernel of its own: User Mode Linux on this machine's files, read only below a tmpfs.

What a command writes in it is gone afterwards, but for the folder `out`. `LAB_UML` names the kernel.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

MEMORY = 3072
_FIRST = """#!/bin/bash
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -t tmpfs -o size=80%,mode=755 rw /mnt && mkdir /mnt/up /mnt/work /mnt/new
mount -t overlay -o lowerdir=/,upperdir=/mnt/up,workdir=/mnt/work root /mnt/new
cd /mnt/new
mount -t proc proc proc; mount -t sysfs sys sys; mount -t devtmpfs dev dev; mount -t hostfs -o OUT out .OUT
# never chroot: what enters a namespace later would land in the other root
mkdir -p old && pivot_root . old && cd / && umount -l /old
exec /bin/bash OUT/second
"""
_SECOND = """export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TMPDIR=/tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm; mount -t tmpfs -o mode=755 run /run; mkdir -p /run/lock
mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount --make-rshared /; hostname lab; ip link set lo up
cd HERE
COMMAND >OUT/log 2>&1 </dev/null
echo $? >OUT/code; sync; echo o >/proc/sysrq-trigger; sleep 60
"""


def why_missing() -> str | None:
    """Why there can be no guest, in one sentence; None when there can."""
    if os.geteuid() != 0:
        return "a guest needs root"
    kernel = os.environ.get("LAB_UML")
    if not kernel or not os.access(kernel, os.X_OK):
        return "LAB_UML names no User Mode Linux kernel with 802.1Q"
    return None


def run(command: Sequence[str], out: Path, timeout: float) -> int:
    """The exit code of a command in a guest, its output in ``out/log``; 99 when the guest does not end in time."""
    words = {"COMMAND": shlex.join(command), "OUT": str(out), "HERE": shlex.quote(str(Path.cwd()))}
    for name, script in {"first": _FIRST, "second": _SECOND}.items():
        (out / name).write_text(re.sub("COMMAND|OUT|HERE", lambda found: words[found[0]], script))
        (out / name).chmod(0o755)
    options = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", f"init={out}/first"]
    devices = ["con0=null,fd:1", "con=null", "ssl=null"]
    with (out / "console").open("wb") as console:
        guest = subprocess.Popen(
            [os.environ["LAB_UML"], f"mem={MEMORY}M", "seccomp=on", "ncpus=2", *options, *devices],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
    try:
        guest.wait(timeout)
    except subprocess.TimeoutExpired:
        return 99
    finally:
        with suppress(ProcessLookupError):
            os.killpg(guest.pid, signal.SIGKILL)
        guest.wait()
    return int((out / "code").read_text()) if (out / "code").exists() else 99
