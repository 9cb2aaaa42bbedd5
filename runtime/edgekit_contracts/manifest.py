"""What a bundle says of itself: `manifest.json`.

Tensors and features: the ONNX graph takes at most one tensor of numbers and one of text, each `[rows, columns]`; every
tensor names its columns, and each column is a feature. So plain onnxruntime runs the model with nothing of edgekit, and
the device copies a row once. A missing number is NaN; a missing text is `missing_text`, since a text tensor cannot hold
a null.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_json
from edgekit_contracts.errors import FormatError
from edgekit_contracts.names import BinsId, Count, ModelName, Sha256, Version

FORMAT: Final = "edgekit-bundle/2.1"
FORMAT_1: Final = "edgekit-bundle/1.1"
"""Read for ever; and written wherever it says all, so that the devices of its time read the bundle (ADR 0010)."""
MISSING_TEXT: Final = "\u2400"
"""SYMBOL FOR NULL: one printable character that stands for a missing text in a text tensor."""

MANIFEST_PATH: Final = "manifest.json"
MODEL_PATH: Final = "model.onnx"
REFERENCE_PATH: Final = "reference.json"
GOLDEN_PATH: Final = "golden.json"
SIGNATURE_PATH: Final = "model.sig"

ClassLabel = str | int | float | bool
AutomationLevel = Literal["shadow", "advise", "confirm", "act"]
"""How far an answer may go by itself; see `edgekit_runtime.oversight.automation`."""
LEVELS: Final[tuple[AutomationLevel, ...]] = ("shadow", "advise", "confirm", "act")
"""From the lowest to the highest."""

Task = Literal["classification", "regression", "clustering", "outlier_detection", "transformation"]
TASKS_1: Final[frozenset[Task]] = frozenset({"classification", "regression"})
"""What format 1.0 knows."""
LABELLED: Final[frozenset[Task]] = frozenset({"classification", "clustering", "outlier_detection"})
"""Tasks whose answer is one of `classes`: classes, numbers of clusters, or -1 (outlier) and 1."""


class Feature(msgspec.Struct, frozen=True, kw_only=True):
    """One column that the model was trained on."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    dtype: Literal["float64", "float32", "int64", "bool", "text"]
    """The type in the training data; numbers of all types travel in the tensor of numbers."""
    nullable: bool
    """Whether the model has an answer for a missing value."""
    unit: str | None = None
    minimum: float | None = None
    """Smallest value in the reference data (numbers)."""
    maximum: float | None = None
    categories: tuple[str, ...] | None = None
    """The values that the model knows (text); None: a free text, of which no value is written down."""
    closed: bool = False
    """The model has no answer outside `categories`: the original raises, and so does the runtime."""

    @property
    def free(self) -> bool:
        """Whether it is a free text."""
        return self.dtype == "text" and self.categories is None


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """One input of the ONNX graph, of shape [rows, len(features)]."""

    name: str
    dtype: Literal["float64", "float32", "text"]
    features: tuple[str, ...]
    """Names of its columns, in order."""


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """One output of the ONNX graph."""

    name: str
    role: Literal["label", "probabilities", "value"]
    """`label` [rows]; `probabilities` [rows, classes], in the order of `classes`; `value` [rows, columns].

    `value` is what a regression predicts and the columns that a transformation gives. Beside a label it is the decision
    function: one column, above 0 for the second class (for an inlier), or several.
    """
    dtype: Literal["float64", "float32", "int64", "bool", "text"]


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One ONNX file that answers for the model."""

    name: str
    file: str
    precision: Literal["float64", "float32", "mixed"]
    """`mixed`: float64 up to the last step, float32 inside it."""
    opset: int
    ml_opset: int
    ir: int
    runtime: str
    """The oldest onnxruntime among those of the profiles that it was made for."""
    operators: tuple[str, ...]
    """`domain:Operator`, sorted."""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """What was predicted for a device profile, beside the profile's limits."""

    profile: str
    latency_ms: float
    """Predicted, one row, at the profile's percentile."""
    latency_ms_low: float
    latency_ms_high: float
    latency_limit_ms: float
    memory_mb: float
    """Predicted resident memory of the runtime with the model loaded."""
    memory_limit_mb: float
    bundle_mb: float
    bundle_limit_mb: float
    fits: bool
    excess: tuple[str, ...] = ()


