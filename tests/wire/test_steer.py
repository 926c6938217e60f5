"""A running service is steered: by its command line and by HTTP, through reloads and power cuts."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import pytest

from tests.lab import netns
from tests.lab.clients import CLIENTS, Client, Udhcpc
from tests.lab.netns import wait_until
from tests.lab.service import COMMAND, REPOSITORY, Service
from tests.lab.truck import Truck
from tests.wire import control
from tests.wire.conftest import MakeClient
from tests.wire.segment import Segment, reservation, vlan
from tests.wire.station import Lan
from tests.wire.test_control import HOSTILE

CONFIG = vlan(pools=["10.1.1.0-10.1.1.9"])
CAMERA = {"name": "camera", "mac": "02:00:00:00:00:09", "address": "10.1.0.20"}
KNOWN = ("--mac", "02:00:00:00:00:09", "--name", "camera", "--address", "10.1.0.20")


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    with Segment(tmp_path, vlans=2) as built:
        yield built


def lanward(segment: Segment, *words: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    command = [*COMMAND, *words, "--state", str(segment.service.state)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=20)
    return done.returncode, done.stdout, done.stderr


def asked(segment: Segment, method: str, target: str, body: object = None) -> tuple[int, Any]:
    text = None if body is None else json.dumps(body)
    found = control.ask(segment.service.state, method, target, text)
    return found.status, json.loads(found.body)


def reservations(segment: Segment) -> dict[str, tuple[str, bool]]:
    """Name -> where it was made, and whether it is in force."""
    rows = json.loads(segment.service.ask("reservations", "--json"))
    return {row["name"]: (row["origin"], row["problem"] is None) for row in rows}


def reload(segment: Segment, config: str) -> None:
    segment.service.config.write_text(config)
    status, told = asked(segment, "POST", "/reload")
    assert status == 200, told


def told(segment: Segment, event: str) -> list[dict[str, Any]]:
    """The log lines of an event, of which there is at least one soon."""
    wait_until(lambda: segment.service.events(event), 3, f"{event} in the log")
    return segment.service.events(event)


# -- the verbs and their exit codes


def test_a_lease_is_made_permanent(segment: Segment) -> None:
    segment.service.start(CONFIG)
    with Lan(segment) as lan:
        devices = [lan.device(1, hostname="gps"), lan.device(2)]
        for one in devices:
            one.join()
        assert lanward(segment, "reserve", "vlan1", "gps") == (0, "10.1.1.0 is reserved for vlan1/gps\n", "")
        assert lanward(segment, "reserve", "vlan1", "10.1.1.1", "--name", "pump")[:2] == (
            0, "10.1.1.1 is reserved for vlan1/pump\n",
        )  # fmt: skip
        assert {one.renew().kind for one in devices} == {"ack"}
        assert [one.join() for one in devices] == ["10.1.1.0", "10.1.1.1"]
        for one in devices:
            one.release()
        others = [lan.device(number).join() for number in range(10, 18)]
        assert others == [f"10.1.1.{number}" for number in range(2, 10)]
        assert lan.device(99).discover(timeout=0.2).kind == "silence"
    assert reservations(segment) == {"gps": ("state", True), "pump": ("state", True)}
    assert lanward(segment, "reserve", "vlan1", "gps", "--name", "gps")[0] == 0
    assert lanward(segment, "reserve", "vlan1", "gps", "--name", "other") == (
        1, "", "10.1.1.0 is reserved already, for vlan1/gps\n",
    )  # fmt: skip


def test_a_reserved_address_is_what_the_next_discover_gets(segment: Segment) -> None:
    segment.service.start(CONFIG)
    with Lan(segment) as lan:
        camera, other = lan.device(9), lan.device(1)
        assert (camera.join(), other.join()) == ("10.1.1.0", "10.1.1.1")
        assert lanward(segment, "reserve", "vlan1", *KNOWN) == (0, "10.1.0.20 is reserved for vlan1/camera\n", "")
        assert camera.renew().kind == "nak"
        assert camera.join() == "10.1.0.20"
        assert lanward(segment, "unreserve", "vlan1", "10.1.0.20") == (0, "vlan1/camera is reserved no more\n", "")
        assert camera.renew().kind == "nak"
        assert camera.join() == "10.1.1.0"
        assert other.renew().kind == "ack"
    assert reservations(segment) == {}
    assert json.loads((segment.service.state / "reservations.json").read_text()) == {"reservations": []}


def test_a_reserved_address_is_not_given_to_another_that_has_it(segment: Segment) -> None:
    segment.service.start(CONFIG)
    with Lan(segment) as lan:
        other = lan.device(1)
        assert other.join() == "10.1.1.0"
        words = ("reserve", "vlan1", "--mac", "02:00:00:00:00:09", "--address", "10.1.1.0")
        assert lanward(segment, *words)[0] == 0
        assert other.renew().kind == "nak"
        assert (other.join(), lan.device(9).join()) == ("10.1.1.1", "10.1.1.0")


def test_a_node_may_be_made_known_without_an_address(segment: Segment) -> None:
    segment.service.start(vlan(pools=["10.1.1.0-10.1.1.9"], known_only=True))
    with Lan(segment) as lan:
        device = lan.device(9, client_id=b"\xffplc")
        assert device.discover(timeout=0.2).kind == "silence"
        code, told, _ = lanward(segment, "reserve", "vlan1", "--client-id", "hex:ff:70:6c:63")
        assert (code, told) == (0, "an address of the pools goes to vlan1/device-ff706c63\n")
        assert device.join() == "10.1.1.0"
        assert lanward(segment, "unreserve", "vlan1", "device-ff706c63")[0] == 0
        assert device.renew(timeout=0.2).kind == "silence"


def test_a_container_has_its_reserved_address_from_the_start(segment: Segment) -> None:
    segment.service.start(CONFIG)
    assert lanward(segment, "reserve", "vlan1", "--container", "web", "--address", "10.1.0.30")[0] == 0
    assert lanward(segment, "lease", "vlan1", "web") == (0, "10.1.0.30\n", "")
    assert lanward(segment, "reserve", "vlan1", "web")[:2] == (0, "10.1.0.30 is reserved for vlan1/web\n")


def test_a_dropped_lease_is_the_next_ones(segment: Segment) -> None:
    segment.service.start(CONFIG)
    with Lan(segment) as lan:
        lan.device(1).join()
        assert lanward(segment, "drop", "vlan1", "10.1.1.0") == (0, "10.1.1.0 in vlan1 is nobody's any more\n", "")
        assert segment.service.leases() == []
        segment.service.kill9()
        segment.service.start()
        assert segment.service.leases() == []
        assert lan.device(2).join() == "10.1.1.0"


def test_a_quarantine_is_ended(segment: Segment) -> None:
    segment.service.start(CONFIG)
    with Lan(segment) as lan:
        device = lan.device(1)
        device.join()
        device.decline()
        wait_until(lambda: segment.states() == {"10.1.1.0": "declined"}, 3, "the quarantine")
        assert lanward(segment, "drop", "vlan1", "10.1.1.0")[0] == 1
        assert lanward(segment, "clear", "vlan1", "10.1.1.0") == (0, "10.1.1.0 in vlan1 is in use again\n", "")
        assert segment.states() == {}
        assert lan.device(2).join() == "10.1.1.0"


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["reserve", "vlan1", "10.1.1.0"], 1, "nobody has a lease of 10.1.1.0 in vlan1"),
        (["reserve", "vlan1", "gps"], 1, "nobody has a lease of gps in vlan1"),
        (["reserve", "vlan7", "gps"], 2, "no VLAN has the name vlan7: there are vlan1"),
        (["reserve", "vlan1", "--mac", "zz"], 2, "mac: expected a MAC address"),
        (["reserve", "vlan1", *KNOWN[:-1], "10.9.9.9"], 1, "vlan1/camera.address: 10.9.9.9 is outside 10.1.0.0/16"),
        (["reserve", "vlan1", *KNOWN[:-1], "10.1.0.50"], 1, "10.1.0.50 is taken already by vlan[0].reservation[0]"),
        (["reserve", "vlan1", "--container", "web", "--name", "tv"], 1, "tv is taken already by vlan[0].reservation"),
        (["reserve", "vlan1"], 2, "name the lease, or one of --mac, --client-id and --container"),
        (["reserve", "vlan1", "gps", "--mac", "02:00:00:00:00:01"], 2, "name the lease, or one of"),
        (["reserve", "vlan1", "gps", "--address", "10.1.1.1"], 2, "name the lease, or one of"),
        (["reserve", "vlan1", "--mac", "a", "--container", "b"], 2, "not allowed with argument"),
        (["reserve", "vlan 1", "gps"], 2, "argument VLAN: expected up to 32 letters"),
        (["reserve", "vlan1", "../x"], 2, "expected letters, digits"),
        (["unreserve", "vlan1", "tv"], 1, "vlan1/tv is written in "),
        (["unreserve", "vlan1", "10.1.0.50"], 1, "take it out there, and reload"),
        (["unreserve", "vlan1", "gps"], 1, "nothing is reserved as gps in vlan1"),
        (["drop", "vlan1", "10.1.1.0"], 1, "nobody has a lease of 10.1.1.0 in vlan1"),
        (["drop", "vlan1", "gps"], 2, "argument ADDRESS"),
        (["clear", "vlan1", "10.1.1.0"], 1, "10.1.1.0 is not quarantined in vlan1"),
    ],
)
def test_what_cannot_be_is_one_sentence(segment: Segment, words: list[str], code: int, why: str) -> None:
    tv = reservation(name="tv", mac="02:00:00:00:00:50", address="10.1.0.50")
    segment.service.start(CONFIG + tv)
    ended, output, said = lanward(segment, *words)
    assert (ended, output) == (code, "")
    assert why in said
    assert len(said.splitlines()) == 1 or said.startswith("usage: ")
    assert not (segment.service.state / "reservations.json").exists()


@pytest.mark.parametrize(
    "words",
    [["reserve", "vlan1", "gps"], ["unreserve", "vlan1", "gps"], ["drop", "vlan1", "10.1.1.0"],
     ["clear", "vlan1", "10.1.1.0"], ["reservations"], ["config", "export"]],
)  # fmt: skip
def test_a_service_that_does_not_run(tmp_path: Path, words: list[str]) -> None:
    command = [*COMMAND, *words, "--state", str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (3, "", 1)
    assert "lanward is not running" in done.stderr


# -- the file and what is kept beside it


def test_the_file_wins_and_nothing_is_lost(segment: Segment) -> None:
    segment.service.start(CONFIG)
    lanward(segment, "reserve", "vlan1", *KNOWN)
    taken = CONFIG + reservation(name="tv", mac="02:00:00:00:00:50", address="10.1.0.20")
    why = "vlan1/camera.address: 10.1.0.20 is taken already by vlan[0].reservation[0]"
    segment.service.config.write_text(taken)
    code, output, warned = lanward(segment, "check-config", str(segment.service.config))
    assert (code, "fine" in output) == (0, True)
    assert warned == (
        f"warning: {why}; it is set aside in reservations.json: change the configuration file, "
        "or: lanward unreserve vlan1 camera\n"
    )
    reload(segment, taken)
    (line,) = told(segment, "reservations_set_aside")
    assert line["problems"] == [warned.removeprefix("warning: ").rstrip("\n")]
    with Lan(segment) as lan:
        assert (lan.device(9).join(), lan.device(0x50).join()) == ("10.1.1.0", "10.1.0.20")
        assert reservations(segment) == {"tv": ("file", True), "camera": ("state", False)}
        assert why in segment.service.ask("reservations")
        assert lanward(segment, "reserve", "vlan1", "--mac", "02:00:00:00:00:09")[2].startswith(
            "02:00:00:00:00:09 is kept already: " + why
        )
        segment.service.kill9()
        segment.service.start()
        assert len(told(segment, "reservations_set_aside")) == 1
        reload(segment, CONFIG)
        assert lan.device(9).join() == "10.1.0.20"
    assert reservations(segment) == {"camera": ("state", True)}


def test_what_was_set_aside_can_be_taken_back(segment: Segment) -> None:
    segment.service.start(CONFIG)
    lanward(segment, "reserve", "vlan1", *KNOWN)
    reload(segment, CONFIG + reservation(name="camera", mac="02:00:00:00:00:50", address="10.1.0.20"))
    assert lanward(segment, "unreserve", "vlan1", "camera")[0] == 0
    assert reservations(segment) == {"camera": ("file", True)}
    assert lanward(segment, "unreserve", "vlan1", "camera")[0] == 1


def test_a_vlan_that_is_gone_has_its_reservations_when_it_is_back(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    words = ("reserve", "vlan2", "--mac", "02:00:00:00:00:09", "--name", "plc", "--address", "10.2.0.20")
    assert lanward(segment, *words)[0] == 0
    reload(segment, vlan(1))
    assert reservations(segment) == {"plc": ("state", False)}
    lanward(segment, "reserve", "vlan1", *KNOWN)
    reload(segment, vlan(1) + vlan(2))
    assert reservations(segment) == {"camera": ("state", True), "plc": ("state", True)}
    with Lan(segment, 2) as lan:
        assert lan.device(9).join() == "10.2.0.20"


def test_what_is_pasted_into_the_file_is_dropped_beside_it(segment: Segment) -> None:
    segment.service.start(CONFIG)
    with Lan(segment) as lan:
        names = [lan.device(n, hostname=name, client_id=b"\0" + name[:60]) for n, name in enumerate(HOSTILE)][:9]
        for one in names:
            one.join()
            assert lanward(segment, "reserve", "vlan1", one.address)[0] == 0
    lanward(segment, "reserve", "vlan1", *KNOWN)
    before = json.loads(segment.service.ask("reservations", "--json"))
    export = segment.service.ask("config", "export")
    assert export.replace("\n", "").isprintable()
    reload(segment, CONFIG + export)
    after = json.loads(segment.service.ask("reservations", "--json"))
    assert after == [row | {"origin": "file"} for row in before]
    assert len(after) == 10
    assert segment.service.ask("config", "export") == ""
    (line,) = told(segment, "reservations_in_file")
    assert line["reservations"] == 10
    kept = segment.service.state / "reservations.json"
    wait_until(lambda: json.loads(kept.read_text()) == {"reservations": []}, 3, "the file beside it to be empty")
    reload(segment, CONFIG + export)
    assert len(segment.service.events("reservations_in_file")) == 1


def test_what_is_pending_in_the_file_is_not_taken_over_by_a_reservation(segment: Segment) -> None:
    segment.service.start(CONFIG)
    segment.service.config.write_text("nonsense")
    assert lanward(segment, "reserve", "vlan1", *KNOWN)[0] == 0
    segment.service.config.write_text(vlan(pools=["10.1.2.0-10.1.2.9"]))
    assert lanward(segment, "reserve", "vlan1", "--mac", "02:00:00:00:00:08", "--address", "10.1.0.21")[0] == 0
    with Lan(segment) as lan:
        assert [lan.device(number).join() for number in (9, 8, 1)] == ["10.1.0.20", "10.1.0.21", "10.1.1.0"]


def test_the_rules_have_what_is_kept(segment: Segment) -> None:
    file = CONFIG + vlan(2) + '[[allow]]\nfrom = "vlan2"\nto = "vlan1/camera"\n'
    segment.service.start(file)
    command = ("rules", "--config", str(segment.service.config))
    assert "10.1.0.20" not in lanward(segment, *command)[1]
    lanward(segment, "reserve", "vlan1", *KNOWN)
    code, rules, warned = lanward(segment, *command)
    assert (code, "10.1.0.20" in rules, warned) == (0, True, "")


def test_verify_knows_the_nodes_by_what_is_kept(segment: Segment) -> None:
    segment.service.start(CONFIG)
    lanward(segment, "reserve", "vlan1", *KNOWN)
    command = [*COMMAND, "verify", "--json", "--state", str(segment.service.state)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False, timeout=30)
    assert "vlan1/camera" in {row["target"] for row in json.loads(done.stdout)}


def test_an_interface_that_is_in_doubt_refuses_a_change_and_all_is_as_it_was(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    twin = ["link add twin type bridge", "address add 10.2.0.2/16 dev twin", "link set twin up"]
    netns.batch(twin, segment.server)
    code, _, why = lanward(segment, "reserve", "vlan1", *KNOWN)
    assert (code, "leg2, twin all have an address in 10.2.0.0/16" in why) == (1, True), why
    assert reservations(segment) == {}
    assert json.loads((segment.service.state / "reservations.json").read_text()) == {"reservations": []}


# -- power cuts and a bad disk


def test_what_was_answered_is_kept_through_a_power_cut(segment: Segment, count: Callable[[int, int], int]) -> None:
    """Killed at any moment of the writing, with an answer to some and to one perhaps not."""
    segment.service.start(vlan())
    answered: list[str] = []
    for number in range(count(8, 100)):
        ended = threading.Event()

        def write(first: int = number * 100, ended: threading.Event = ended) -> None:
            for one in range(first, first + 100):
                body = {"vlan": "vlan1", "container": f"c{one}"}
                try:
                    if asked(segment, "POST", "/reservations", body)[0] == 201:
                        answered.append(f"c{one}")
                except (OSError, ValueError, http.client.HTTPException):
                    return
                finally:
                    ended.set()

        writer = threading.Thread(target=write)
        writer.start()
        ended.wait(10)
        time.sleep(0.013 * (number % 7))
        segment.service.kill9()
        writer.join()
        segment.service.start()
        kept = reservations(segment)
        assert set(answered) <= kept.keys()
        assert len(kept) <= len(answered) + number + 1
        assert not segment.service.events("reservations_damaged")
    assert len(answered) >= count(8, 100)


@pytest.mark.parametrize("left", [b"", b'{"reservations": [{"vlan"', b"\0" * 4096])
def test_a_damaged_file_is_set_aside_and_the_service_goes_on(segment: Segment, left: bytes) -> None:
    (segment.service.state / "reservations.json").write_bytes(left)
    segment.service.start(CONFIG)
    (line,) = segment.service.events("reservations_damaged")
    (aside,) = segment.service.state.glob("reservations.json.bad-*")
    assert aside.name in line["what"]
    assert aside.read_bytes() == left
    assert lanward(segment, "reserve", "vlan1", *KNOWN)[0] == 0
    with Lan(segment) as lan:
        assert lan.device(9).join() == "10.1.0.20"


def test_check_config_changes_no_state(segment: Segment) -> None:
    segment.service.config.write_text(CONFIG)
    (segment.service.state / "reservations.json").write_text("{")
    code, _, warned = lanward(segment, "check-config", str(segment.service.config))
    assert (code, warned) == (
        0, f'warning: {segment.service.state}/reservations.json: damaged, expected {{"reservations": [...]}}\n',
    )  # fmt: skip
    assert [one.name for one in segment.service.state.iterdir()] == ["reservations.json"]


def test_a_disk_that_refuses_keeps_all_as_it_was(segment: Segment) -> None:
    segment.service.start(CONFIG)
    (segment.service.state / "reservations.new").mkdir()
    code, _, why = lanward(segment, "reserve", "vlan1", *KNOWN)
    assert (code, "reservations.json: Is a directory" in why) == (1, True)
    with Lan(segment) as lan:
        assert lan.device(9).join() == "10.1.1.0"
    assert reservations(segment) == {}


def test_many_at_once_are_all_kept(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    codes: list[int] = []

    def write(number: int) -> None:
        for one in range(10):
            body = {"vlan": f"vlan{1 + number % 2}", "container": f"c{number}-{one}"}
            codes.append(asked(segment, "POST", "/reservations", body)[0])

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        reload(segment, vlan(1) + vlan(2))
    for thread in threads:
        thread.join()
    assert codes == [201] * 40
    wanted = {f"c{number}-{one}" for number in range(4) for one in range(10)}
    assert reservations(segment).keys() == wanted
    segment.service.kill9()
    segment.service.start()
    assert reservations(segment).keys() == wanted


# -- others go on


def test_steering_under_load_loses_no_exchange(segment: Segment) -> None:
    segment.service.start(vlan(1) + vlan(2))
    load = segment.start_load("direct", count=6000, rate=2000, window=512, seconds=20, timeout=2)
    rounds = 0
    while load.poll() is None:
        body = {"vlan": "vlan1", "container": f"c{rounds}", "address": f"10.1.0.{20 + rounds}"}
        assert asked(segment, "POST", "/reservations", body)[0] == 201
        rounds += 1
    figures = json.loads(load.communicate()[0])
    assert rounds > 5
    assert (figures["exchanges"], figures["lost"], figures["retransmits"], figures["naks"]) == (6000, 0, 0, 0)


# -- real clients, rules and the source guard

TRUCK = """
[[vlan]]
name = "vlan1"
tag = 1
subnet = "10.0.1.0/24"
router = "10.0.1.1"
pools = ["10.0.1.100-10.0.1.199"]
guard = true

