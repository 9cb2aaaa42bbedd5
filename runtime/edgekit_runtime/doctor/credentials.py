"""Certificates, keys and the password file: there, readable, in time, and secret where they must be."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from edgekit_contracts.errors import EdgekitError
from edgekit_runtime.config import DeviceConfig, Telemetry
from edgekit_runtime.doctor.finding import Finding
from edgekit_runtime.doctor.machine import Machine
from edgekit_runtime.identity import RENEW_AFTER
from edgekit_runtime.signature import load_public_keys

SOON_DAYS: Final = 30


def public_keys(config: DeviceConfig) -> Iterator[Finding]:
    """The keys that bundles are checked with."""
    try:
        hints = [key.hint[:12] for key in load_public_keys(config.keys)]
    except EdgekitError as error:
        yield Finding.of("keys", error)
    else:
        yield Finding("keys", "ok", f"{len(hints)} trusted: {', '.join(hints)}")


def tls(machine: Machine, telemetry: Telemetry) -> Iterator[Finding]:
    """The certificates of the way to the broker, and our key."""
    for check, path in (("ca", telemetry.ca), ("cert", telemetry.cert)):
        if path is not None:
            yield _certificates(check, Path(path), machine.now())
    if telemetry.key is not None:
        yield _private_key(Path(telemetry.key), telemetry.cert)
    if telemetry.password_file is not None:
        secret = Path(telemetry.password_file)
        yield _readable("password", secret, lambda data: Finding("password", "ok", str(secret)))


def _certificates(check: str, path: Path, now_s: float) -> Finding:
    now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)

    def look(data: bytes) -> Finding:
        found = x509.load_pem_x509_certificates(data)
        first = min(found, key=lambda one: one.not_valid_after_utc)
        name = first.subject.rfc4514_string()
        until = f"{first.not_valid_after_utc:%Y-%m-%d}"
        if first.not_valid_after_utc < now:
            step = "have it issued anew (a device: enrol it again with a token), or set the clock"
            return Finding(check, "FAIL", f"{path}: {name} expired on {until}", step)
        late = max(found, key=lambda one: one.not_valid_before_utc)
        if late.not_valid_before_utc > now:
            begins = f"{late.not_valid_before_utc:%Y-%m-%d}"
            return Finding(check, "FAIL", f"{path}: {name} is valid only from {begins} on", "set the clock")
        days = (first.not_valid_after_utc - now).days
        life = first.not_valid_after_utc - first.not_valid_before_utc
        if days < SOON_DAYS and first.not_valid_after_utc - now < (1 - RENEW_AFTER) * life:
            step = "renew it: edgekit-runtime enrol --renew" if check == "cert" else "have it issued anew"
            return Finding(check, "warn", f"{path}: {name} expires in {days} days ({until})", step)
        return Finding(check, "ok", f"{name}, until {until}")

    return _readable(check, path, look, secret=False)


def _private_key(path: Path, cert: str | None) -> Finding:
    def look(data: bytes) -> Finding:
        key = load_pem_private_key(data, password=None)
        if cert is not None and Path(cert).exists():
            ours = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            certified = x509.load_pem_x509_certificates(Path(cert).read_bytes())[0].public_key()
            if certified.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != ours:
                return Finding("key", "FAIL", f"{path} is not the key of {cert}", "name the key that it was issued for")
        return Finding("key", "ok", str(path))

    return _readable("key", path, look)


def _readable(check: str, path: Path, look: Callable[[bytes], Finding], *, secret: bool = True) -> Finding:
    try:
        mode = path.stat().st_mode
        data = path.read_bytes()
    except OSError as error:
        return Finding(check, "FAIL", f"cannot read {path}: {error.strerror}", "check the path and its permissions")
    try:
        found = look(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        return Finding(
            check, "FAIL", f"{path} is not what it should be: {reason}", "give a PEM file without a password"
        )
    if found.verdict == "ok" and secret and mode & 0o007:
        return Finding(check, "FAIL", f"anybody can read {path}", f"chmod 600 {path}, or 640 for the service's group")
    return found
