"""The service's own addresses, and each step of the way to the broker."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgekit_contracts.errors import BrokerUnreachable, EdgekitError, PortInUse
from edgekit_runtime import ask
from edgekit_runtime.broker import Broker
from edgekit_runtime.config import DeviceConfig, Serve
from edgekit_runtime.doctor.finding import Finding
from edgekit_runtime.doctor.machine import Machine
from edgekit_runtime.mqtt import probe
from edgekit_runtime.tls import client_context

TIMEOUT_S: Final = 5.0
SOCKET_MAX_BYTES: Final = 107
"""unix(7): `sun_path` has 108 bytes, with a null at the end."""


def port(machine: Machine, config: DeviceConfig) -> Iterator[Finding]:
    """Whether the addresses of `[serve]` are free, or our own service's."""
    serve = config.serve
    if serve.port != "off":
        yield _tcp(machine, serve)
    if serve.socket is not None:
        address = f"unix:{serve.socket}"
        if len(os.fsencode(serve.socket)) > SOCKET_MAX_BYTES:
            long = f"{serve.socket}: the path of a socket has at most {SOCKET_MAX_BYTES} bytes"
            yield Finding("socket", "FAIL", long, "choose a shorter one")
        elif not _is_listening(Path(serve.socket)):
            yield Finding("socket", "ok", f"{serve.socket} is free")
        else:
            yield _held("socket", address, "another process")
    elif serve.port == "off":
        yield Finding("port", "FAIL", "the service has neither a port nor a socket", "set serve.socket or serve.port")


def _tcp(machine: Machine, serve: Serve) -> Finding:
    assert isinstance(serve.port, int)
    host = f"[{serve.host}]" if ":" in serve.host else serve.host
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(serve.host, serve.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(target)
            tried.listen(1)  # two may bind one port with SO_REUSEADDR, and only one may listen
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _held("port", f"http://{host}:{serve.port}", _owner(machine, serve.port))
        return Finding.of("port", PortInUse(f"{host}:{serve.port}", error.strerror or str(error), error.errno))
    return Finding("port", "ok", f"{host}:{serve.port} is free" if serve.port else "any free one")


def _held(check: str, address: str, owner: str) -> Finding:
    try:
        status, body = ask.ask([ask.reachable(address)], "/edgekit/status", timeout_s=TIMEOUT_S)
    except EdgekitError:
        status, body = 0, None
    if status == 200 and isinstance(body, dict) and "device" in body:
        return Finding(check, "ok", f"{address}: our own service, device {body['device']}")
    return Finding(check, "FAIL", f"{address} is held by {owner}", f"stop it, or set serve.{check}")


def _owner(machine: Machine, port: int) -> str:
    """The process that listens on a TCP port, as far as this user may see it."""
    listening = re.compile(rf"\s*\d+: [0-9A-F]+:{port:04X} \S+ 0A (?:\S+ ){{3,4}}\s*\d+\s+\d+ (\d+)")
    inodes = {
        match[1]
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in machine.read(table).splitlines()
        if (match := listening.match(line))
    }
    for link in machine.root.glob("proc/[0-9]*/fd/*"):
        try:
            if os.readlink(link) in {f"socket:[{inode}]" for inode in inodes}:
                pid = link.parts[-3]
                return f"process {pid} ({machine.read(f'/proc/{pid}/comm') or 'unknown'})"
        except OSError:
            continue
    return "another process"


def _is_listening(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(TIMEOUT_S)
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True


def broker(broker: Broker) -> Iterator[Finding]:
    """The way to each place of the broker: while one of several lets us in, another that fails is a warning."""
    found = [finding for place in broker.places for finding in _way(place)]
    reached = any(finding.verdict == "ok" for finding in found)
    for finding in found:
        yield replace(finding, verdict="warn") if reached and finding.verdict == "FAIL" else finding


def _way(broker: Broker) -> Iterator[Finding]:
    """Up to the first step that fails: name, TCP, TLS, MQTT."""
    try:
        where = socket.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM)[0][4]
    except OSError as error:
        yield _broken(broker, f"its name has no address: {error.strerror}", "check the name, and this device's DNS")
        return
    try:
        connection = socket.create_connection((str(where[0]), broker.port), TIMEOUT_S)
    except OSError as error:
        step = "start the broker, or correct its address; a firewall may be between"
        yield _broken(broker, f"no TCP connection: {error.strerror or error}", step)
        return
    try:
        with connection:
            if broker.tls:
                context = client_context(broker.ca, broker.cert, broker.key)
                context.wrap_socket(connection, server_hostname=broker.host).close()
    except EdgekitError as error:
        yield Finding.of("broker", error)
    except ssl.SSLCertVerificationError as error:
        step = "name the authority that issued its certificate with telemetry.ca, and check the clock"
        yield _broken(broker, f"its certificate is refused: {error.verify_message}", step)
    except OSError as error:
        reason = getattr(error, "reason", None) or error.strerror or error
        step = "check that this is its TLS port, and the files telemetry.ca, cert and key"
        yield _broken(broker, f"the TLS handshake fails: {reason}", step)
    else:
        yield _mqtt(broker)


def _mqtt(broker: Broker) -> Finding:
    try:
        dialect = probe(broker, TIMEOUT_S)
    except BrokerUnreachable as refused:
        step = "check telemetry.username, password_file, cert and key, and telemetry.protocol"
        return Finding("broker", "FAIL", refused.sentence, step)
    except EdgekitError as error:
        return Finding.of("broker", error)
    return Finding("broker", "ok", f"{broker} answers, lets this device in, and speaks {dialect}")


def _broken(broker: Broker, reason: str, step: str) -> Finding:
    return Finding("broker", "FAIL", f"{broker}: {reason}", step)
