from __future__ import annotations

import pytest

from dhcpd import opt
from dhcpd.identity import Directory, Node, container_key, device_key, host_name, reserved_key
from dhcpd.leases import BOUND, Row
from dhcpd.settings import Reservation
from tests.dhcpd.script import ip, mac

PRINTER = Reservation("printer", macs=(mac(1), mac(2)), address=ip("10.0.1.50"))
CAMERA = Reservation("camera", client_id=b"\0camera", address=ip("10.0.1.51"))
BROKER = Reservation("broker", container="broker", address=ip("10.0.1.52"))
NAMED = Reservation("named", macs=(mac(3),))
ALL = (PRINTER, CAMERA, BROKER, NAMED)


def row(client: bytes, hardware: bytes = b"", client_id: bytes = b"") -> Row:
    return Row(ip("10.0.1.100"), BOUND, client, hardware, client_id, "", 0, None)


def test_a_device_is_its_client_identifier_else_its_mac() -> None:
    assert device_key(1, mac(1), b"") == mac(1)
    assert device_key(1, mac(1), b"\x01id") == device_key(1, mac(2), b"\x01id")


def test_keys_of_different_kinds_never_meet() -> None:
    keys = [
        device_key(1, mac(1), b""),
        device_key(1, mac(1), mac(1)),
        device_key(6, mac(1), b""),
        device_key(32, mac(1), b""),
        container_key(mac(1).decode("latin-1")),
        reserved_key(int.from_bytes(mac(1)[:4], "big")),
    ]
    assert len(set(keys)) == len(keys)


def owner(directory: Directory, hardware: bytes, client_id: bytes = b"") -> tuple[bytes, Reservation | None]:
    node = directory.identify(1, hardware, client_id)
    return node.owner, node.reservation


def test_all_macs_of_a_reservation_are_one_owner() -> None:
    directory = Directory(ALL, match_client_id=True)
    assert owner(directory, mac(1)) == (reserved_key(ip("10.0.1.50")), PRINTER)
    assert owner(directory, mac(2), b"\x01any") == (reserved_key(ip("10.0.1.50")), PRINTER)


def test_a_reservation_by_client_identifier_is_for_any_mac() -> None:
    directory = Directory(ALL, match_client_id=True)
    assert directory.identify(1, mac(9), b"\0camera").reservation is CAMERA
    assert directory.identify(1, mac(9), b"").reservation is None


def test_a_mac_is_more_than_a_client_identifier() -> None:
    assert Directory(ALL, match_client_id=True).identify(1, mac(1), b"\0camera").reservation is PRINTER


def test_a_reservation_without_an_address_leaves_the_device_its_own_key() -> None:
    assert owner(Directory(ALL, match_client_id=True), mac(3)) == (mac(3), NAMED)


def test_a_container_is_its_name() -> None:
    directory = Directory(ALL, match_client_id=True)
    assert directory.identify_container("broker") == Node(
        b"", reserved_key(ip("10.0.1.52")), BROKER, container_key("broker")
    )
    assert directory.identify_container("web") == Node(b"", container_key("web"), None, container_key("web"))


def test_client_identifiers_can_be_ignored_but_for_what_is_written_down() -> None:
    directory = Directory(ALL, match_client_id=False)
    assert owner(directory, mac(9), b"\x01id") == (mac(9), None)
    assert directory.identify(1, mac(9), b"\0camera").reservation is CAMERA


def test_a_device_without_a_hardware_address_is_never_just_one_of_its_kind() -> None:
    directory = Directory((), match_client_id=False)
    assert directory.identify(32, b"", b"\x01a") != directory.identify(32, b"", b"\x01b")


@pytest.mark.parametrize(
    ("fqdn", "name"),
    [
        (b"\0\0\0tablet.lan", "tablet.lan"),
        (b"\x05\0\0\x06tablet\x03lan\0", "tablet.lan"),
        (b"\x04\0\0\x06tablet", "tablet"),
        (b"\x04\0\0\x06tablet\x09lan", "tablet.lan"),
        (b"\x04\0\0\x06tablet\xc0\x03", "tablet"),
        (b"\x04\0\0\0\x03lan", ""),
        (b"\x04\0\0", ""),
        (b"\x04", ""),
        (b"", ""),
    ],
)
def test_the_name_of_option_81_is_ascii_or_labels(fqdn: bytes, name: str) -> None:
    """RFC 4702 section 2.3.1, and values that are cut short or compressed."""
    assert host_name({opt.FQDN: fqdn}) == name


@pytest.mark.parametrize("nothing", [b"", b"\0", b"..."])
def test_an_empty_host_name_hides_no_other(nothing: bytes) -> None:
    assert host_name({opt.HOST_NAME: nothing, opt.FQDN: b"\0\0\0tablet"}) == "tablet"
    assert host_name({opt.HOST_NAME: b"phone", opt.FQDN: b"\0\0\0tablet"}) == "phone"


@pytest.mark.parametrize("match", [True, False])
@pytest.mark.parametrize(
    ("htype", "hardware", "client_id"),
    [
        (1, mac(1), b""), (1, mac(9), b""), (1, mac(9), b"\x01id"), (1, mac(9), b"\0camera"),
        (6, mac(9), b""), (6, mac(1), b""), (6, mac(9), b"\x01id"), (32, b"", b"\x01id"), (6, b"m" * 6, b""),
    ],
)  # fmt: skip
def test_a_stored_row_belongs_to_whom_it_was_granted(
    match: bool, htype: int, hardware: bytes, client_id: bytes
) -> None:
    directory = Directory(ALL, match)
    node = directory.identify(htype, hardware, client_id)
    assert directory.owner_of(row(node.key, hardware, client_id)) == node.owner


def test_a_stored_row_of_a_container_belongs_to_its_name() -> None:
    directory = Directory(ALL, match_client_id=True)
    assert directory.owner_of(row(container_key("broker"), mac(1))) == reserved_key(ip("10.0.1.52"))
    assert directory.owner_of(row(container_key("web"), mac(1))) == container_key("web")


def test_a_stored_row_follows_the_configuration_of_today() -> None:
    stored = row(mac(9), mac(9), b"\x01id")
    assert Directory((), match_client_id=True).owner_of(stored) == device_key(1, mac(9), b"\x01id")
    stored = row(device_key(1, mac(9), b"\x01id"), mac(9), b"\x01id")
    assert Directory((), match_client_id=False).owner_of(stored) == mac(9)
