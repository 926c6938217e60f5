"""The figures to reach, each measured in alternating rounds on one machine in one run.

A scenario is a function from a `Plan` to its rows; `SCENARIOS` names them for `--only`. Unless it says
otherwise, a round starts a server on an empty state, and every exchange is a new client.
"""

import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from . import loadgen
from .lab import Lab, Subnet, client_interface, cpu_list, dotted, ip
from .loadgen import Figures
from .report import Row, at_least, at_most, number
from .servers import LEASE_SECONDS, STATE, TITLES, Server

BOOK = 50_000
FAULTS = (
    "lost",
    "naks",
    "double_allocated",
    "address_changed",
    "no_server_id",
    "no_lease_time",
    "bad_checksum",
    "wrong_destination",
    "broadcast_replies",
    "receive_drops",
)


@dataclass(frozen=True)
class Plan:
    """How long to measure: alternating rounds, and seconds of load in each."""

    rounds: int
    seconds: float


Measure = Callable[[Server], Figures]


def alternate(plan: Plan, lab: Lab, names: list[str], measure: Measure) -> dict[str, list[Figures]]:
    """Runs A B C A B C ..., each time on a server of its own; the figures by server name."""
    figures: dict[str, list[Figures]] = {name: [] for name in names}
    for _ in range(plan.rounds):
        for name in names:
            with Server(name, lab) as server:
                figures[name].append(measure(server))
    return figures


def middle(figures: list[Figures], key: str) -> float:
    """Median over the rounds; a dot in the key goes into a nested object."""
    outer, _, inner = key.partition(".")
    return median(float(f[outer][inner] if inner else f[outer]) for f in figures)


def faults(what: str, figures: list[Figures]) -> list[Row]:
    """A failed row when the generator saw anything in our answers that must not be."""
    seen = {name: sum(f[name] for f in figures) for name in FAULTS}
    text = ", ".join(f"{count} {name}" for name, count in seen.items() if count)
    return [Row(f"{what}: faults seen", text, target="none", ok=False)] if text else []


def versus(what: str, figures: dict[str, list[Figures]], speed: float | None, cost: float | None) -> list[Row]:
    """Speed and cost rows of ours against the one other server of `figures`."""
    (other,) = (name for name in figures if name != "lanward")
    ours, theirs, title = figures["lanward"], figures[other], TITLES[other]
    rate, cpu = "per_second", "server_cpu_us"
    return [
        at_least(f"{what}: exchanges/s", middle(ours, rate), title, middle(theirs, rate), speed),
        at_most(f"{what}: processor us/exchange", middle(ours, cpu), title, middle(theirs, cpu), cost),
        *faults(what, ours),
    ]


def load(mode: str, **options: str | float | bool) -> Measure:
    return lambda server: loadgen.run(server.lab, mode, pid=server.pid, **options)


def direct(plan: Plan) -> list[Row]:
    with Lab([Subnet()]) as lab:
        figures = alternate(plan, lab, ["lanward", "kea"], load("direct", count=60_000, seconds=plan.seconds))
    return versus("DORA, direct, /16", figures, 4, 0.25)


def relay(plan: Plan) -> list[Row]:
    with Lab([Subnet()]) as lab:
        figures = alternate(plan, lab, ["lanward", "kea"], load("relay", count=60_000, seconds=plan.seconds))
    return versus("DORA, relayed, /16", figures, None, None)


def renew(plan: Plan) -> list[Row]:
    measure = load("renew", prefill=500, count=60_000, seconds=plan.seconds)
    with Lab([Subnet()]) as lab:
        figures = alternate(plan, lab, ["lanward", "kea"], measure)
    return versus("renewal, 500 clients", figures, 3, None)


def small_pool(plan: Plan) -> list[Row]:
    with Lab([Subnet(pool_size=1_000)]) as lab:
        figures = alternate(plan, lab, ["lanward", "isc"], load("direct", count=1_000))
    return versus("DORA, pool of 1,000", figures, 6, None)


