from __future__ import annotations

import threading

import pytest

from edgekit_runtime.batch.ahead import behind


def test_calls_are_carried_out_in_order_one_at_a_time_and_all_of_them() -> None:
    done: list[int] = []
    under_way = threading.Lock()

    def call(number: int) -> None:
        assert under_way.acquire(blocking=False)
        done.append(number)
        under_way.release()

    with behind(call) as later:
        for number in range(100):
            later(number)
    assert done == list(range(100))


def test_its_caller_goes_on_meanwhile_and_never_by_more_than_one_call() -> None:
    begun, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def call() -> None:
        begun.release()
        assert go_on.acquire(timeout=60)

    with behind(call) as later:
        later()
        assert begun.acquire(timeout=60)
        second = threading.Thread(target=later)
        second.start()
        assert not begun.acquire(blocking=False)
        go_on.release()
        second.join(60)
        assert begun.acquire(timeout=60)
        go_on.release()


@pytest.mark.parametrize("further", [0, 1], ids=["at the end", "at the next one"])
def test_what_goes_wrong_is_raised(further: int) -> None:
    calls: list[int] = []

    def call() -> None:
        calls.append(1)
        raise OSError("no room")

    def run() -> None:
        with behind(call) as later:
            later()
            for _ in range(further):
                later()
                calls.append(2)

    with pytest.raises(OSError, match="no room"):
        run()
    assert calls == [1]


def test_nothing_is_under_way_any_more_where_its_caller_fails() -> None:
    begun, done = threading.Event(), list[int]()

    def call() -> None:
        begun.set()
        done.append(1)

    def run() -> None:
        with behind(call) as later:
            later()
            assert begun.wait(60)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert done == [1]
