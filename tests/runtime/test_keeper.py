from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from edgekit_contracts.errors import MissingFile
from edgekit_runtime.broker import Broker
from edgekit_runtime.keeper import PINGS, Keeper
from edgekit_runtime.notify import Notifier
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.pulse import Pulse
from edgekit_runtime.reporter import Reporter
from edgekit_runtime.uplink import Uplink
from tests.brokers import QUICK, free_port, wait_until


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(0.0)
        self.environ = {"NOTIFY_SOCKET": address}

    def heard(self) -> list[str]:
        """What came since it was last asked."""
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else f"@edgekit-test-{os.getpid()}")
    yield manager
    manager.socket.close()


def test_the_manager_hears_each_word(manager: Manager) -> None:
    notifier = Notifier(manager.environ)
    assert notifier.watchdog_s is None
    notifier.ready("serving tiny 1.0\nat x")
    notifier.status("more")
    notifier.reloading()
    notifier.alive()
    notifier.stopping()
    ready, status, reloading, alive, stopping = manager.heard()
    assert ready == "READY=1\nSTATUS=serving tiny 1.0 at x"
    assert status == "STATUS=more"
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert int(reloading.rpartition("=")[2]) > 0
    assert (alive, stopping) == ("WATCHDOG=1", "STOPPING=1")


def test_without_a_manager_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    Notifier({}).ready("x")
    assert not caplog.records