def few_leases(plan: Plan) -> list[Row]:
    """New clients on a book of 200 leases, and the 200 themselves on an empty book."""
    names = ["lanward", "dnsmasq"]
    with Lab([Subnet()]) as lab:
        booked = alternate(plan, lab, names, load("direct", prefill=200, count=200))
        empty = alternate(plan, lab, names, load("direct", count=200))
    return [
        *versus("DORA, 200 leases held", booked, 12, None),
        *versus("DORA, the first 200 leases", empty, None, None),
    ]


def latency(plan: Plan) -> list[Row]:
    pace = 200
    measure = load("direct", count=int(pace * plan.seconds), rate=pace)
    with Lab([Subnet(pool_size=1_000)]) as lab:
        figures = alternate(plan, lab, ["lanward", "kea", "isc"], measure)
    offer = {name: middle(seen, "offer_us.p50") for name, seen in figures.items()}
    ack = {name: middle(seen, "ack_us.p50") for name, seen in figures.items()}
    return [
        at_most("200/s: OFFER p50, us", offer["lanward"], TITLES["kea"], offer["kea"], 1),
        at_most("200/s: durable ACK p50, us", ack["lanward"], TITLES["isc"], ack["isc"], 1.25),
        *faults("200/s", figures["lanward"]),
    ]


def growth(plan: Plan) -> list[Row]:
    few = Plan(min(plan.rounds, 3), plan.seconds)
    return [*_leases_growth(few), *_vlans_growth(few)]


def _leases_growth(plan: Plan) -> list[Row]:
    """Measured when the server has done what the leases before left to be done: it is the book that is to be seen."""
    books = {1_000: list[Figures](), 100_000: list[Figures]()}
    with Lab([Subnet(prefix=12, pool_size=200_000)]) as lab:
        for _ in range(plan.rounds):
            for size, figures in books.items():
                with Server("lanward", lab) as server:
                    load("direct", prefill=size, count=1)(server)
                    server.settle()
                    figures.append(load("direct", count=4_000, seed=2)(server))
    cost = {size: middle(figures, "server_cpu_us") for size, figures in books.items()}
    what = "processor us/exchange, 100,000 leases"
    return [at_most(what, cost[100_000], "1,000 leases", cost[1_000], 1.3), *faults(what, books[100_000])]


def _vlans_growth(plan: Plan) -> list[Row]:
    counts = {1: list[Figures](), 64: list[Figures]()}
    for _ in range(plan.rounds):
        for vlans, figures in counts.items():
            with Lab([Subnet(vlan=v) for v in range(vlans)]) as lab, Server("lanward", lab) as server:
                figures.append(load("direct", prefill=640, count=10_000)(server))
    cost = {vlans: middle(figures, "server_cpu_us") for vlans, figures in counts.items()}
    what = "processor us/exchange, 64 VLANs"
    return [at_most(what, cost[64], "1 VLAN", cost[1], 1.5), *faults(what, counts[64])]


def start(plan: Plan) -> list[Row]:
    """From exec to the first OFFER with a full book, and the memory before and after it was filled."""
    with Lab([Subnet()]) as lab:
        states = {"lanward": STATE / "lanward-book", "kea": STATE / "kea-book"}
        memory = _fill_lanward(lab, states["lanward"])
        _fill_kea(lab.subnets[0], states["kea"])
        with Server("kea", lab) as server:
            kea_empty = server.memory()[0]
        seconds: dict[str, list[float]] = {"lanward": [], "kea": []}
        for _ in range(plan.rounds):
            for name, state in states.items():
                with Server(name, lab, prefill=state) as server:
                    seconds[name].append(server.start_seconds)
                    memory[name] = server.memory()[0]
    begin = {name: median(times) for name, times in seconds.items()}
    leases = f"{BOOK:,} leases"
    return [
        at_most(f"start with {leases}, s", begin["lanward"], TITLES["kea"], begin["kea"], 0.5),
        _memory_row("memory after start, MiB", memory["empty"], kea_empty, 44),
        _memory_row(f"memory, {leases} handed out, MiB", memory["full"], None, 60),
        _memory_row(f"memory, {leases} read at start, MiB", memory["lanward"], memory["kea"], 60),
    ]


def _memory_row(what: str, ours: float, kea: float | None, most: float) -> Row:
    other = "" if kea is None else f"{TITLES['kea']} {number(kea)}"
    return Row(what, number(ours), other, kea and ours / kea, f"< {most:g} MiB", ours < most)


