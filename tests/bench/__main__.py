"""`python -m tests.bench`: our server beside Kea, ISC dhcpd and dnsmasq, our rules beside iptables.

Prints one table of figures, ratios and targets. Exit code 0 when every target is reached, 1 when not,
2 on bad usage, 3 without root or without one of the programs.
"""

import argparse
import fcntl
import os
import shutil
import signal
import subprocess
import sys
from types import FrameType

from . import loadgen, report
from .forwarding import forward
from .report import Row
from .scenarios import SCENARIOS, Plan
from .servers import ServerError

PROGRAMS = {
    "cc": "gcc",
    "kea-dhcp4": "kea-dhcp4-server",
    "perfdhcp": "kea-admin",
    "dhcpd": "isc-dhcp-server",
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "nft": "nftables",
    "iptables-nft-restore": "iptables",
}
ALL = SCENARIOS | {"forward": forward}
QUICK = Plan(rounds=1, seconds=1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measures Lanward beside others.")
    parser.add_argument("--only", metavar="NAME[,NAME]", help="of: " + ", ".join(ALL))
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds, default 5")
    parser.add_argument("--quick", action="store_true", help="one short round of each, under 90 s")
    chosen = parser.parse_args()
    chosen.names = chosen.only.split(",") if chosen.only else list(ALL)
    unknown = sorted(set(chosen.names) - set(ALL))
    if unknown or chosen.rounds < 1:
        parser.error(f"no scenario {', '.join(unknown)}" if unknown else "--rounds must be 1 or more")
    return chosen


def obstacle() -> str | None:
    """Why nothing can be measured here, or None."""
    if os.geteuid():
        return "the bench makes network namespaces: run it as root"
    missing = sorted(package for program, package in PROGRAMS.items() if not shutil.which(program))
    return f"missing: apt-get install {' '.join(missing)}" if missing else None


def measure(name: str, plan: Plan) -> list[Row]:
    """The rows of a scenario; one failed row when a server or the load broke down."""
    print(f"{name} ...", file=sys.stderr, flush=True)
    try:
        return ALL[name](plan)
    except (ServerError, loadgen.LoadError, subprocess.SubprocessError) as error:
        print(error, file=sys.stderr)
        return [Row(name, "failed", ok=False)]


def on_terminate(_: int, __: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    chosen = arguments()
    if reason := obstacle():
        print(reason, file=sys.stderr)
        return 3
    signal.signal(signal.SIGTERM, on_terminate)
    loadgen.build()
    plan = QUICK if chosen.quick else Plan(rounds=chosen.rounds, seconds=2)
    rows: list[Row] = []
    try:
        with (loadgen.CACHE / "bench.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two at a time would measure each other
            for name in chosen.names:
                rows += measure(name, plan)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 1
    print(report.machine() + "\n\n" + report.table(rows))
    return 0 if all(row.ok is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
