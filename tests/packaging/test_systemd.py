"""The unit under a real systemd, with its user, its sandbox and its watchdog. `make systemd`, as root."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator

import pytest

from tests import systemd
from tests.brokers import free_port, wait_until
from tests.systemd import Machine

CORPUS = systemd.ROOT / "tests" / "corpus" / "bundle-1.0"
SETTINGS = """
device = "dev-1"
bundle = "progression-1.0.edge"
keys = ["signer.pub.pem"]
[serve]
port = {port}
"""
PATIENCE_S = 60

pytestmark = pytest.mark.systemd


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def machine(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    files = (CORPUS / "progression-1.0.edge", CORPUS / "signer.pub.pem")
    with systemd.machine(tmp_path_factory.mktemp("machine"), SETTINGS.format(port=port), *files) as machine:
        yield machine


@pytest.fixture
def service(machine: Machine) -> Iterator[Machine]:
    machine.type("systemctl", "start", "edgekit-runtime")
    yield machine
    machine.type("systemctl", "stop", "edgekit-runtime")
    machine.type("systemctl", "reset-failed", "edgekit-runtime", fails=True)


def ready(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=10) as answer:
        return bool(json.load(answer) == {"ready": True})


def test_it_is_started_when_it_answers_and_as_nobody_s_user(service: Machine, port: int) -> None:
    assert ready(port)
    assert service.shown("ActiveState") == "active"
    assert service.shown("StatusText") == "serving progression 1.0"
    process = service.shown("MainPID")
    assert service.type("stat", "-c", "%U", f"/proc/{process}") == "edgekit-runtime"
    assert service.type("stat", "-L", "-c", "%U %a", "/var/lib/edgekit") == "edgekit-runtime 750"
    assert service.type("stat", "-c", "%U %a", "/run/edgekit/edgekit.sock") == "edgekit-runtime 660"


def test_a_reload_and_a_self_test_leave_it_running(service: Machine, port: int) -> None:
    process = service.shown("MainPID")
    service.type("systemctl", "reload", "edgekit-runtime")
    service.type("systemctl", "kill", "--signal", "USR1", "edgekit-runtime")
    wait_until(lambda: "settings read again" in service.journal and "golden rows right" in service.journal, "both")
    assert service.shown("MainPID") == process
    assert ready(port)


def test_one_that_is_killed_is_started_again(service: Machine, port: int) -> None:
    process = service.shown("MainPID")
    service.type("kill", "-9", process)
    wait_until(lambda: service.shown("MainPID") not in {process, "0"}, "another process", PATIENCE_S)
    wait_until(lambda: service.shown("SubState") == "running", "its start", PATIENCE_S)
    assert ready(port)


def test_one_that_is_stuck_is_ended_and_started_again(service: Machine, port: int) -> None:
    unit = "/etc/systemd/system/edgekit-runtime.service.d/watchdog.conf"
    service.type("sh", "-c", f"printf '[Service]\\nWatchdogSec=4\\n' > {unit} && systemctl daemon-reload")
    service.type("systemctl", "restart", "edgekit-runtime")
    process = service.shown("MainPID")
    service.type("sleep", "9")
    assert service.shown("MainPID") == process  # it pings
    service.type("kill", "-STOP", process)
    wait_until(lambda: service.shown("MainPID") not in {process, "0"}, "another process", PATIENCE_S)
    wait_until(lambda: service.shown("SubState") == "running", "its start", PATIENCE_S)
    assert ready(port)


def test_a_stop_stores_the_last_window(machine: Machine) -> None:
    machine.type("systemctl", "start", "edgekit-runtime")
    machine.type("systemctl", "stop", "edgekit-runtime")
    assert machine.shown("Result") == "success"
    assert machine.shown("ActiveState") == "inactive"
    assert "storing the last window" in machine.journal


def test_a_bundle_that_is_refused_is_not_tried_for_ever(machine: Machine) -> None:
    machine.type("sh", "-c", "cd /etc/edgekit && cp signer.pub.pem good && echo none > signer.pub.pem")
    try:
        machine.type("systemctl", "start", "edgekit-runtime", fails=True)
        wait_until(lambda: machine.shown("ActiveState") == "failed", "the last start", PATIENCE_S)
        assert machine.shown("NRestarts") == "5"
        assert "signer.pub.pem" in machine.journal
    finally:
        machine.type("sh", "-c", "cd /etc/edgekit && mv good signer.pub.pem")
        machine.type("systemctl", "reset-failed", "edgekit-runtime")
