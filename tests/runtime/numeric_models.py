"""Small models of numbers alone, of every kind of answer, whose rows can lie in a ring."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx.parser

from edgekit_contracts.manifest import Feature, Output, Tensor
from edgekit_contracts.reference import Bins, FeatureBins
from edgekit_runtime.engine import Engine
from tests import bundles

NAMES = ("c", "a", "b")
KINDS = ("float64", "float32", "text", "bool", "regression", "decision", "outlier", "label", "transformation", "all")

HEAD = """<ir_version: 8, opset_import: ["" : 18, "ai.onnx.ml" : 2]>
model ({type}[N, 3] numbers) => ({outputs})
<{type}[3, 2] w = {{0.5, -1.25, 0.3, 0.7, -0.2, 0.1}}, {type}[3, 1] v = {{1.5, -0.3, 0.1}},
 int64[2] ints = {{{integers}}}, {type}[1] zero = {{0}}>
{{
  raw = MatMul (numbers, w)
  decision = MatMul (numbers, v)
  probabilities = Softmax <axis = 1> (raw)
  index = ArgMax <axis = 1, keepdims = 0> (raw)
  integer = Gather (ints, index)
  truth = Cast <to = 9> (index)
  text = ai.onnx.ml.LabelEncoder <keys_int64s = [0, 1], values_strings = ["no", "yes"]> (index)
}}
"""


@cache
def engine_of(kind: str) -> Engine:
    """A small model of this kind; its tensor's order is not the features' order."""
    single = kind == "float32"
    integers = (2**53, 2**53 + 1) if kind == "huge" else (3, 7)
    label = {"text": ("text", "text", ("no", "yes")), "bool": ("truth", "bool", (False, True))}.get(
        kind, ("integer", "int64", integers)
    )
    number = "float32" if single else "float64"
    every = {
        "label": Output(name=label[0], role="label", dtype=label[1]),  # type: ignore[arg-type]
        "probabilities": Output(name="probabilities", role="probabilities", dtype=number),  # type: ignore[arg-type]
        "raw": Output(name="raw", role="value", dtype="float64"),
        "decision": Output(name="decision", role="value", dtype="float64"),
    }
    roles = {
        "regression": ("decision",),
        "decision": ("label", "raw"),
        "outlier": ("label", "decision"),
        "label": ("label",),
        "transformation": ("raw",),
        "all": ("raw", "label", "probabilities"),
    }.get(kind, ("label", "probabilities"))
    real = "float" if single else "double"
    types = {
        "integer": "int64[N] integer",
        "truth": "bool[N] truth",
        "text": "string[N] text",
        "probabilities": f"{real}[N, 2] probabilities",
        "raw": f"{real}[N, 2] raw",
        "decision": f"{real}[N, 1] decision",
    }
    outputs = tuple(every[role] for role in roles)
    text = HEAD.format(
        type=real, integers="{}, {}".format(*integers), outputs=", ".join(types[output.name] for output in outputs)
    )
    graph = onnx.parser.parse_model(text)
    task = {"regression": "regression", "transformation": "transformation"}.get(kind, "classification")
    manifest = bundles.manifest(
        task=task,
        classes=label[2] if "label" in roles else (),
        features=tuple(Feature(name=name, dtype="float64", nullable=name == "a") for name in sorted(NAMES)),
        inputs=(Tensor(name="numbers", dtype=number, features=NAMES),),  # type: ignore[arg-type]
        outputs=outputs,
    )
    return Engine(graph.SerializeToString(), manifest)


def bins_of(engine: Engine) -> Bins:
    features = tuple(FeatureBins(name=name, edges=(-1.0, 0.0, 1.0), minimum=-2, maximum=2) for name in sorted(NAMES))
    return Bins(features=features, classes=engine.manifest.classes, score_edges=(0.6, 0.9))


def rows(count: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(count, 3))
