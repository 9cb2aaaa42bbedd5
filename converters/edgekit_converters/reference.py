"""The reference of a bundle: bins frozen from the data, and the data's counts on them.

Numbers get up to 20 bins of equal share (quantiles; fewer where values repeat); text gets one bin for each of the 30
most frequent values and one for the rest; a free text gets that last one alone, since no document may be written down.
10 to 20 bins is where the drift tests have most power for their bytes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgekit_contracts.manifest import Feature, Manifest
from edgekit_contracts.reference import Bins, Distance, FeatureBins, FeatureCounts, Reference
from edgekit_converters import distance
from edgekit_runtime.engine import Answers, Column

NUMBER_BINS: Final = 20
TEXT_BINS: Final = 30


def reference(manifest: Manifest, columns: Mapping[str, Column], answers: Answers) -> Reference:
    """Freezes the bins from the data and counts the data on them.

    Args:
        manifest: Gives features and classes.
        columns: The reference data, as the Engine takes it.
        answers: The Engine's answers to it.
    """
    features = [
        _text(f, columns[f.name]) if f.dtype == "text" else _numbers(f, columns[f.name]) for f in manifest.features
    ]
    scores = answers.scores
    edges = _score_edges(answers)
    bins = Bins(features=tuple(spec for spec, _ in features), classes=manifest.classes, score_edges=edges)
    labels = Counter(answers.labels.tolist()) if answers.labels is not None else Counter()
    measured, distances = _distance([columns[f.name] for f in manifest.features if f.dtype != "text"])
    return Reference(
        bins=bins,
        rows=len(scores),
        features=tuple(counts for _, counts in features),
        classes=tuple(labels[one] for one in manifest.classes),
        scores=_histogram(np.nan_to_num(scores), edges),
        distance=measured,
        distances=distances,
    )


def _numbers(feature: Feature, column: Column) -> tuple[FeatureBins, FeatureCounts]:
    values = np.asarray(column, dtype=np.float64)
    finite = values[np.isfinite(values)]
    edges = _quantile_edges(finite)
    spec = FeatureBins(
        name=feature.name,
        edges=edges,
        minimum=float(finite.min()) if len(finite) else None,
        maximum=float(finite.max()) if len(finite) else None,
    )
    mean = float(finite.mean()) if len(finite) else None
    return spec, FeatureCounts(
        bins=_histogram(finite, edges),
        null=int(np.isnan(values).sum()),
        mean=mean,
        m2=float(((finite - finite.mean()) ** 2).sum()) if len(finite) else None,
    )


def _text(feature: Feature, column: Column) -> tuple[FeatureBins, FeatureCounts]:
    counts = Counter(value for value in column if value is not None)
    # Most frequent first, equal counts by name: the same data gives the same bins.
    known = sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))
    top = [] if feature.free else [str(text) for text, _ in known[:TEXT_BINS]]
    other = sum(counts.values()) - sum(counts[text] for text in top)
    spec = FeatureBins(name=feature.name, categories=tuple(top))
    return spec, FeatureCounts(bins=(*(counts[text] for text in top), other), null=len(column) - sum(counts.values()))


def _distance(columns: Sequence[Column]) -> tuple[Distance | None, tuple[int, ...]]:
    fitted = distance.fit(np.array([np.asarray(column, np.float64) for column in columns])) if columns else None
    if fitted is None:
        return None, ()
    spec, found = fitted
    edges = _quantile_edges(found)
    if not edges:
        return None, ()
    return msgspec.structs.replace(spec, edges=edges), _histogram(found, edges)


def _score_edges(answers: Answers) -> tuple[float, ...]:
    if answers.probabilities is not None:
        return tuple(round(i / NUMBER_BINS, 2) for i in range(1, NUMBER_BINS))
    if answers.values is not None:
        found = np.asarray(answers.scores, dtype=np.float64)
        return _quantile_edges(found[np.isfinite(found)])
    return ()


def _quantile_edges(values: NDArray[np.float64]) -> tuple[float, ...]:
    if not len(values):
        return ()
    edges = np.unique(np.quantile(values, np.linspace(0, 1, NUMBER_BINS + 1)[1:-1], method="inverted_cdf"))
    # An edge at the maximum would leave the last bin without a single reference row.
    return tuple(edges[edges < values.max()].tolist())


def _histogram(values: NDArray[Any], edges: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(np.bincount(np.searchsorted(np.array(edges), values), minlength=len(edges) + 1).tolist())
