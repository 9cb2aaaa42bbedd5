"""The desk's work: a trained model becomes a signed bundle, step by step; a step that refuses writes nothing."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from edgekit import keys, profiles
from edgekit_contracts import limits
from edgekit_contracts.errors import ConversionRefused, DoesNotFit, UsageError
from edgekit_contracts.manifest import (
    AutomationLevel,
    Budget,
    ClassLabel,
    Feature,
    Lineage,
    Manifest,
    Monitoring,
    Parity,
    Privacy,
    Quality,
    WorstRow,
)
from edgekit_contracts.names import check_model, check_version
from edgekit_converters import data as tables
from edgekit_converters import runtimes
from edgekit_converters.asking import answered, columns_of, rows_at_once
from edgekit_converters.bundle import assemble, write
from edgekit_converters.certificate import certify
from edgekit_converters.cost import cost
from edgekit_converters.draft import draft_manifest
from edgekit_converters.extended import OneLabel
from edgekit_converters.fit import predict
from edgekit_converters.golden import golden
from edgekit_converters.load import load_model
from edgekit_converters.network import bare, described
from edgekit_converters.quality import quality
from edgekit_converters.reference import reference
from edgekit_converters.registry import Answers, Conversion, find
from edgekit_converters.target import loads, target_for
from edgekit_converters.verify import Verified, is_exact, verify
from edgekit_runtime.bundle import read_bundle
from edgekit_runtime.engine import Engine
from edgekit_runtime.selftest import check_golden

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

BUDGET_BYTES: Final = 700
"""At most what one profile's budget adds to the manifest."""
JUDGED: Final = frozenset({"classification", "outlier_detection", "regression"})
"""Tasks whose answers can be held against a target: the numbers of clusters are no classes of the data's."""
LIBRARIES: Final = ("edgekit-toolkit", "scikit-learn", "skl2onnx", "onnx", "onnxruntime", "numpy", "pandas")


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a build, done."""

    name: str
    result: str
    seconds: float


OnProgress = Callable[[str, str], None]
"""Called with a step's name when it begins, and with how far it is while it lasts."""


@dataclass
class _Record:
    """A step that runs: `say` sets its result, `progress` tells how far it is."""

    title: str
    on_progress: OnProgress | None
    result: str = ""

    def say(self, result: str) -> None:
        self.result = result

    def progress(self, done: int, total: int) -> None:
        if self.on_progress is not None:
            self.on_progress(self.title, f"{done:,} of {total:,} rows")


class _Steps:
    """Times each step and tells of it while it lasts and when it is done."""

    def __init__(self, on_step: Callable[[Step], None] | None, on_progress: OnProgress | None) -> None:
        self.done: list[Step] = []
        self._on_step, self._on_progress = on_step, on_progress

    @contextmanager
    def step(self, title: str) -> Iterator[_Record]:
        record, started = _Record(title, self._on_progress), time.perf_counter()
        if self._on_progress is not None:
            self._on_progress(title, "")
        yield record
        self.done.append(Step(name=title, result=record.result, seconds=round(time.perf_counter() - started, 3)))
        if self._on_step is not None:
            self._on_step(self.done[-1])


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
        check_runtimes: Further releases of onnxruntime to verify on; those of the profiles always are. None: on the
            one that is installed here only.
        on_step: Called after each step.
        on_progress: Called with each step's name when it begins, and with how far it is.

    Returns:
        The bundle's path, hash, manifest and steps.

    Raises:
        EdgekitError: A step refused, and nothing was written.
    """
    steps = _Steps(on_step, on_progress)
    name, version, out = _identity(name, version, out, Path(model) if isinstance(model, str | Path) else None, label)
    if out.is_dir():
        raise UsageError(f"{out} is a folder", f"name the file to write, such as {out / f'{name}-{version}.edge'}")
    given = keys.signing_key(Path(key)) if key is not None else None
    # After what is told at once: this machine is measured for some seconds.
    boards = [profiles.load(one) for one in ([device] if isinstance(device, str) else device)]
    if not boards:
        raise UsageError("no device profile is named", "name one with device=, such as 'raspberry-pi-4'")
    for board in boards:
        if not board.runtime.supported:
            raise DoesNotFit(board.name, [str(board.runtime.why)])
    allowed = [board.runtime.onnxruntime for board in boards]
    aimed = _oldest([*allowed, *(check_runtimes or ())])
    proved = _prove(steps, model, data, target, name, version, aimed, trust, classes, shape, label, limits.FEATURES_MAX)
    parity = _on_runtimes(steps, proved, None if check_runtimes is None else [*allowed, *check_runtimes])
    draft = _promised(proved.draft, abstain_below, automation, allow_raw)
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
    signer, made = given or keys.signing_key(None)
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
            + (f", made now in {keys.directory()}: give edgekit.pub.pem to devices" if made else "")
        )
    with steps.step("write") as now:
        write(out, packed)
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
    steps = _Steps(on_step, on_progress)
    aimed = _oldest([runtime, *(check_runtimes or ())])
    proved = _prove(steps, model, data, None, "model", "0", aimed, trust, classes, shape)
    return proved.conversion, _on_runtimes(
        steps, proved, None if check_runtimes is None else [runtime, *check_runtimes]
    )


def describe_parity(parity: Parity) -> str:
    """One clause: how the rows were compared, and what that says of the rate of other labels."""
    bound = parity.disagreement_bound
    at = f"{parity.marks_reached:,} of its {parity.marks:,} thresholds" if parity.marks else "thresholds"
    ulps = f", {describe_ulps(parity)}" if parity.worst_ulps else ""
    return (
        f"{parity.rows:,} rows answer like the original"
        + (f", {parity.mined_rows:,} of them at {at}" if parity.mined_rows else "")
        + f" (largest difference {parity.max_difference:.2g}{ulps}"
        + (f", {parity.ties} ties)" if parity.ties else ")")
        + (f"; other labels: at most {100 * bound:.2g} % of such data (95 % confidence)" if bound is not None else "")
    )


def describe_ulps(parity: Parity) -> str:
    """Units in the last place of float64; of float32, which are 2^29 of them, where the original computes in it."""
    ulps = parity.worst_ulps or 0.0
    single = ulps >= 2**29 and parity.differs is not None and "float32" in parity.differs
    return f"{ulps / 2**29:.2g} ulps of float32" if single else f"{ulps:.2g} ulps"


def describe_worst_row(row: WorstRow, features: Sequence[Feature]) -> str:
    """One clause: the row whose numbers differ most, its answer and the original's."""
    known = [f"{one.name}={value}" for one, value in zip(features, row.values, strict=False)]
    more = f" and {len(known) - 6} more" if len(known) > 6 else ""
    pairs = [(theirs, ours) for theirs, ours in zip(row.original, row.converted, strict=False) if theirs != ours]
    answers = ", ".join(f"{ours!r} for {theirs!r}" for theirs, ours in pairs[:2])
    return f"{answers} at {', '.join(known[:6])}{more}"


