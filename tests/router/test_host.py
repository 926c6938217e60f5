"""`lanward underlay` on a real kernel, in a namespace that stands for the host. VLANs themselves are tested in the lab:
most kernels of virtual machines have none."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from leasebroker.docker_feed import Engine
from router import underlay
from router.config import parse
from router.host import Hand, observe
from router.underlay import MARK, AddBridge, Enslave, Raise, UnderlayError
from tests.lab import netns, truck
from tests.lab.inside import inside
from tests.lab.service import COMMAND, REPOSITORY

pytestmark = pytest.mark.usefixtures("needs_root")
EXAMPLE = (REPOSITORY / "lanward.toml").read_text()
WITHOUT_DOCKER = re.sub("^(network|landing) = .*br[01]net.*$", "", EXAMPLE, flags=re.MULTILINE)
CONFIG = parse(WITHOUT_DOCKER)
_numbers = itertools.count(1)


@pytest.fixture
def host() -> Iterator[str]:
    """A host whose trunk is there, and down."""
    name = f"{netns.prefix(os.getpid())}{next(_numbers)}-below"
    netns.batch([f"netns add {name}"])
    netns.batch(["link add enp2s0 type veth peer name cable"], name)
    yield name
    netns.delete([name])


def command(host: str, tmp_path: Path, action: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "lanward.toml"
    file.write_text(WITHOUT_DOCKER)
    asked = [*netns.enter(host), *COMMAND, "underlay", action, "--config", str(file)]
    return subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, check=False)


def links(host: str) -> list[str]:
    shown = subprocess.run(["ip", "-n", host, "-o", "link"], capture_output=True, text=True, check=True)
    return re.sub(" qdisc [a-z]+ ", " ", shown.stdout).splitlines()


def test_up_on_a_kernel_without_vlans_says_so_and_leaves_nothing(host: str, tmp_path: Path) -> None:
    if truck.kernel_has_vlans():
        pytest.skip("this kernel has 802.1Q VLANs")
    before = links(host)
    done = command(host, tmp_path, "up")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "this kernel has no 802.1Q VLANs: load its module (modprobe 8021q), or install a kernel with it\n"
    )
    assert links(host) == before


def test_a_bridge_that_is_not_ours_is_not_touched(host: str, tmp_path: Path) -> None:
    netns.batch(["link add br0 type bridge"], host)
    before = links(host)
    done = command(host, tmp_path, "up")
    assert done.returncode == 1
    assert done.stderr.startswith("bridge br0 exists and was not made by lanward: remove it")
    assert command(host, tmp_path, "down").returncode == 0
    assert links(host) == before


def test_show_says_what_up_would_do(host: str, tmp_path: Path) -> None:
    done = command(host, tmp_path, "show")
    assert done.returncode == 1
    assert done.stdout.splitlines()[:3] == ["lanward underlay up would:", "  bring enp2s0 up", "  add bridge br0"]


def test_a_bridge_with_its_port_is_ours_quiet_and_removed(host: str) -> None:
    netns.batch(["link add leg type veth peer name far"], host)
    with inside(host), IPRoute() as kernel, closing(Engine("/nowhere")) as engine:
        Hand(kernel, engine).carry_out([AddBridge("br0"), Enslave("leg", "br0"), Raise("br0")])
        seen = observe(CONFIG, kernel, engine)
        assert seen.links["br0"] == underlay.HostLink("br0", "bridge", MARK, is_up=True)
        assert seen.links["leg"].master == "br0"
        assert "br0" not in Path("/proc/thread-self/net/if_inet6").read_text()
        Hand(kernel, engine).carry_out(underlay.down(seen))
        assert "br0" not in observe(CONFIG, kernel, engine).links


@pytest.mark.parametrize("has_port", [False, True])
def test_by_a_bridge_that_docker_made_no_vlan_reaches_the_host(host: str, has_port: bool) -> None:
    netns.batch(["link add br0 type bridge", "link set br0 up", "link add leg type veth peer name far"], host)
    port = ["link set leg master br0", "link set leg up", "link set far up"]
    if has_port:
        netns.batch(port, host)
        netns.wait_until(lambda: ip6(host, "br0"), 5, "the kernel to give it an address")
    with inside(host), IPRoute() as kernel, closing(Engine("/nowhere")) as engine:
        assert observe(CONFIG, kernel, engine).links["br0"].has_ipv6
        Hand(kernel, engine).carry_out([underlay.Silence("br0")])
        assert not observe(CONFIG, kernel, engine).links["br0"].has_ipv6
    netns.batch(port, host)
    netns.batch(["link set br0 down", "link set br0 up"], host)
    netns.wait_until(lambda: "fe80" in ip6(host, "far"), 5, "the far end to have its own")
    assert not ip6(host, "br0")


def ip6(host: str, link: str) -> str:
    shown = subprocess.run(["ip", "-n", host, "-6", "-o", "addr", "show", link], stdout=-1, text=True, check=True)
    return shown.stdout


def test_a_step_that_fails_takes_the_earlier_ones_back(host: str) -> None:
    with inside(host), IPRoute() as kernel, closing(Engine("/nowhere")) as engine:
        before = observe(CONFIG, kernel, engine).links
        steps: list[underlay.Step] = [Raise("enp2s0"), AddBridge("br0"), Enslave("absent", "br0")]
        with pytest.raises(UnderlayError, match="cannot make absent a port of br0: No such device"):
            Hand(kernel, engine).carry_out(steps)
        assert observe(CONFIG, kernel, engine).links == before


def test_it_needs_a_trunk(tmp_path: Path) -> None:
    file = tmp_path / "lanward.toml"
    file.write_text(re.sub("^interface = .*$", "", WITHOUT_DOCKER, flags=re.MULTILINE).replace("[trunk]", "#"))
    asked = [*COMMAND, "underlay", "up", "--config", str(file)]
    done = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("trunk: is missing")


def test_without_its_engine_it_does_nothing(host: str, tmp_path: Path) -> None:
    file = tmp_path / "lanward.toml"
    file.write_text(EXAMPLE + '\n[docker]\nsocket = "/nowhere.sock"\n')
    before = links(host)
    asked = [*netns.enter(host), *COMMAND, "underlay", "up", "--config", str(file)]
    done = subprocess.run(asked, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("there is no socket at /nowhere.sock: start the engine")
    assert links(host) == before
