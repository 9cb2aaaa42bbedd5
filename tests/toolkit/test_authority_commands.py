"""`edgekit fleet ca`, `enrol`, `revoke` and `broker-config`, as a person types them."""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from edgekit.cli import run


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_an_authority_to_a_broker_and_a_revocation(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fleet", "ca", "init"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert folder == place / "config" / "edgekit" / "authority"
    assert run(["fleet", "ca", "issue", "collector.main"]) == 0
    assert stat.S_IMODE((place / "collector.main.pem").stat().st_mode) == 0o600
    assert run(["fleet", "enrol", "token", "press-7", "--for", "30min"]) == 0
    token = capsys.readouterr().out.split()[-1]
    assert token.startswith("ek1-")
    assert run(["fleet", "broker-config", "--host", "b.example", "--collector", "main", "-o", "broker"]) == 0
    assert sorted(os.listdir("broker")) == [
        "acl",
        "authority.pem",
        "broker.key",
        "broker.pem",
        "crl.pem",
        "mosquitto.conf",
    ]
    assert stat.S_IMODE(Path("broker/broker.key").stat().st_mode) == 0o600
    for line in Path("broker/mosquitto.conf").read_text().splitlines():
        assert "%c" not in line or line.startswith("#")
    assert "collector.main\ntopic deny" not in Path("broker/acl").read_text()
    assert run(["fleet", "revoke", "collector.main", "--broker", "broker"]) == 0
    assert Path("broker/acl").read_text().endswith("user collector.main\ntopic deny ek/1/#\n")
    capsys.readouterr()
    assert run(["fleet", "ca", "list", "--json"]) == 0
    (server, member) = sorted(json.loads(capsys.readouterr().out)["certificates"], key=lambda one: one["name"] < "s")
    assert (server["name"], server["revoked_ms"]) == ("server b.example", None)
    assert (member["name"], member["for"]) == ("collector.main", "here")
    assert member["revoked_ms"]
    assert run(["fleet", "ca", "list"]) == 0
    assert "revoked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["ca", "init"], 2, "already"),
        (["ca", "issue", "Press"], 2, "cannot be a certificate's name"),
        (["enrol", "token", "a/b"], 2, "cannot be a certificate's name"),
        (["enrol", "token", "press-7", "--for", "soon"], 2, "write 30min, 1h or 7d"),
        (["enrol", "sign", "gone.csr"], 2, "cannot read the request gone.csr"),
        (["enrol", "sign", "config"], 2, "cannot read the request config"),
        (["revoke", "press-7"], 2, "no good certificate"),
        (["ca", "publish", "gone"], 2, "cannot read the access rules"),
        (["broker-config", "--host", "b", "--collector", "A", "-o", "b"], 2, "cannot be a device's name"),
        (["broker-config", "--host", "b", "--sparkplug", "a/b", "-o", "b"], 2, "no group of Sparkplug"),
    ],
)
def test_what_is_refused_says_what_to_do(
    arguments: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fleet", "ca", "list"]) == 2
    assert "edgekit fleet ca init" in capsys.readouterr().err
    assert run(["fleet", "ca", "init"]) == 0
    assert run(["fleet", *arguments]) == code
    assert words in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_in_the_system_s_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["fleet", "ca", "init"]) == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        serve = ["fleet", "enrol", "serve", "--host", "localhost", "--listen", "127.0.0.1", "--port", port]
        assert run(serve) == 3
    assert f"Error: cannot listen on 127.0.0.1:{port}: Address already in use\n" in capsys.readouterr().err
