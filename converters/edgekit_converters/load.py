"""A model file becomes an object, without running what is in the file.

A framework's own file is read by its converter (`registry.FileReader`). A `.skops` file is read by `skops.io`, which
constructs only types that it was told to trust; we add the few below. A pickle (joblib too) runs whatever code is in
it: only with `trust`. What a file is, its first bytes say, and its suffix where they do not.
"""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from edgekit_contracts import limits
from edgekit_contracts.errors import (
    ConversionRefused,
    EdgekitError,
    MissingCode,
    MissingExtra,
    MissingFile,
    NotAModel,
    TooLarge,
    UntrustedModel,
)
from edgekit_converters.faults import first_line
from edgekit_converters.intact import check_trees
from edgekit_converters.registry import file_readers

SUPPORTED: Final = "a .skops file; or, with --trust, a .joblib or .pkl file that you made yourself"
UNPACKED_MAX_BYTES: Final = 4 * limits.BUNDLE_MAX_BYTES
"""Of all files in a skops archive."""
HEAD_BYTES: Final = 4096
"""Of a file: what a `FileReader` decides by."""

_LACKING: Final = re.compile(r"Can't get attribute '(?P<name>[^']{1,100})' on <module '(?P<module>[^']{1,100})'")
"""What unpickling says of a name that its module does not have."""

REVIEWED: Final = frozenset(
    [
        # Holds a function, which the file must name and which must be reviewed itself.
        "functools.partial",
        "collections.OrderedDict",
        "lightgbm.basic.Booster",
        *(f"lightgbm.sklearn.LGBM{name}" for name in ("Classifier", "Ranker", "Regressor")),
        "numpy.dtype",
        "numpy.floating",
        "numpy.integer",
        "numpy.number",
        *(
            f"sklearn._loss.loss.{name}"
            for name in ("HalfTweedieLoss", "HalfTweedieLossIdentity", "HalfPoissonLoss", "HalfGammaLoss")
        ),
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.calibration._TemperatureScaling",
        "sklearn.compose._column_transformer._RemainderColsList",
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        *(
            f"sklearn.gaussian_process.kernels.{name}"
            for name in ("ConstantKernel", "DotProduct", "Matern", "Product", "RBF", "RationalQuadratic", "Sum")
        ),
        "sklearn.gaussian_process.kernels.WhiteKernel",
        *(
            f"sklearn.metrics._dist_metrics.{name}Distance64"
            for name in ("Chebyshev", "Euclidean", "Manhattan", "Minkowski")
        ),
        "sklearn.metrics._scorer._PassthroughScorer",
        *(f"sklearn.model_selection._split.{name}" for name in ("KFold", "StratifiedKFold")),
        "sklearn.neighbors._ball_tree.BallTree",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree",
        "sklearn.utils._bunch.Bunch",
        "sklearn.utils.validation.check_array",
        "xgboost.core.Booster",
        *(
            f"xgboost.sklearn.XGB{name}"
            for name in ("Classifier", "RFClassifier", "RFRegressor", "Ranker", "Regressor")
        ),
    ]
)
"""Read one by one: plain holders of numbers, whose construction and use run no code from the file."""

