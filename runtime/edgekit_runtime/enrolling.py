"""`edgekit-runtime enrol`: gives this device its certificate, by a token or, without a network, by two files."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from pathlib import Path

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.enrolment import Token, decode_grant
from edgekit_contracts.errors import MissingFile, StorageFault, UsageError
from edgekit_contracts.names import check_holder
from edgekit_runtime.config import DeviceConfig, Telemetry
from edgekit_runtime.enrolment import Address, enrol, renew
from edgekit_runtime.identity import Identity, signing_request
from edgekit_runtime.lock import holder
from edgekit_runtime.settings import find_file, load_settings

IDENTITY_NAME = "identity.pem"
CA_NAME = "ca.pem"


class _Place(msgspec.Struct, frozen=True):
    """Whose certificate it is, and where it lies."""

    device: str
    identity: Identity
    telemetry: Telemetry | None
    state_dir: Path | None


def run(options: argparse.Namespace) -> int:
    """Does what the options say, and prints what to set.

    Raises:
        UsageError: They contradict one another, or lack something.
        EdgekitError: As `enrol`, `renew` and `Identity.install`.
    """
    ways = [options.renew, options.request is not None, options.accept is not None, options.token is not None]
    if sum(ways) != 1:
        raise UsageError(
            "say how this device is to be enrolled, in one way",
            "edgekit-runtime enrol https://HOST:8884 TOKEN; or --renew; or --request FILE, and later --accept FILE",
        )
    place = _place(options)
    if options.request is not None:
        return _request(place, options.request)
    url: str | None = options.url or (place.telemetry.enrolment if place.telemetry else None)
    if options.accept is not None:
        until = place.identity.install(decode_grant(_read(options.accept)), place.device).not_valid_after_utc
    elif options.renew:
        if url is None:
            raise UsageError("no enrolment service is named", "give its address, or set telemetry.enrolment")
        until = renew(Address.parse(url), place.identity, place.device)
    else:
        text = sys.stdin.readline() if options.token == "-" else options.token
        until = enrol(Address.parse(options.url), Token.parse(text), place.identity, place.device)
    print(f"{place.device} has a certificate until {until:%Y-%m-%d}: {place.identity.path}", file=sys.stderr)
    _tell_settings(place, url)
    _tell_service(place)
    return 0


def _place(options: argparse.Namespace) -> _Place:
    path = find_file(options.config)
    config: DeviceConfig | None = None if path is None else load_settings(path).config
    device = options.device or (None if config is None else config.device)
    if device is None or (options.dir is None and config is None):
        raise UsageError(
            "there is no device.toml that names the device and its state_dir",
            "name it with --config, or give --device NAME and --dir DIRECTORY",
        )
    telemetry = None if config is None else config.telemetry
    folder = options.dir or Path(config.state_dir if config else ".")
    cert, ca = folder / IDENTITY_NAME, folder / CA_NAME
    if options.dir is None and telemetry is not None and (telemetry.cert or telemetry.key):
        if telemetry.cert is None or telemetry.cert != telemetry.key:
            raise UsageError(
                "device.toml names certificate and key in two files, which cannot be changed in one step",
                "set telemetry.cert and telemetry.key to one file, which will hold both",
            )
        cert, ca = Path(telemetry.cert), Path(telemetry.ca or ca)
    state_dir = None if config is None else Path(config.state_dir)
    return _Place(check_holder(device), Identity(cert.absolute(), ca.absolute()), telemetry, state_dir)


def _request(place: _Place, path: Path) -> int:
    csr = signing_request(place.identity.next_key(), place.device)
    try:
        path.write_text(csr)
    except OSError as error:
        raise StorageFault(str(path), error.strerror or str(error)) from error
    print(
        f"{path}: take it to the authority (edgekit fleet enrol sign {path.name}), bring back what that writes, and "
        "run edgekit-runtime enrol --accept FILE; the key stays here",
        file=sys.stderr,
    )
    return 0


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(limits.ENROLMENT_MAX_BYTES + 1)
    except OSError as error:
        raise MissingFile("grant", str(path), error.strerror or str(error)) from error


def _tell_settings(place: _Place, url: str | None) -> None:
    """The lines of device.toml, unless they stand there."""
    identity, told = str(place.identity.path), place.telemetry
    wanted = {"ca": str(place.identity.ca), "cert": identity, "key": identity} | ({"enrolment": url} if url else {})
    if told is not None and all(getattr(told, name) == value for name, value in wanted.items()):
        return
    print("set this in [telemetry] of device.toml:", file=sys.stderr)
    for name, value in wanted.items():
        print(f'{name} = "{value}"')


def _tell_service(place: _Place) -> None:
    """A service that runs connects anew."""
    held = None if place.state_dir is None else holder(place.state_dir)
    if held is None or not held.pid:
        return
    with contextlib.suppress(OSError):
        os.kill(held.pid, signal.SIGHUP)
        print(f"the service (process {held.pid}) was told", file=sys.stderr)
