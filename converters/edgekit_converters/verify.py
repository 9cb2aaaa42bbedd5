"""Does the converted model answer like the original? Asked through the very Engine that the device runs.

Compared are the data's rows; copies of them in which one value is missing, or one text unknown, wherever the model has
an answer for that; and rows at the model's own thresholds (`edgekit_converters.mining`). Labels are compared as labels.

Where the trees are certified and all else is float64, every label must be equal, ties too. Elsewhere a row on which the
original itself is undecided (its two best classes are closer than the tolerance) may come out either way: it is counted
as a tie, reported, and kept out of the golden set. Everything else that differs refuses the build, but for numbers of
float32 whose rounding the original itself magnifies (`edgekit_converters.magnified`).

The bound: where k of n data rows got another label, the rate in the population that they were drawn from is with 95 %
confidence at most the p with P(Binomial(n, p) <= k) = 0.05, that is the 0.95 quantile of Beta(k + 1, n - k); for k = 0
it is 1 - 0.05^(1/n).

Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934), doi:10.1093/biomet/26.4.404.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta

from edgekit_contracts.errors import EdgekitError, ParityBroken
from edgekit_contracts.manifest import Feature, Parity, WorstRow
from edgekit_converters.asking import Progress, ask
from edgekit_converters.certificate import Certificate
from edgekit_converters.comparison import measured, refuse
from edgekit_converters.magnified import Magnified, compare_widened, describe
from edgekit_converters.mining import mined, reached, thresholds
from edgekit_converters.nullable import groups, one_changed
from edgekit_converters.registry import Answers
from edgekit_converters.steadiness import explained, spread, widened
from edgekit_runtime.engine import Column, Engine

MAX_ROWS: Final = 200_000
"""Rows of the data that are compared; of more, so many are taken evenly. The reference statistics use all."""
VARIED_ROWS: Final = 50
"""Copies with a missing or unknown value, for each feature."""
VARIED_MIN: Final = 10
VARIED_MAX: Final = 10_000
"""For all features together, as far as each has its minimum."""
TOLERANCE: Final = {"float64": 1e-9, "float32": 1e-4, "mixed": 1e-4}
"""By the precision of the graph: probabilities absolute, values relative to max(1, |value|)."""
CONFIDENCE: Final = 0.95
"""Of the bound on the rate of other labels."""
UNKNOWN_TEXT: Final = "edgekit: a text that no training data has"


@dataclass(frozen=True, slots=True)
class Verified:
    """The comparison's figures, and what the golden set is chosen from."""

    parity: Parity
    columns: Mapping[str, Column]
    """The rows that were compared, as the Engine takes them."""
    answers: Answers
    """The original's answers to them: the numbers as float64 has them, where it magnifies the rounding of float32."""
    tolerance: float
    """Of differences from these answers, on any runtime."""
    undecided: NDArray[np.bool_]
    """Rows that must not become golden: the original's best two classes are within the tolerance, or it gives NaN."""
    worst: int
    """The row with the largest difference."""
    exact: bool
    """Ties had to be equal too."""
    magnified: bool
    """The original magnifies the rounding of float32, so that its numbers in float64 were compared."""


def verify(
    engine: Engine,
    original: Callable[[pd.DataFrame], Answers],
    frame: pd.DataFrame,
    *,
    precision: str,
    model: Any = None,
    certificate: Certificate | None = None,
    magnifying: Sequence[str] = (),
    progress: Progress = lambda done, total: None,
    at_once: int | None = None,
) -> Verified:
    """Compares the engine with the original on `frame`, on varied copies of its rows, and at thresholds.

    Args:
        engine: The converted model.
        original: The original model's answers to a frame.
        frame: The data: all the columns that the original takes, in its order.
        precision: The graph's precision: a key of `TOLERANCE`.
        model: The fitted model, to look for thresholds in; None: no row is mined.
        certificate: What was proved of its trees; where it says exact, ties must be equal too.
        magnifying: Its steps that magnify the rounding of float32 columns: `Conversion.magnifying`.
        progress: Called with the rows that are done, and all.
        at_once: At most so many rows in one call of the engine: `rows_at_once`.

    Raises:
        ParityBroken: An answer differs; the sentence names the first such row.
    """
    features = engine.manifest.features
    exact = is_exact(certificate, features)
    tolerance = TOLERANCE["float64" if exact else precision]
    data = evenly(frame, MAX_ROWS)
    marks = thresholds(model, list(map(str, frame.columns))) if model is not None else None
    extra = mined(marks, frame, features) if marks is not None else []
    parts = [data, *varied(data, features)]
    asked = ask(engine, original, parts, extra, progress, at_once=at_once)
    columns, theirs, ours = asked.columns, asked.theirs, asked.ours

    rows = len(next(iter(columns.values())))
    found = measured(theirs, ours, tolerance=tolerance, exact=exact)
    own: Magnified | None = None
    try:
        refuse(columns, found, tolerance)
    except ParityBroken as error:
        try:
            if not magnifying:
                raise
            wide = ask(engine, lambda rows: original(widened(rows)), parts, extra, progress, at_once=at_once)
            own = compare_widened(asked, wide, found, tolerance)
        except EdgekitError:
            raise explained(error, original, data, tolerance) from error
    at_thresholds = rows - sum(map(len, parts))
    worst = int(np.lexsort((found.ulps, found.difference))[-1])
    covered, known = 0, 0
    if marks is not None:
        at_marks = {name: column[rows - at_thresholds :] for name, column in columns.items()}
        covered, known = reached(marks, features, at_marks)
    parity = Parity(
        rows=rows,
        label_mismatches=0,
        ties=int((found.wrong & found.undecided).sum()),
        max_difference=float(f"{found.difference.max():.3g}"),
        tolerance=tolerance if own is None else float(f"{tolerance + own.rounding:.3g}"),
        method=_method(len(frame), len(data)) + (", rows at thresholds" if at_thresholds else ""),
        mined_rows=at_thresholds,
        worst_ulps=float(f"{found.ulps.max():.3g}"),
        disagreement_bound=None
        if theirs.labels is None
        else float(f"{disagreement_bound(int(found.wrong[: len(data)].sum()), len(data)):.3g}"),
        certificate=certificate.statement if certificate is not None else None,
        marks=known,
        marks_reached=covered,
        worst_row=_worst_row(features, columns, theirs, ours, worst) if found.ulps[worst] > 0 else None,
        differs=_differs(exact, precision, float(found.ulps.max()), features)
        if own is None
        else describe(own, magnifying, spread(original, data)),
        runtimes=(onnxruntime.__version__,),
    )
    answers = theirs if own is None else own.answers
    undecided = found.undecided if own is None else found.undecided | own.found.undecided
    if answers.values is not None:
        undecided = undecided | np.isnan(answers.values).any(axis=1)
    return Verified(parity, columns, answers, tolerance, undecided, worst, exact, own is not None)


