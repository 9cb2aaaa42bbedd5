"""Renews the device's certificate while the service runs, in the last third of its life.

It is tried every hour until it succeeds: an outage of weeks costs nothing. A certificate that has expired speaks for
nobody, and the device must be enrolled again with a token.
"""

from __future__ import annotations

import datetime
import logging
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from edgekit_contracts.errors import EdgekitError
from edgekit_runtime.config import Telemetry
from edgekit_runtime.enrolment import Address, renew
from edgekit_runtime.identity import Identity

CHECK_S: Final = 3600.0

_log = logging.getLogger("edgekit.renewal")


class Renewal:
    """A thread that renews in good time.

    Args:
        device: The device's name.
        telemetry: Names the files and the service.
        renewed: Called when other files are in force.
        check_s: Seconds between two looks, drawn from half to all of it: a fleet must not come in step.
    """

    def __init__(
        self, device: str, telemetry: Telemetry, renewed: Callable[[], None], check_s: float = CHECK_S
    ) -> None:
        assert telemetry.enrolment is not None
        assert telemetry.cert is not None
        assert telemetry.ca is not None
        self._device, self._renewed, self._check_s = device, renewed, check_s
        self._address = Address.parse(telemetry.enrolment)
        self._identity = Identity(Path(telemetry.cert), Path(telemetry.ca))
        self._fault = ""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edgekit-renewal", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Not waited for: it may be in the middle of an exchange, which writes nothing but whole files.
        self._stopping.set()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._look()
            except EdgekitError as error:
                self._complain(f"{error.sentence}; {error.next_step}")
            except Exception:
                _log.exception("the certificate is not renewed; it is tried again")
            self._stopping.wait(self._check_s * random.uniform(0.5, 1.0))

    def _look(self) -> None:
        if datetime.datetime.now(datetime.UTC) < self._identity.renewal_due():
            return
        until = renew(self._address, self._identity, self._device)
        self._fault = ""
        _log.info("%s", f"the certificate is renewed, until {until:%Y-%m-%d}")
        self._renewed()

    def _complain(self, fault: str) -> None:
        if fault != self._fault:
            _log.warning("%s", f"the certificate is not renewed: {fault}; it is tried every hour")
        self._fault = fault
