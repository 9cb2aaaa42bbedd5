"""A model is loaded, converted, and proved to answer like the original: what `build` and `convert` have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgekit.clauses import describe_parity, describe_worst_row
from edgekit.lineage import lineage_of
from edgekit.steps import Steps
from edgekit_contracts.errors import ConversionRefused, DataMismatch, UsageError
from edgekit_contracts.manifest import ClassLabel, Lineage, Manifest, Parity
from edgekit_converters import data as tables
from edgekit_converters import runtimes
from edgekit_converters.asking import rows_at_once
from edgekit_converters.certificate import certify
from edgekit_converters.draft import draft_manifest
from edgekit_converters.extended import OneLabel
from edgekit_converters.load import load_model
from edgekit_converters.network import bare, described
from edgekit_converters.registry import Answers, Conversion, find
from edgekit_converters.target import loads, target_for
from edgekit_converters.verify import Verified, is_exact, verify
from edgekit_runtime.engine import Engine

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


@dataclass(frozen=True)
class Proved:
    """A model that was converted and answers like the original."""

    frame: pd.DataFrame
    truth: np.ndarray[Any, Any] | None
    conversion: Conversion
    original: Callable[[pd.DataFrame], Answers]
    draft: Manifest
    engine: Engine
    verified: Verified
    lineage: Callable[[], Lineage]
    """Reads all the data once more, for its hash."""


def prove(
    steps: Steps,
    model: Any,
    data: str | Path | pd.DataFrame | np.ndarray[Any, Any] | Sequence[Any],
    target: str | None,
    name: str,
    version: str,
    aimed: str,
    trust: bool,
    classes: Sequence[ClassLabel] | None,
    shape: Sequence[int] | None,
    label: int | None = None,
    features_max: int | None = None,
) -> Proved:
    """Loads model and data, converts, verifies: the first four steps.

    Args:
        steps: Tells of each.
        model: As `build`, as are `data`, `target`, `trust`, `classes`, `shape` and `label`.
        data: The rows to prove it on.
        target: Their column that holds what is true.
        name: For the manifest.
        version: For the manifest.
        aimed: The release of onnxruntime to write for.
        trust: Load pickles.
        classes: Of a network's scores.
        shape: Of one row of a network.
        label: The one of several to keep.
        features_max: What a bundle may have; None: any number, and several labels too.

    Raises:
        EdgekitError: A step refused.
    """
    path = Path(model) if isinstance(model, str | Path) else None
    with steps.step("load") as now:
        loaded = load_model(path, trust=trust) if path is not None else model
        converter, estimator = find(loaded), described(loaded, classes, shape)
        if not converter.requires(estimator):
            raise UsageError(
                f"classes and shape are said of a network, and the model is {converter.describe(loaded)}",
                "leave --classes and --shape out",
            )
        now.say(converter.describe(estimator) + ("" if label is None else f", label {label}"))
        if label is not None:
            estimator = OneLabel(estimator, label)
            converter = find(estimator)
    with steps.step("data") as now:
        frame, truth, digest, origin = _data(estimator, data, target)
        if features_max is not None and frame.shape[1] > features_max:
            raise ConversionRefused(
                "the model",
                f"it reads {frame.shape[1]} features, and a device counts at most {features_max}",
                "select features before the model is trained, or write plain ONNX with edgekit convert",
            )
        now.say(f"{len(frame):,} rows, {frame.shape[1]} features" + (f", target '{target}'" if target else ""))
    with steps.step("convert") as now:
        conversion = converter.convert(estimator, frame, target_for(aimed))
        if features_max is not None and conversion.targets:
            raise ConversionRefused(
                "the model",
                f"it answers {len(conversion.targets)} labels a row, and a bundle holds one",
                f"build a bundle of each with --label 0 to {len(conversion.targets) - 1}, or write plain ONNX with "
                "edgekit convert",
            )
        certificate = certify(conversion.onnx, estimator)
        if is_exact(certificate, conversion.features):
            conversion = replace(conversion, precision="float64")
        now.say(
            f"ONNX opset {conversion.opset}, IR {conversion.ir}, {conversion.precision}, "
            f"{len(conversion.onnx) / 1000:,.1f} kB, for onnxruntime {aimed} or newer"
            + "".join(f"; note: {note}" for note in conversion.notes)
        )
    draft = draft_manifest(name, version, conversion, aimed)
    with steps.step("verify") as now:
        engine = Engine(conversion.onnx, draft, session=conversion.session)

        def original(rows: pd.DataFrame) -> Answers:
            return converter.answers(estimator, rows)

        verified = verify(
            engine,
            original,
            frame,
            precision=conversion.precision,
            model=estimator,
            certificate=certificate,
            magnifying=conversion.magnifying,
            progress=now.progress,
            at_once=rows_at_once(conversion.onnx),
        )
        row = verified.parity.worst_row
        now.say(
            describe_parity(verified.parity)
            + (f"; {verified.parity.differs}" if verified.magnified else "")
            + (f"; certified: {certificate.trees:,} trees" if certificate else "")
            + (f"; worst row: {describe_worst_row(row, draft.features)}" if row is not None else "")
        )

    def lineage() -> Lineage:
        return lineage_of(bare(loaded), label, path, digest(), origin, len(frame))

    return Proved(frame, truth, conversion, original, draft, engine, verified, lineage)


def on_runtimes(steps: Steps, proved: Proved, releases: Sequence[str] | None) -> Parity:
    """Verifies on each of the releases but the one that is installed here, on which it was verified already."""
    parity = proved.verified.parity
    for release in sorted({*(releases or ())} - {*parity.runtimes}, key=_numbers):
        with steps.step("runtime") as now:
            found = runtimes.check(release, proved.conversion.onnx, proved.draft, proved.verified)
            now.say(f"onnxruntime {release} answers the same rows (largest difference {found.difference.max():.2g})")
        parity = msgspec.structs.replace(parity, runtimes=(*parity.runtimes, release))
    return parity


def oldest(releases: Sequence[str]) -> str:
    """The release to write for: the oldest, after each was found to be none that is refused by name."""
    for release in releases:
        loads(release)
    return min(releases, key=_numbers)


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]+", release))


def _data(
    estimator: Any, data: str | Path | pd.DataFrame | np.ndarray[Any, Any] | Sequence[Any], target: str | None
) -> tuple[pd.DataFrame, np.ndarray[Any, Any] | None, Callable[[], str], str]:
    """The features' frame, the target's values, what finds the data's SHA-256, and where it comes from."""
    if isinstance(data, str | Path):
        file = Path(data)
        table, origin = tables.read_table(file), file.name
    else:
        file, origin = None, "in memory"
        table = tables.as_frame(data)
    if target is not None and target in (tables.feature_names(estimator) or ()):
        raise DataMismatch(f"the target '{target}' is one of its features", "name the column of what it predicts")
    features, truth = tables.split_target(table, target)

    def digest() -> str:
        return tables.file_sha256(file) if file is not None else tables.frame_sha256(table)

    frame = tables.frame_for(estimator, features)
    tables.check_range(frame)
    return frame, truth, digest, origin
