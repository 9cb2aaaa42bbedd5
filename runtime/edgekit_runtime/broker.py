"""Where an MQTT broker is, and how to speak with it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from hashlib import blake2s
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from edgekit_contracts.errors import MissingFile, UsageError
from edgekit_runtime.config import Protocol, Telemetry

_PORTS: Final = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where an MQTT broker is and how to speak with it.

    Attributes:
        others: Further (host, port) of the same broker, where it is a cluster.
        protocol: 4 is MQTT 3.1.1, which every broker speaks; `"auto"` speaks MQTT 5 where the broker does.
        ca: PEM file of the authority that signed the broker's certificate; None for the system's.
        cert: PEM file of our certificate, where the broker asks for one.
        key: PEM file of its key.
    """

    host: str
    port: int = 1883
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    protocol: Protocol = 4
    others: tuple[tuple[str, int], ...] = ()

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        username: str | None = None,
        password: str | None = None,
        ca: Path | str | None = None,
        cert: Path | str | None = None,
        key: Path | str | None = None,
        protocol: Protocol = 4,
    ) -> Broker:
        """Reads `mqtt://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]...]` or `mqtts://...`.

        Several places are one cluster. The arguments win over the URL.

        Raises:
            UsageError: No such address. The message holds no password.
        """
        scheme, _, rest = url.partition("://")
        user, at, places = rest.removesuffix("/").rpartition("@")
        default_port = _PORTS.get(scheme.lower())
        found = [place for text in places.split(",") if (place := _place(text, default_port))]
        if len(found) <= places.count(","):
            shown = url.rpartition("@")[2]
            raise UsageError(f"'{shown}' is not a broker's address", "write mqtt://HOST:1883 or mqtts://HOST:8883")
        (host, port), *others = found
        name, colon, secret = user.partition(":")
        return cls(
            host=host,
            port=port,
            others=tuple(others),
            tls=scheme.lower() == "mqtts",
            username=username if username is not None or not at else unquote(name),
            password=password if password is not None or not colon else unquote(secret),
            ca=None if ca is None else Path(ca),
            cert=None if cert is None else Path(cert),
            key=None if key is None else Path(key),
            protocol=protocol,
        )

    @property
    def places(self) -> tuple[Broker, ...]:
        """Each place alone."""
        first = replace(self, others=())
        return (first, *(replace(first, host=host, port=port) for host, port in self.others))

    def client_id(self, name: str) -> str:
        """The MQTT client identifier of who calls itself so.

        Where we show a certificate, a part of it follows from the private key. Nobody else can come under it, and push
        us off the broker by that; we ourselves can, to take the place of a connection that was cut.

        Raises:
            OSError: The key cannot be read.
        """
        file = self.key or self.cert
        if not self.tls or file is None:
            return name
        return f"{name}-{blake2s(file.read_bytes(), person=b'ek-mqtt').hexdigest()[:16]}"

    def __str__(self) -> str:
        places = ((self.host, self.port), *self.others)
        shown = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in places)
        return f"{'mqtts' if self.tls else 'mqtt'}://{shown}"


def read_password(path: Path | str) -> str:
    """The password in a file, without the line's end.

    Raises:
        MissingFile: The file cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise MissingFile("password file", str(path), getattr(error, "strerror", None) or str(error)) from error


def broker_of(telemetry: Telemetry) -> Broker:
    """The broker that the settings name.

    Raises:
        UsageError: Its address is none.
        MissingFile: The password file cannot be read.
    """
    return Broker.parse(
        telemetry.broker,
        username=telemetry.username,
        password=read_password(telemetry.password_file) if telemetry.password_file else None,
        ca=telemetry.ca,
        cert=telemetry.cert,
        key=telemetry.key,
        protocol=telemetry.protocol,
    )


def _place(text: str, default_port: int | None) -> tuple[str, int] | None:
    """`HOST[:PORT]` as (host, port), or None."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or default_port
    except ValueError:
        return None
    return (host, port) if host and port and default_port and parts.netloc == text else None
