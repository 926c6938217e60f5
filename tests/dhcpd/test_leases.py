from __future__ import annotations

from dhcpd.leases import BOUND, DECLINED, FREE, Binding, Book, Row
from tests.dhcpd.script import ip, mac

FIRST = ip("10.0.1.100")


def row(number: int, *, since: int = 0, expires: int | None = 100, client: bytes | None = None) -> Row:
    """Client ``number`` has the address of the same number."""
    return Row(FIRST + number, BOUND, mac(number) if client is None else client, mac(number), b"", "", since, expires)


def book_of(*rows: Row, now: float = 0) -> Book:
    book = Book()
    book.load(rows, lambda one: one[2], now)
    return book


def grant(book: Book, one: Row) -> list[Row]:
    return book.grant(one, one.client)


def ended(book: Book, now: float) -> list[int]:
    return [binding.address - FIRST for binding in book.expire(now)]


def held_by(book: Book, number: int) -> Binding:
    return book.by_owner[mac(number)]


def idle(book: Book) -> list[int]:
    return [address - FIRST for address in book.idle]


def test_a_grant_is_one_row_and_its_owner_has_it() -> None:
    book = Book()
    assert grant(book, row(1)) == [row(1)]
    assert held_by(book, 1).row() == row(1)
    assert len(book) == 1


def test_an_owner_has_one_address_the_old_one_is_free() -> None:
    book = book_of(row(1))
    rows = grant(book, row(2, client=mac(1)))
    assert [(one.address - FIRST, one.state) for one in rows] == [(2, BOUND), (1, FREE)]
    assert list(book.by_address) == [FIRST + 2]


def test_a_grant_takes_an_address_from_its_old_holder() -> None:
    book = book_of(row(1))
    assert grant(book, row(1, client=b"other")) == [row(1, client=b"other")]
    assert mac(1) not in book.by_owner


def test_a_lease_ends_at_its_second_and_is_remembered() -> None:
    book = book_of(row(1))
    assert held_by(book, 1).is_live(99.9)
    assert not held_by(book, 1).is_live(100)
    assert ended(book, 99.9) == []
    assert ended(book, 100) == [1]
    assert ended(book, 101) == []
    assert idle(book) == [1]
    assert mac(1) in book.by_owner


def test_a_renewal_puts_the_end_off() -> None:
    book = book_of(row(1))
    grant(book, row(1, since=50, expires=150))
    assert ended(book, 149) == []
    assert ended(book, 150) == [1]


def test_a_renewal_for_a_shorter_time_ends_in_time() -> None:
    book = book_of(row(1, expires=1000))
    grant(book, row(1, since=10, expires=130))
    assert book.next_expiry() == 130
    assert ended(book, 130) == [1]
    assert ended(book, 1000) == []


def test_an_infinite_lease_never_ends_and_one_made_finite_does() -> None:
    book = book_of(row(1, expires=None))
    assert book.next_expiry() is None
    assert held_by(book, 1).row().expires is None
    grant(book, row(1, expires=50))
    assert ended(book, 50) == [1]
    grant(book, row(1, since=60, expires=None))
    assert ended(book, 10**12) == []


def test_expired_addresses_are_idle_in_the_order_of_their_ends() -> None:
    book = book_of(row(1, expires=30), row(2, expires=10), row(3, expires=20), row(4, expires=99))
    assert ended(book, 50) == [2, 3, 1]
    assert idle(book) == [2, 3, 1]
    assert idle(book_of(*(one.row() for one in book), now=50)) == [2, 3, 1]


def test_much_that_ends_at_once_is_said_in_parts() -> None:
    book = book_of(*(row(number) for number in range(5)))
    assert len(book.expire(100, limit=3)) == 3
    assert len(book.expire(100, limit=3)) == 2


def test_a_released_lease_has_ended_and_is_remembered() -> None:
    book = book_of(row(1))
    assert book.release(held_by(book, 1), 40).expires == 40
    assert idle(book) == [1]
    assert not held_by(book, 1).is_live(40)
    assert ended(book, 100) == []


def test_what_was_forgotten_has_the_times_that_it_had() -> None:
    for expires in (100, None):
        book = book_of(row(1, since=5, expires=expires))
        assert book.forget(held_by(book, 1)) == Row(FIRST + 1, FREE, b"", b"", b"", "", 5, expires)


def test_a_grant_ends_the_rest() -> None:
    book = book_of(row(1, expires=10), now=20)
    assert idle(book) == [1]
    grant(book, row(1, since=20))
    assert idle(book) == []


def test_a_quarantine_is_nobodys_and_ends() -> None:
    book = book_of(row(1))
    (quarantined,) = book.quarantine(FIRST + 1, b"squatter", 10, 60)
    assert (quarantined.state, quarantined.client, quarantined.mac) == (DECLINED, b"", b"squatter")
    assert mac(1) not in book.by_owner
    (binding,) = book.expire(60)
    assert binding.state == DECLINED
    assert idle(book) == []
    assert book.forget(binding).state == FREE
    assert len(book) == 0


def test_of_two_rows_of_one_owner_the_later_grant_counts() -> None:
    for rows in ((row(1, since=5), row(2, since=9, client=mac(1))), (row(2, since=9, client=mac(1)), row(1, since=5))):
        book = book_of(*rows, now=99)
        assert held_by(book, 1).address == FIRST + 2
        assert book.by_address[FIRST + 1].is_live(99)
        assert idle(book) == []
        assert book.ownerless == {FIRST + 1}
        assert ended(book, 100) == [1, 2]
        assert held_by(book, 1).address == FIRST + 2
        assert book.ownerless == set()
        book = book_of(*rows, now=100)
        assert idle(book) == [1, 2]
        assert book.ownerless == set()


def test_free_rows_load_as_nothing() -> None:
    assert len(book_of(Row(FIRST, FREE, b"", b"", b"", "", 0, None))) == 0


def test_the_heap_keeps_its_size_while_leases_come_and_go() -> None:
    """Each owner takes the one address from the one before: an entry outlives its binding every time."""
    book = Book()
    for number in range(20_000):
        book.grant(row(0, since=number, expires=10**9), number.to_bytes(4, "big"))
    assert len(book._heap) < 2_000
    assert book.next_expiry() == 10**9


def test_the_heap_keeps_its_size_while_lease_times_shrink() -> None:
    book = Book()
    for number in range(20_000):
        grant(book, row(1, expires=10**9 - number))
    assert len(book._heap) < 2_000
    assert ended(book, 10**9 - 19_999) == [1]


def test_a_step_of_the_clock_moves_what_was_granted_since() -> None:
    book = book_of(row(1, since=5, expires=100), row(2, since=50, expires=100), row(3, since=60, expires=None))
    rows = book.shift(1000, 50, 1060)
    assert [(one.address - FIRST, one.since, one.expires) for one in rows] == [(2, 1050, 1100), (3, 1060, None)]
    assert idle(book) == [1]
    assert ended(book, 1100) == [2]
