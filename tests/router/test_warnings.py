"""The one list of what is wrong: nothing stands in it without its cure, and nothing is told twice."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from dhcpd.decision import Note
from router import containers, warnings
from router.warnings import KINDS, MAX_OF_A_KIND, Finding, Warnings
from tests.lab.service import REPOSITORY


class Heard:
    def __init__(self) -> None:
        self.notes: list[Note] = []
        self.now = 1_800_000_000.0
        self.list = Warnings(self.notes.append, lambda: self.now)

    def events(self) -> list[str]:
        return [note.event for note in self.notes]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_cure(kind: str) -> None:
    """One sentence that says what to do: it begins with a verb, in the words that these texts use for it."""
    cure = KINDS[kind].cure
    verbs = {
        "switch", "have", "enlarge", "see", "find", "correct", "create", "mount", "make", "load", "bring", "change",
        "start", "plug", "give",
    }  # fmt: skip
    assert cure.split()[0] in verbs, cure
    assert len(cure.split()) >= 4
    assert cure.isprintable()
    assert not cure.endswith(".")


def strings(path: str) -> set[str]:
    tree = ast.parse((REPOSITORY / path).read_text())
    return {one.value for one in ast.walk(tree) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def test_every_kind_is_looked_for() -> None:
    known = strings("router/lookout.py") | strings("router/forwarding.py") | set(containers._KINDS)
    assert KINDS.keys() <= known


def problem_calls(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text())
    calls = [one for one in ast.walk(tree) if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)]
    return [one for one in calls if isinstance(one.func, ast.Name) and one.func.id == "Problem"]


def test_every_problem_of_the_broker_has_a_cure_of_its_own() -> None:
    """What it warns of is a `Problem`, but for the engine's own words."""
    files = sorted((REPOSITORY / "leasebroker").glob("*.py"))
    assert sum(len(problem_calls(path)) for path in files) >= 8
    for path in files:
        assert all(len(call.args) >= 2 for call in problem_calls(path)), path
        for one in ast.walk(ast.parse(path.read_text())):
            if isinstance(one, ast.Call) and ast.unparse(one.func).endswith("known.warn"):
                assert not isinstance(one.args[1], ast.JoinedStr), ast.unparse(one)


def test_a_warning_begins_stands_and_is_over() -> None:
    heard = Heard()
    for what in ("9 of 10", "9 of 10", "10 of 10"):
        heard.list.keep("pool_nearly_full", {"vlan1": Finding(what)})
    (one,) = heard.list
    assert one.shown() == {
        "id": "pool_nearly_full:vlan1", "since": "2027-01-15T08:00:00Z", "subject": "vlan1", "what": "10 of 10",
        "cure": KINDS["pool_nearly_full"].cure,
    }  # fmt: skip
    heard.now += 60
    heard.list.keep("pool_nearly_full", {})
    heard.list.keep("pool_nearly_full", {})
    assert list(heard.list) == []
    assert heard.events() == ["pool_nearly_full", "warning_over"]
    assert heard.notes[0].fields["cure"]
    assert heard.notes[1].fields == {"id": "pool_nearly_full:vlan1", "what": "10 of 10", "seconds": 60.0}


def test_a_cure_that_fits_better_goes_before_that_of_the_kind() -> None:
    heard = Heard()
    heard.list.keep("network", {"br0net": Finding("it is wrong", "make it anew")})
    assert [one.cure for one in heard.list] == ["make it anew"]


def test_what_who_finds_it_has_told_is_not_told_again() -> None:
    heard = Heard()
    heard.list.keep("interface_lost", {"vlan1": Finding("no such interface")})
    assert heard.events() == []
    heard.list.keep("interface_lost", {})
    assert heard.events() == ["warning_over"]


def test_kinds_do_not_end_each_other() -> None:
    heard = Heard()
    heard.list.keep("pool_full", {"vlan1": Finding("a")})
    heard.list.keep("pool_nearly_full", {"vlan1": Finding("b")})
    heard.list.keep("pool_full", {})
    assert [one.id for one in heard.list] == ["pool_nearly_full:vlan1"]
    assert heard.list.counts()["pool_nearly_full"] == 1
    assert heard.list.counts().keys() == KINDS.keys()


def test_an_unknown_kind_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        Heard().list.keep("nonsense", {})


def test_of_one_kind_there_is_a_bound() -> None:
    heard = Heard()
    heard.list.keep("quarantine", {str(number): Finding("x") for number in range(1000)})
    assert len(list(heard.list)) == len(heard.notes) == MAX_OF_A_KIND


def test_the_module_needs_nothing_that_loads_slowly() -> None:
    assert "leasebroker" not in Path(warnings.__file__).read_text()