class WorstRow(msgspec.Struct, frozen=True, kw_only=True):
    """The row whose numbers differ most, of those that were compared."""

    values: tuple[float | str | None, ...]
    """Of the features, in their order; None is a missing value, or a free text, which is not written down."""
    original: tuple[float | None, ...]
    """The probabilities, or the values; None where there is no finite number."""
    converted: tuple[float | None, ...]


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How the converted model was compared with the original."""

    rows: Count
    """Rows that were compared: the data's, copies with values missing or unknown, and rows at thresholds."""
    label_mismatches: Count
    """Rows with another label, ties apart; a bundle with any is not written."""
    ties: Count
    """Rows whose label differs where the original itself is undecided: its two best classes are within `tolerance`."""
    max_difference: float
    """Largest absolute difference of a probability, or relative difference of a value."""
    tolerance: float
    method: str
    mined_rows: Count = 0
    """Of `rows`, those at and beside the model's own thresholds."""
    worst_ulps: float | None = None
    """Largest difference of a number in units in its last place (float64); 0 means equal bit for bit."""
    disagreement_bound: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """Upper bound, with 95 % confidence, of the rate of other labels, from the data's rows (Clopper-Pearson)."""
    certificate: str | None = None
    """What was proved of the file without any rows, in a sentence."""
    marks: Count = 0
    """Since 1.1: values of features at which the model decides: thresholds, edges, categories, filled-in values."""
    marks_reached: Count = 0
    """Since 1.1: of these, those with a row on them and one beside them among the mined rows."""
    worst_row: WorstRow | None = None
    """Since 1.1: the row with the largest difference; None where all numbers are equal bit for bit."""
    differs: str | None = None
    """Since 1.1: for which inputs the last digits can differ from the original's, and why; None: for none known."""
    runtimes: tuple[str, ...] = ()
    """Since 1.1: releases of onnxruntime on which all the rows were compared."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """A quality figure on labelled data, beside a simple rule's."""

    metric: str
    rows: int
    model: float
    baseline: float
    baseline_rule: str
    """What the baseline answers, such as `always the most frequent class`."""


class Monitoring(msgspec.Struct, frozen=True, kw_only=True):
    """What the device observes."""

    window_s: Annotated[float, msgspec.Meta(ge=0.1, le=86_400)] = 60.0
    abstain_below: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    """Confidence under which an answer is left to a person; None: never."""


class Privacy(msgspec.Struct, frozen=True, kw_only=True):
    """What may leave the device beside counts."""

    raw_fields: tuple[str, ...] = ()
    """Features whose raw values the owner allows to be kept for review or sent; none by default."""
    moments: bool = True
    """Whether mean, M2, minimum and maximum are sent beside the counts."""


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model comes from."""

    model_sha256: Sha256 | None
    """Of the file that was given; None where an object in memory was given."""
    model_type: str
    data_sha256: Sha256
    """Of the data file's bytes, or of the data frame's canonical CSV."""
    data_origin: str
    data_rows: Count
    code_revision: str | None
    """Git commit of the directory where the bundle was built."""
    libraries: dict[str, str]
    """Library -> version."""
    parents: tuple[Sha256, ...] = ()
    """Bundles that this one descends from."""
    created: str | None = None
    """RFC 3339, from SOURCE_DATE_EPOCH; None otherwise, so that equal inputs give equal bytes."""


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the bundle other than the manifest and the signature."""

    path: str
    size: Count
    sha256: Sha256


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The table of contents and the promise of a bundle."""

    format: str = FORMAT
    name: ModelName
    version: Version
    task: Task
    classes: tuple[ClassLabel, ...] = ()
    features: Annotated[tuple[Feature, ...], msgspec.Meta(min_length=1, max_length=limits.FEATURES_MAX)]
    inputs: Annotated[tuple[Tensor, ...], msgspec.Meta(min_length=1, max_length=2)]
    outputs: Annotated[tuple[Output, ...], msgspec.Meta(min_length=1)]
    missing_text: str = MISSING_TEXT
    variants: Annotated[tuple[Variant, ...], msgspec.Meta(min_length=1)]
    budgets: tuple[Budget, ...]
    parity: Parity
    quality: tuple[Quality, ...] = ()
    monitoring: Monitoring = Monitoring()
    privacy: Privacy = Privacy()
    automation: AutomationLevel = "act"
    lineage: Lineage
    bins_id: BinsId
    files: tuple[FileEntry, ...]

    @property
    def title(self) -> str:
        """`name version`, for people."""
        return f"{self.name} {self.version}"

    @property
    def variant(self) -> Variant:
        """The variant that the runtime loads: the first."""
        return self.variants[0]


def decode_manifest(data: bytes) -> Manifest:
    """Reads `manifest.json`.

    Raises:
        TooLarge, UnsupportedFormat, FormatError: As `decode_json`; also where names in it do not agree.
    """
    manifest = decode_json(
        data, Manifest, what="manifest", limit=limits.MANIFEST_MAX_BYTES, format=FORMAT, older=(FORMAT_1,)
    )
    names = [feature.name for feature in manifest.features]
    columns = [column for tensor in manifest.inputs for column in tensor.features]
    if len(set(names)) != len(names):
        raise FormatError("manifest", "$.features", "two features have the same name")
    if sorted(columns) != sorted(names):
        raise FormatError("manifest", "$.inputs", "the tensors' columns are not the features")
    listed = {entry.path for entry in manifest.files}
    for index, variant in enumerate(manifest.variants):
        if variant.file not in listed:
            raise FormatError("manifest", f"$.variants[{index}].file", f"'{variant.file}' is not among the files")
    if (manifest.task in LABELLED) != bool(manifest.classes):
        raise FormatError("manifest", "$.classes", f"the task {manifest.task} has {len(manifest.classes)} classes")
    return manifest
