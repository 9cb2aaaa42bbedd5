"""The desk's work: a trained model becomes a signed bundle, step by step; a step that refuses writes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edgekit import destination, keys, profiles
from edgekit.clauses import describe_budget
from edgekit.proving import Proved, oldest, on_runtimes, prove
from edgekit.steps import OnProgress, Step, Steps
from edgekit_contracts import limits
from edgekit_contracts.errors import DoesNotFit, MissingFile, UsageError
from edgekit_contracts.manifest import (
    AutomationLevel,
    ClassLabel,
    Manifest,
    Monitoring,
    Parity,
    Privacy,
    Quality,
)
from edgekit_contracts.names import check_model, check_version
from edgekit_converters.asking import answered, columns_of, rows_at_once
from edgekit_converters.bundle import assemble
from edgekit_converters.cost import cost
from edgekit_converters.fit import predict, refuse_unfit
from edgekit_converters.golden import golden
from edgekit_converters.quality import quality
from edgekit_converters.reference import reference
from edgekit_converters.registry import Conversion
from edgekit_runtime.bundle import read_bundle
from edgekit_runtime.engine import Engine
from edgekit_runtime.replacing import replace
from edgekit_runtime.rows import units_of
from edgekit_runtime.selftest import check_golden
from edgekit_runtime.trust import own_directory

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

BUDGET_BYTES: Final = 700
"""At most what one profile's budget adds to the manifest."""
JUDGED: Final = frozenset({"classification", "outlier_detection", "regression"})
"""Tasks whose answers can be held against a target: the numbers of clusters are no classes of the data's."""


@dataclass(frozen=True)
class Build:
    """A bundle that was written, and how it came about."""

    path: Path
    sha256: str
    size: int
    manifest: Manifest
    steps: tuple[Step, ...] = field(default=())

    def _repr_html_(self) -> str:
        """For notebooks: the report's own summary."""
        from edgekit.report.page import build_fragment

        return build_fragment(self)


