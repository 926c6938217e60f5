"""A real relay agent between a device and the server (RFC 2131 section 4.1, RFC 3046)."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dhcpd import opt
from tests.lab import netns
from tests.lab.clients import Udhcpc
from tests.lab.netns import wait_until
from tests.lab.service import REPOSITORY
from tests.wire.segment import Segment, vlan
from tests.wire.station import Station

UNPACKED = REPOSITORY / ".cache" / "dhcrelay" / "usr" / "sbin"
RELAY = shutil.which("dhcrelay", path=f"{os.environ.get('PATH', '')}:/usr/sbin:{UNPACKED}")


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    if RELAY is None:
        pytest.skip("dhcrelay (isc-dhcp-relay) is not installed")
    with Segment(tmp_path) as built:
        yield built


@contextmanager
def relayed(segment: Segment) -> Iterator[str]:
    """A namespace whose `eth0` reaches the VLAN by a relay agent at 10.1.0.2 only, which is also its proxy for ARP."""
    device = segment.clients.replace("clients", "device")
    netns.batch([f"netns add {device}"])
    try:
        netns.batch(
            [
                f"link add far0 type veth peer name eth0 netns {device}",
                "link set lo up",
                "link set far0 up",
                "address add 10.1.0.3/16 dev lan1",
                "address add 10.1.0.2/32 dev far0",
                "route add 10.1.1.0/24 dev far0",
            ],
            segment.clients,
        )
        netns.batch(["link set lo up", "link set eth0 up"], device)
        proxy = {"ipv4/ip_forward": 1, "ipv4/conf/lan1/proxy_arp": 1, "ipv4/conf/far0/proxy_arp": 1}
        netns.write_sysctls(segment.clients, proxy)
        with agent(segment):
            yield device
    finally:
        netns.delete([device])


@contextmanager
def agent(segment: Segment) -> Iterator[None]:
    options = ["-4", "-d", "-a", "--no-pid", "-iu", "lan1", "-id", "far0", "10.1.0.1"]
    command = [*netns.enter(segment.clients), str(RELAY), *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            wait_until(lambda: ":0043 " in Path(f"/proc/{running.pid}/net/udp").read_text(), 5, "the relay agent")
            yield
        finally:
            running.kill()


def test_a_relayed_device_gets_an_address_and_renews(segment: Segment, tmp_path: Path) -> None:
    if missing := Udhcpc.missing():
        pytest.skip(f"{missing} is not installed")
    segment.service.start(vlan())
    with relayed(segment) as name, Station(segment.server, "leg1") as leg:
        device = Udhcpc(name, tmp_path / "device", "far")
        try:
            lease = device.start()
            assert str(lease.address) == "10.1.1.0/16"
            relayed_frames = [frame for frame in leg.frames(0.2) if frame[23] == 17 and frame[42:43] == b"\1"]
            assert all(frame[66:70] == bytes((10, 1, 0, 2)) for frame in relayed_frames), "giaddr is the agent's"
            assert relayed_frames
            assert all(bytes((opt.RELAY_AGENT,)) in frame[42 + 240 :] for frame in relayed_frames)
            assert device.renew() == lease
        finally:
            device.stop()
    (row,) = segment.service.leases()
    assert (row["state"], row["hostname"]) == ("bound", "far")
