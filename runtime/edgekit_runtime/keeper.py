"""What keeps a running service in order: reload, self-tests, and a watchdog that tells the truth.

All of it hangs on the server's event loop (`serving.server.Keeper`): `passed` runs on the loop at least once a second,
so that a loop that is stuck sends no ping. The other threads are asked through their `Pulse`; the ping goes out only
when each has answered since the last one.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from edgekit_contracts.errors import EdgekitError, GoldenMismatch
from edgekit_runtime.notify import Notifier
from edgekit_runtime.pulse import Pulse

PINGS: Final = 4
"""The threads are asked so many times in the watchdog's time, so that one slow answer does not end the service."""
REST_S: Final = 0.05
"""For the first answers: what is started beside them would take their time, one thread at a time as Python runs."""

_log = logging.getLogger("edgekit.keeper")


class Keeper:
    """Hangs on the server's event loop.

    Args:
        notifier: The service manager.
        status: One line on what is served.
        reload: Reads the settings again and applies them; runs on a thread of its own, once at a time.
        test: The self-test; runs on a thread of its own. Where it fails, the service ends: no answer is better than a
            wrong one.
        test_every_s: Tells how often it is asked for without anybody's demand; None: never.
        announce: Says that requests are answered and signals heard from now on.
        finish: Starts what no answer needs, before that is said; runs on a thread of its own, behind the requests that
            came while the service was starting. Where it fails, the service ends.
        pulses: Threads that must go on; `finish` may add to them.
        now_s: A clock that never goes back.
    """

    def __init__(
        self,
        notifier: Notifier,
        *,
        status: Callable[[], str],
        reload: Callable[[], None],
        test: Callable[[], None],
        test_every_s: Callable[[], float | None] = lambda: None,
        announce: Callable[[], None] = lambda: None,
        finish: Callable[[], None] | None = None,
        pulses: Sequence[Pulse] = (),
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._notifier, self._status, self._reload, self._test = notifier, status, reload, test
        self._announce, self._finish, self._pulses, self._now_s = announce, finish, pulses, now_s
        self._test_every_s = test_every_s
        self._asked_s = self._tested_s = now_s()
        self._stuck: frozenset[str] = frozenset()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._obey, name="edgekit-keeper", daemon=True)
        self._settled, self._stops = threading.Event(), False
        self.fault: Exception | None = None
        """Why the service ends by itself."""
        self.signals: Mapping[signal.Signals, Callable[[], None]] = {
            signal.SIGHUP: lambda: self._orders.put(self._read_again),
            signal.SIGUSR1: lambda: self._orders.put(self._test_again),
        }
        """What the loop does on a signal."""

    def started(self) -> None:
        """The sockets answer."""
        if self._finish is None:
            self._tell()
        self._thread.start()

    def settle(self) -> None:
        """Waits for the end of `finish`, where it has begun; the service stops."""
        if self._thread.ident is not None:
            self._settled.wait()

    def _tell(self) -> None:
        try:
            if not self._stops:
                self._announce()
                self._notifier.ready(self._status())
                self._notifier.alive()
                self._ask()
        finally:
            self._settled.set()

    def passed(self) -> None:
        """The loop came round."""
        every_s = self._test_every_s()
        if every_s is not None and self._now_s() - self._tested_s >= every_s:
            self._tested_s = float("inf")  # until it is over
            self._orders.put(self._test_again)
        interval_s = self._notifier.watchdog_s
        if interval_s is None or not self._settled.is_set() or self._now_s() - self._asked_s < interval_s / PINGS:
            return
        stuck = frozenset(pulse.name for pulse in self._pulses if not pulse.answered)
        if stuck != self._stuck:
            if stuck:
                _log.error("no ping to the watchdog: no sign of life from %s", ", ".join(sorted(stuck)))
            else:
                _log.warning("all threads go on again")
            self._stuck = stuck
        if not stuck:
            self._notifier.alive()
            self._ask()

    def stopping(self) -> None:
        """A signal ends the service; what is under way is finished."""
        self._stops = True
        self._notifier.stopping()

    def _ask(self) -> None:
        self._asked_s = self._now_s()
        for pulse in self._pulses:
            pulse.ask()

    def _obey(self) -> None:
        if self._finish is not None:
            self._begin(self._finish)
        while True:
            self._orders.get()()

    def _begin(self, finish: Callable[[], None]) -> None:
        time.sleep(REST_S)
        try:
            finish()
        except Exception as error:
            self.fault = error
            self._settled.set()
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self._tell()

    def _read_again(self) -> None:
        self._notifier.reloading()
        try:
            self._reload()
        except EdgekitError as error:
            _log.error("the settings stay as they were: %s; %s", error.sentence, error.next_step)
        except Exception:
            _log.exception("the settings stay as they were")
        self._notifier.ready(self._status())

    def _test_again(self) -> None:
        try:
            self._test()
        except GoldenMismatch as error:
            self.fault = error
            os.kill(os.getpid(), signal.SIGTERM)
        except EdgekitError as error:
            _log.error("no self-test: %s; %s", error.sentence, error.next_step)
        except Exception:
            _log.exception("the self-test failed")
        self._tested_s = self._now_s()