def build(
    model: Any,
    data: str | Path | pd.DataFrame | np.ndarray[Any, Any] | Sequence[Any],
    *,
    device: str | Sequence[str] = "this-machine",
    out: str | Path | None = None,
    name: str | None = None,
    version: str | None = None,
    target: str | None = None,
    key: str | Path | None = None,
    trust: bool = False,
    classes: Sequence[ClassLabel] | None = None,
    shape: Sequence[int] | None = None,
    label: int | None = None,
    allow_unfit: bool = False,
    abstain_below: float | None = None,
    automation: AutomationLevel = "act",
    allow_raw: Sequence[str] = (),
    units: Mapping[str, str] | None = None,
    check_runtimes: Sequence[str] | None = (),
    on_step: Callable[[Step], None] | None = None,
    on_progress: OnProgress | None = None,
) -> Build:
    """Converts, verifies, predicts, describes, signs and writes.

    Args:
        model: A fitted estimator, a `torch.nn.Module`, or the path of a .skops or .onnx file (or, with `trust`, of a
            pickle or of a .pt2 file).
        data: The reference data: a DataFrame, a matrix, a sequence of texts or of dictionaries, or the path of a CSV or
            Parquet file.
        device: One or several device profiles; the model is converted for the oldest of their runtimes.
        out: The bundle to write; by default `NAME-VERSION.edge` here.
        name: The model's name; by default from `out`, else from the model's file.
        version: Its version; by default from `out`, else `1.0.0`.
        target: The data's column that holds what is true: gives quality figures, and is no feature.
        key: A private key file; by default the user's own, made when first needed.
        trust: Load pickles, which run code.
        classes: Of a network that gives scores: a class for each, in their order; they become probabilities.
        shape: Of one row of a network, such as (1, 28, 28); by default its columns as they are.
        label: Of a classifier that answers several labels a row: the one to bundle, from 0.
        allow_unfit: Write the bundle although it passes a limit of a profile.
        abstain_below: The confidence under which an answer is left to a person; by default none is.
        automation: How far an answer may go by itself on a device: `shadow`, `advise`, `confirm` or `act`.
        allow_raw: Features whose raw values a device may keep for a person's review; by default none.
        units: Feature -> unit, such as `degC`, beside those in `data.attrs["units"]` of a DataFrame. Values that are
            said to be in another one are refused.
        check_runtimes: Further releases of onnxruntime to verify on; those of the profiles always are. None: on the
            one that is installed here only.
        on_step: Called after each step.
        on_progress: Called with each step's name when it begins, and with how far it is.

    Returns:
        The bundle's path, hash, manifest and steps.

    Raises:
        EdgekitError: A step refused, and nothing was written.
    """
    steps = Steps(on_step, on_progress)
    name, version, out = _identity(name, version, out, Path(model) if isinstance(model, str | Path) else None, label)
    for what, path in (("model", model), ("data file", data)):
        if isinstance(path, str | Path) and not Path(path).exists():
            raise MissingFile(what, str(path), "no such file or directory")
    destination.check(out, ".edge")
    given = keys.signing_key(Path(key) if key is not None else None)
    # After what is told at once: this machine is measured for some seconds.
    if on_progress is not None:
        on_progress("device", "")
    boards = [profiles.load(one) for one in ([device] if isinstance(device, str) else device)]
    if not boards:
        raise UsageError("no device profile is named", "name one with device=, such as 'raspberry-pi-4'")
    for board in boards:
        if not board.runtime.supported:
            raise DoesNotFit(board.name, [str(board.runtime.why)])
    allowed = [board.runtime.onnxruntime for board in boards]
    aimed = oldest([*allowed, *(check_runtimes or ())])
    proved = prove(steps, model, data, target, name, version, aimed, trust, classes, shape, label, limits.FEATURES_MAX)
    parity = on_runtimes(steps, proved, None if check_runtimes is None else [*allowed, *check_runtimes])
    draft = _promised(_in_units(proved, units or {}), abstain_below, automation, allow_raw)
    engine, conversion = proved.engine, proved.conversion
    figures: tuple[Quality, ...] = ()
    if proved.truth is not None and conversion.task in JUDGED:
        with steps.step("quality") as now:
            figures = quality(proved.original(proved.frame), proved.truth)
            now.say("; ".join(f"{one.metric} {one.model:.3f} (baseline {one.baseline:.3f})" for one in figures))
    with steps.step("reference") as now:
        columns = columns_of(proved.frame, draft.features)
        description = reference(draft, columns, answered(engine, columns, rows_at_once(conversion.onnx)))
        chosen = golden(draft, proved.verified)
        now.say(f"bins {description.bins_id.hex()}, {chosen.rows} golden rows")
    signer = given or keys.make_own()
    whole = msgspec.structs.replace(draft, parity=parity, quality=figures, lineage=proved.lineage())
    with steps.step("predict") as now:
        weight = len(assemble(whole, conversion.onnx, description, chosen, signer)) + BUDGET_BYTES * len(boards)
        budgets = tuple(predict(cost(conversion.onnx), board, weight) for board in boards)
        now.say("; ".join(map(describe_budget, budgets)))
    refuse_unfit(() if allow_unfit else budgets)
    with steps.step("sign") as now:
        manifest = msgspec.structs.replace(whole, budgets=budgets)
        packed = assemble(manifest, conversion.onnx, description, chosen, signer)
        # As a device reads it, before it is written.
        written = read_bundle(packed, out.name, keys=[signer.public])
        check_golden(Engine(written.model, written.manifest), written.golden)
        now.say(
            f"key {signer.public.hint[:12]}"
            + ("" if given else f", made now in {own_directory()}: give edgekit.pub.pem to devices")
        )
    with steps.step("write") as now:
        replace(out, packed)
        now.say(f"{out} ({len(packed) / 1000:,.1f} kB)")

    return Build(out, written.sha256, written.size, written.manifest, tuple(steps.done))


