from __future__ import annotations

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.monitor.drift import compare_counts
from edgekit_contracts.decode import encode_json
from edgekit_contracts.reference import decode_reference
from edgekit_converters.distance import fit
from edgekit_converters.reference import reference
from edgekit_runtime.distance import Distances
from edgekit_runtime.engine import Answers
from tests import bundles

CORRELATED = np.array([[1.0, 0.7, 0.0], [0.7, 1.0, 0.0], [0.0, 0.0, 1.0]])


def draw(
    generator: np.random.Generator, rows: int, covariance: NDArray[np.float64] = CORRELATED
) -> NDArray[np.float64]:
    return generator.multivariate_normal([0, 5, -3], covariance, rows).T


def bins_of(values: NDArray[np.float64]) -> tuple[Distances, list[int]]:
    fitted = fit(values)
    assert fitted is not None
    spec, found = fitted
    edges = np.quantile(found, np.linspace(0, 1, 21)[1:-1])
    counts = np.bincount(np.searchsorted(edges, found), minlength=20).tolist()
    return Distances(msgspec.structs.replace(spec, edges=tuple(edges.tolist()))), counts


def test_a_change_of_correlation_alone_is_seen_and_nothing_else_is() -> None:
    generator = np.random.default_rng(0)
    distances, reference_counts = bins_of(draw(generator, 5000))
    alike, other = (draw(generator, 500, covariance) for covariance in (CORRELATED, np.eye(3)))
    assert compare_counts(distances.counts(other).tolist(), reference_counts)[0] < 1e-6  # type: ignore[operator]
    assert compare_counts(distances.counts(alike).tolist(), reference_counts)[0] > 1e-3  # type: ignore[operator]


def test_new_rows_of_the_same_world_do_not_seem_to_drift_though_the_covariance_knows_the_old_ones() -> None:
    # 30 features from 300 rows: measured by themselves the old rows would seem nearer by a fifth.
    generator = np.random.default_rng(1)
    alarms = 0
    for _ in range(40):
        distances, counts = bins_of(generator.normal(size=(30, 300)))
        p, effect = compare_counts(distances.counts(generator.normal(size=(30, 1000))).tolist(), counts)
        alarms += p is not None and p < 0.01 and effect >= 0.02
    assert alarms <= 4
    spec = fit(generator.normal(size=(30, 300)))
    assert spec is not None


def test_a_feature_that_never_varied_has_no_part_in_it() -> None:
    values = np.vstack([draw(np.random.default_rng(2), 200), np.full(200, 7.0), np.full(200, np.nan)])
    distances, _ = bins_of(values)
    moved = values.copy()
    moved[3:] = 1e9
    assert (distances.of(moved) == distances.of(values)).all()


def test_copies_of_a_feature_keep_the_distance_finite_and_their_parting_is_seen() -> None:
    generator = np.random.default_rng(3)
    first = generator.normal(size=2000)
    distances, counts = bins_of(np.array([first, first, generator.normal(size=2000)]))
    parted = np.array([generator.normal(size=100), generator.normal(size=100), generator.normal(size=100)])
    assert compare_counts(distances.counts(parted).tolist(), counts)[0] < 1e-9  # type: ignore[operator]


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(4).normal(size=(1, 500)),
        np.random.default_rng(4).normal(size=(50, 200)),
        np.vstack([np.arange(100.0), np.ones((5, 100))]),
        np.empty((0, 0)),
        np.full((3, 100), np.nan),
        np.array([[1e300, -1e300] * 50] * 2),
    ],
)
def test_one_feature_few_rows_or_numbers_beyond_measure_give_no_distance(values: NDArray[np.float64]) -> None:
    assert fit(values) is None


def test_many_features_keep_to_what_a_device_can_afford() -> None:
    generator = np.random.default_rng(5)
    fitted = fit(
        generator.normal(size=(400, 3)) @ generator.normal(size=(3, 3000)) + generator.normal(size=(400, 3000))
    )
    assert fitted is not None
    spec, found = fitted
    assert 3 <= len(spec.components) <= 10
    assert np.median(found) == pytest.approx(400, rel=0.1)


def test_the_reference_of_a_bundle_holds_it_and_is_read_back() -> None:
    generator = np.random.default_rng(6)
    age = generator.normal(45, 12, 1000)
    columns = {"age": age, "bmi": age / 2 + generator.normal(size=1000), "sex": np.array(["f", "m"] * 500, object)}
    labels, probabilities = np.array(["no"] * 1000, object), np.full((1000, 2), 0.5)
    made = reference(bundles.manifest(), columns, Answers(labels, probabilities, None))
    assert made.distance is not None
    assert sum(made.distances) == 1000
    assert decode_reference(encode_json(made)) == made
