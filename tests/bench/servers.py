"""The DHCP servers under measurement: configuration, start up to the first OFFER, memory, stop.

All of them get the same subnets, pools, lease time and options, keep their leases on the same disk, write
their log into a file at its default level, and look for no address conflicts before an OFFER.
"""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from . import loadgen
from .lab import Lab, Subnet, cpu_list, dotted, server_interface

LEASE_SECONDS = 43_200
START_SECONDS = 60
STOP_SECONDS = 20
SETTLE_SECONDS = 30
RETRY_SECONDS = 0.005
STATE = loadgen.CACHE / "bench"


class ServerError(Exception):
    """A server that did not answer; the message ends with the last lines of its log."""


@dataclass(frozen=True)
class Launch:
    """How a server is started: its command and what its environment adds."""

    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)


Recipe = Callable[[Path, list[Subnet]], Launch]
"""Writes a server's configuration into a folder, and says how to start it on it."""


def lanward(folder: Path, subnets: list[Subnet]) -> Launch:
    config = folder / "lanward.toml"
    config.write_text("\n".join(_lanward_vlan(s) for s in subnets))
    words = ["run", "--config", str(config), "--state", str(folder / "state")]
    # The modules are compiled as in the image, whatever the shell that measures has set.
    return Launch([str(loadgen.ROOT / ".venv/bin/lanward"), *words], {"PYTHONDONTWRITEBYTECODE": ""})


def _lanward_vlan(s: Subnet) -> str:
    return f"""[[vlan]]
name = "vlan{s.vlan}"
tag = {s.vlan + 1}
interface = "{server_interface(s.vlan)}"
subnet = "{s.network}/{s.prefix}"
router = "{s.server}"
pools = ["{s.first}-{s.last}"]
landing = "{dotted(s.base + 128)}/25"
lease_time = "{LEASE_SECONDS}s"
dns = ["{s.server}"]
probe = false
"""


def kea(folder: Path, subnets: list[Subnet]) -> Launch:
    log = {"name": "kea-dhcp4", "output_options": [{"output": str(folder / "kea.log")}], "severity": "INFO"}
    settings = {
        "interfaces-config": {
            "interfaces": [server_interface(s.vlan) for s in subnets],
            "dhcp-socket-type": "raw",
        },
        "lease-database": {"type": "memfile", "persist": True, "name": str(folder / "leases.csv")},
        "valid-lifetime": LEASE_SECONDS,
        "subnet4": [_kea_subnet(s) for s in subnets],
        "loggers": [log],
    }
    config = folder / "kea.json"
    config.write_text(json.dumps({"Dhcp4": settings}))
    folders = {"KEA_PIDFILE_DIR": str(folder), "KEA_LOCKFILE_DIR": str(folder)}
    return Launch(["kea-dhcp4", "-c", str(config)], folders)


def _kea_subnet(s: Subnet) -> dict[str, object]:
    return {
        "id": s.vlan + 1,
        "subnet": f"{s.network}/{s.prefix}",
        "interface": server_interface(s.vlan),
        "pools": [{"pool": f"{s.first} - {s.last}"}],
        "option-data": [
            {"name": "routers", "data": s.server},
            {"name": "domain-name-servers", "data": s.server},
        ],
    }


def dhcpd(folder: Path, subnets: list[Subnet]) -> Launch:
    head = f"authoritative; ping-check false; ddns-update-style none; default-lease-time {LEASE_SECONDS};\n"
    config = folder / "dhcpd.conf"
    config.write_text(head + "\n".join(_dhcpd_subnet(s) for s in subnets))
    leases = folder / "dhcpd.leases"
    leases.touch()
    files = ["-cf", str(config), "-lf", str(leases), "-pf", str(folder / "dhcpd.pid")]
    # -d: log to standard error; without it the log goes to syslog alone, and costs nothing where none runs
    return Launch(["dhcpd", "-4", "-d", *files, *(server_interface(s.vlan) for s in subnets)])


def _dhcpd_subnet(s: Subnet) -> str:
    options = f"option routers {s.server}; option domain-name-servers {s.server};"
    return f"subnet {s.network} netmask {s.netmask} {{ range {s.first} {s.last}; {options} }}"


