"""CatBoost: its classifiers, regressors, rankers and plain models, and its own files (.cbm and .json).

The emitter is `edgekit_converters.operators.catboosted`; all else is as for scikit-learn, whose interface CatBoost has.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pandas as pd
from numpy.typing import NDArray

from edgekit_contracts.errors import MissingExtra, NotAModel
from edgekit_converters import booster_file
from edgekit_converters.faults import first_line
from edgekit_converters.registry import Answers, Conversion
from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.target import Target

_KINDS: Final = frozenset({"CatBoost", "CatBoostClassifier", "CatBoostRanker", "CatBoostRegressor"})
_MAGIC: Final = b"CBM1"


class CatBoostConverter(SklearnConverter):
    """The converter of CatBoost models that stand alone.

    A plain `CatBoost` that was trained on classes is taken as a CatBoostClassifier: it answers classes and their
    probabilities, which its own `predict` gives when it is asked for them.
    """

    framework = "CatBoost"
    supported = "a fitted CatBoost model"
    files: Final = "a .cbm or .json file of CatBoost"

    def requires(self, model: Any) -> bool:
        """One of CatBoost's four classes; fitted or not."""
        return type(model).__name__ in _KINDS and type(model).__module__.partition(".")[0] == "catboost"

    def describe(self, model: Any) -> str:
        """Such as `CatBoost CatBoostClassifier`."""
        return f"CatBoost {type(model).__name__}"

    def convert(self, model: Any, X: pd.DataFrame | NDArray[Any], target: Target) -> Conversion:
        """Writes the model as ONNX; see `Converter.convert`.

        Raises:
            NotAModel: Not fitted.
            DataMismatch: The rows lack columns, or the model does not answer them.
            ConversionRefused: It has no faithful conversion.
        """
        if not model.is_fitted():
            raise NotAModel(f"a {type(model).__name__} that is not fitted", "a fitted model: call fit first")
        return super().convert(_as_classifier(model), X, target)

    def answers(self, model: Any, X: pd.DataFrame | NDArray[Any]) -> Answers:
        """The original's own answers.

        Raises:
            DataMismatch: The original raises an error for these rows.
        """
        return super().answers(_as_classifier(model), X)

    def reads(self, path: Path, head: bytes) -> bool:
        """A .cbm file, or a JSON file that names the parts of a CatBoost model."""
        return head.startswith(_MAGIC) or path.suffix.lower() == ".cbm" or _is_json(head)

    def load(self, path: Path, *, trust: bool) -> Any:
        """The model: a classifier where it has classes, else a ranker or a regressor, by the loss of its training.

        Without `trust` it is tried in another process before.

        Raises:
            NotAModel: It is damaged.
            MissingExtra: CatBoost is not installed.
            FormatError: It is damaged in a way that CatBoost does not survive.
        """
        try:
            import catboost
        except ImportError as error:
            raise MissingExtra("catboost", "edgekit-toolkit", "catboost") from error
        if not trust:
            booster_file.survived(path.read_bytes(), path, "catboost")
        written = "cbm" if path.read_bytes().startswith(_MAGIC) or path.suffix.lower() == ".cbm" else "json"
        try:
            plain: Any = catboost.CatBoost().load_model(str(path), format=written)
            if len(plain.classes_):
                return _as_classifier(plain)
            ranks = plain._is_ranking_objective(plain.get_all_params().get("loss_function"))
            kind = catboost.CatBoostRanker if ranks else catboost.CatBoostRegressor
            return kind().load_model(str(path), format=written)
        except Exception as error:  # CatBoost raises whatever its reader meets
            fault = first_line(error)
            raise NotAModel(f"{path}, which cannot be read ({fault}),", self.files) from error


def _as_classifier(model: Any) -> Any:
    if type(model).__name__ != "CatBoost" or not len(model.classes_):
        return model
    from catboost import CatBoostClassifier

    return CatBoostClassifier().load_model(blob=model._serialize_model())


def _is_json(head: bytes) -> bool:
    # The keys are sorted: these are the first ones of a model with and without statistics of categories.
    return head.lstrip().startswith(b"{") and any(key in head[:64] for key in (b'"ctr_data"', b'"features_info"'))