def convert(
    model: Any,
    data: str | Path | pd.DataFrame | np.ndarray[Any, Any] | Sequence[Any],
    runtime: str,
    *,
    trust: bool = False,
    classes: Sequence[ClassLabel] | None = None,
    shape: Sequence[int] | None = None,
    check_runtimes: Sequence[str] | None = (),
    on_step: Callable[[Step], None] | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Conversion, Parity]:
    """Converts and verifies; arguments and errors as `build`.

    Args:
        model: As `build`.
        data: As `build`.
        runtime: The release of onnxruntime to write for.
        trust: As `build`.
        classes: As `build`.
        shape: As `build`.
        check_runtimes: As `build`; `runtime` is one of them.
        on_step: As `build`.
        on_progress: As `build`.
    """
    steps = Steps(on_step, on_progress)
    aimed = oldest([runtime, *(check_runtimes or ())])
    proved = prove(steps, model, data, None, "model", "0", aimed, trust, classes, shape)
    return proved.conversion, on_runtimes(steps, proved, None if check_runtimes is None else [runtime, *check_runtimes])


def _promised(
    draft: Manifest, abstain_below: float | None, automation: AutomationLevel, allow_raw: Sequence[str]
) -> Manifest:
    """The manifest with what its owner says of doubt, automation and privacy.

    Raises:
        UsageError: The model has no confidence, or no such feature.
    """
    if abstain_below is not None:
        if not 0 <= abstain_below <= 1:
            raise UsageError(f"a confidence of {abstain_below:g} cannot be", "give --abstain-below from 0 to 1")
        if not any(output.role == "probabilities" for output in draft.outputs):
            raise UsageError(
                "the model gives no probabilities, so that no answer is below a confidence", "leave it out"
            )
    _check_features(draft, allow_raw, "allow")
    return msgspec.structs.replace(
        draft,
        monitoring=Monitoring(abstain_below=abstain_below),
        privacy=Privacy(raw_fields=tuple(dict.fromkeys(allow_raw))),
        automation=automation,
    )


def _check_features(draft: Manifest, names: Iterable[str], verb: str) -> None:
    known = [feature.name for feature in draft.features]
    for name in names:
        if name not in known:
            raise UsageError(f"the model has no feature '{name}'", f"{verb} some of {', '.join(known[:20])}")


def _in_units(proved: Proved, units: Mapping[str, str]) -> Manifest:
    """The draft, with the units that the data frame and its owner name.

    Raises:
        UsageError: The model has no such feature, or a unit is no short word.
    """
    draft, named = proved.draft, {**units_of(proved.frame), **units}
    _check_features(draft, units, "name the units of")
    for unit in named.values():
        if not isinstance(unit, str) or not unit.isprintable() or not 0 < len(unit.strip()) <= limits.UNIT_MAX_CHARS:
            raise UsageError(
                f"{unit!r} cannot be a unit", f"give 1 to {limits.UNIT_MAX_CHARS} characters, such as degC"
            )
    features = [msgspec.structs.replace(one, unit=named.get(one.name)) for one in draft.features]
    return msgspec.structs.replace(draft, features=tuple(features))


def _identity(
    name: str | None, version: str | None, out: str | Path | None, model: Path | None, label: int | None
) -> tuple[str, str, Path]:
    """Name, version and path; what is not given comes from `NAME-VERSION.edge`, or from the model's file and label."""
    given = Path(out).name.removesuffix(".edge") if out else ""
    match = re.fullmatch(r"(?P<name>.+?)-(?P<version>[0-9]+\.[0-9A-Za-z.+-]*|[0-9]+)", given)
    own = model.stem if model else "model"
    stem = match["name"] if match else given or (own if label is None else f"{own}-label-{label}")
    name = check_model(name if name is not None else re.sub(r"[^a-z0-9_-]", "-", stem.lower()).strip("-_") or "model")
    version = check_version(version if version is not None else match["version"] if match else "1.0.0")
    return name, version, Path(out) if out is not None else Path(f"{name}-{version}.edge")