def test_a_manager_that_is_gone_does_not_stop_the_service(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("x")
    assert "the service manager was not told READY=1: No such file or directory" in caplog.text


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_s_time_is_ours_alone(environ: dict[str, str], seconds: float | None) -> None:
    assert Notifier(environ).watchdog_s == seconds


class Worker:
    """A thread with a pulse, which a test can hold."""

    def __init__(self, name: str) -> None:
        self._woken, self.held = threading.Event(), threading.Event()
        self.held.set()
        self._ends = False
        self.pulse = Pulse(name, self._woken.set)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self._ends:
            self._woken.wait()
            self._woken.clear()
            self.held.wait()
            self.pulse.beat()

    def end(self) -> None:
        self._ends = True
        self.held.set()
        self._woken.set()
        self.thread.join(10)


def test_the_ping_stops_with_a_stuck_thread_and_comes_back_with_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = Manager(str(tmp_path / "notify"))
    now = [0.0]
    workers = [Worker("the reporter"), Worker("the uplink")]
    keeper = Keeper(
        Notifier(manager.environ | {"WATCHDOG_USEC": "4000000"}),
        status=lambda: "serving",
        reload=lambda: None,
        test=lambda: None,
        pulses=[worker.pulse for worker in workers],
        now_s=lambda: now[0],
    )

    def all_answered() -> bool:
        return all(worker.pulse.answered for worker in workers)

    try:
        keeper.started()
        assert manager.heard() == ["READY=1\nSTATUS=serving", "WATCHDOG=1"]
        wait_until(all_answered, "both threads")
        keeper.passed()
        assert manager.heard() == []  # it is not time yet
        for _ in range(3):
            now[0] += 4 / PINGS
            keeper.passed()
            assert manager.heard() == ["WATCHDOG=1"]
            wait_until(all_answered, "both threads")

        workers[1].held.clear()
        now[0] += 4 / PINGS
        keeper.passed()  # it had answered; now it is asked again, and does not
        manager.heard()
        wait_until(lambda: workers[0].pulse.answered, "the one that goes on")
        for _ in range(10):
            now[0] += 4 / PINGS
            keeper.passed()
        assert manager.heard() == []
        assert caplog.messages == ["no ping to the watchdog: no sign of life from the uplink"]

        workers[1].held.set()
        wait_until(all_answered, "both threads")
        now[0] += 4 / PINGS
        keeper.passed()
        assert manager.heard() == ["WATCHDOG=1"]
        assert caplog.messages[-1] == "all threads go on again"

        wait_until(all_answered, "both threads")
        workers[0].end()
        now[0] += 4 / PINGS
        keeper.passed()
        manager.heard()
        wait_until(lambda: workers[1].pulse.answered, "the one that is left")
        now[0] += 4 / PINGS
        keeper.passed()
        assert manager.heard() == []
        assert caplog.messages[-1].endswith("no sign of life from the reporter")
    finally:
        manager.socket.close()
        workers[1].end()


def test_a_reload_that_fails_leaves_the_service_ready(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manager = Manager(str(tmp_path / "notify"))
    calls: list[int] = []

    def reload() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise MissingFile("configuration", "device.toml")
        if len(calls) == 2:
            raise ZeroDivisionError

    keeper = Keeper(Notifier(manager.environ), status=lambda: "s", reload=reload, test=lambda: None)
    try:
        keeper.started()
        manager.heard()
        said: list[str] = []

        def ready(times: int) -> bool:
            said.extend(manager.heard())
            return said.count("READY=1\nSTATUS=s") == times

        for count in (1, 2, 3):
            keeper.signals[signal.SIGHUP]()
            wait_until(partial(ready, count), "a reload")
        assert len(calls) == 3
        assert sum(one.startswith("RELOADING=1") for one in said) == 3
        assert caplog.messages[0].startswith("the settings stay as they were: cannot read the configuration")
        assert caplog.records[1].exc_info is not None
    finally:
        manager.socket.close()


def test_the_clock_asks_for_a_self_test_and_never_for_a_second_one_beside_it() -> None:
    now, every, begun, go_on = [0.0], [None, 10.0], threading.Semaphore(0), threading.Semaphore(0)

    def test() -> None:
        begun.release()
        assert go_on.acquire(timeout=60)

    def at(moment_s: float) -> None:
        now[0] = moment_s
        keeper.passed()

    keeper = Keeper(
        Notifier({}),
        status=lambda: "s",
        reload=lambda: None,
        test=test,
        test_every_s=lambda: every[-1],
        now_s=lambda: now[0],
    )
    keeper.started()
    at(9.9)
    assert not begun.acquire(blocking=False)
    at(10.0)
    assert begun.acquire(timeout=60)
    at(100.0)  # it is still under way
    assert keeper._orders.empty()
    go_on.release()
    wait_until(lambda: keeper._tested_s == 100.0, "its end")
    at(109.9)
    assert keeper._orders.empty()
    every.append(None)
    at(1000.0)
    assert not begun.acquire(blocking=False)
    every.append(10.0)
    go_on.release()
    at(1000.0)
    assert begun.acquire(timeout=60)


def test_the_reporter_and_the_uplink_beat_while_they_idle_and_not_while_they_are_stuck(tmp_path: Path) -> None:
    held = threading.Event()

    def hold() -> None:
        held.wait()

    with Outbox(tmp_path / "outbox.db", "dev-1") as outbox:
        uplink = Uplink(Broker(host="127.0.0.1", port=free_port()), outbox, timing=QUICK)
        reporter = Reporter(outbox, uplink.wake)
        uplink.start()
        reporter.start([])
        try:
            for _ in range(3):
                for pulse in (reporter.pulse, uplink.pulse):
                    pulse.ask()
                    wait_until(partial(getattr, pulse, "answered"), pulse.name)
            reporter._orders.put(hold)
            reporter.pulse.ask()  # behind what holds it
            assert not reporter.pulse.answered
            held.set()
            wait_until(lambda: reporter.pulse.answered, "the reporter goes on")
            with uplink._condition:  # what the sender waits for
                uplink.pulse._asked += 1
                assert not uplink.pulse.answered
            uplink.wake()
            wait_until(lambda: uplink.pulse.answered, "the uplink goes on")
        finally:
            reporter.stop()
            uplink.stop()


def test_what_no_answer_needs_is_started_before_the_service_says_that_it_is_ready(tmp_path: Path) -> None:
    manager, go_on = Manager(str(tmp_path / "notify")), threading.Event()
    asked: list[str] = []
    pulses: list[Pulse] = []

    def finish() -> None:
        go_on.wait()
        pulses.append(Pulse("the late one", lambda: asked.append("late")))

    keeper = Keeper(
        Notifier(manager.environ),
        status=lambda: "s",
        reload=lambda: None,
        test=lambda: None,
        finish=finish,
        pulses=pulses,
    )
    try:
        keeper.started()
        assert manager.heard() == []
        go_on.set()
        keeper.settle()
        wait_until(lambda: asked, "the late thread is asked too")
        assert manager.heard() == ["READY=1\nSTATUS=s", "WATCHDOG=1"]
    finally:
        manager.socket.close()


def test_a_start_that_fails_behind_the_first_answers_ends_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr("os.kill", lambda pid, number: killed.append(number))
    fault = MissingFile("password file", "none")

    def finish() -> None:
        raise fault

    keeper = Keeper(Notifier({}), status=lambda: "s", reload=lambda: None, test=lambda: None, finish=finish)
    keeper.settle()  # not begun: nothing to wait for
    keeper.started()
    keeper.settle()
    wait_until(lambda: killed, "the signal")
    assert (keeper.fault, killed) == (fault, [signal.SIGTERM])
