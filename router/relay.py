"""The relay of UDP broadcasts, set up in the kernel and watched. `router.relay_rules` says what it does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from shutil import which
from struct import Struct
from typing import Any

from dhcpd.decision import Note
from router.nfnetlink import FirewallError, Nfnetlink
from router.relay_rules import FAMILY, TABLE, Counts, Leg, Legs, of_kind, relay_table, transaction
from router.settings import Broadcast

__all__ = ["Counts", "Leg", "Legs", "Relay"]

LOOK_SECONDS = 2.0
"""The shortest time between two listings of the table, which take 5 ms; leases change the ruleset's number all day."""

_NFT_SECONDS = 30
_MEMBERSHIP = Struct("=4s4si")
_NO_COPIES = (
    "this kernel cannot relay broadcasts: it needs nf_tables with CONFIG_NFT_DUP_IPV4, CONFIG_NFT_FIB_IPV4 "
    "and CONFIG_NFT_CT"
)


class Relay:
    """The table in the kernel of the network namespace in which this is made.

    `start` and `reload` raise `FirewallError`, and then nothing was changed; `watch` never raises. Each runs ``nft``
    when there is something to do and blocks for 10 to 30 ms.
    """

    def __init__(self, rules: Sequence[Broadcast], legs: Legs, log: Callable[[Note], None]) -> None:
        self.errors = 0
        """How often `watch` could not set the table up."""
        self.repairs = 0
        """How often the table was found changed by somebody else."""
        self._rules = tuple(rules)
        self._legs = dict(legs)
        self._log = log
        self._kernel = Nfnetlink()
        self._indices: dict[str, int] | None = None
        self._generation = 0
        self._seen: list[str] = []
        self._look_at = 0.0
        self._totals: Counter[tuple[str, str]] = Counter()
        self._groups: dict[tuple[int, int], socket.socket] = {}
        self.failure: str | None = None
        """Why the last `watch` could not set the table up."""

    def start(self) -> None:
        """Begin to relay. VLANs whose interface is away are left out until `watch` finds it."""
        self._apply(self._rules, self._legs)

    def check(self, rules: Sequence[Broadcast], legs: Legs) -> None:
        """Ask the kernel whether `reload` would succeed. Changes nothing; raises `FirewallError`."""
        _nft(["--check", "--file", "-"], _script(rules, legs, _present(rules, legs), _listing()))

    def reload(self, rules: Sequence[Broadcast], legs: Legs) -> None:
        """Change over to other rules and legs in one transaction; counts go on. The same again changes nothing."""
        wanted = (tuple(rules), dict(legs), _present(rules, legs))
        if wanted != (self._rules, self._legs, self._indices):
            self._apply(*wanted[:2])

    def stop(self) -> None:
        """Leave the multicast groups and close. The kernel goes on with its copies; a `reload` without rules ends them.

        Nothing else can be called afterwards.
        """
        for one in self._groups.values():
            one.close()
        self._groups.clear()
        self._kernel.close()

    def watch(self, now: float) -> bool:
        """True when the table was set up again: an interface went or is another than before, or somebody else
        changed the table, which is counted in `repairs`. ``now`` are seconds of any clock; call it every second."""
        try:
            if self._indices is None:
                return False
            moved = _present(self._rules, self._legs) != self._indices
            if not moved and not self._drifted(now):
                return False
            self._apply(self._rules, self._legs)
        except FirewallError as error:
            self._failed(error)
            return False
        self.failure = None
        self.repairs += not moved
        return True

    def counts(self) -> tuple[dict[str, Counts], int]:
        """(the counts of each rule by its name, strays: broadcasts to the port of a rule that came from elsewhere)."""
        total = self._totals + self._kernel_counts()
        by_rule = {rule.name: Counts(*(total[rule.name, what] for what in Counts._fields)) for rule in self._rules}
        return by_rule, total["", "strays"]

    def _apply(self, rules: tuple[Broadcast, ...], legs: dict[str, Leg]) -> None:
        indices = _present(rules, legs)
        listing = _listing()
        if listing or rules:
            before = self._kernel_counts()
            _nft(["--file", "-"], _script(rules, legs, indices, listing))
            self._totals += before
        self._rules, self._legs, self._indices = rules, legs, indices
        self._generation = self._kernel.generation()
        self._seen = _picture(_listing())
        self._join()

    def _kernel_counts(self) -> Counter[tuple[str, str]]:
        if self._indices is None:
            return Counter()
        found = {one["name"]: one["packets"] for one in of_kind("counter", _listing())}
        return Counter({what: found.get(name, 0) for name, what in _counters(self._rules)})

    def _drifted(self, now: float) -> bool:
        generation = self._kernel.generation()
        if generation == self._generation or now < self._look_at:
            return False
        self._look_at = now + LOOK_SECONDS
        if _picture(_listing()) != self._seen:
            return True
        self._generation = generation
        return False

    def _join(self) -> None:
        """Be a member of the groups on the legs that they come from: switches that snoop send to members only."""
        indices = self._indices or {}
        sources = {(indices.get(rule.source.vlan or ""), rule.group) for rule in self._rules}
        wanted = {(index, group) for index, group in sources if index is not None and group is not None}
        for key in self._groups.keys() - wanted:
            self._groups.pop(key).close()
        for key in wanted - self._groups.keys():
            with suppress(OSError):
                self._groups[key] = _membership(*key)

    def _failed(self, error: FirewallError) -> None:
        self.errors += 1
        if self.failure is None:
            self._log(Note("error", "relay_failed", {"error": str(error)}))
        self.failure = str(error)


