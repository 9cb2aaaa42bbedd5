"""A running service: settings read again, self-test on demand, the service manager, clean starts after crashes."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgekit_contracts.errors import Refused
from edgekit_contracts.manifest import Monitoring
from edgekit_contracts.telemetry import Kind
from edgekit_runtime import ask
from edgekit_runtime.lock import Holder
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.settings import load_settings
from tests import bundles
from tests.brokers import Mosquitto, free_port, wait_until
from tests.service import Service


def signalled(service: Service, number: int) -> None:
    assert service.process is not None
    os.kill(service.process.pid, number)


def reread(service: Service) -> None:
    """Has the settings read again and waits until that is done."""
    count = service.log.count("settings read again") + service.log.count("settings stay as they were")
    signalled(service, signal.SIGHUP)
    wait_until(
        lambda: service.log.count("settings read again") + service.log.count("settings stay as they were") > count,
        "the settings are read again",
    )


def test_settings_are_read_again_and_what_must_wait_is_said(service: Service, made: bundles.Made) -> None:
    service.start()
    text = service.config.read_text()
    service.config.write_text(text + 'threads = 2\nmax_rows = 3\n[log]\nlevel = "debug"\n')
    reread(service)
    assert "serve.max_rows is 3 now (was 10000)" in service.log
    assert "serve.threads stays 1 until a restart (2 is set)" in service.log
    assert service.infer()[0] == 413  # four rows
    for broken in ("no toml", text + "max_rows = 0\n", text.replace("tiny-1.0.edge", "none.edge")):
        service.config.write_text(broken)
        reread(service)
    assert service.log.count("the settings stay as they were: ") == 3
    assert service.infer()[0] == 413
    service.config.write_text(text)
    reread(service)
    assert service.infer()[0] == 200
    assert service.stop() == 0
    assert "Traceback" not in service.log


def test_another_bundle_is_served_after_a_reload(service: Service, made: bundles.Made, tmp_path: Path) -> None:
    service.start()
    (tmp_path / "other").mkdir()
    other = bundles.make(tmp_path / "other", version="2.0")
    service.config.write_text(
        service.config.read_text().replace(str(made.path), str(other.path)).replace(str(made.public), str(other.public))
    )
    reread(service)
    assert "tiny 1.0 gives way to tiny 2.0" in service.log
    assert service.infer()[1]["model_version"] == "2.0"


def selftest(service: Service) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgekit_runtime", "selftest", "--config", str(service.config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )


def test_the_self_test_runs_on_demand(service: Service) -> None:
    service.start()
    done = selftest(service)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("4 golden rows right (largest difference ")
    assert service.call("GET", "/edgekit/status")[1]["self_test"]["golden_rows"] == 4
    assert service.infer()[0] == 200
    assert service.stop() == 0
    assert selftest(service).returncode == 3


def test_a_self_test_without_the_file_that_runs_is_said(service: Service, made: bundles.Made) -> None:
    service.start()
    made.path.write_bytes(made.path.read_bytes() + b"\0")
    done = selftest(service)
    assert done.returncode == 1
    assert "Error: no self-test: cannot read the bundle of tiny 1.0" in done.stderr
    assert "no self-test: cannot read the bundle of tiny 1.0" in service.log
    assert service.infer()[0] == 200


WRONG = """
import sys
from edgekit_contracts.errors import GoldenMismatch
from edgekit_runtime import assembly
from edgekit_runtime.__main__ import main

def wrong(engine, golden):
    raise GoldenMismatch(engine.manifest.title, 4, 1, "first at row 0")

assembly.check_golden = wrong
sys.exit(main(sys.argv[1:]))
"""
"""As when memory or the processor went bad after the start, whose self-test is another call."""


def test_a_service_that_answers_wrongly_ends(service: Service) -> None:
    with service.log_path.open("wb") as log:
        service.process = subprocess.Popen(
            [sys.executable, "-c", WRONG, "run", "--config", str(service.config)], stderr=log
        )
    wait_until(lambda: "serving" in service.log, "the service")
    assert service.infer()[0] == 200
    done = selftest(service)
    assert done.returncode == 1
    assert "the service has ended: its self-test failed" in done.stderr
    assert service.process.wait(60) == 1
    assert "Error: tiny 1.0 fails its self-test here: 1 of 4 golden rows differ" in service.log


def test_a_model_that_returned_to_its_former_bundle_is_said_to_who_asked(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [None, {"golden_rows": 4, "max_difference": 0.0, "faults": ["tiny 2.0 fails; tiny 1.0 answers instead"]}]
    monkeypatch.setattr(ask, "ask", lambda *_: (200, {"self_test": found.pop(0)}))
    monkeypatch.setattr(ask, "holder", lambda _: Holder(pid=os.getpid()))
    monkeypatch.setattr(os, "kill", lambda *_: None)
    with pytest.raises(Refused, match=r"tiny 2\.0 fails; tiny 1\.0 answers instead"):
        ask.self_test(load_settings(service.config).config)


def test_a_service_that_tests_itself_now_and_then_ends_where_it_answers_wrongly(service: Service) -> None:
    service.config.write_text("self_test_every_h = 0.0001\n" + service.config.read_text())
    with service.log_path.open("wb") as log:
        service.process = subprocess.Popen(
            [sys.executable, "-c", WRONG, "run", "--config", str(service.config)], stderr=log
        )
    assert service.process.wait(60) == 1
    assert "Error: tiny 1.0 fails its self-test here: 1 of 4 golden rows differ" in service.log


def test_the_manager_hears_of_the_start_each_reload_the_pings_and_the_end(
    service: Service, tmp_path: Path, mosquitto: Mosquitto, made: bundles.Made
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        reporting = Service(tmp_path, made, broker=f"mqtt://127.0.0.1:{mosquitto.port}")
        try:
            reporting.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
            assert manager.recv(4096) == b"READY=1\nSTATUS=serving tiny 1.0"
            assert [manager.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
            signalled(reporting, signal.SIGHUP)
            heard = b""
            while b"READY=1" not in heard:
                heard += manager.recv(4096)
            assert b"RELOADING=1\nMONOTONIC_USEC=" in heard
            assert reporting.stop() == 0
            while (last := manager.recv(4096)) == b"WATCHDOG=1":
                pass
            assert last == b"STOPPING=1"
        finally:
            reporting.close()


STUCK = """
import sys, threading
from edgekit_runtime import reporter
from edgekit_runtime.__main__ import main

