"""A ruleset as a value: what ``nft`` reads for it, and for the way from one to another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from router.elements import Elements

FAMILY, TABLE = "inet", "lanward"
BASE_CHAINS = {
    "forward": "type filter hook forward priority filter; policy drop;",
    "input": "type filter hook input priority filter; policy accept;",
    "prerouting": "type nat hook prerouting priority dstnat; policy accept;",
    "postrouting": "type nat hook postrouting priority srcnat; policy accept;",
}
"""They stay when a ruleset is replaced: a base chain that goes drops what it sees until it is gone."""

_FEW = 32
"""Elements: to take more from an interval set costs more than to build the set anew."""


@dataclass(frozen=True, slots=True)
class Set:
    """A named set, or a map when it says so. ``elements`` of both are written with their value."""

    type: str
    comment: str
    elements: Elements
    kind: str = "set"
    flags: str = ""
    size: int = 0
    """Elements at most, by which the kernel finds them faster; 0 for any number."""

    def lines(self) -> Iterator[str]:
        yield f"type {self.type}"
        if self.flags:
            yield f"flags {self.flags}"
        if self.size:
            yield f"size {self.size}"
        yield f'comment "{self.comment}"'
        if self.elements:
            yield "elements = {"
            yield from (f"\t{one}," for one in _written(self.elements))
            yield "}"


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The table: sets, flowtables and chains by name. ``str()`` is what ``nft --file`` reads."""

    sets: Mapping[str, Set]
    chains: Mapping[str, Sequence[str]]
    flowtables: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join([f"table {FAMILY} {TABLE} {{", *self._blocks(), "}", ""])

    def _blocks(self) -> Iterator[str]:
        for name, one in self.sets.items():
            yield from _block(f"{one.kind} {name}", one.lines())
        for name, lines in self.flowtables.items():
            yield from _block(f"flowtable {name}", lines)
        for name, rules in self.chains.items():
            yield from _block(f"chain {name}", [*([BASE_CHAINS[name]] if name in BASE_CHAINS else []), *rules])


def _block(head: str, lines: Iterable[str]) -> Iterator[str]:
    yield f"\t{head} {{"
    yield from (f"\t\t{line}" for line in lines)
    yield "\t}"


def _element(element: str, places: str) -> str:
    """The comment goes in front of the value of a map."""
    key, colon, value = element.partition(" : ")
    return f'{key} comment "{places}"{colon}{value}'


def command(verb: str, kind: str, name: str, rest: str = "") -> str:
    return f"{verb} {kind} {FAMILY} {TABLE} {name}{rest and ' '}{rest}\n"


def replacement(kinds: Iterable[tuple[str, str]], new: Ruleset) -> str:
    """From a table with these (kind, name) in it, whatever they are, to the ruleset. Base chains stay."""
    base = "".join(f"\tchain {name} {{ {hook} }}\n" for name, hook in BASE_CHAINS.items())
    found = list(kinds)
    gone = [(kind, name) for wanted in ("set", "map", "flowtable", "chain") for kind, name in found if kind == wanted]
    deletions = [command("delete", kind, name) for kind, name in gone if name not in BASE_CHAINS]
    return "".join([f"table {FAMILY} {TABLE} {{\n{base}}}\nflush table {FAMILY} {TABLE}\n", *deletions, str(new)])


def difference(old: Ruleset, new: Ruleset) -> str:
    """From one ruleset to the other, touching only what differs: the maps by which packets find their way miss nothing
    while they are in use. Flowtables must be the same in both.

    What is deleted comes first: intervals that grow would overlap themselves.
    """
    kept = {name: (old.sets[name].elements, new.sets[name].elements) for name in kept_sets(old, new)}
    rebuilt = old.sets.keys() & new.sets.keys() - kept.keys()
    chains = {name: rules for name, rules in new.chains.items() if _is_changed(rules, old.chains.get(name), rebuilt)}
    block = Ruleset({name: one for name, one in new.sets.items() if name not in kept}, chains)
    return "".join(
        [
            *(_elements("delete", name, map(_key, _without(*kept[name]))) for name in sorted(kept)),
            *(command("flush", "chain", name) for name in old.chains if name in chains or name not in new.chains),
            *(command("delete", one.kind, name) for name, one in old.sets.items() if name not in kept),
            *(command("delete", "chain", name) for name in old.chains if name not in {**new.chains, **BASE_CHAINS}),
            *([str(block)] if block.sets or block.chains else []),
            *(
                _elements("add", name, _written(_without(after, before)))
                for name, (before, after) in sorted(kept.items())
            ),
        ]
    )


def kept_sets(old: Ruleset, new: Ruleset) -> set[str]:
    """The sets that stay on the way of `difference`, with what else is in them; all others are made anew."""
    return {name for name in old.sets.keys() & new.sets.keys() if not _is_rebuilt(old.sets[name], new.sets[name])}


def _is_rebuilt(old: Set, new: Set) -> bool:
    if replace(old, elements={}) != replace(new, elements={}):
        return True
    return new.flags == "interval" and len(_without(old.elements, new.elements)) > _FEW


def _is_changed(rules: Sequence[str], before: Sequence[str] | None, rebuilt: Iterable[str]) -> bool:
    """A rule is tied to the set that was there when it was made."""
    return rules != before or any(f"@{name} " in rule for rule in rules for name in rebuilt)


def _without(elements: Elements, others: Elements) -> Elements:
    return {element: places for element, places in elements.items() if others.get(element) != places}


def _key(element: str) -> str:
    return element.partition(" : ")[0]


def _written(elements: Elements) -> Iterator[str]:
    return (_element(*one) for one in elements.items())


def _elements(verb: str, name: str, elements: Iterable[str]) -> str:
    listed = ", ".join(elements)
    return command(verb, "element", name, f"{{ {listed} }}") if listed else ""