def _differs(exact: bool, precision: str, ulps: float, features: Sequence[Feature]) -> str | None:
    """For which inputs the last digits can differ, and why."""
    if exact:
        return (
            None if ulps == 0 else "for any, in the last digits of float64: what follows the trees may round otherwise"
        )
    if precision == "float64":
        return "for any, in the last digits of float64: sums and functions may round otherwise"
    short = [feature.name for feature in features if feature.dtype == "float32"]
    if not short:
        return "for any, in the last digits of float32: a step of the original or of its conversion computes in it"
    names = ", ".join(short[:5]) + (f" and {len(short) - 5} more" if len(short) > 5 else "")
    return f"for any, in the last digits of float32: the columns {names} are float32, and the original computes in it"


def _worst_row(
    features: Sequence[Feature], columns: Mapping[str, Column], theirs: Answers, ours: Answers, row: int
) -> WorstRow:
    def numbers(answers: Answers) -> tuple[float | None, ...]:
        found = answers.probabilities if answers.probabilities is not None else answers.values
        return () if found is None else tuple(float(one) if np.isfinite(one) else None for one in found[row])

    return WorstRow(
        values=tuple(None if one.free else plain(columns[one.name][row]) for one in features),
        original=numbers(theirs),
        converted=numbers(ours),
    )


def plain(value: Any) -> float | str | None:
    """One value of a column as documents hold it; None is a missing one."""
    if value is None or value != value:
        return None
    return value if isinstance(value, str) else float(value)


def _method(rows: int, compared: int) -> str:
    sampled = "data rows" if compared == rows else f"{compared:,} of {rows:,} data rows, evenly spaced"
    return f"{sampled}, one value missing, one text unknown"


def is_exact(certificate: Certificate | None, features: Sequence[Feature]) -> bool:
    """Whether nothing is left to rounding: certified trees, float64 before them, and no float32 column.

    In a float32 column the original's own preprocessing computes in float32.
    """
    return certificate is not None and certificate.exact and all(one.dtype != "float32" for one in features)


def disagreement_bound(disagreements: int, rows: int) -> float:
    """The exact upper bound, with 95 % confidence, of the rate of rows with another label (Clopper-Pearson)."""
    return 1.0 if disagreements >= rows else float(beta.ppf(CONFIDENCE, disagreements + 1, rows - disagreements))


def evenly(frame: pd.DataFrame, rows: int) -> pd.DataFrame:
    """At most `rows` rows, evenly spaced, in order."""
    if len(frame) <= rows:
        return frame
    return frame.iloc[np.linspace(0, len(frame) - 1, rows).round().astype(int)]


def varied(frame: pd.DataFrame, features: Sequence[Feature]) -> list[pd.DataFrame]:
    """Copies of rows with one value missing or one text unknown, wherever the model allows it; types stay together.

    Free texts come empty and in capitals too.
    """
    sample = evenly(frame, max(VARIED_MIN, min(VARIED_ROWS, VARIED_MAX // len(features))))
    missing = groups(sample, [feature.name for feature in features if feature.nullable])
    free = [feature.name for feature in features if feature.dtype == "text" and not feature.closed]
    unknown = [name for name in free if not isinstance(sample[name].dtype, pd.CategoricalDtype)]
    parts = [one_changed(sample, names) for names in missing]
    if unknown:
        parts.append(one_changed(sample, unknown, _unknown))
    documents = [feature.name for feature in features if feature.free]
    if documents:
        parts += [one_changed(sample, documents, _empty), one_changed(sample, documents, _capitals)]
    return parts


def _unknown(column: pd.Series[Any], count: int) -> pd.Series[Any]:
    return pd.Series([UNKNOWN_TEXT] * count, dtype=column.dtype)


def _empty(column: pd.Series[Any], count: int) -> pd.Series[Any]:
    return pd.Series([""] * count, dtype=object)


def _capitals(column: pd.Series[Any], count: int) -> pd.Series[Any]:
    return column.iloc[:count].astype(object).map(str.upper, na_action="ignore")
