"""Our walk over a fitted scikit-learn model, step by step, so that a refusal names the step.

Containers (Pipeline, ColumnTransformer, FeatureUnion, searches) are walked here and cost no node; a leaf step goes to
its emitter in `edgekit_converters.operators`, or to skl2onnx where it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import numpy as np
import pandas as pd
from sklearn.base import ClassifierMixin, is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline

from edgekit_contracts.errors import ConversionRefused, EdgekitError
from edgekit_converters.graph import Dtype, GraphBuilder, Table, Value, columns, is_narrow
from edgekit_converters.nulls import is_null
from edgekit_converters.operators import (
    Predicted,
    Unfaithful,
    catalog,
    delegate,
    dictionaries,
    labels,
    selection,
    text,
)
from edgekit_converters.schema import Encoding

SEARCHES: Final = frozenset({"GridSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV", "RandomizedSearchCV"})

WRAPPERS: Final = frozenset(
    [
        "CalibratedClassifierCV",
        "FixedThresholdClassifier",
        "MultiOutputClassifier",
        "MultiOutputRegressor",
        "OneLabel",
        "OneVsRestClassifier",
        "OutputCodeClassifier",
        "SelfTrainingClassifier",
        "StackingClassifier",
        "StackingRegressor",
        "TransformedTargetRegressor",
        "TunedThresholdClassifierCV",
        "VotingClassifier",
        "VotingRegressor",
        "WithDeviation",
        "WithNeighbours",
    ]
)
"""What hands the columns that it gets to others as they are: those may be pipelines over the raw table."""

Path = tuple[str, ...]
T = TypeVar("T")


class Walk:
    """One walk: the graph grows, and what is learned of the features is noted.

    Args:
        graph: Where the nodes go.
        none: A missing text is None in the model's eyes, else NaN.
        categorical: Features that are pandas categories.
        frame: The reference data, which a model needs that does not hold its own categories.
    """

    def __init__(
        self,
        graph: GraphBuilder,
        *,
        none: bool,
        categorical: frozenset[str] = frozenset(),
        frame: pd.DataFrame | None = None,
    ) -> None:
        self.graph, self.none, self.categorical, self.frame = graph, none, categorical, frame
        self.fills: set[str] = set()
        """Texts that imputers put in the place of missing ones."""
        self.encodings: dict[str, list[Encoding]] = {}
        self.documents: set[str] = set()
        """Features that are free text: their values are no categories."""
        self.notes: list[str] = []
        self.delegated = False
        """Whether skl2onnx wrote a part."""
        self.rounded = False
        """Whether the original itself rounds to less than float64, so that exact answers differ from its own."""
        self.magnifying: list[str] = []
        """Steps that were fitted in float32 and magnify its rounding: `edgekit_converters.magnified`."""

    def predict(self, step: Any, table: Table, path: Path) -> Predicted:
        """The model's answers, or those of its last step.

        Raises:
            ConversionRefused: A step has no faithful conversion.
        """
        step = unwrap(step)
        if isinstance(step, Pipeline):
            for name, inner in step.steps[:-1]:
                table = self.transform(inner, table, (*path, name))
            name, last = step.steps[-1]
            return self.predict(last, table, (*path, name))
        return self._leaf(step, path, lambda: self._predict(step, table, path))

    def transformed(self, step: Any, table: Table, path: Path) -> Predicted:
        """A transformer's columns as the answer, in float64.

        Raises:
            ConversionRefused: A step has no faithful conversion, or gives text, or nothing.
        """
        found = self.transform(step, table, path)

        def matrix() -> Predicted:
            if not found:
                raise Unfaithful("it gives no column", "check the selection of columns")
            return Predicted(value=self.matrix(found))

        return self._leaf(unwrap(step), path, matrix)

    def transform(self, step: Any, table: Table, path: Path) -> Table:
        """The columns that a step gives.

        Raises:
            ConversionRefused: A step has no faithful conversion.
        """
        step = unwrap(step)
        if step is None or (isinstance(step, str) and step == "passthrough"):
            return table
        if isinstance(step, str):
            return ()
        if isinstance(step, Pipeline):
            for name, inner in step.steps:
                table = self.transform(inner, table, (*path, name))
            return table
        if isinstance(step, ColumnTransformer):
            return self._column_transformer(step, table, path)
        if isinstance(step, FeatureUnion):
            parts = [
                self._weighted(self.transform(inner, table, (*path, name)), step.transformer_weights, name)
                for name, inner in step.transformer_list
            ]
            return tuple(column for part in parts for column in part)
        return self._leaf(step, path, lambda: self._transform(step, table, path))

    def _column_transformer(self, step: Any, table: Table, path: Path) -> Table:
        result: list[Any] = []
        for name, inner, indices in chosen(step):
            part = tuple(table[index] for index in indices)
            result += self._weighted(self.transform(inner, part, (*path, name)), step.transformer_weights, name)
        return tuple(result)

    def _weighted(self, table: Table, weights: Any, name: str) -> Table:
        if not weights or name not in weights or not table:
            return table
        dtype: Dtype = "float32" if is_narrow(table) else "float64"
        x = self.graph.matrix(table, dtype)
        factor = self.graph.constant(np.array([weights[name]], dtype=dtype), "weight")
        return columns(self.graph.value("Mul", [x, factor], x))

    def matrix(self, table: Table) -> Value:
        """The columns as one float64 matrix.

        Raises:
            Unfaithful: Text is among them.
        """
        for column in table:
            if column.dtype == "text":
                raise Unfaithful(
                    f"text reaches it (column '{column.source}')" if column.source else "text reaches it",
                    "encode text with an OneHotEncoder or OrdinalEncoder in a ColumnTransformer before it",
                )
        return self.graph.matrix(table, "float64")

    def delegate(self, step: Any, table: Table) -> Predicted:
        """What skl2onnx makes of a last step.

        Raises:
            Unfaithful: It refuses, or is known to be wrong.
        """
        self.delegated = True
        return (delegate.classifier if answers_classes(step) else delegate.regressor)(self, step, table)

    def learn(self, step: Any, table: Table) -> None:
        """Notes the categories of features that the encoder reads as they came, or with missing values filled."""
        closed = step.handle_unknown == "error"
        for column, categories in zip(table, step.categories_, strict=True):
            if column.source is None:
                continue
            if column.dtype == "text":
                texts = tuple(str(one) for one in categories if not is_null(one))
                self.encodings.setdefault(column.source, []).append(Encoding(categories=texts, closed=closed))
            elif closed:
                self.notes.append(
                    f"for a number in '{column.source}' that the encoder has not learned, the original raises an "
                    "error, and the converted model answers"
                )

    def _transform(self, step: Any, table: Table, path: Path) -> Table:
        if not table:
            return ()
        step = catalog.plain(step)
        kind = type(step).__name__
        if kind == "FunctionTransformer" and step.func is None:
            return table
        if selection.is_selector(step):
            return selection.select(step, table)
        if kind in catalog.TRANSFORMERS and catalog.is_original(step):
            return catalog.TRANSFORMERS[kind](self, step, table, path)
        if kind == "FunctionTransformer":
            raise Unfaithful(
                "it calls a function of its own",
                "apply the function to the data before the model, or use a scikit-learn step that does the same",
            )
        self.delegated = True
        return columns(delegate.transformer(self, step, table))

    def _predict(self, step: Any, table: Table, path: Path) -> Predicted:
        if not table:
            raise Unfaithful("no column reaches it", "check the selection of columns before it")
        step = catalog.plain(step)
        if type(step).__name__ in catalog.PREDICTORS and catalog.is_original(step):
            return catalog.PREDICTORS[type(step).__name__](self, step, table, path)
        return self.delegate(step, table)

    def _leaf(self, step: Any, path: Path, emit: Callable[[], T]) -> T:
        where = f"{'/'.join(path)} ({type(step).__name__})"
        try:
            return emit()
        except EdgekitError:
            raise
        except Unfaithful as error:
            raise ConversionRefused(where, error.why, error.next_step) from error
        except Exception as error:  # fitted attributes differ between scikit-learn releases
            fault = (str(error).splitlines() or [""])[0][:200]
            raise ConversionRefused(
                where, f"{type(error).__name__}: {fault}", "report it as an issue, with the scikit-learn version"
            ) from error


def answers_classes(step: Any) -> bool:
    """Whether it is a classifier; scikit-learn itself overlooks a class that names ClassifierMixin as its last base."""
    return is_classifier(step) or isinstance(step, ClassifierMixin)


def unwrap(step: Any) -> Any:
    """The fitted estimator inside a search or a FrozenEstimator."""
    while True:
        kind = type(step).__name__
        if kind in SEARCHES and hasattr(step, "best_estimator_"):
            step = step.best_estimator_
        elif kind == "FrozenEstimator":
            step = step.estimator
        else:
            return step


def last_step(model: Any) -> Any:
    """The estimator at the end of nested pipelines."""
    model = unwrap(model)
    while isinstance(model, Pipeline):
        model = unwrap(model.steps[-1][1])
    return model


def chosen(step: Any) -> list[tuple[str, Any, list[int]]]:
    """A fitted ColumnTransformer's parts: name, fitted transformer, indices of its columns; dropped ones apart."""
    return [
        (name, inner, [int(index) for index in step._transformer_to_input_indices[name]])
        for name, inner, _ in step.transformers_
        if not (isinstance(inner, str) and inner == "drop") and len(step._transformer_to_input_indices[name])
    ]


