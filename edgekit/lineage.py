"""What a bundle was made of and with: model, data, code, libraries."""

from __future__ import annotations

import hashlib
import os
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from edgekit_contracts.manifest import Lineage

LIBRARIES: Final = ("edgekit-toolkit", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy", "pandas")


def lineage_of(
    estimator: Any, label: int | None, model: Path | None, data_sha256: str, origin: str, rows: int
) -> Lineage:
    """Hashes the model's file, asks Git for the code's revision, and looks up what is installed.

    Args:
        estimator: The model, of whose class the lineage tells.
        label: The one of several that is bundled.
        model: The model's file; None for an object in memory.
        data_sha256: Of the data.
        origin: The data's file name, or that it was in memory.
        rows: Of the data.
    """
    whole = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return Lineage(
        model_sha256=hashlib.sha256(model.read_bytes()).hexdigest() if model is not None else None,
        model_type=whole if label is None else f"{whole}, label {label}",
        data_sha256=data_sha256,
        data_origin=origin,
        data_rows=rows,
        code_revision=_revision(),
        libraries={library: found for library in LIBRARIES if (found := _version(library))},
        created=datetime.fromtimestamp(int(epoch), UTC).isoformat() if epoch and epoch.isdigit() else None,
    )


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The Git commit of the working directory."""
    try:
        done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