[[vlan]]
name = "vlan2"
tag = 2
subnet = "10.0.2.0/24"
router = "10.0.2.1"
pools = ["10.0.2.100-10.0.2.199"]
guard = true

[[allow]]
from = "vlan1"
to = "vlan2/camera"
"""


@pytest.mark.parametrize("kind", CLIENTS, ids=[kind.program for kind in CLIENTS])
def test_a_reservation_is_what_a_real_client_gets_at_its_next_discover(
    kind: type[Client], service: Service, client: MakeClient, truck: Truck
) -> None:
    service.start(TRUCK)
    device1 = client(kind, "device1")
    assert device1.start().address == IPv4Interface("10.0.1.100/24")
    service.ask("reserve", "vlan1", "--mac", truck.plan.device("device1").mac, "--address", "10.0.1.20")
    assert device1.reboot().address == IPv4Interface("10.0.1.20/24")
    service.ask("unreserve", "vlan1", "10.0.1.20")
    service.ask("reserve", "vlan1", "10.0.1.20", "--name", "again")
    assert device1.reboot().address == IPv4Interface("10.0.1.20/24")


def test_rules_by_name_and_the_source_guard_follow(service: Service, client: MakeClient, truck: Truck) -> None:
    """An exception names a node that is known by its reservation only, and whose lease comes and goes."""
    service.start(TRUCK)
    device1, device2 = client(Udhcpc, "device1"), client(Udhcpc, "device2")
    device1.start()
    at = str(device2.start().address.ip)
    assert not truck.ping("device1", at)
    service.ask("reserve", "vlan2", at, "--name", "camera")
    assert truck.ping("device1", at)
    service.ask("drop", "vlan1", "10.0.1.100")
    assert not truck.ping("device1", at), "the source guard has forgotten device1"
    device1.reboot()
    assert truck.ping("device1", at)
    service.ask("unreserve", "vlan2", "camera")
    assert not truck.ping("device1", at)


def test_rules_by_a_host_name_forget_a_lease_that_is_dropped(
    service: Service, client: MakeClient, truck: Truck
) -> None:
    service.start(TRUCK.replace("vlan2/camera", "vlan2/device2").replace("guard = true", ""))
    device1, device2 = client(Udhcpc, "device1"), client(Udhcpc, "device2")
    device1.start()
    at = str(device2.start().address.ip)
    wait_until(lambda: truck.ping("device1", at), 3, "the exception")
    service.ask("drop", "vlan2", at)
    assert not truck.ping("device1", at)
