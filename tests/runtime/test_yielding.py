from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from edgekit_runtime.yielding import WORK_S, give_way, rest


def rests_of(work: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the threads that slept while `work` ran on one called "beside"."""
    slept: list[str] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: slept.append(threading.current_thread().name))
    thread = threading.Thread(target=work, name="beside")
    thread.start()
    thread.join()
    monkeypatch.undo()
    return slept


def worked() -> None:
    end = time.monotonic() + 2 * WORK_S
    while time.monotonic() < end:
        pass


def test_a_thread_that_gives_way_rests_once_it_has_worked_and_not_again_before_it_works_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work() -> None:
        give_way()
        for _ in range(3):
            worked()
            rest()

    assert rests_of(work, monkeypatch) == ["beside"] * 3


def test_a_thread_that_answers_never_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        worked()
        rest()

    beside = threading.Thread(target=give_way)
    beside.start()
    beside.join()
    assert rests_of(work, monkeypatch) == []
