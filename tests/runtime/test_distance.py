from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit_contracts.counts import decode_distances
from edgekit_contracts.reference import Distance
from edgekit_runtime.distance import Distances
from edgekit_runtime.engine import Answers, Batch
from edgekit_runtime.observe import Observer
from tests import bundles


def distance(features: int, components: int, seed: int = 0) -> Distance:
    random = np.random.default_rng(seed)
    vectors = np.linalg.qr(random.normal(size=(features, features)))[0][:components]
    return Distance(
        center=tuple(random.normal(size=features).tolist()),
        scale=(0.0, *random.uniform(0.5, 3, features - 1).tolist()),
        components=tuple(map(tuple, vectors.round(4).tolist())),
        weights=tuple(random.uniform(0.1, 1.9, components).tolist()),
        rest=2.0,
        edges=tuple(np.linspace(1, 4 * features, 19).tolist()),
    )


def plain(spec: Distance, row: NDArray[np.float64]) -> float:
    """One row at a time, as the contract says it."""
    z = np.zeros(len(row))
    for at, value in enumerate(row):
        if spec.scale[at] and not np.isnan(value):
            z[at] = min(max((value - spec.center[at]) / spec.scale[at], -1000), 1000)
    parts = [weight * (np.array(one) @ z) ** 2 for weight, one in zip(spec.weights, spec.components, strict=True)]
    return float(spec.rest * (z @ z) - sum(parts))


@pytest.mark.parametrize(("features", "components"), [(2, 0), (2, 1), (30, 25), (700, 5)])
def test_a_distance_is_that_of_the_formula(features: int, components: int) -> None:
    spec = distance(features, components)
    values = np.random.default_rng(1).normal(scale=2, size=(features, 300))
    values[1, ::7] = np.nan
    found = Distances(spec).of(values)
    np.testing.assert_allclose(found, [plain(spec, row) for row in values.T], rtol=2e-4, atol=1e-3)


def test_each_row_is_counted_in_one_bin() -> None:
    spec = distance(6, 3)
    values = np.random.default_rng(2).normal(scale=2, size=(6, 500))
    counts = Distances(spec).counts(values)
    places = np.searchsorted(spec.edges, Distances(spec).of(values))
    assert counts.tolist() == np.bincount(places, minlength=spec.size).tolist()
    assert counts.sum() == 500


def test_one_far_or_missing_number_changes_no_other_rows_distance() -> None:
    spec = distance(30, 25)
    values = np.random.default_rng(3).normal(scale=2, size=(30, 300))
    found = Distances(spec).of(values)
    values[5, 7], values[6, 8] = np.nan, -np.inf
    changed = Distances(spec).of(values)
    others = np.delete(np.arange(300), [7, 8])
    assert (changed[others] == found[others]).all()
    np.testing.assert_allclose(changed[[7, 8]], [plain(spec, row) for row in values.T[[7, 8]]], rtol=2e-4)


def test_what_is_infinite_or_beyond_float32_lies_in_the_last_bin() -> None:
    spec = distance(6, 3)
    values = np.zeros((6, 3))
    values[1] = np.inf, -1e308, 1e200
    assert Distances(spec).counts(values).tolist() == [0] * (spec.size - 1) + [3]


def test_a_window_says_how_far_its_rows_lay() -> None:
    manifest, bins = bundles.manifest(), bundles.reference().bins
    spec = Distance(center=(40, 25), scale=(10, 4), components=(), weights=(), rest=1, edges=(1.0, 8.0))
    observer = Observer(manifest, bins, spec)
    for age, bmi, times in ((40.0, 25.0, 700), (60.0, 25.0, 500), (60.0, 37.0, 3)):
        numbers = np.tile([[age, bmi]], (times, 1))
        text = np.full((times, 1), "f", dtype=object)
        labels = np.full(times, "no", dtype=object)
        observer.record(Batch(times, numbers, text), Answers(labels, np.full((times, 2), 0.5), None), 1.0)
    window = observer.close()
    assert decode_distances(window.body.distances, window.n) == (spec.name, [700, 500, 3])
    empty = observer.close()
    assert decode_distances(empty.body.distances, 0) == (spec.name, [0, 0, 0])


def test_without_a_distance_a_window_has_no_more_bytes_than_before() -> None:
    assert Observer(bundles.manifest(), bundles.reference().bins).close().body.distances == b""
