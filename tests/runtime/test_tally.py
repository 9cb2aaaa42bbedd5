"""The vectorised counts beside plain ones: one value at a time, as the formats say it."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit_contracts.counts import FeatureWindow, WindowCounts, decode_counts
from edgekit_contracts.manifest import MISSING_TEXT, Feature, Manifest, Monitoring, Output, Tensor
from edgekit_contracts.reference import LATENCY_BINS, Bins, FeatureBins, latency_edges_us
from edgekit_runtime.engine import Answers, Batch
from edgekit_runtime.observe import Observer
from tests import bundles

Random = np.random.Generator


class Plain:
    """Counts one value at a time."""

    def __init__(self, manifest: Manifest, bins: Bins) -> None:
        self.manifest, self.spec = manifest, bins
        self.features: list[list[Any]] = [[[0] * feature.size, 0, 0, 0] for feature in bins.features]
        self.values: list[list[float]] = [[] for _ in bins.features]
        self.classes, self.scores = [0] * len(bins.classes), [0] * bins.score_size
        self.nulls = self.abstained = self.resent = self.n = 0
        self.latency = [0] * LATENCY_BINS

    def record(self, batch: Batch, answers: Answers, latency_us: float, resent: bool) -> None:
        self.latency[bisect_left(latency_edges_us(), latency_us)] += 1
        self.resent += resent
        columns = {
            name: array[:, at].tolist()
            for tensor in self.manifest.inputs
            for at, name in enumerate(tensor.features)
            if (array := batch.text if tensor.dtype == "text" else batch.numbers) is not None
        }
        for row in range(batch.rows):
            self.n += 1
            for at, feature in enumerate(self.spec.features):
                value = columns[feature.name][row]
                self.value(at, feature, value)
            self.answer(float(answers.scores[row]), None if answers.labels is None else answers.labels[row])

    def value(self, at: int, feature: FeatureBins, value: Any) -> None:
        counts = self.features[at]
        if feature.categories is not None:
            if value == MISSING_TEXT:
                counts[1] += 1
            elif value in feature.categories:
                counts[0][feature.categories.index(value)] += 1
            else:
                counts[0][-1] += 1
                counts[3] += bool(feature.categories)
        elif math.isnan(value):
            counts[1] += 1
        elif math.isinf(value):
            counts[2] += 1
        else:
            counts[0][bisect_left(feature.edges, value)] += 1
            low, high = feature.minimum, feature.maximum
            counts[3] += (low is not None and value < low) or (high is not None and value > high)
            self.values[at].append(value)

    def answer(self, score: float, label: Any) -> None:
        if self.manifest.monitoring.abstain_below is not None:
            self.abstained += score < self.manifest.monitoring.abstain_below
        if math.isnan(score) and any(output.role != "label" for output in self.manifest.outputs):
            self.nulls += 1
            return
        self.scores[bisect_left(self.spec.score_edges, 0.0 if math.isnan(score) else score)] += 1
        if self.spec.classes:
            self.classes[self.spec.classes.index(label)] += 1

    def counts(self) -> WindowCounts:
        return WindowCounts(
            features=tuple(
                FeatureWindow(bins=tuple(bins), null=null, invalid=invalid, out_of_range=out)
                for bins, null, invalid, out in self.features
            ),
            classes=tuple(self.classes),
            scores=tuple(self.scores),
            output_nulls=self.nulls,
            abstained=self.abstained,
            resent=self.resent,
            latency=tuple(self.latency),
        )

    def moments(self) -> NDArray[np.float64]:
        found = [
            values for values, spec in zip(self.values, self.spec.features, strict=True) if spec.categories is None
        ]
        return np.array(
            [[np.mean(v), np.var(v) * len(v), min(v), max(v)] if v else [np.nan] * 4 for v in found]
        ).reshape(-1, 4)


def case(random: Random, kind: str) -> tuple[Manifest, Bins]:
    """Random bins: ragged edges, some without, ranges that are open, a tensor in another order than the bins."""
    numeric = [
        FeatureBins(
            name=f"n{at}",
            edges=tuple(sorted({float(x) for x in random.normal(size=random.integers(0, 22)).round(2)})),
            minimum=None if random.random() < 0.3 else float(random.choice([-0.5, 0.0])),
            maximum=None if random.random() < 0.3 else float(random.choice([0.25, 1.0])),
        )
        for at in range(0 if kind == "texts" else random.integers(1, 70))
    ]
    texts = [
        FeatureBins(name=f"t{at}", categories=("a", "b", "") if at % 2 else ())
        for at in range(random.integers(1, 4) if kind in {"texts", "bool"} else 0)
    ]
    single = kind == "float32"
    tensors = []
    if numeric:
        order = tuple(random.permutation([feature.name for feature in numeric]).tolist())
        tensors.append(Tensor(name="numbers", dtype="float32" if single else "float64", features=order))
    if texts:
        tensors.append(Tensor(name="text", dtype="text", features=tuple(one.name for one in texts)))
    classes: dict[str, tuple[Any, ...]] = {"texts": ("x", "y"), "bool": (False, True), "float32": (3, 5, 7)}
    classes["decision"] = (2**53, 2**53 + 1)  # of which float64 makes one
    roles = {"regression": ["value"], "label": ["label"], "decision": ["label", "value"]}.get(
        kind, ["label", "probabilities"]
    )
    bins = Bins(
        features=tuple(random.permutation(np.array([*numeric, *texts], dtype=object)).tolist()),
        classes=() if kind == "regression" else classes.get(kind, (-1, 1)),
        score_edges=tuple(sorted({float(x) for x in random.random(random.integers(0, 9)).round(1)})),
    )
    manifest = bundles.manifest(
        features=tuple(
            Feature(name=f.name, dtype="float64" if f.categories is None else "text", nullable=True)
            for f in bins.features
        ),
        inputs=tuple(tensors),
        classes=bins.classes,
        outputs=tuple(Output(name=role, role=role, dtype="float64") for role in roles),  # type: ignore[arg-type]
        monitoring=Monitoring(abstain_below=None if random.random() < 0.3 else 0.6),
    )
    return manifest, bins


def request(random: Random, manifest: Manifest, bins: Bins, rows: int) -> tuple[Batch, Answers]:
    """Random rows, many of them on an edge, beside it, missing or infinite."""
    numbers: NDArray[Any] | None = None
    text: NDArray[np.object_] | None = None
    for tensor in manifest.inputs:
        shape = rows, len(tensor.features)
        if tensor.dtype == "text":
            text = random.choice(np.array(["a", "b", "", "c", MISSING_TEXT], dtype=object), shape)
            continue
        dtype = np.float32 if tensor.dtype == "float32" else np.float64
        numbers = random.normal(size=shape).round(2).astype(dtype)
        by_name = {feature.name: feature for feature in bins.features}
        for at, name in enumerate(tensor.features):
            marks = np.array([*by_name[name].edges, 0.0, -0.0, -0.5, 0.25, 1.0, np.nan, np.inf, -np.inf, 3e38], dtype)
            places = np.flatnonzero(random.random(rows) < 0.4)
            chosen = random.choice(marks, len(places))
            numbers[places, at] = np.nextafter(chosen, chosen + random.integers(-1, 2, len(places)).astype(dtype))
    labels = random.choice(np.array(bins.classes, dtype=object), rows) if bins.classes else None
    values = random.choice([-3.0, 0.1, 0.25, 0.6, 0.7, np.nan, np.inf], size=(rows, random.integers(1, 4)))
    roles = {output.role for output in manifest.outputs}
    fixed = values[:, : 2 if "label" in roles else 1]
    wide = np.tile(fixed, 12)[:, : 12 if len(bins.classes) > 2 else 2]
    return Batch(rows, numbers, text), Answers(
        labels, wide if "probabilities" in roles else None, wide if "value" in roles else None
    )


@pytest.mark.parametrize("kind", ["float32", "bool", "texts", "regression", "decision", "label"])
@pytest.mark.parametrize("seed", range(4))
def test_the_counts_are_those_of_one_value_at_a_time(kind: str, seed: int) -> None:
    random = np.random.default_rng([seed, *kind.encode()])
    manifest, bins = case(random, kind)
    observer = Observer(manifest, bins)
    for _ in range(2):
        plain = Plain(manifest, bins)
        for rows in random.choice([1, 1, 1, 2, 7, 64, 239, 240, 241, 700], 30).tolist():
            batch, answers = request(random, manifest, bins, rows)
            latency, resent = float(random.choice([0.5, 1.0, 12.3, 1e7, 2e8])), bool(random.random() < 0.2)
            observer.record(batch, answers, latency, resent=resent)
            plain.record(batch, answers, latency, resent)
        window = observer.close()
        assert window.n == plain.n
        assert decode_counts(window.body.counts, bins, window.n) == plain.counts()
        moments = np.frombuffer(window.body.moments, "<f4").reshape(-1, 4)
        expected = plain.moments()
        np.testing.assert_allclose(moments[:, [0, 2, 3]], expected[:, [0, 2, 3]].astype("f4"), rtol=1e-5, atol=1e-7)


def test_moments_of_large_numbers_that_differ_little_keep_their_digits() -> None:
    manifest, bins = bundles.manifest(), bundles.reference().bins
    observer = Observer(manifest, bins)
    ages = 1e9 + np.random.default_rng(0).normal(size=1000)
    ages[300::7] = np.nan
    for part in np.array_split(ages, 77):
        numbers = np.stack([part, np.full(len(part), np.nan)], axis=1)
        text = np.full((len(part), 1), "f", dtype=object)
        labels: Sequence[str] = ["no"] * len(part)
        observer.record(
            Batch(len(part), numbers, text), Answers(np.array(labels, dtype=object), np.ones((len(part), 2)), None), 1.0
        )
    moments = np.frombuffer(observer.close().body.moments, "<f4").reshape(2, 4)
    assert moments[0, 1] == pytest.approx(np.nansum((ages - np.nanmean(ages)) ** 2), rel=1e-5)
    assert np.isnan(moments[1]).all()
