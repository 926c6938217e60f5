"""A guest with a kernel of its own on this machine's files, read only below a tmpfs.

What a command writes in it is gone afterwards, but for the folder `out`. The guest is User Mode Linux where `LAB_UML`
names one, else QEMU where `LAB_QEMU` names the folder that `tests/lab/kernel.sh` has made.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
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
    if (
        os.access(os.environ.get("LAB_UML", ""), os.X_OK)
        or Path(os.environ.get("LAB_QEMU", ""), "initramfs.gz").exists()
    ):
        return None
    return "LAB_UML names no User Mode Linux kernel with 802.1Q; `make lab` does without, by QEMU"


def slowness() -> float:
    """How many times longer everything takes than in User Mode Linux."""
    return 1.0 if "LAB_UML" in os.environ else 6.0


def _uml(out: Path) -> list[str]:
    options = ["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet", f"init={out}/first"]
    devices = ["con0=null,fd:1", "con=null", "ssl=null"]
    return [os.environ["LAB_UML"], f"mem={MEMORY}M", "seccomp=on", "ncpus=2", *options, *devices]


def _qemu(out: Path) -> list[str]:
    kernel = Path(os.environ["LAB_QEMU"])
    version = next((kernel / "lib/modules").iterdir()).name
    is_special = Path("/sys/module/kvm_pvm").exists()  # it runs guests of its own kind only
    has_kvm = Path("/dev/kvm").exists() and not is_special
    processor = ["-accel", "kvm", "-cpu", "host"] if has_kvm else ["-accel", "tcg,thread=multi", "-cpu", "qemu64"]
    words = ["qemu-system-x86_64", *processor, "-m", str(MEMORY), "-smp", "2", "-nodefaults", "-no-reboot"]
    words += ["-nic", "none", "-display", "none", "-serial", "stdio", "-device", "virtio-rng-pci"]
    shared = {"rootfs": "path=/,readonly=on,security_model=none", "out": f"path={out},security_model=mapped-xattr"}
    for tag, options in shared.items():  # mapped, so that there can be a socket in it
        words += ["-fsdev", f"local,id={tag},{options},multidevs=remap"]
        words += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    line = f"console=ttyS0 panic=-1 quiet mitigations=off LAB_OUT={out} LAB_MODULES={kernel}/lib/modules"
    boot = {"-kernel": kernel / f"boot/vmlinuz-{version}", "-initrd": kernel / "initramfs.gz", "-append": line}
    return [*words, *(str(word) for pair in boot.items() for word in pair)]


def run(command: Sequence[str], out: Path, timeout: float, cut: Callable[[], bool] = lambda: False) -> int:
    """The exit code of a command in a guest, its output in ``out/log``; 99 when the guest does not end in time. As soon
    as ``cut`` says so, its power is cut; that is -9."""
    words = {"COMMAND": shlex.join(command), "OUT": str(out), "HERE": shlex.quote(str(Path.cwd()))}
    for name, script in {"first": _FIRST, "second": _SECOND}.items():
        (out / name).write_text(re.sub("COMMAND|OUT|HERE", lambda found: words[found[0]], script))
        (out / name).chmod(0o755)
    with (out / "console").open("wb") as console:
        guest = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *(_uml(out) if "LAB_UML" in os.environ else _qemu(out))],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
    deadline = time.monotonic() + timeout * slowness()
    try:
        while guest.poll() is None:
            if time.monotonic() > deadline:
                return 99
            if cut():
                return -signal.SIGKILL
            time.sleep(0.05)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(guest.pid, signal.SIGKILL)
        guest.wait()
    return int((out / "code").read_text()) if (out / "code").exists() else 99