_ZIP: Final = b"PK\x03\x04"
_PICKLE_SUFFIXES: Final = frozenset({".joblib", ".pkl", ".pickle"})
# Pickle protocol 2 and later start with PROTO; joblib compresses with zlib, gzip, bz2, xz, lzma or lz4.
_PICKLE_MAGIC: Final = (b"\x80", b"\x78", b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00", b"\x04\x22\x4d\x18")


class UntrustedTypes(UntrustedModel):
    """A skops file with types that nobody has reviewed."""

    def __init__(self, path: str, types: list[str]) -> None:
        EdgekitError.__init__(
            self,
            f"{path} holds types that are not known to be safe: {', '.join(types[:5])}"
            + (f" and {len(types) - 5} more" if len(types) > 5 else ""),
            "pass --trust if you made the file yourself, or remove the steps that need them",
        )
        self.types = tuple(types)


def load_model(path: str | Path, *, trust: bool = False) -> Any:
    """Reads a fitted model.

    Args:
        path: A .skops, .joblib, .pkl or .pickle file, or one that an installed `FileReader` takes.
        trust: Construct whatever the file asks for, which runs its code.

    Raises:
        MissingFile: It does not exist or cannot be opened.
        UntrustedModel: A pickle, or a skops file with types that are not reviewed, without `trust`.
        NotAModel: It is neither, is damaged, or the estimator in it is not fitted.
        FormatError: Its trees are none.
        MissingCode: It was saved with a class whose module is not here.
        ConversionRefused: It is of another minor release of scikit-learn.
        TooLarge: An archive that unpacks to more than any model has.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise MissingFile("model", str(path), (error.strerror or str(error)).lower()) from error
    readers = file_readers()
    for reader in readers:
        if reader.reads(path, head):
            return reader.load(path, trust=trust)
    if head.startswith(_ZIP):
        model = _skops(path, trust)
    elif path.suffix.lower() in _PICKLE_SUFFIXES or head.startswith(_PICKLE_MAGIC):
        if not trust:
            raise UntrustedModel(str(path))
        model = _pickle(path)
    else:
        raise NotAModel(str(path), "; ".join([SUPPORTED, *(reader.files for reader in readers)]))
    check_fitted(model)
    return model


def check_fitted(model: Any) -> None:
    """Checks that an estimator was fitted; other objects pass.

    Raises:
        NotAModel: It was not.
    """
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(model, BaseEstimator) or isinstance(model, type):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_is_fitted(model)
    except NotFittedError as error:
        raise NotAModel(f"a {type(model).__name__} that is not fitted", "a fitted model: call fit first") from error
    except TypeError:  # no fit method: whether it is a model is not decided here
        return


def _skops(path: Path, trust: bool) -> Any:
    try:
        import skops.io
    except ImportError as error:
        raise MissingExtra("skops", "edgekit-toolkit", "build") from error
    try:
        with zipfile.ZipFile(path) as archive:
            if "schema.json" not in archive.namelist():
                raise NotAModel(f"{path}, a zip file without a skops schema,", SUPPORTED)
            size = sum(info.file_size for info in archive.infolist())
            if size > UNPACKED_MAX_BYTES:
                raise TooLarge(f"{path}, unpacked,", size, UNPACKED_MAX_BYTES)
        asked = skops.io.get_untrusted_types(file=path)
        unknown = sorted(set(asked) - REVIEWED)
        if unknown and not trust:
            raise UntrustedTypes(str(path), unknown)
        with _of_this_release():
            model = skops.io.load(path, trusted=asked)
        check_trees(model, str(path))
        return model
    except EdgekitError:
        raise
    except Exception as error:  # skops lets whatever the damaged content causes through
        raise _damaged(path, error) from error


def _pickle(path: Path) -> Any:
    try:
        import joblib
    except ImportError as error:
        raise MissingExtra("joblib", "edgekit-toolkit", "build") from error
    try:
        with _of_this_release():
            return joblib.load(path)
    except ConversionRefused:
        raise
    except ModuleNotFoundError as error:
        raise MissingCode(str(path), f"the module '{error.name}'") from error
    except AttributeError as error:
        lacking = _LACKING.match(str(error))
        if lacking is None:
            raise _damaged(path, error) from error
        raise MissingCode(str(path), f"'{lacking['name']}' of the module '{lacking['module']}'") from error
    except (pickle.UnpicklingError, Exception) as error:  # unpickling raises whatever the content causes
        raise _damaged(path, error) from error


@contextmanager
def _of_this_release() -> Iterator[None]:
    """Refuses estimators of another minor release of scikit-learn.

    Their settings may mean something else here, and verification compares with what they are here.

    Raises:
        ConversionRefused: One of them is.
    """
    from sklearn.exceptions import InconsistentVersionWarning

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", InconsistentVersionWarning)
        yield
    for warning in told:
        if isinstance(warning.message, InconsistentVersionWarning):
            kind, then = warning.message.estimator_name, str(warning.message.original_sklearn_version)
            now = str(warning.message.current_sklearn_version)
            if then.split(".")[:2] != now.split(".")[:2]:
                raise ConversionRefused(
                    f"the model ({kind})",
                    f"it was fitted with scikit-learn {then[:20]}, and may mean something else to {now}, which is here",
                    f"install scikit-learn {then[:20]}, or fit the model again with {now}",
                )


def _damaged(path: Path, error: Exception) -> NotAModel:
    fault = first_line(error)
    return NotAModel(f"{path}, which cannot be read ({fault}),", SUPPORTED)