def _present(rules: Iterable[Broadcast], legs: Legs) -> dict[str, int]:
    """The index of each interface that the rules need, by VLAN, without those that are away."""
    needed = {node.vlan for rule in rules for node in (rule.source, *rule.targets)}
    found: dict[str, int] = {}
    for vlan in legs.keys() & needed:
        with suppress(OSError):
            found[vlan] = socket.if_nametoindex(legs[vlan].interface)
    return found


def _membership(index: int, group: int) -> socket.socket:
    """A socket that is a member and, for want of a port, receives nothing."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        request = _MEMBERSHIP.pack(group.to_bytes(4, "big"), bytes(4), index)
        one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    except OSError:
        one.close()
        raise
    return one


# -- nft


def _script(rules: Sequence[Broadcast], legs: Legs, present: Iterable[str], listing: Iterable[dict[str, Any]]) -> str:
    return transaction(relay_table(rules, {vlan: legs[vlan] for vlan in present}), listing)


def _counters(rules: Sequence[Broadcast]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Each counter of the table with (the rule's name, what is counted)."""
    yield "strays", ("", "strays")
    for index, rule in enumerate(rules):
        yield from ((f"{what}_{index}", (rule.name, what)) for what in Counts._fields)


def _picture(listing: Iterable[dict[str, Any]]) -> list[str]:
    """All that must stay as it is, without the numbers that the kernel gives."""
    kept = [one for one in listing if not one.keys() & {"metainfo", "counter"}]
    for (body,) in (one.values() for one in kept):
        body.pop("handle", None)
    return [json.dumps(one, sort_keys=True) for one in kept]


def _listing() -> list[dict[str, Any]]:
    """What is in the table, nothing when there is none."""
    try:
        text = _nft(["--json", "--numeric", "list", "table", FAMILY, TABLE])
    except FirewallError as error:
        if "No such file" in str(error):
            return []
        raise
    found: list[dict[str, Any]] = json.loads(text)["nftables"]
    return found


def _nft(arguments: list[str], script: str = "") -> str:
    program = which("nft", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if program is None:
        raise FirewallError("the program nft is missing: install nftables")
    try:
        done = subprocess.run(  # noqa: S603 - the arguments are this module's own; what is configured goes by stdin
            [program, *arguments], input=script, capture_output=True, text=True, check=False, timeout=_NFT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FirewallError(f"nft cannot run: {error}") from None
    if done.returncode:
        raise FirewallError(_explained(done.stderr, script))
    return done.stdout


def _explained(stderr: str, script: str) -> str:
    """The kernel's word for an expression that it was built without is that there is no such file."""
    if script and "No such file" in stderr:
        return _NO_COPIES
    return f"the kernel refuses the relay: {(stderr.strip().splitlines() or ['nft says nothing'])[0]}"
