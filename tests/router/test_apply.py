"""Rules that change under way: nothing lost, nothing leaked, and repaired when somebody else changes them."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import cycle, islice
from math import inf
from pathlib import Path

import pytest

from router.firewall import LATE_SECONDS, Firewall, FirewallError, Member
from router.nfnetlink import NO_PERMISSION
from router.nftables import Ruleset
from router.sysctls import NEEDED, WANTED, prepare
from tests.lab.netns import wait_until
from tests.lab.routed import ADDRESSES, DEADLINE, INTERNET, WAN_ADDRESS, Routed
from tests.router.cases import wired
from tests.router.conftest import Enforce
from tests.router.test_rules import allow, configuration

PORT = 443
"""Open in every configuration here, with ``encrypted_only`` too."""
PUBLISH = f'[[publish]]\nport = "udp/9000"\nto = "vlan1/device1"\nto_port = {PORT}\n'


def table(nodes: Routed) -> str:
    """The rules as the kernel shows them, without counters."""
    return nodes.truck.run("router", "nft", "--stateless", "list", "table", "inet", "lanward").stdout


class Traffic(threading.Thread):
    """A steady flow of datagrams: in one connection, in new ones, through a published port, and forbidden ones."""

    def __init__(self, nodes: Routed) -> None:
        super().__init__(name="traffic")
        self.nodes = nodes
        self.internet, self.published = nodes.udp("internet", port=PORT), nodes.udp("device1", port=PORT)
        self.forbidden = [nodes.udp("device2", port=PORT), nodes.udp("router", "10.0.2.1", PORT)]
        self.same, self.outside = nodes.udp("device1"), nodes.udp("internet")
        self.sent = {self.internet: 0, self.published: 0}
        self.received = dict.fromkeys([*self.sent, *self.forbidden], 0)
        self._done = threading.Event()
        for one in self.received:
            one.setblocking(False)

    def run(self) -> None:
        with self.nodes.on("device1"):
            while not self._done.is_set():
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as new:
                    new.sendto(b"new", (INTERNET, PORT))
                self.same.sendto(b"same", (INTERNET, PORT))
                self.outside.sendto(b"published", (WAN_ADDRESS, 9000))
                self.same.sendto(b"forbidden", (ADDRESSES["device2"], PORT))
                self.same.sendto(b"forbidden", ("10.0.2.1", PORT))
                self.sent[self.internet] += 2
                self.sent[self.published] += 1
                self._read()
                time.sleep(0.0005)

    def stop(self) -> None:
        """End the flow, and wait until what was sent has arrived, or raise TimeoutError."""
        self._done.set()
        self.join()
        wait_until(self._all_there, DEADLINE, f"the last of {self.sent.values()}, {self.received.values()} arrived")

    def _all_there(self) -> bool:
        self._read()
        return all(self.received[one] == sent for one, sent in self.sent.items())

    def _read(self) -> None:
        for one in self.received:
            try:
                while one.recv(100):
                    self.received[one] += 1
            except BlockingIOError:
                pass


def test_packets_are_neither_lost_nor_leaked_while_rules_are_replaced(
    nodes: Routed, enforce: Enforce, count: Callable[[int, int], int]
) -> None:
    more = [PUBLISH, PUBLISH + allow("vlan1", "vlan2", "tcp/80"), PUBLISH + allow("vlan2", "vlan1/device1", "icmp")]
    configurations = [
        configuration(2, exceptions, settings=settings)
        for exceptions in more
        for settings in ("", "encrypted_only = true", "guard = true")
    ]
    enforce(configurations[-1])
    traffic = Traffic(nodes)
    traffic.start()
    try:
        for config in islice(cycle(configurations), count(100, 1000)):
            enforce(config)
    finally:
        traffic.stop()
    assert min(traffic.sent.values()) > 100
    assert [traffic.received[one] for one in traffic.forbidden] == [0, 0]


def test_the_same_rules_again_change_nothing(nodes: Routed, firewall: Firewall, enforce: Enforce) -> None:
    rules = enforce(configuration(2))
    with nodes.on("router"):
        before = nodes.truck.run("router", "nft", "--handle", "list", "ruleset").stdout
        assert not firewall.apply(rules, 0.0)
        assert not firewall.watch(0.0)
    assert nodes.truck.run("router", "nft", "--handle", "list", "ruleset").stdout == before


def test_a_new_process_takes_over_the_table_of_an_old_one(nodes: Routed, enforce: Enforce) -> None:
    enforce(configuration(3, settings="guard = true"))
    with nodes.on("router"):
        successor = Firewall()
        successor.apply(wired(configuration(2, PUBLISH)), 0.0)
        successor.close()
    found = table(nodes)
    assert "vlan3" not in found
    assert "guard" not in found


def test_elements_changed_alone_and_a_whole_replacement_lead_to_the_same(
    nodes: Routed, firewall: Firewall, enforce: Enforce
) -> None:
    plain = configuration(2, PUBLISH)
    grown = configuration(2, PUBLISH.replace("9000", "8600-9099") + allow("vlan1", "vlan2", "tcp/1-1000"))
    moved = configuration(2, allow("vlan2", "vlan1") + allow("vlan1", "vlan2", "tcp/500-2000") + PUBLISH)
    for config in (plain, grown, moved, plain):
        enforce(config)
        by_elements = sorted(table(nodes).replace("{ ", ",").replace("}", ",").split(","))
        nodes.truck.run("router", "nft", "flush", "ruleset")
        with nodes.on("router"):
            assert firewall.watch(0.0)
        assert sorted(table(nodes).replace("{ ", ",").replace("}", ",").split(",")) == by_elements


@pytest.mark.parametrize(
    "change",
    [
        "flush ruleset",
        "flush table inet lanward",
        "delete table inet lanward",
        "add rule inet lanward forward accept",
        "flush set inet lanward vlan_to_node",
        "flush set inet lanward guard_vlan1",
        "delete element inet lanward guard_vlan1 { 02:00:00:00:00:99 . 10.0.1.99 }",
        "delete element inet lanward guard_vlan1 { 02:00:00:00:01:05 . 10.0.1.20 }",
        "add element inet lanward guard_vlan1 { 02:00:00:00:00:98 . 10.0.1.98 }",
        "add chain inet lanward forward { policy accept; }",
    ],
)
@pytest.mark.parametrize("watched", [True, False])
def test_what_somebody_else_changes_is_repaired_and_counted(
    change: str, watched: bool, nodes: Routed, firewall: Firewall, enforce: Enforce
) -> None:
    enforce(configuration(2, settings="guard = true"))
    firewall.admit({Member("vlan1", bytes.fromhex("020000000099"), 0x0A000163): inf}, 0.0)
    before = table(nodes)
    with nodes.on("router"):
        assert not (watched and firewall.watch(0.0))
    assert nodes.truck.run("router", "nft", *change.split()).returncode == 0
    assert table(nodes) != before
    with nodes.on("router"):
        assert firewall.watch(0.0)
        assert not firewall.watch(0.0)
    assert table(nodes) == before
    assert firewall.repairs == 1


def test_other_tables_and_our_own_members_are_no_change(nodes: Routed, firewall: Firewall, enforce: Enforce) -> None:
    enforce(configuration(2, settings="guard = true"))
    with nodes.on("router"):
        assert not firewall.watch(0.0)
    nodes.truck.run("router", "nft", "add", "table", "ip", "other")
    firewall.admit({Member("vlan1", bytes(6), 7): 10.0}, 0.0)
    with nodes.on("router"):
        assert not firewall.watch(0.0)
        assert not firewall.watch(20.0)
    assert firewall.repairs == 0


def test_a_member_that_the_kernel_has_a_little_longer_than_its_lease_is_no_change(
    nodes: Routed, firewall: Firewall, enforce: Enforce
) -> None:
    enforce(configuration(2, settings="guard = true"))
    firewall.admit({Member("vlan1", bytes(6), 7): 60.0}, 0.0)
    with nodes.on("router"):
        firewall.apply(wired(configuration(2, PUBLISH, settings="guard = true")), 60.5)
        assert not firewall.watch(60.5)
        nodes.truck.run("router", "nft", "add", "table", "ip", "other")
        assert not firewall.watch(60.5)
    assert "0.0.0.7" in table(nodes)


def test_a_member_that_stays_when_its_lease_has_ended_is_a_change(
    nodes: Routed, firewall: Firewall, enforce: Enforce
) -> None:
    enforce(configuration(2, settings="guard = true"))
    firewall.admit({Member("vlan1", bytes(6), 7): 60.0}, 0.0)
    with nodes.on("router"):
        assert not firewall.watch(0.0)
        nodes.truck.run("router", "nft", "add", "table", "ip", "other")
        assert firewall.watch(60.0 + LATE_SECONDS)
        assert not firewall.watch(60.0 + LATE_SECONDS)
    assert firewall.repairs == 1


def test_sets_that_say_another_place_in_the_file_are_made_anew_with_their_members(
    nodes: Routed, firewall: Firewall, enforce: Enforce
) -> None:
    config = configuration(2, settings="guard = true")
    enforce(config)
    firewall.admit({Member("vlan1", bytes(6), 7): inf}, 0.0)
    enforce(replace(config, vlans=config.vlans[::-1]))
    found = nodes.truck.run("router", "nft", "list", "set", "inet", "lanward", "guard_vlan1").stdout
    assert 'comment "vlan[1].guard"' in found
    assert "0.0.0.7" in found
    with nodes.on("router"):
        assert not firewall.watch(0.0)


def test_rules_that_the_kernel_refuses_change_nothing(nodes: Routed, firewall: Firewall, enforce: Enforce) -> None:
    rules = enforce(configuration(2))
    before = table(nodes)
    bad = Ruleset(rules.sets, {**rules.chains, "services": ["goto nowhere"]})
    with nodes.on("router"):
        for attempt in (lambda: firewall.check(bad, 0.0), lambda: firewall.apply(bad, 0.0)):
            with pytest.raises(FirewallError, match=r"\Athe kernel refuses the rules: .*\Z"):
                attempt()
        assert not firewall.apply(rules, 0.0)
    assert table(nodes) == before


@pytest.mark.parametrize("action", ["apply(rules, 0.0)", "check(rules, 0.0)"])
def test_without_net_admin_it_says_so(action: str, nodes: Routed) -> None:
    script = (
        "from router.firewall import Firewall, FirewallError\n"
        "from tests.router.test_rules import compiled, configuration\n"
        "rules = compiled(configuration(1))\n"
        f"try: Firewall().{action}\n"
        "except FirewallError as error: print(error, end='')"
    )
    unprivileged = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
    found = nodes.truck.run("router", *unprivileged, sys.executable, "-c", script)
    assert found.stdout == NO_PERMISSION, found.stderr


def test_the_kernels_settings_are_set_and_verified(nodes: Routed) -> None:
    with nodes.on("router"):
        assert prepare(["leg1", "leg2"], "wan") == []
        assert prepare(["leg9"], None)[0] == "net.ipv4.conf.leg9.accept_redirects is not 0: No such file or directory"
        wanted = WANTED | {"rp_filter": "0"}
        settings = [
            ("ip_forward", "1"),
            *NEEDED.items(),
            *((f"conf/leg1/{one}", value) for one, value in wanted.items()),
        ]
        assert all(Path("/proc/sys/net/ipv4", name).read_text().strip() == value for name, value in settings)


def test_a_needed_setting_that_cannot_be_set_is_an_error_with_the_cure(tmp_path: Path) -> None:
    option = r"start the container with --sysctl net\.ipv4\.icmp_echo_ignore_broadcasts=0"
    with pytest.raises(FirewallError, match=option):
        prepare([], None, root=tmp_path / "gone")


def test_where_the_kernel_checks_sources_strictly_a_leg_does_loosely(nodes: Routed) -> None:
    """A client that changed its VLAN asks from its old address."""
    with nodes.on("router"):
        everywhere, leg = (Path(f"/proc/sys/net/ipv4/conf/{one}/rp_filter") for one in ("all", "leg1"))
        everywhere.write_text("1")
        prepare(["leg1"], None)
        assert leg.read_text().strip() == "2"
        everywhere.write_text("0")
        prepare(["leg1"], None)
        assert leg.read_text().strip() == "0"


def test_a_thousand_exceptions_on_64_vlans_are_applied_within_200_ms(nodes: Routed, firewall: Firewall) -> None:
    exceptions = [
        allow(f"vlan{n % 64 + 1}", f"10.0.{(n + 1 + n // 64) % 64 + 1}.{n % 200 + 2}", "tcp/443") for n in range(1000)
    ]
    config = configuration(64, "".join(exceptions))
    rules = [wired(config), wired(replace(config, allow=())), wired(configuration(63))]
    seconds = {0: inf, 1: inf, 2: inf}
    with nodes.on("router"):
        for index in [2, 0, 1] * 3:
            start = time.perf_counter()
            firewall.apply(rules[index], 0.0)
            seconds[index] = min(seconds[index], time.perf_counter() - start)
    assert max(seconds.values()) < 0.2, seconds
