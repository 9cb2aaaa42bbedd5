from __future__ import annotations

from edgekit_runtime.resent import RESENT_REQUESTS, RESENT_S, Resent


def test_the_same_bytes_within_a_minute_are_a_request_sent_again() -> None:
    resent = Resent()
    assert not resent.seen(b"one", now=0.0)
    assert not resent.seen(b"two", now=1.0)
    assert resent.seen(b"one", now=RESENT_S)
    assert resent.seen(b"one", now=2 * RESENT_S)
    assert not resent.seen(b"one", now=3 * RESENT_S + 0.1)


def test_the_clock_is_read_where_none_is_given() -> None:
    resent = Resent()
    assert [resent.seen(b"one"), resent.seen(b"one")] == [False, True]


def test_the_oldest_request_is_forgotten_first() -> None:
    resent = Resent()
    for number in range(RESENT_REQUESTS):
        assert not resent.seen(b"%d" % number, now=0.0)
    assert resent.seen(b"0", now=0.0)
    assert not resent.seen(b"another", now=0.0)
    assert resent.seen(b"0", now=0.0)
    assert not resent.seen(b"1", now=0.0)