def dnsmasq(folder: Path, subnets: list[Subnet]) -> Launch:
    lines = [
        "port=0",
        "user=root",
        "bind-interfaces",
        "dhcp-authoritative",
        "no-ping",
        "dhcp-lease-max=200000",
        f"dhcp-leasefile={folder / 'dnsmasq.leases'}",
        f"log-facility={folder / 'dnsmasq.log'}",
        f"pid-file={folder / 'dnsmasq.pid'}",
    ]
    for s in subnets:
        lines.append(f"interface={server_interface(s.vlan)}")
        lines.append(f"dhcp-range={s.first},{s.last},{s.netmask},{LEASE_SECONDS}")
    config = folder / "dnsmasq.conf"
    config.write_text("\n".join(lines) + "\n")
    return Launch(["dnsmasq", "-k", f"--conf-file={config}"])


RECIPES: dict[str, Recipe] = {"lanward": lanward, "kea": kea, "isc": dhcpd, "dnsmasq": dnsmasq}
TITLES = {"lanward": "Lanward", "kea": "Kea", "isc": "ISC dhcpd", "dnsmasq": "dnsmasq"}


class Server:
    """Context manager: one server, running in the lab's server namespace and answering.

    `prefill` is a folder whose files are the server's state before its start. Entering raises `ServerError`
    when no OFFER has come within `START_SECONDS`.
    """

    def __init__(self, name: str, lab: Lab, prefill: Path | None = None) -> None:
        self.name = name
        self.lab = lab
        self.folder = STATE / name
        self.start_seconds = 0.0
        shutil.rmtree(self.folder, ignore_errors=True)
        if prefill:
            shutil.copytree(prefill, self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._launch = RECIPES[name](self.folder, lab.subnets)

    def __enter__(self) -> "Server":
        waiting = subprocess.Popen(self._first_offer(), stdout=subprocess.PIPE, text=True)
        try:
            begin = time.monotonic_ns()
            self._start()
            answer = self._answer(waiting)
        except BaseException:
            waiting.terminate()
            waiting.wait()
            self.stop()
            raise
        self.start_seconds = (answer["first_offer_ns"] - begin) / 1e9
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def memory(self) -> tuple[float, float]:
        """Resident memory now and at its peak, MiB."""
        rows = (line.split() for line in Path(f"/proc/{self.pid}/status").read_text().splitlines())
        kib = {row[0]: int(row[1]) for row in rows if row and row[0] in ("VmRSS:", "VmHWM:")}
        return kib["VmRSS:"] / 1024, kib["VmHWM:"] / 1024

    def settle(self) -> None:
        """Waits until the server has used no processor for half a second; raises `ServerError` when it goes on."""
        deadline, before = time.monotonic() + SETTLE_SECONDS, -1
        while before != (used := self._ticks()):
            if time.monotonic() > deadline:
                raise ServerError(f"{self.name} is busy for {SETTLE_SECONDS} s, though nobody asks it anything")
            before = used
            time.sleep(0.5)

    def _ticks(self) -> int:
        """Processor time used so far, in the kernel's ticks, by proc(5)."""
        user, system = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return int(user) + int(system)

    def stop(self) -> None:
        """Ends the server in order, by force when that takes too long."""
        process: subprocess.Popen[bytes] | None = getattr(self, "_process", None)
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self) -> None:
        inside = self.lab.inside(self.lab.server_ns)
        with (self.folder / "output.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*inside, "taskset", "-c", cpu_list()[0], *self._launch.command],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=os.environ | self._launch.environment,
                cwd=loadgen.ROOT,
                start_new_session=True,  # Ctrl-C is for the bench, which then stops the server in order
            )

    def _answer(self, waiting: subprocess.Popen[str]) -> loadgen.Figures:
        """What the waiting client got; raises `ServerError` when that is nothing, or the server has ended."""
        while waiting.poll() is None:
            if self._process.poll() is not None:
                raise ServerError(f"{self.name} ended with {self._process.returncode}:\n{self._last_words()}")
            time.sleep(0.02)
        answer: loadgen.Figures = json.loads(waiting.communicate()[0] or "{}")
        if not answer.get("exchanges"):
            raise ServerError(f"{self.name} sent no OFFER in {START_SECONDS} s:\n{self._last_words()}")
        return answer

    def _first_offer(self) -> list[str]:
        """A client that asks until the first OFFER; it is client 0 of every load, so it costs no address."""
        limits = {"timeout": RETRY_SECONDS, "tries": 65_535, "seconds": START_SECONDS}
        return loadgen.command(self.lab, "direct", count=1, window=1, discover_only=True, **limits)

    def _last_words(self) -> str:
        logs = [self.folder / "output.log", *self.folder.glob("*.log")]
        return "\n".join(line for log in logs if log.exists() for line in log.read_text().splitlines()[-8:])
