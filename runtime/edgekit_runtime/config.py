"""`device.toml`: what a device's service is told. Paths in it are relative to the file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_toml
from edgekit_contracts.errors import MissingFile
from edgekit_contracts.names import DeviceName


class Serve(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the service answers."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | Literal["off"] = 8080
    """0 takes a free port and says which; `"off"` serves on the socket alone."""
    socket: str | None = None
    """Path of a Unix socket."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    """Threads that ONNX Runtime uses inside one call."""


class Telemetry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the windows go."""

    broker: str
    """`mqtt://host:1883` or `mqtts://host:8883`."""
    username: str | None = None
    password_file: str | None = None
    """A file, never the password itself."""
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    protocol: Literal[4, 5] = 4
    """4 is MQTT 3.1.1, which every broker speaks; 5 where the broker is known to."""
    window_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400)] | None = None
    """Instead of the bundle's."""
    outbox_mb: Annotated[float, msgspec.Meta(ge=1, le=100_000)] = 64.0


class DeviceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device's service. Without `[telemetry]` it answers and reports nothing."""

    device: DeviceName
    bundle: str
    keys: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Public key files that are trusted."""
    state_dir: str = "state"
    serve: Serve = Serve()
    telemetry: Telemetry | None = None


def load_config(path: Path) -> DeviceConfig:
    """Reads `device.toml` and makes its paths absolute.

    Raises:
        MissingFile: It cannot be read.
        FormatError: A setting is missing, unknown or wrong; the error names its path.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MissingFile("configuration", str(path), error.strerror or str(error)) from error
    config = decode_toml(data, DeviceConfig, what="configuration", limit=limits.CONFIG_MAX_BYTES)
    base = path.resolve().parent

    def at(name: str) -> str:
        return str(base / name)

    def maybe(name: str | None) -> str | None:
        return None if name is None else at(name)

    telemetry = config.telemetry
    return msgspec.structs.replace(
        config,
        bundle=at(config.bundle),
        keys=tuple(at(key) for key in config.keys),
        state_dir=at(config.state_dir),
        serve=msgspec.structs.replace(config.serve, socket=maybe(config.serve.socket)),
        telemetry=telemetry
        and msgspec.structs.replace(
            telemetry,
            password_file=maybe(telemetry.password_file),
            ca=maybe(telemetry.ca),
            cert=maybe(telemetry.cert),
            key=maybe(telemetry.key),
        ),
    )
