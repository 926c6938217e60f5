"""The virtual truck: a plan built of network namespaces, and taken apart again whatever happens.

Every interface is made inside its namespace, so nothing shows on the machine.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import signal
import subprocess
import threading
from ipaddress import IPv4Address
from types import FrameType, TracebackType
from typing import Self

from tests.lab import netns, remains
from tests.lab.plan import Plan, wiring

_NO_IPV6 = {"ipv6/conf/all/disable_ipv6": 1, "ipv6/conf/default/disable_ipv6": 1}
_numbers = itertools.count(1)


@functools.cache
def kernel_has_vlans() -> bool:
    """Try whether this kernel has 802.1Q devices and bridges that filter VLANs. Needs root."""
    scratch = f"{netns.prefix(os.getpid())}{next(_numbers)}-probe"
    netns.batch([f"netns add {scratch}"])
    try:
        netns.batch(
            [
                "link add one type veth peer name two",
                "link add link one name one.7 type vlan id 7",
                "link add sw type bridge vlan_filtering 1",
            ],
            scratch,
        )
    except RuntimeError:
        return False
    finally:
        netns.delete([scratch])
    return True


def trunk_description(*, tagged: bool) -> str:
    """Return one line that says how the switch and the host are joined."""
    if tagged:
        return "one 802.1Q trunk to a switch that filters VLANs"
    return "one cable per VLAN, because this kernel has no 802.1Q devices"


class Truck:
    """A built plan, as a context manager: nothing of it remains after the block, however the block ends.

    SIGINT, SIGTERM and SIGHUP end the block with KeyboardInterrupt; while namespaces are being removed they wait.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tagged = kernel_has_vlans()
        self._prefix = f"{netns.prefix(os.getpid())}{next(_numbers)}-"
        self._ports = {d.name: plan.vlan(d.vlan) for d in plan.devices}
        self._handlers: dict[signal.Signals, object] = {}

    @property
    def trunk(self) -> str:
        """One line that says how the switch and the host are joined."""
        return trunk_description(tagged=self.tagged)

    def __enter__(self) -> Self:
        self._take_signals()
        try:
            self._build()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _build(self) -> None:
        names = [self.netns(node) for node in self.plan.nodes]
        netns.batch(f"netns add {name}" for name in names)
        wires = wiring(self.plan, self._prefix, tagged=self.tagged)
        for name in names:
            netns.write_sysctls(name, _NO_IPV6)
        for node in self.plan.nodes:
            netns.batch(wires.ip[node], self.netns(node))
        netns.batch(wires.bridge, self.netns("switch"), tool="bridge")
        netns.write_sysctls(self.netns("router"), {"ipv4/ip_forward": 1})

    def _remove(self) -> None:
        with netns.signals_held():
            netns.delete(netns.existing(self._prefix))
        self._give_signals_back()

    def _take_signals(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {s: signal.signal(s, _interrupt) for s in netns.ENDING}

    def _give_signals_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._handlers = {}

    def netns(self, node: str) -> str:
        """Return the name of the node's namespace."""
        return f"{self._prefix}{node}"

    def enter(self, node: str) -> list[str]:
        """Return the command prefix that runs a program on the node."""
        return netns.enter(self.netns(node))

    def run(self, node: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the node and return what it printed; its exit code is the caller's to judge."""
        return subprocess.run([*self.enter(node), *command], capture_output=True, text=True, check=False)

    def ping(self, node: str, address: str | IPv4Address, timeout: int = 1) -> bool:
        """Whether `address` answers one echo request of the node within `timeout` seconds."""
        return self.run(node, "busybox", "ping", "-c1", f"-W{timeout}", str(address)).returncode == 0

    def plug(self, device: str) -> None:
        """Put the device's cable into its switch port, and return when the two ends carry frames."""
        port = self.plan.device(device).port
        netns.batch([f"link set {port} up"], self.netns("switch"))
        ready = lambda: self._has_link(device) and self._is_forwarding(port)  # noqa: E731
        netns.wait_until(ready, 3, f"{device} to have a link")

    def unplug(self, device: str) -> None:
        """Pull the device's cable, and return when the device has noticed."""
        netns.batch([f"link set {self.plan.device(device).port} down"], self.netns("switch"))
        netns.wait_until(lambda: not self._has_link(device), 3, f"{device} to notice that its cable is pulled")

    def _has_link(self, device: str) -> bool:
        return self.run(device, "ip", "-br", "link", "show", "eth0", "up").stdout.split()[1:2] == ["UP"]

    def _is_forwarding(self, port: str) -> bool:
        return " state forwarding " in self.run("switch", "bridge", "link", "show", "dev", port).stdout

    def move(self, device: str, vlan: str) -> None:
        """Pull the device's cable and put it into a port of another VLAN."""
        port, old, new = self.plan.device(device).port, self._ports[device], self.plan.vlan(vlan)
        self.unplug(device)
        if self.tagged:
            lines = [f"vlan del dev {port} vid {old.tag}", f"vlan add dev {port} vid {new.tag} pvid untagged"]
            netns.batch(lines, self.netns("switch"), tool="bridge")
        else:
            netns.batch([f"link set {port} master sw{new.tag}"], self.netns("switch"))
        self._ports[device] = new
        self.plug(device)


def _interrupt(number: int, _: FrameType | None) -> None:
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    """Remove what trucks and engines of dead processes left behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.lab.truck", description=__doc__)
    parser.add_argument("--sweep", action="store_true", required=True, help="remove leftovers of dead processes")
    parser.parse_args()
    for name in [*remains.sweep(), *netns.sweep()]:
        print(f"removed {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