def wrapped(model: Any) -> list[Any]:
    """The estimators inside of a wrapper that get the same columns; the model itself where it is none."""
    model = unwrap(model)
    if type(model).__name__ not in WRAPPERS:
        return [model]
    inner: list[Any] = []
    if hasattr(model, "calibrated_classifiers_"):
        inner = [one.estimator for one in model.calibrated_classifiers_]
    else:
        for name in ("estimators_", "estimator_", "regressor_", "estimator"):
            if hasattr(model, name):
                found = getattr(model, name)
                inner = list(found) if isinstance(found, list | tuple | np.ndarray) else [found]
                break
    return [leaf for one in inner for leaf in wrapped(one)] or [model]


def takes_documents(model: Any) -> bool:
    """Whether a model is asked with a sequence of texts, not with a table."""
    return any(type(step).__name__ in text.OF_DOCUMENTS for step in first_steps(model))


def takes_dictionaries(model: Any) -> bool:
    """Whether a model is asked with a sequence of dictionaries, not with a table."""
    return any(map(dictionaries.of_dictionaries, first_steps(model)))


def takes_labels(model: Any) -> bool:
    """Whether a model is asked with a sequence of labels, not with a table."""
    return type(model).__name__ in labels.OF_LABELS and not getattr(model, "y_type_", "").startswith("multilabel")


