"""edgekit: package trained models for small devices, prove them, run them there, watch them from here.

    >>> import edgekit
    >>> edgekit.build(model, data, device="raspberry-pi-4", out="press-1.0.edge")

| package | for |
|---|---|
| `cli` | the `edgekit` command, one thin file for each group |
| `building` (`proving`, `steps`, `lineage`), `profiles`, `keys` | the desk: a model becomes a signed bundle |
| `clauses` | what a manifest says, in words |
| `collector` | the centre: telemetry from MQTT into a store |
| `monitor` | drift and latency out of counts |
| `fleet` | what each device runs and how it fares; who may speak for whom |
| `report` | the bundle's page for people |
| `demo` | all of it on one machine |

Importing this package imports nothing else: the command must answer at once, and the centre needs no ONNX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from edgekit.building import build

__version__: Final = "0.1.0"
__all__ = ["build", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "build":
        from edgekit.building import build

        return build
    raise AttributeError(f"module 'edgekit' has no attribute '{name}'")
