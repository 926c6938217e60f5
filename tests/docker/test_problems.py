"""What is wrong with the engine or its networks: one line with the cure, and the devices are served."""

from __future__ import annotations

import re
import subprocess
from contextlib import closing
from pathlib import Path

import docker
import pytest

from tests.docker.managed import Managed
from tests.lab import netns
from tests.lab.clients import Udhcpc
from tests.lab.netns import wait_until

pytestmark = pytest.mark.one_engine


BRIDGE = "com.docker.network.bridge"
GOOD = [
    "--subnet=10.0.1.0/24", "--gateway=10.0.1.1", "--ip-range=10.0.1.240/28",
    f"-o={BRIDGE}.name=br0", f"-o={BRIDGE}.inhibit_ipv4=true",
]  # fmt: skip

WRONG = {
    "no-landing": ([*GOOD[:2], *GOOD[3:]], "has no --ip-range"),
    "landing-in-pool": ([*GOOD[:2], "--ip-range=10.0.1.96/27", *GOOD[3:]], "is outside the landing range"),
    "gateway": ([GOOD[0], "--gateway=10.0.1.254", *GOOD[2:]], "its gateway is 10.0.1.254"),
    "internal": ([*GOOD, "--internal"], "it is --internal"),
    "host": (GOOD[:4], "inhibit_ipv4 is not set"),
}


def _warning(managed: Managed, text: str) -> str:
    """The warning with that text, as soon as it is there."""
    wait_until(lambda: any(text in one for one in managed.warnings()), 10, f"a warning with {text!r}")
    return next(one for one in managed.warnings() if text in one)


@pytest.mark.parametrize("kind", WRONG)
def test_a_network_with_wrong_settings_is_named(managed: Managed, kind: str) -> None:
    options, text = WRONG[kind]
    managed.engine.remove_networks("br0net")
    managed.engine.docker("network", "create", *options, "br0net")
    try:
        managed.start()
        warning = _warning(managed, text)
        assert "br0net" in warning
        assert "docker network create --subnet 10.0.1.0/24 --gateway 10.0.1.1 --ip-range 10.0.1.240/28" in warning
        managed.edge.run("other", "br1net")
        managed.lease("other", "br1net")
    finally:
        managed.engine.remove_containers()
        managed.engine.remove_networks("br0net")
        netns.batch(["addr flush dev br0"], managed.edge.truck.netns("host"))  # which the engine leaves there


def test_a_second_network_of_a_name_is_named_and_the_other_vlan_is_served(managed: Managed) -> None:
    if managed.engine.version != "20.10":
        pytest.skip("only old engines make a second network of one name")
    managed.edge.run("web")
    managed.edge.run("other", "br1net")
    managed.engine.docker("create", "--name", "resting", "--network", "br1net", "lanward-test")
    with closing(docker.APIClient(base_url=f"unix://{managed.engine.socket}")) as api:
        second = api.create_network("br0net", "bridge", check_duplicate=False)["Id"]
        try:
            managed.start()
            assert "network br0net of vlan1" in _warning(managed, "network br0net is ambiguous")
            managed.lease("other", "br1net")
            assert managed.adopted("resting", "br1net") == managed.container("resting", "br1net")["address"]
        finally:
            api.remove_network(second)
    managed.service.reload(managed.edge.config())
    managed.lease("web")
    wait_until(lambda: managed.warnings() == [], 5, "the warning to go")


def test_a_missing_network_is_named_and_found_when_it_is_made(managed: Managed) -> None:
    managed.engine.remove_networks("br0net")
    managed.start()
    _warning(managed, "Docker has no network br0net for vlan1")
    managed.edge.networks()
    managed.edge.run("web")
    managed.lease("web")
    wait_until(lambda: managed.warnings() == [], 5, "the warning to go")


def test_warnings_go_with_the_container_and_with_its_name(managed: Managed) -> None:
    managed.start()
    managed.edge.run("one", "br0net", "--label", "lanward.address=here")
    _warning(managed, "container one: label")
    managed.engine.docker("rename", "one", "two")
    _warning(managed, "container two: label")
    assert len(managed.warnings()) == 1
    managed.engine.docker("rm", "--force", "two")
    wait_until(lambda: managed.warnings() == [], 5, "the warning to go")


def test_the_warning_about_a_network_goes_when_it_is_not_configured_any_more(managed: Managed) -> None:
    managed.engine.remove_networks("br1net")
    managed.start()
    _warning(managed, "Docker has no network br1net")
    config = managed.edge.config().replace('network = "br1net"\n', "").replace('landing = "10.0.2.240/28"\n', "")
    managed.service.reload(config)
    wait_until(lambda: managed.warnings() == [], 5, "the warning to go")


def test_without_a_socket_devices_are_served(managed: Managed, tmp_path: object) -> None:
    config = re.sub("socket = .*", f'socket = "{tmp_path}/none.sock"', managed.edge.config())
    managed.service.start(config)
    assert "no socket" in _warning(managed, "there is no socket at")
    managed.edge.truck.plug("device1")
    device = Udhcpc(managed.edge.truck.netns("device1"), managed.service.state / "device1", "device1")
    try:
        assert str(device.start().address.ip) == "10.0.1.20"
    finally:
        device.stop()


def test_without_the_namespaces_the_leases_are_there(managed: Managed, tmp_path: object) -> None:
    config = re.sub("netns = .*", f'netns = "{tmp_path}/no/netns"', managed.edge.config())
    managed.service.start(config)
    assert "mount the engine's netns folder" in _warning(managed, "containers cannot be pinned")
    managed.edge.run("web")
    wait_until(lambda: managed.container("web").get("address"), 5, "the lease")
    assert managed.container("web")["pinned"] is None


def test_a_namespace_that_is_not_in_the_folder_is_named(managed: Managed, tmp_path: Path) -> None:
    """The folder is another engine's, say."""
    folder = tmp_path / "netns"
    folder.mkdir()
    managed.service.start(re.sub("netns = .*", f'netns = "{folder}"', managed.edge.config()))
    managed.edge.run("web")
    assert f"no namespace in {folder} has the link of web" in _warning(managed, "mount the engine's netns folder")
    (folder / "web").touch()
    subprocess.run(["mount", "--bind", f"/proc/{managed.engine.pid('web')}/ns/net", folder / "web"], check=True)
    try:
        managed.lease("web")
        wait_until(lambda: managed.warnings() == [], 10, "the warning to go")
    finally:
        subprocess.run(["umount", "--lazy", folder / "web"], check=True)


def test_a_full_pool_is_named(managed: Managed) -> None:
    managed.start_full()
    assert "enlarge its pools" in _warning(managed, "container second has no lease on vlan1")
