"""`device.toml`: what a device's service is told. `settings` reads it; paths in it are relative to the file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.manifest import AutomationLevel, ClassLabel
from edgekit_contracts.names import DeviceName
from edgekit_contracts.slots import Plan

SparkplugId = Annotated[str, msgspec.Meta(pattern=r"^[^+/#\x00-\x1f]{1,63}(?!\n)$")]
"""Sparkplug 3.0, 4.1: any text but for the characters that MQTT reserves."""
Protocol = Literal["auto", 4, 5]
"""A version of MQTT: 4 is 3.1.1."""


class Serve(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the service answers."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] | Literal["off"] = 8080
    """0 takes a free port and says which; `"off"` serves on the socket alone."""
    socket: str | None = None
    """Path of a Unix socket."""
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    """Threads that ONNX Runtime uses inside one call."""
    max_request_bytes: Annotated[int, msgspec.Meta(ge=1024, le=limits.REQUEST_LARGEST_BYTES)] = limits.REQUEST_MAX_BYTES
    """A larger request is refused with 413."""
    max_rows: Annotated[int, msgspec.Meta(ge=1, le=limits.REQUEST_LARGEST_BYTES)] = limits.REQUEST_MAX_ROWS
    """More rows in one request are refused with 413."""
    max_head_bytes: Annotated[int, msgspec.Meta(ge=1024, le=limits.REQUEST_HEAD_MAX_BYTES)] = 16 * limits.KIB
    """More in a request's head is refused with 431."""
    max_connections: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 256
    """One more is answered with 503 and closed."""
    max_concurrent: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 64
    """Requests that may be under way, their bodies in memory; one more is answered with 503."""
    max_rate: Annotated[float, msgspec.Meta(gt=0)] | None = None
    """Inference requests a second, over all clients; more are answered with 429. Bursts of a second's worth pass."""
    request_timeout_s: Annotated[float, msgspec.Meta(ge=0.05, le=3600)] = limits.REQUEST_MAX_S
    """From a request's first byte to its last, then 408; and for the client to read the answer."""
    deadline_s: Annotated[float, msgspec.Meta(ge=0.001, le=3600)] | None = None
    """From an inference request's last byte to its answer, then 504 instead; a client may allow less."""
    idle_timeout_s: Annotated[float, msgspec.Meta(ge=0.05, le=86_400)] = 60.0
    """A connection without a request is closed after it."""
    drain_timeout_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
    """What a service that stops gives to the requests under way."""


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
    """May be the same file as `cert`, which then holds both."""
    enrolment: str | None = None
    """`https://host:8884`: where the certificate is renewed, in good time."""
    protocol: Protocol = "auto"
    """`"auto"`: MQTT 5 where the broker speaks it, else 3.1.1, which is 4."""
    budget: Literal["tiny", "normal"] | None = None
    """10 kB or 50 kB a day (`edgekit_runtime.thrift`): the four settings that follow, unless they are set."""
    merge_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None
    """Windows are added up to this length before they are sent; 0: never."""
    send_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None
    """Windows are sent every so often, together; 0: at once. Events never wait."""
    moments: bool | None = None
    """Whether windows carry moments, where the bundle allows them."""
    keepalive_s: Annotated[int, msgspec.Meta(ge=5, le=65_535)] | None = None
    """Silence after which the connection is asked whether it stands."""
    daily_cap_kb: Annotated[float, msgspec.Meta(ge=1)] | None = None
    """Units of 1,000 bytes of MQTT a day, both ways, the reference apart."""
    window_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400)] | None = None
    """Instead of the bundle's."""
    outbox_mb: Annotated[float, msgspec.Meta(ge=1, le=100_000)] = 64.0
    keep_windows_h: Annotated[float, msgspec.Meta(gt=0)] = 2160.0
    """A window that waits longer is given up, in hours that the service runs."""
    keep_events_h: Annotated[float, msgspec.Meta(gt=0)] = 720.0
    replay_kb_s: Annotated[float, msgspec.Meta(ge=0.1)] | Literal["unlimited"] = 2.0
    """What has piled up is sent at this pace, beside what is produced meanwhile; units of 1,000 bytes a second."""
    infer: bool = False
    """Requests that come over the broker are answered too."""
    sparkplug: bool = False
    """The device is an edge node of Sparkplug B as well."""
    sparkplug_group: SparkplugId = "edgekit"
    sparkplug_host: SparkplugId | None = None
    """The primary host, without which the node is not born; None: it waits for nobody."""
    home_assistant: bool = False
    """The device announces itself to Home Assistant."""

    def __post_init__(self) -> None:
        if self.enrolment is not None and (self.ca is None or self.cert is None or self.cert != self.key):
            raise ValueError("with enrolment, name ca, and one file as both cert and key")


class CandidateSettings(Plan, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bundle that is tried beside the live one, and how."""

    bundle: str


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model that is served."""

    bundle: str
    threads: Annotated[int, msgspec.Meta(ge=1, le=64)] | None = None
    """Instead of `serve.threads`."""
    automation: AutomationLevel | None = None
    """Lowers the bundle's level; it cannot be raised."""
    safe_answer: ClassLabel | None = None
    """Given where the model abstains or fails, or is at the level `shadow`: a class, or a number."""
    group_rows: Annotated[int, msgspec.Meta(ge=1, le=limits.REQUEST_MAX_ROWS)] | None = None
    """Requests that arrive at once are answered by one call of up to so many rows; None: each by its own."""
    candidate: CandidateSettings | None = None


class ReviewSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The bounds of the review queue."""

    max_items: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    max_mb: Annotated[float, msgspec.Meta(gt=0)] = 16.0
    per_minute: Annotated[float, msgspec.Meta(gt=0)] = 6.0
    """Rows a minute of each label."""


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written to standard error, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"
    """`json` writes one object a line."""


class DeviceConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device's service. Without `[telemetry]` it answers and reports nothing."""

    device: DeviceName
    """Without `[telemetry]` the host's name, unless one is given."""
    bundle: str | None = None
    """The one model that is served, or several in `models`."""
    models: tuple[ModelSettings, ...] = ()
    keys: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    """Public key files that are trusted."""
    state_dir: str = "state"
    self_test_every_h: Annotated[float, msgspec.Meta(ge=0.0001, le=8760)] | None = None
    """Hours between two self-tests of what is live; None: at the start, before each exchange and on demand alone."""
    serve: Serve = Serve()
    telemetry: Telemetry | None = None
    review: ReviewSettings = ReviewSettings()
    log: Log = Log()

    def __post_init__(self) -> None:
        if (self.bundle is None) == (not self.models):
            raise ValueError("name either one bundle or [[models]]")

    @property
    def served(self) -> tuple[ModelSettings, ...]:
        """The models, also where there is only one bundle."""
        return self.models if self.bundle is None else (ModelSettings(bundle=self.bundle),)
