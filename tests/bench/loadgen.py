"""Builds the load generator `loadgen.c` and runs it in a client namespace."""

import json
import subprocess
from pathlib import Path
from typing import Any

from .lab import Lab, client_interface, cpu_list, server_mac

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"
SOURCE = Path(__file__).with_name("loadgen.c")
RUN_SECONDS = 120  # well over the generator's own bounds

Figures = dict[str, Any]
"""The generator's JSON object, see `print_result` in loadgen.c; latencies in microseconds."""


class LoadError(Exception):
    """The generator could not run, or its prefill was not served."""


def build() -> Path:
    """The compiled generator, newer than its source. Raises `subprocess.CalledProcessError`."""
    binary = CACHE / "loadgen"
    if not binary.exists() or binary.stat().st_mtime < SOURCE.stat().st_mtime:
        CACHE.mkdir(exist_ok=True)
        fresh = CACHE / "loadgen.new"
        subprocess.run(["cc", "-O2", "-Wall", "-o", str(fresh), str(SOURCE)], check=True)
        fresh.replace(binary)
    return binary


def command(lab: Lab, mode: str, **options: str | float | bool) -> list[str]:
    """The generator's command line for all VLANs of a lab; options are its long ones, `True` for a flag."""
    interfaces = ",".join(client_interface(s.vlan) for s in lab.subnets)
    words = [*lab.inside(lab.client_ns), "taskset", "-c", cpu_list()[1], str(build()), mode, "--iface", interfaces]
    if mode == "relay":
        words += ["--server", lab.subnets[0].server, "--giaddr", lab.subnets[0].relay]
        words += ["--server-mac", server_mac(lab.subnets[0].vlan)]
    for name, value in options.items():
        words += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
    return words


def run(lab: Lab, mode: str, **options: str | float | bool) -> Figures:
    """Runs the generator to its end; raises `LoadError` with its words, or when it hangs."""
    words = command(lab, mode, **options)
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=RUN_SECONDS)
    if done.returncode:
        raise LoadError(done.stderr.strip())
    figures: Figures = json.loads(done.stdout)
    return figures
