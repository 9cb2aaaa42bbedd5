"""LightGBM's Booster and its model files; its scikit-learn classes are that converter's matter.

A Booster classifies where its objective tells classes apart (they are 0, 1 ...); else it answers numbers.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, Final

import pandas as pd

from edgekit_contracts.errors import MissingExtra, NotAModel
from edgekit_converters import booster_file
from edgekit_converters.faults import first_line
from edgekit_converters.operators.lightgbm_boosters import BoosterClassifier, BoosterRegressor
from edgekit_converters.registry import Answers, Conversion
from edgekit_converters.sklearn import SklearnConverter
from edgekit_converters.target import Target

HEAD: Final = b"tree\nversion="
END: Final = b"\nend of trees\n"
VERSIONS: Final = frozenset({b"v3", b"v4"})
CLASSES: Final = frozenset({"binary", "multiclass", "multiclassova"})


class LightgbmConverter:
    """The converter of LightGBM's own objects."""

    framework: Final = "LightGBM"
    supported: Final = "a trained lightgbm.Booster"
    ensures: Final = "as scikit-learn's; raw scores in float64, bit for bit; classes are the whole numbers 0, 1 ..."
    files: Final = "a model file of LightGBM (text that starts with 'tree')"

    def requires(self, model: Any) -> bool:
        """A Booster; LightGBM is not imported for the question."""
        module = sys.modules.get("lightgbm")
        return module is not None and type(model) is module.Booster

    def describe(self, model: Any) -> str:
        """`LightGBM Booster`."""
        return "LightGBM Booster"

    def convert(self, model: Any, X: pd.DataFrame, target: Target) -> Conversion:
        """Writes the model as ONNX; see `Converter.convert`.

        Raises:
            ConversionRefused, DataMismatch, NotAModel: As `SklearnConverter.convert`.
        """
        return SklearnConverter().convert(estimator(model), X, target)

    def answers(self, model: Any, X: pd.DataFrame) -> Answers:
        """The original's own answers."""
        return SklearnConverter().answers(estimator(model), X)

    def reads(self, path: Path, head: bytes) -> bool:
        """A text that starts as LightGBM's do."""
        return head.replace(b"\r\n", b"\n").startswith(HEAD)

    def load(self, path: Path, *, trust: bool) -> Any:
        """Reads a Booster; nothing in the file is run. Without `trust` it is tried in another process before.

        Raises:
            MissingExtra: LightGBM is not installed.
            NotAModel: It is damaged, or of another version of LightGBM.
            FormatError: It is damaged in a way that LightGBM does not survive.
        """
        try:
            import lightgbm
        except ImportError as error:
            raise MissingExtra("lightgbm", "edgekit-toolkit", "lightgbm") from error
        data = path.read_bytes().replace(b"\r\n", b"\n")
        version = data[len(HEAD) :].partition(b"\n")[0]
        if version not in VERSIONS:
            shown = version[:20].decode("ascii", "replace")
            raise NotAModel(f"{path}, a LightGBM model of version {shown},", "one of LightGBM 3 or 4")
        sizes = re.search(rb"\ntree_sizes=([^\n]*)", data)
        if END not in data or (sizes and len(sizes[1].split()) != data.count(b"\nTree=")):
            raise NotAModel(f"{path}, a LightGBM model that breaks off,", self.files)
        # Without their sizes the trees are read one after another; in threads, a fault would end the process.
        text = data.replace(sizes[0], b"", 1) if sizes else data
        if not trust:
            booster_file.survived(text, path, "lightgbm")
        try:
            return lightgbm.Booster(model_str=text.decode())
        except (lightgbm.basic.LightGBMError, ValueError) as error:
            fault = first_line(error)
            raise NotAModel(
                f"{path}, which LightGBM {lightgbm.__version__} cannot read ({fault}),", self.files
            ) from error


def estimator(booster: Any) -> BoosterClassifier | BoosterRegressor:
    """The scikit-learn estimator that answers as the Booster does.

    Raises:
        NotAModel: It was never trained.
    """
    if booster.num_trees() == 0:
        raise NotAModel("a Booster without trees", "a trained one")
    objective = booster.dump_model(num_iteration=1).get("objective", "")
    return (BoosterClassifier if objective.partition(" ")[0] in CLASSES else BoosterRegressor)(booster)
