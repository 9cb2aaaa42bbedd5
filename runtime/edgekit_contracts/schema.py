"""JSON Schema of every format, generated from the types: `python -m edgekit_contracts.schema DIRECTORY`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from edgekit_contracts import alerts, enrolment, golden, manifest, profile, reference, slots, state, telemetry

DOCUMENTS: Final[dict[str, type[msgspec.Struct]]] = {
    "manifest": manifest.Manifest,
    "reference": reference.Reference,
    "golden": golden.GoldenSet,
    "profile": profile.DeviceProfile,
    "status": state.Status,
    "now": state.Now,
    "want": state.Want,
    "host": state.Host,
    "alert": alerts.Alert,
    "slots": slots.Slots,
    "enrolment-request": enrolment.Request,
    "enrolment-grant": enrolment.Grant,
    "telemetry-envelope": telemetry.Envelope,
    "telemetry-window": telemetry.Window,
    "telemetry-gap": telemetry.Gap,
    "telemetry-reference-part": telemetry.ReferencePart,
    "telemetry-event": telemetry.Event,
    "telemetry-labels": telemetry.Labels,
    "telemetry-ack": telemetry.Ack,
}
"""File name -> type. The telemetry schemas describe the arrays as they would look in JSON."""


def _hook(kind: type) -> dict[str, Any]:
    if kind is msgspec.Raw:
        return {"description": "the body, of the type that `kind` announces"}
    raise NotImplementedError(kind)


def document(name: str) -> bytes:
    """The JSON Schema (2020-12) of one document, as it stands in docs/formats."""
    (tree,), components = msgspec.json.schema_components(
        [DOCUMENTS[name]], ref_template="#/$defs/{name}", schema_hook=_hook
    )
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": name, **tree, "$defs": components}
    return msgspec.json.format(msgspec.json.encode(schema), indent=2) + b"\n"


def main(directory: str) -> None:
    """Writes all schemas into `directory`."""
    for name in DOCUMENTS:
        Path(directory, f"{name}.schema.json").write_bytes(document(name))


if __name__ == "__main__":
    main(sys.argv[1])
