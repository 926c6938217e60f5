"""A guest does not outlive who started it. Its kernel is a program that sleeps: no real one is needed for that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.lab import netns
from tests.lab.service import REPOSITORY

RUN = "import sys; from pathlib import Path; from tests.lab import guest; guest.run(['true'], Path(sys.argv[1]), 60)"


def test_a_guest_ends_with_a_run_that_is_killed(tmp_path: Path) -> None:
    kernel, pid = tmp_path / "linux", tmp_path / "pid"
    kernel.write_text(f"#!/bin/sh\necho $$ >{pid}.part; mv {pid}.part {pid}; exec sleep 60\n")
    kernel.chmod(0o755)
    environment = os.environ | {"LAB_UML": str(kernel)}
    with subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], cwd=REPOSITORY, env=environment) as run:
        netns.wait_until(pid.exists, 20, "the guest to start")
        guest = Path("/proc") / pid.read_text().strip()
        assert guest.exists()
        run.kill()
    netns.wait_until(lambda: not guest.exists() or "(sleep) Z" in (guest / "stat").read_text(), 5, "the guest to end")