def describe_budget(budget: Budget) -> str:
    """One clause: what was predicted for a profile."""
    verdict = "fits" if budget.fits else "does not fit"
    interval = f"{budget.latency_ms_low:.2g} to {budget.latency_ms_high:.2g}"
    return (
        f"{verdict} {budget.profile}: {budget.latency_ms:.3g} ms ({interval}) of {budget.latency_limit_ms:g}, "
        f"{budget.memory_mb:.3g} of {budget.memory_limit_mb:g} MB"
    )


def refuse_unfit(budgets: Sequence[Budget]) -> None:
    """Raises for the first profile that the model does not fit.

    Raises:
        DoesNotFit: With the limits that are passed.
    """
    for budget in budgets:
        if not budget.fits:
            raise DoesNotFit(budget.profile, budget.excess)


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
    known = [feature.name for feature in draft.features]
    for name in allow_raw:
        if name not in known:
            raise UsageError(f"the model has no feature '{name}'", f"allow some of {', '.join(known[:20])}")
    return msgspec.structs.replace(
        draft,
        monitoring=Monitoring(abstain_below=abstain_below),
        privacy=Privacy(raw_fields=tuple(dict.fromkeys(allow_raw))),
        automation=automation,
    )


@dataclass(frozen=True)
class _Proved:
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


def _prove(
    steps: _Steps,
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
) -> _Proved:
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
            progress=now.progress,
            at_once=rows_at_once(conversion.onnx),
        )
        row = verified.parity.worst_row
        now.say(
            describe_parity(verified.parity)
            + (f"; certified: {certificate.trees:,} trees" if certificate else "")
            + (f"; worst row: {describe_worst_row(row, draft.features)}" if row is not None else "")
        )

    def lineage() -> Lineage:
        return _lineage(bare(loaded), label, path, digest(), origin, len(frame))

    return _Proved(frame, truth, conversion, original, draft, engine, verified, lineage)


def _on_runtimes(steps: _Steps, proved: _Proved, releases: Sequence[str] | None) -> Parity:
    """Verifies on each of the releases but the one that is installed here, on which it was verified already."""
    parity = proved.verified.parity
    for release in sorted({*(releases or ())} - {*parity.runtimes}, key=_numbers):
        with steps.step("runtime") as now:
            found = runtimes.check(release, proved.conversion.onnx, proved.draft, proved.verified)
            now.say(f"onnxruntime {release} answers the same rows (largest difference {found.difference.max():.2g})")
        parity = msgspec.structs.replace(parity, runtimes=(*parity.runtimes, release))
    return parity


def _oldest(releases: Sequence[str]) -> str:
    """The release to write for: the oldest, after each was found to be none that is refused by name."""
    for release in releases:
        loads(release)
    return min(releases, key=_numbers)


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"[0-9]+", release))


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
    features, truth = tables.split_target(table, target)

    def digest() -> str:
        return tables.file_sha256(file) if file is not None else tables.frame_sha256(table)

    frame = tables.frame_for(estimator, features)
    tables.check_range(frame)
    return frame, truth, digest, origin


def _lineage(
    estimator: Any, label: int | None, model: Path | None, data_sha256: str, origin: str, rows: int
) -> Lineage:
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
