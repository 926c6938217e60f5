"""What a start says about capabilities that it does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.capabilities import effective, missing
from router.config import parse
from tests.lab.service import REPOSITORY

CONFIG = parse((REPOSITORY / "lanward.toml").read_text())
ALL = (1 << 41) - 1
BITS = {"NET_BIND_SERVICE": 10, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_ADMIN": 21}


def test_with_all_of_them_nothing_is_said() -> None:
    assert list(missing(sum(1 << bit for bit in BITS.values()), CONFIG)) == []


@pytest.mark.parametrize("name", BITS)
def test_each_one_that_is_missing_is_named_with_its_cure(name: str) -> None:
    (line,) = missing(ALL & ~(1 << BITS[name]), CONFIG).values()
    assert line.startswith(f"the capability {name} is missing: ")
    assert line.endswith(f"run as root with --cap-add {name}")


def test_without_containers_no_namespace_is_entered() -> None:
    text = (REPOSITORY / "lanward.toml").read_text()
    config = parse(text.replace('network = "br0net"', "").replace('network = "br1net"', ""))
    assert list(missing(ALL & ~(1 << BITS["SYS_ADMIN"]), config)) == []


def test_the_kernel_is_asked(tmp_path: Path) -> None:
    file = tmp_path / "status"
    file.write_text("CapPrm:\t0000000000000000\nCapEff:\t0000000000003400\n")
    assert effective(file) == 0x3400
