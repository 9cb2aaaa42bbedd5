"""One scikit-learn step into nodes, a family a file.

Each module lists its classes in a mapping from class name to emitter; `edgekit_converters.sklearn` walks the fitted
pipeline and looks the leaf steps up here. An emitter is exact: it computes in float64 with the operations that
scikit-learn itself uses, or it raises `Unfaithful`, to which the walk adds the path of the step.

- `numeric`: scalers. - `selection`: choosing columns. - `imputers`: SimpleImputer. - `encoders`: OneHotEncoder and
OrdinalEncoder. - `linear`: linear models. - `trees`: trees, forests and boosting. - `scores`: from scores to labels and
probabilities. - `delegate`: everything else, through skl2onnx.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit_converters.graph import Value


class Unfaithful(Exception):
    """This step cannot be converted so that it answers like the original.

    Attributes:
        why: A clause, for `ConversionRefused`.
        next_step: What a person can do about it.
    """

    def __init__(self, why: str, next_step: str) -> None:
        super().__init__(why)
        self.why, self.next_step = why, next_step


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What a last step answers."""

    label: Value | None = None
    """[rows]: class labels."""
    probabilities: Value | None = None
    """[rows, classes]."""
    value: Value | None = None
    """[rows, targets] of a regression."""