def first_steps(step: Any) -> list[Any]:
    """The steps to which a model hands its rows as they came."""
    step = unwrap(step)
    inner = wrapped(step)
    if inner != [step]:
        return [found for one in inner for found in first_steps(one)]
    if isinstance(step, Pipeline):
        return first_steps(next((one for _, one in step.steps if one is not None and one != "passthrough"), None))
    if isinstance(step, FeatureUnion):
        return [found for _, one in step.transformer_list for found in first_steps(one)]
    return [step]


def used_columns(step: Any, count: int) -> frozenset[int]:
    """Indices of the columns that a model reads: a ColumnTransformer may leave some out."""
    step = unwrap(step)
    inner = wrapped(step)
    if inner != [step] and not getattr(step, "passthrough", False):
        return frozenset[int]().union(*(used_columns(one, count) for one in inner))
    if isinstance(step, Pipeline):
        first = next((inner for _, inner in step.steps if inner is not None and inner != "passthrough"), None)
        return used_columns(first, count)
    if isinstance(step, ColumnTransformer):
        return frozenset(index for _, _, indices in chosen(step) for index in indices)
    if isinstance(step, FeatureUnion):
        parts: Sequence[frozenset[int]] = [
            used_columns(inner, count) for _, inner in step.transformer_list if inner != "drop"
        ]
        return frozenset().union(*parts)
    return frozenset(range(count))
