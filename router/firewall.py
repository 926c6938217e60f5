"""The ruleset in the kernel: checked, replaced in one transaction, watched.

`Firewall` works in the network namespace of the thread that makes it. Nothing is removed when it is closed: the rules
outlive the service.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from math import isinf
from shutil import which
from typing import Any, NamedTuple

from dhcpd.pool import dotted
from router.nfnetlink import NO_PERMISSION, NO_TABLES, FirewallError, Key, Nfnetlink
from router.nftables import FAMILY, TABLE, Ruleset, command, difference, kept_sets, replacement
from router.rules import guard_set

__all__ = ["Firewall", "FirewallError", "Member", "has_flowtables"]

LATE_SECONDS = 60.0
"""After the end of its lease, in which a member of the source guard may still be there: the kernel's clock is another,
and stands while the machine sleeps."""

_NFT_SECONDS = 30
_FLOWTABLE = f"table {FAMILY} {TABLE}_probe {{\nflowtable fast {{ hook ingress priority filter;\n}}\n}}\n"


class Member(NamedTuple):
    """What passes the source guard of a VLAN: an address, from the MAC that holds it."""

    vlan: str
    mac: bytes
    address: int


Members = Mapping[Member, float]
"""Member -> service time at which it ends, ``inf`` for never."""


class Firewall:
    """Our table in the kernel, for one thread. Calls raise `FirewallError`, and then nothing was changed.

    `apply`, `check` and the first `watch` after somebody changed nftables, or we did, run ``nft`` and block: 10 ms,
    100 ms with 1,000 exceptions. `admit`, `expel` and every other `watch` are a system call of some 50 microseconds.
    """

    def __init__(self) -> None:
        self._kernel = Nfnetlink()
        self.repairs = 0
        """How often the table was found changed by somebody else."""
        self._applied: Ruleset | None = None
        self._members: dict[Member, float] = {}
        self._generation = 0
        self._seen: Counter[str] | None = None

    def close(self) -> None:
        self._kernel.close()

    # -- rules

    def check(self, rules: Ruleset, now: float) -> None:
        """Ask the kernel whether it would take the rules. Changes nothing."""
        _nft(self._whole(rules, now), "--check")

    def apply(self, rules: Ruleset, now: float, members: Members | None = None) -> bool:
        """Make the kernel's table equal to ``rules``; False when it was already.

        One transaction: no packet passes half of the rules, and connections stay. Only what differs is touched, except
        in a table that another process has left. ``members`` of the source guard replace those from before; None
        keeps these.
        """
        if rules == self._applied and members is None:
            return False
        before = self._members
        self._members = dict(before if members is None else members)
        self._forget_ended(now)
        try:
            self._commit(rules, self._way_to(rules, now, whole=members is not None))
        except FirewallError:
            self._members = before
            raise
        return True

    def watch(self, now: float) -> bool:
        """True when somebody else had changed our table; it is as it should be again, and counted in `repairs`.

        Call it every second or two.
        """
        if self._applied is None or self._is_untouched(self._applied, now):
            return False
        self._forget_ended(now)
        self._commit(self._applied, self._whole(self._applied, now))
        self.repairs += 1
        return True

    def _is_untouched(self, rules: Ruleset, now: float) -> bool:
        """Whether the kernel shows what it showed when the rules were applied and nobody had changed anything since.

        What it showed is read late, because it takes longer than to apply the rules; a change before that counts.
        """
        generation = self._kernel.generation()
        if generation == self._generation and self._seen is not None:
            return True
        found = _picture(_listing())
        if generation == self._generation == self._kernel.generation():
            self._seen = found.rules
        if found.rules != self._seen or not self._are_ours(rules, found.members, now):
            return False
        self._generation = generation
        return True

    def _way_to(self, rules: Ruleset, now: float, *, whole: bool = False) -> str:
        """The transaction that leads to the rules: the difference where the kernel has what was applied last."""
        old = self._applied
        if whole or old is None or old.flowtables != rules.flowtables or self._kernel.generation() != self._generation:
            return self._whole(rules, now)
        return difference(old, rules) + self._member_lines(rules, now, kept_sets(old, rules))

    def _whole(self, rules: Ruleset, now: float) -> str:
        kinds = ((kind, one["name"]) for kind, one in _listing(terse=True) if "name" in one)
        return replacement(kinds, rules) + self._member_lines(rules, now)

    def _commit(self, rules: Ruleset, script: str) -> None:
        """Run the transaction that leads to ``rules``. A change by somebody else meanwhile will count as drift."""
        before = self._kernel.generation()
        _nft(script)
        self._applied, self._generation, self._seen = rules, before + 1, None

    # -- source guard

    def admit(self, members: Members, now: float) -> None:
        """Let members pass until their time, from now on; members of VLANs without a guard are ignored."""
        guarded = {one: end for one, end in members.items() if self._guards(one) and end > now}
        self._members |= guarded
        self._change(guarded, now, leaving=())

    def expel(self, members: Iterable[Member], now: float) -> None:
        """Let members pass no longer, whether they did or not; reservations in the configuration stay."""
        leaving = [one for one in members if self._guards(one)]
        for one in leaving:
            self._members.pop(one, None)
        self._change({}, now, leaving)

    def _change(self, entering: Members, now: float, leaving: Iterable[Member]) -> None:
        by_set: dict[str, tuple[list[tuple[Key, float | None]], list[Key]]] = {}
        for one, end in entering.items():
            seconds = None if isinf(end) else end - now
            by_set.setdefault(guard_set(one.vlan), ([], []))[0].append(((one.mac, one.address), seconds))
        for one in leaving:
            by_set.setdefault(guard_set(one.vlan), ([], []))[1].append((one.mac, one.address))
        for name, (add, remove) in by_set.items():
            self._generation += self._kernel.change(TABLE, name, add, remove)

    def _guards(self, member: Member) -> bool:
        """Whether the member is ours to add and remove: the VLAN has a guard, and no reservation names it."""
        found = self._applied.sets.get(guard_set(member.vlan)) if self._applied else None
        return found is not None and _member_text(member) not in found.elements

    def _member_lines(self, rules: Ruleset, now: float, there: Collection[str] = ()) -> str:
        """The members of all guards but those whose sets are ``there`` and stay, with the members in them."""
        lines: list[str] = []
        for one, end in self._members.items():
            name = guard_set(one.vlan)
            if name in there or name not in rules.sets or _member_text(one) in rules.sets[name].elements or end <= now:
                continue
            timeout = "" if isinf(end) else f" timeout {max(1, int((end - now) * 1000))}ms"
            lines.append(command("add", "element", name, f"{{ {_member_text(one)}{timeout} }}"))
        return "".join(lines)

    def _forget_ended(self, now: float) -> None:
        self._members = {one: end for one, end in self._members.items() if end > now - LATE_SECONDS}

    def _are_ours(self, rules: Ruleset, found: set[str], now: float) -> bool:
        """Whether the kernel shows all members that it must, and none but those that it may; one that ends this second
        may be gone."""
        guards = {name: one for name, one in rules.sets.items() if one.flags == "timeout"}
        reserved = {f"{name} {member}" for name, one in guards.items() for member in one.elements}
        leased = {
            f"{guard_set(one.vlan)} {_member_text(one)}": end
            for one, end in self._members.items()
            if guard_set(one.vlan) in guards
        }
        must = reserved | {member for member, end in leased.items() if end > now + 1}
        may = must | {member for member, end in leased.items() if end > now - LATE_SECONDS}
        return must <= found <= may


@cache
def has_flowtables() -> bool:
    """Whether the kernel can forward connections past the rules. Runs ``nft`` the first time."""
    try:
        _nft(_FLOWTABLE, "--check")
    except FirewallError:
        return False
    return True


def _member_text(member: Member) -> str:
    return f"{member.mac.hex(':')} . {dotted(member.address)}"


# -- nft


def _nft(script: str, *options: str) -> None:
    _run([*options, "--file", "-"], script)


@cache
def _program() -> str:
    """Administrators' folders are not in everybody's path."""
    found = which("nft", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]))
    if found is None:
        raise FirewallError("the program nft is missing: install nftables")
    return found


def _run(arguments: list[str], script: str = "") -> str:
    try:
        done = subprocess.run(  # noqa: S603 - the arguments are this module's own; what is configured goes by stdin
            [_program(), *arguments], input=script, capture_output=True, text=True, check=False, timeout=_NFT_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise FirewallError(f"nft did not end within {_NFT_SECONDS} seconds") from None
    if done.returncode:
        raise FirewallError(_explained(done.stderr))
    return done.stdout


_REFUSALS = {
    "Operation not permitted": NO_PERMISSION,
    "cache initialization failed|(Protocol|Operation) not supported|Unable to initialize Netlink": NO_TABLES,
}


def _explained(stderr: str) -> str:
    for pattern, sentence in _REFUSALS.items():
        if re.search(pattern, stderr):
            return sentence
    return f"the kernel refuses the rules: {(stderr.strip().splitlines() or ['nft says nothing'])[0]}"


def _listing(*, terse: bool = False) -> list[tuple[str, dict[str, Any]]]:
    """What is in our table by kind, nothing when there is none."""
    options = ["--json", "--stateless", "--numeric", *(["--terse"] if terse else [])]
    try:
        found = json.loads(_run([*options, "list", "table", FAMILY, TABLE]))["nftables"]
    except FirewallError as error:
        if "No such file" in str(error):
            return []
        raise
    return [next(iter(one.items())) for one in found]


class _Picture(NamedTuple):
    rules: Counter[str]
    """All that must stay as it is, without the numbers that the kernel gives."""
    members: set[str]


def _picture(listing: Iterable[tuple[str, dict[str, Any]]]) -> _Picture:
    rules: Counter[str] = Counter()
    members: set[str] = set()
    for kind, one in listing:
        elements = one.pop("elem", [])
        one.pop("handle", None)
        if kind == "set" and "timeout" in one.get("flags", []):
            members |= {f"{one['name']} {_member_of(element)}" for element in elements}
        elif elements:
            rules.update(f"{one['name']} {json.dumps(element, sort_keys=True)}" for element in elements)
        if kind != "metainfo":
            rules[json.dumps([kind, one], sort_keys=True)] += 1
    return _Picture(rules, members)


def _member_of(element: Any) -> str:
    value = element["elem"]["val"] if "elem" in element else element
    return " . ".join(value["concat"])
