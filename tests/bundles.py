"""A small, true bundle made by hand: one graph of five nodes whose answers numpy gives too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgekit_contracts.container import pack, unpack
from edgekit_contracts.golden import GoldenSet
from edgekit_contracts.manifest import MISSING_TEXT, Feature, Lineage, Manifest, Output, Parity, Tensor, Variant
from edgekit_contracts.reference import Bins, FeatureBins, FeatureCounts, Reference
from edgekit_converters.bundle import assemble
from edgekit_converters.signing import SigningKey
from edgekit_runtime.trust import PUBLIC_NAME

WEIGHTS = np.array([0.02, -0.1])
OTHER_WEIGHTS = np.array([0.05, -0.05])
"""Of another version, which says "yes" where the first says "no"."""
SEX = {"f": 0.5, "m": -0.5}
"""Added to the score; 0 for a missing or unknown text."""

FEATURES = (
    Feature(name="age", dtype="float64", nullable=False, unit="a", minimum=18, maximum=90),
    Feature(name="bmi", dtype="float64", nullable=True, minimum=15, maximum=50),
    Feature(name="sex", dtype="text", nullable=True, categories=("f", "m")),
)
ROWS: Mapping[str, list[Any]] = {
    "age": [20, 30.5, 40, 80],
    "bmi": [22.0, None, 31.5, 40.0],
    "sex": ["f", "m", None, "x"],
}


def answers(rows: Mapping[str, list[Any]], weights: NDArray[np.float64] = WEIGHTS) -> NDArray[np.float64]:
    """Probabilities [rows, 2] of ("no", "yes"), by numpy: a missing bmi counts as 25."""
    numbers = np.array([rows["age"], [25.0 if v is None else v for v in rows["bmi"]]], dtype=float).T
    logit = numbers @ weights + np.array([SEX.get(v, 0.0) for v in rows["sex"]])
    yes = np.array([1 / (1 + math.exp(-one)) for one in logit])
    return np.stack([1 - yes, yes], axis=1)


def model(weights: NDArray[np.float64] = WEIGHTS) -> bytes:
    """The graph: impute, weigh, add the text's score, squash, pick."""
    doubles = {"fill": np.array([25.0]), "w": weights.reshape(2, 1), "one": np.array([1.0])}
    nodes = [
        helper.make_node("IsNaN", ["numbers"], ["missing"]),
        helper.make_node("Where", ["missing", "fill", "numbers"], ["filled"]),
        helper.make_node("MatMul", ["filled", "w"], ["weighed"]),
        helper.make_node(
            "LabelEncoder",
            ["text"],
            ["bonus32"],
            domain="ai.onnx.ml",
            keys_strings=list(SEX),
            values_floats=list(SEX.values()),
            default_float=0.0,
        ),
        helper.make_node("Cast", ["bonus32"], ["bonus"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["weighed", "bonus"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["yes"]),
        helper.make_node("Sub", ["one", "yes"], ["no"]),
        helper.make_node("Concat", ["no", "yes"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["probabilities"], ["index"], axis=1, keepdims=0),
        helper.make_node(
            "LabelEncoder",
            ["index"],
            ["label"],
            domain="ai.onnx.ml",
            keys_int64s=[0, 1],
            values_strings=["no", "yes"],
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("numbers", TensorProto.DOUBLE, ["rows", 2]),
            helper.make_tensor_value_info("text", TensorProto.STRING, ["rows", 1]),
        ],
        [
            helper.make_tensor_value_info("label", TensorProto.STRING, ["rows"]),
            helper.make_tensor_value_info("probabilities", TensorProto.DOUBLE, ["rows", 2]),
        ],
        [numpy_helper.from_array(array, name) for name, array in doubles.items()],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 2)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def manifest(**changes: Any) -> Manifest:
    whole = Manifest(
        name="tiny",
        version="1.0",
        task="classification",
        classes=("no", "yes"),
        features=FEATURES,
        inputs=(
            Tensor(name="numbers", dtype="float64", features=("age", "bmi")),
            Tensor(name="text", dtype="text", features=("sex",)),
        ),
        outputs=(
            Output(name="label", role="label", dtype="text"),
            Output(name="probabilities", role="probabilities", dtype="float64"),
        ),
        missing_text=MISSING_TEXT,
        variants=(
            Variant(
                name="reference",
                file="model.onnx",
                precision="float64",
                opset=18,
                ml_opset=2,
                ir=8,
                runtime="1.20.0",
                operators=("ai.onnx:MatMul",),
            ),
        ),
        budgets=(),
        parity=Parity(rows=4, label_mismatches=0, ties=0, max_difference=0, tolerance=1e-9, method="by hand"),
        lineage=Lineage(
            model_sha256=None,
            model_type="by hand",
            data_sha256="0" * 64,
            data_origin="by hand",
            data_rows=4,
            code_revision=None,
            libraries={},
        ),
        bins_id="0" * 16,
        files=(),
    )
    return msgspec.structs.replace(whole, **changes)


def reference() -> Reference:
    return Reference(
        bins=Bins(
            features=(
                FeatureBins(name="age", edges=(30.0, 50.0), minimum=18, maximum=90),
                FeatureBins(name="bmi", edges=(25.0,), minimum=15, maximum=50),
                FeatureBins(name="sex", categories=("f", "m")),
            ),
            classes=("no", "yes"),
            score_edges=(0.6, 0.8),
        ),
        rows=100,
        features=(
            FeatureCounts(bins=(30, 40, 30), null=0, mean=45, m2=1000),
            FeatureCounts(bins=(50, 40), null=10, mean=26, m2=500),
            FeatureCounts(bins=(50, 45, 0), null=5),
        ),
        classes=(60, 40),
        scores=(30, 40, 30),
    )


def golden(weights: NDArray[np.float64] = WEIGHTS, **changes: Any) -> GoldenSet:
    probabilities = answers(ROWS, weights)
    whole = GoldenSet(
        features=tuple(ROWS),
        columns=tuple(tuple(column) for column in ROWS.values()),
        labels=tuple("yes" if row[1] > row[0] else "no" for row in probabilities),
        probabilities=tuple(map(tuple, probabilities.tolist())),
        tolerance=1e-9,
    )
    return msgspec.structs.replace(whole, **changes)


@dataclass(frozen=True)
class Made:
    """A bundle on disk and its keys."""

    path: Path
    public: Path
    key: SigningKey

    def changed(self, **files: bytes) -> Path:
        """A copy with other files (`manifest_json=...`), canonical and signed anew with the same key."""
        content = unpack(self.path.read_bytes(), bundle="made")
        content |= {name.replace("_json", ".json"): data for name, data in files.items()}
        content["model.sig"] = self.key.sign(content, name="changed")
        path = self.path.with_name("changed.edge")
        path.write_bytes(pack(content))
        return path


def make(
    directory: Path,
    *,
    golden_set: GoldenSet | None = None,
    weights: NDArray[np.float64] = WEIGHTS,
    key: SigningKey | None = None,
    **changes: Any,
) -> Made:
    """Writes the small bundle and, unless a key is given, its key pair."""
    key = key or SigningKey.create(directory / "keys")
    made = manifest(**changes)
    path = directory / f"{made.name}-{made.version}.edge"
    path.write_bytes(assemble(made, model(weights), reference(), golden_set or golden(weights), key))
    return Made(path, directory / "keys" / PUBLIC_NAME, key)
