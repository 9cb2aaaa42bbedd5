"""XGBoost's Booster and its model files; its scikit-learn classes are that converter's matter.

A Booster is converted as the scikit-learn class that loads it, XGBClassifier where its objective tells classes apart
(they are 0, 1 ...) and XGBRegressor elsewhere, with all of its rounds, as `Booster.predict` counts.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from edgekit_contracts.errors import MissingExtra, NotAModel
from edgekit_converters import booster_file
from edgekit_converters.faults import first_line
from edgekit_converters.registry import Answers, Conversion
from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.target import Target

SUFFIXES: Final = frozenset({".json", ".ubj"})
CLASSES: Final = frozenset({"binary:hinge", "binary:logistic", "multi:softmax", "multi:softprob"})


class XgboostConverter:
    """The converter of XGBoost's own objects."""

    framework: Final = "XGBoost"
    supported: Final = "a trained xgboost.Booster"
    ensures: Final = "as scikit-learn's; margins in float32, bit for bit; classes are the whole numbers 0, 1 ..."
    files: Final = "a .json or .ubj file of XGBoost"

    def requires(self, model: Any) -> bool:
        """A Booster; XGBoost is not imported for the question."""
        module = sys.modules.get("xgboost")
        return module is not None and type(model) is module.Booster

    def describe(self, model: Any) -> str:
        """`XGBoost Booster`."""
        return "XGBoost Booster"

    def convert(self, model: Any, X: pd.DataFrame, target: Target) -> Conversion:
        """Writes the model as ONNX; see `Converter.convert`.

        Raises:
            ConversionRefused, DataMismatch, NotAModel: As `SklearnConverter.convert`.
        """
        found = SklearnConverter().convert(estimator(model), X, target)
        best = model.attr("best_iteration")
        if best is None or int(best) + 1 == model.num_boosted_rounds():
            return found
        note = (
            f"its best iteration is {best}; all {model.num_boosted_rounds()} rounds count, as in Booster.predict: "
            f"convert booster[:{int(best) + 1}] to stop there"
        )
        return replace(found, notes=(*found.notes, note))

    def answers(self, model: Any, X: pd.DataFrame) -> Answers:
        """The original's own answers, through `inplace_predict`."""
        return SklearnConverter().answers(estimator(model), X)

    def reads(self, path: Path, head: bytes) -> bool:
        """A .json or .ubj file that starts as XGBoost's do."""
        return path.suffix.lower() in SUFFIXES and b"learner" in head[:64]

    def load(self, path: Path, *, trust: bool) -> Any:
        """Reads a Booster; nothing in the file is run. Without `trust` it is tried in another process before.

        Raises:
            MissingExtra: XGBoost is not installed.
            NotAModel: It is damaged, or of another version of XGBoost.
            FormatError: It is damaged in a way that XGBoost does not survive.
        """
        try:
            import xgboost
        except ImportError as error:
            raise MissingExtra("xgboost", "edgekit-toolkit", "xgboost") from error
        data = path.read_bytes()
        if not trust:
            booster_file.survived(data, path, "xgboost")
        try:
            # The bytes tell JSON from UBJSON, as in that trial; a path does by its suffix.
            booster = xgboost.Booster()
            booster.load_model(bytearray(data))
            return booster
        except (xgboost.core.XGBoostError, ValueError, TypeError) as error:
            fault = first_line(error)
            raise NotAModel(
                f"{path}, which XGBoost {xgboost.__version__} cannot read ({fault}),", self.files
            ) from error


def estimator(booster: Any) -> Any:
    """The scikit-learn estimator that answers as the Booster does.

    Raises:
        NotAModel: It was never trained.
    """
    import xgboost

    with xgboost.config_context(verbosity=0):
        try:
            copy = booster.copy()
            learner = json.loads(copy.save_config())["learner"]
            if copy.num_boosted_rounds() == 0:
                raise NotAModel("a Booster without trees", "a trained one")
        except xgboost.core.XGBoostError as error:
            raise NotAModel("a Booster that was not trained", "a trained one") from error
        copy.set_attr(scikit_learn=None, best_iteration=None)
        name, targets = learner["objective"]["name"], int(learner["learner_model_param"]["num_target"])
        kind = xgboost.XGBClassifier if name in CLASSES and targets == 1 else xgboost.XGBRegressor
        found = kind(enable_categorical=True, n_jobs=1)
        found.load_model(copy.save_raw("ubj"))
    return found