def _fill_lanward(lab: Lab, state: Path) -> dict[str, float]:
    """Hands out a book of leases, keeps the stopped server's folder as `state`; its memory in MiB."""
    with Server("lanward", lab) as server:
        empty = server.memory()[0]
        loadgen.run(lab, "direct", prefill=BOOK, count=1)
        full = server.memory()[0]
    shutil.rmtree(state, ignore_errors=True)
    shutil.copytree(server.folder, state, ignore=shutil.ignore_patterns("*.sock"))
    return {"empty": empty, "full": full}


def _fill_kea(subnet: Subnet, state: Path) -> None:
    """Writes the same leases in the format of Kea's memfile (version 2.1)."""
    head = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context"
    first, expire = subnet.base + 256, int(time.time()) + LEASE_SECONDS
    shutil.rmtree(state, ignore_errors=True)
    state.mkdir(parents=True)
    with (state / "leases.csv").open("w") as file:
        print(head, file=file)
        for i in range(BOOK):
            mac = f"02:00:01:{i >> 16:02x}:{i >> 8 & 255:02x}:{i & 255:02x}"
            row = f"{dotted(first + i)},{mac},,{LEASE_SECONDS},{expire},1,0,0,client-{i:06x},0,"
            print(row, file=file)


def crowd(_: Plan) -> list[Row]:
    """Clients beyond the size of the kernel's neighbour table, none of them asking for broadcast."""
    with Lab([Subnet()]) as lab, Server("lanward", lab) as server:
        seen = load("direct", count=4_000)(server)
    what = "4,000 direct clients served"
    return [Row(what, number(seen["exchanges"]), target="4,000", ok=seen["exchanges"] == 4_000), *faults(what, [seen])]


def storm(plan: Plan) -> list[Row]:
    boots = {"within 1 s": {"rate": 500}, "at one instant": {}}
    rows: list[Row] = []
    with Lab([Subnet()]) as lab:
        for when, pace in boots.items():
            measure = load("direct", count=500, window=500, **pace)
            figures = alternate(Plan(1, plan.seconds), lab, ["lanward", "kea"], measure)
            rows.append(_storm_row(when, figures["lanward"][0], figures["kea"][0]))
    return rows


def _storm_row(when: str, ours: Figures, kea: Figures) -> Row:
    ok = ours["exchanges"] == 500 and ours["seconds"] <= 3 and not ours["retransmits"]
    target = "500 in 3 s, 0 resent"
    return Row(f"500 devices {when}", _storm_text(ours), f"{TITLES['kea']} {_storm_text(kea)}", None, target, ok)


def _storm_text(seen: Figures) -> str:
    return f"{seen['exchanges']} in {seen['seconds']:.2f} s, {seen['retransmits']} resent"


def perfdhcp(plan: Plan) -> list[Row]:
    """Kea's own load generator, for its figure beside ours; it only plays a relay, in an open loop."""
    offered = 7_000
    rates: dict[str, float] = {}
    with Lab([Subnet()]) as lab:
        device, agent = client_interface(0), f"{lab.subnets[0].relay}/{lab.subnets[0].prefix}"
        ip("-n", lab.client_ns, "address", "add", agent, "dev", device)
        prefix = [*lab.inside(lab.client_ns), "taskset", "-c", cpu_list()[1]]
        words = ["-4", "-l", device, "-r", str(offered), "-R", "60000", "-p", str(max(2, int(plan.seconds)))]
        for name in ("lanward", "kea"):
            with Server(name, lab):
                command = [*prefix, "perfdhcp", *words, lab.subnets[0].server]
                output = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout
            found = re.search(r"Rate: ([\d.]+)", output)
            rates[name] = float(found[1]) if found else 0.0
    return [at_least(f"perfdhcp, {offered:,}/s offered", rates["lanward"], TITLES["kea"], rates["kea"], None)]


SCENARIOS: dict[str, Callable[[Plan], list[Row]]] = {
    "direct": direct,
    "isc": small_pool,
    "dnsmasq": few_leases,
    "renew": renew,
    "relay": relay,
    "latency": latency,
    "growth": growth,
    "start": start,
    "crowd": crowd,
    "storm": storm,
    "perfdhcp": perfdhcp,
}
