"""Who may ask by HTTP, on values."""

from __future__ import annotations

import pytest

from router.access import MAX_PEERS, MAX_SESSIONS, SESSION_SECONDS, TRIES_AT_ONCE, TRY_SECONDS, Access, Ask
from router.settings import Api

API = Api("192.0.2.1", 8067, "a-long-token-that-is-secret", ("router.truck.lan",))
LOCAL = Ask("GET", "localhost:8067", "", "", "", "", "", is_open=False)
REMOTE = Ask("GET", "192.0.2.1:8067", "", f"Bearer {API.token}", "", "192.0.2.50", "192.0.2.1", is_open=False)


def status(access: Access, ask: Ask, api: Api | None = API, now: float = 0.0) -> int:
    """200, or that of the refusal."""
    refusal = access.refusal(ask, api, now)
    return 200 if refusal is None else refusal.status


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("192.0.2.1:8067", 200), ("192.0.2.1", 200), ("router.truck.lan:8067", 200), ("ROUTER.truck.lan", 200),
        ("evil.example:8067", 403), ("192.0.2.2:8067", 403), ("localhost:8067", 403), ("127.0.0.1", 403), ("", 403),
        ("router.truck.lan.evil.example", 403), ("evil.example@192.0.2.1:8067", 200), ("192.0.2.1@evil.example", 403),
        ("[", 403), ("[::1]", 403), ("lanward", 403), ("192.0.2.1.evil.example", 403), ("3221225985", 403),
    ],
)  # fmt: skip
def test_by_tcp_the_service_goes_by_its_address_and_the_configured_names(host: str, wanted: int) -> None:
    for method, is_open in (("GET", False), ("POST", False), ("GET", True), ("POST", True)):
        assert status(Access(), REMOTE._replace(host=host, method=method, is_open=is_open)) == wanted


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("localhost:8067", 200), ("127.0.0.1:9000", 200), ("lanward", 200), ("", 200), ("router.truck.lan", 200),
        ("evil.example:8067", 403), ("192.0.2.1:8067", 403), ("localhost.evil.example", 403), ("evil.example.", 403),
        ("[::1]:8067", 200), ("evil", 403), ("evil:8067", 403), ("[2001:db8::1]", 403), ("2130706433", 403),
    ],
)  # fmt: skip
def test_by_the_unix_socket_a_name_that_a_stranger_may_own_is_none_of_ours(host: str, wanted: int) -> None:
    assert status(Access(), LOCAL._replace(host=host)) == wanted


def test_on_loopback_it_is_localhost_as_well() -> None:
    ask = REMOTE._replace(here="127.0.0.1", host="localhost:8067")
    assert status(Access(), ask) == 200
    assert status(Access(), ask._replace(host="127.0.0.1:1234")) == 200
    assert status(Access(), ask._replace(host="evil.example")) == 403


@pytest.mark.parametrize("base", [LOCAL, REMOTE])
@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_a_page_from_elsewhere_changes_nothing(base: Ask, method: str) -> None:
    ask = base._replace(method=method)
    assert status(Access(), ask._replace(origin=f"http://{base.host}")) == 200
    assert status(Access(), ask._replace(origin=f"https://{base.host}")) == 200
    assert status(Access(), ask) == 200  # no browser: those always say where a change comes from
    for origin in ("http://evil.example", "null", f"ftp://{base.host}", f"http://{base.host}.evil.example", "http://"):
        assert status(Access(), ask._replace(origin=origin)) == 403
        assert status(Access(), ask._replace(origin=origin, is_open=True)) == 403


def test_another_port_of_the_same_machine_is_elsewhere() -> None:
    assert status(Access(), LOCAL._replace(method="POST", origin="http://localhost:1")) == 403


@pytest.mark.parametrize(
    "told", ["Bearer wrong", API.token, "Bearer", "Bearer ", f"Basic {API.token}", "Bearer \udcff"]
)
def test_who_does_not_know_the_token_is_told_nothing(told: str) -> None:
    assert status(Access(), REMOTE._replace(authorization=told)) == 401


def test_what_is_open_needs_no_token() -> None:
    nobody = REMOTE._replace(authorization="")
    assert status(Access(), nobody) == 401
    assert status(Access(), nobody._replace(is_open=True)) == 200


def test_without_the_table_nobody_is_answered_by_tcp() -> None:
    assert status(Access(), REMOTE, api=None) == 401


def test_a_session_is_not_the_token_and_ends() -> None:
    access = Access()
    cookie = access.open(API, 0)
    assert API.token not in cookie
    ask = REMOTE._replace(authorization="", cookie=cookie)
    assert status(access, ask, now=SESSION_SECONDS - 1) == 200
    assert status(access, ask, now=SESSION_SECONDS) == 401
    assert status(access, ask._replace(cookie=cookie[:-1])) == 401
    assert status(access, ask, Api(API.host, API.port, "another-token", API.hosts)) == 401
    assert status(Access(), ask) == 401
    access.close(cookie)
    assert status(access, ask) == 401


def test_a_change_by_a_session_has_to_say_where_it_comes_from() -> None:
    access = Access()
    ask = REMOTE._replace(method="POST", authorization="", cookie=access.open(API, 0))
    assert status(access, ask) == 403
    assert status(access, ask._replace(origin="http://192.0.2.1:8067")) == 200


def test_sessions_are_bounded_and_the_oldest_ends() -> None:
    access = Access()
    cookies = [access.open(API, 0) for _ in range(MAX_SESSIONS + 1)]
    found = [status(access, REMOTE._replace(authorization="", cookie=one)) for one in cookies]
    assert found == [401, *[200] * MAX_SESSIONS]


def test_wrong_tokens_are_slowed_down_and_then_even_the_right_one_waits() -> None:
    access, now, wrong = Access(), 100.0, 0
    for _ in range(1000):
        refusal = access.wrong("guess", "192.0.2.50", API, now)
        assert refusal is not None
        wrong += refusal.status == 401
        now += 0.1
    assert wrong <= TRIES_AT_ONCE + 100 / TRY_SECONDS + 1
    late = access.wrong(API.token, "192.0.2.50", API, now)
    if late is not None:
        assert late.status == 429
        assert 0 < late.wait <= 2 * TRY_SECONDS
    assert access.wrong(API.token, "192.0.2.51", API, now) is None  # another peer is not in its way
    assert access.wrong(API.token, "192.0.2.50", API, now + TRY_SECONDS) is None


def test_wrong_tokens_in_the_header_count_as_those_of_the_form() -> None:
    access = Access()
    found = [status(access, REMOTE._replace(authorization="Bearer guess")) for _ in range(TRIES_AT_ONCE + 1)]
    assert found == [*[401] * TRIES_AT_ONCE, 429]
    assert status(access, REMOTE) == 429
    assert status(access, REMOTE, now=TRY_SECONDS) == 200


def test_a_session_goes_on_while_somebody_behind_the_same_address_guesses() -> None:
    access = Access()
    cookie = access.open(API, 0)
    for _ in range(100):
        status(access, REMOTE._replace(authorization="Bearer guess"))
    assert status(access, REMOTE._replace(authorization="", cookie=cookie)) == 200


def test_who_guesses_from_many_addresses_fills_no_table() -> None:
    access = Access()
    for number in range(10 * MAX_PEERS):
        access.wrong("guess", f"peer{number}", API, 0)
    assert len(access._due) == MAX_PEERS
