"""What the bench prints: rows of figures against their targets, as a Markdown table."""

import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .lab import cpu_list


@dataclass(frozen=True)
class Row:
    """One figure. `ratio` is ours divided by theirs; `ok` is None where there is no target."""

    what: str
    ours: str
    other: str = ""
    ratio: float | None = None
    target: str = ""
    ok: bool | None = None

    def cells(self) -> list[str]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        verdict = {None: "", True: "yes", False: "NO"}[self.ok]
        return [self.what, self.ours, self.other, ratio, self.target, verdict]


HEAD = Row("figure", "Lanward", "other")


def at_least(what: str, ours: float, name: str, theirs: float, factor: float | None) -> Row:
    """A rate: ours must be `factor` times theirs; None asks for nothing."""
    ratio = ours / theirs
    target, ok = ("", None) if factor is None else (f">= {factor:g}", ratio >= factor)
    return Row(what, number(ours), f"{name} {number(theirs)}", ratio, target, ok)


def at_most(what: str, ours: float, name: str, theirs: float, factor: float | None) -> Row:
    """A cost: ours may be `factor` times theirs; None asks for nothing."""
    ratio = ours / theirs
    target, ok = ("", None) if factor is None else (f"<= {factor:g}", ratio <= factor)
    return Row(what, number(ours), f"{name} {number(theirs)}", ratio, target, ok)


def number(value: float) -> str:
    """Three significant digits or more: 0.0941, 56.3, 282, 14,210."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(rows: Iterable[Row]) -> str:
    lines = [[*HEAD.cells()[:3], "ratio", "target", "ok"], *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([text[0], rule, *text[1:]])


def machine() -> str:
    """Date, processor, kernel and Python of this run, in one line."""
    model = [line.partition(":")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    server, client = cpu_list()
    shared = "both share processor" if server == client else f"generator on processor {client}, server on"
    return (
        f"{time.strftime('%Y-%m-%d')}, {len(model)} x{model[0] if model else ' ?'}, Linux {platform.release()}, "
        f"Python {platform.python_version()}; {shared} {server}"
    )
