"""A fixed sample of the set of pipelines: each converts and answers the same, or is refused with its sentence."""

from __future__ import annotations

from typing import Final

import pytest

from benchmarks.pipelines import Case, cases
from benchmarks.pipelines.judge import fitted, judge

SAMPLE: Final = [
    "titanic: impute and scale, impute and one-hot, logistic regression",
    "titanic: remainder imputed, short names of columns",
    "titanic: gaps of texts filled with a constant and an indicator of missing ages",
    "titanic: ordinal codes with unknown and missing, decision tree that knows NaN",
    "titanic: neighbours fill the ages",
    "adult: selectors by type, None as missing, logistic regression",
    "adult: at most three categories, None is one of them",
    "adult: ordinal codes, histogram boosting with categorical columns",
    "churn: pandas frames between all steps",
    "churn: one column by a mask, one by a callable",
    "churn: a pipeline in a pipeline in a ColumnTransformer",
    "housing: ordinal quality, one-hot place, ridge",
    "housing: one-hot with NaN as a category of its own",
    "bikes: periodic splines, Poisson",
    "claims: bins, one-hot, log and scale, gamma",
    "claims: histogram boosting of gamma loss",
    "sensors: float32 with gaps, trees that know NaN",
    "sensors: scaled with gaps, extra trees",
    "credit: category and nullable integers, forest",
    "credit: nullable truth values filled",
    "credit: histogram boosting straight from the categories",
    "credit: iterative imputer of the numbers",
    "shops: target codes of postcodes, ridge",
    "tickets: target codes of several classes",
    "cancer: min and max, forest of even votes",
    "cancer: scaler, Nystroem, linear SVC",
    "wine: Gaussian process of three classes",
    "iris: four features by ratios, traced",
    "diabetes: kernel ridge",
    "diabetes: Gaussian process",
    "gaps: imputed by neighbours by distance, forest",
    "titanic: grid search over the pipeline",
    "wine: halving search",
    "churn: a fixed threshold of a class given as text",
    "cancer: a frozen pipeline calibrated",
    "wine: SVC calibrated by temperature, three classes",
    "titanic: hard vote of three pipelines",
    "titanic: stack over two ColumnTransformers",
    "housing: price by quantiles",
    "linnerud: chain of ridges",
]

ALL: Final = {case.name: case for case in cases()}


def test_the_set_has_at_least_two_hundred_pipelines() -> None:
    assert len(ALL) >= 200


@pytest.mark.parametrize("name", SAMPLE)
def test_a_pipeline_as_people_write_them_converts_and_answers_the_same(name: str) -> None:
    judged = judge(*fitted(ALL[name]))
    assert judged.outcome == "right", judged.why
    assert judged.rows > judged.mined


@pytest.mark.parametrize(
    "case",
    [case for case in ALL.values() if case.refusal],
    ids=lambda case: case.name,
)
def test_what_cannot_convert_by_its_nature_is_refused_by_name(case: Case) -> None:
    judged = judge(*fitted(case))
    assert judged.outcome == "refused"
    assert case.refusal in judged.why
    assert len(judged.why) < 600