reporter.Reporter._report = lambda *_: threading.Event().wait()
sys.exit(main(sys.argv[1:]))
"""
"""As when a disk hangs for ever under the thread that stores windows."""


def test_the_ping_stops_where_a_thread_of_the_service_is_stuck(tmp_path: Path, made: bundles.Made) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        stuck = Service(tmp_path, made, broker=f"mqtt://127.0.0.1:{free_port()}")
        environ = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
        with stuck.log_path.open("wb") as log:
            stuck.process = subprocess.Popen(
                [sys.executable, "-c", STUCK, "run", "--config", str(stuck.config)], stderr=log, env=environ
            )
        try:
            words = "no ping to the watchdog: no sign of life from the reporter"
            wait_until(lambda: words in stuck.log or stuck.process.poll() is not None, "the watchdog")  # type: ignore[union-attr]
            with contextlib.suppress(BlockingIOError):
                while manager.recv(4096):
                    pass
            # Twice round the loop: requests are answered, and no ping goes out.
            for _ in range(20):
                assert stuck.infer()[0] == 200
                time.sleep(0.1)
            with pytest.raises(BlockingIOError):
                manager.recv(4096)
        finally:
            stuck.process.kill()
            stuck.process.wait()


def test_logs_are_lines_of_json_where_that_is_set(service: Service, tmp_path: Path) -> None:
    service.config.write_text(service.config.read_text() + '[log]\nformat = "json"\n')
    service.start()
    reread(service)
    assert service.stop() == 0
    messages = [json.loads(line)["message"] for line in service.log.splitlines()]
    assert messages[0].startswith("verified tiny 1.0, signed by key")
    assert messages[-1] == "stopping no new requests; storing the last window"
    service.config.write_text(service.config.read_text().replace("tiny-1.0.edge", "none.edge"))
    with pytest.raises(AssertionError):
        service.start()
    (line,) = service.log.splitlines()
    assert json.loads(line)["level"] == "critical"


def test_it_starts_cleanly_after_being_killed_at_any_time(tmp_path: Path, made: bundles.Made) -> None:
    service = Service(tmp_path, made, broker=f"mqtt://127.0.0.1:{free_port()}")
    draw = random.Random(0)
    try:
        for _ in range(3):  # while it starts
            service.spawn()
            time.sleep(draw.uniform(0.0, 1.5))
            service.stop(signal.SIGKILL)
        for _ in range(3):  # while windows are stored, three a second
            service.start()
            service.infer()
            time.sleep(draw.uniform(0.0, 0.7))
            service.stop(signal.SIGKILL)
        # What a crash can leave behind: a socket that nobody hears, a lock that nobody holds, half a file.
        if not service.socket_path.exists():
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(service.socket_path))
        (tmp_path / "state" / "lock").write_text('{"pid": 1, "addr')
        service.start()
        assert service.infer(unix=True)[0] == 200
        assert service.stop() == 0
        assert "Traceback" not in service.log
    finally:
        service.close()


def test_without_a_free_descriptor_it_goes_on_and_counts_on(tmp_path: Path) -> None:
    careful = bundles.make(tmp_path, monitoring=Monitoring(abstain_below=0.99))
    service = Service(tmp_path, careful, broker="mqtt://127.0.0.1:1")  # nobody is there
    service.start()
    try:
        assert service.process is not None
        wait_until(lambda: "telemetry   to" in service.log, "telemetry")
        pid, limits = service.process.pid, resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
        kept = http.client.HTTPConnection("127.0.0.1", service.port, timeout=30)

        def ask_kept(method: str, path: str, body: Any = None) -> tuple[int, bytes]:
            kept.request(method, path, None if body is None else json.dumps(body))
            response = kept.getresponse()
            return response.status, response.read()

        assert ask_kept("GET", "/v2")[0] == 200
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, limits[1]))
        inputs = [
            {"name": name, "shape": [4], "datatype": "BYTES" if name == "sex" else "FP64", "data": column}
            for name, column in bundles.ROWS.items()
        ]
        status, body = ask_kept("POST", "/v2/models/tiny/infer", {"inputs": inputs})
        assert (status, json.loads(body)["parameters"]["edgekit_abstain"]) == (200, True)
        status, body = ask_kept("GET", "/metrics")
        assert (status, b"process_resident_memory_bytes" in body, b"\nprocess_open_fds " in body) == (200, True, False)
        wait_until(lambda: "doubtful answers are not kept" in service.log, "the review queue that cannot be opened")
        time.sleep(0.7)  # two windows
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        assert ask_kept("POST", "/v2/models/tiny/infer", {"inputs": inputs})[0] == 200
        kept.close()
        assert service.stop() == 0
        assert "Traceback" not in service.log
    finally:
        service.close()
    with Outbox(tmp_path / "state" / "outbox.db", "dev-1") as outbox:
        assert sum(one.n for one in outbox.waiting() if one.kind is Kind.WINDOW) == 8
