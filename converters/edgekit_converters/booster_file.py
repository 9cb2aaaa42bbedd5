"""A model file of XGBoost, LightGBM or CatBoost is tried in a process of its own before it is read here.

The libraries believe what stands in their files: a damaged one ends the process that reads it, and a tree that has a
circle in it is never answered. So a child process (`confined`) reads it, goes through its trees and answers some rows.

Source: `Tree::Tree(const char*, size_t*)` of LightGBM's src/io/tree.cpp; the model schema of XGBoost.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edgekit_contracts import limits
from edgekit_contracts.errors import FormatError
from edgekit_converters.confined import confined, look
from edgekit_converters.faults import first_line
from edgekit_converters.intact import check_tree

ROWS: Final = 50
"""Rows that are answered: of zeros, of missing values, of numbers far apart, and at random."""
SPARED: Final = ("dask", "matplotlib", "pandas", "pyarrow", "sklearn")
"""Libraries that the child does without: most of the time that importing XGBoost and LightGBM takes."""


def survived(data: bytes, path: Path, library: str) -> None:
    """Tries the file.

    Args:
        data: What the library will be given.
        path: Where it was read, for the sentence.
        library: `xgboost`, `lightgbm` or `catboost`.

    Raises:
        FormatError: It is damaged in a way that the library would not survive. What the library refuses by itself is
            no error here.
    """
    confined(__name__, data, str(path), library, written_bytes=limits.BUNDLE_MAX_BYTES)


def _try(data: bytes, what: str, library: str) -> None:
    """In the child."""
    if library != "catboost":
        sys.modules.update(dict.fromkeys(SPARED))  # type: ignore[arg-type]  # None: not to be imported
    read, go_through, answer = _TRIED[library]
    try:
        model = read(data)
    except Exception:  # what the library refuses, it refuses again, and its reader says so
        return
    try:
        go_through(model, data, what)
    except FormatError:
        raise
    except Exception as error:  # the libraries raise whatever they meet
        raise FormatError(what, "$", f"what it says of itself cannot be read ({first_line(error)})") from error
    with suppress(Exception):  # it may refuse such rows
        answer(model)


def _read_xgboost(data: bytes) -> Any:
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(data))
    return booster


def _go_through_xgboost(booster: Any, data: bytes, what: str) -> None:
    del data
    learner = json.loads(booster.save_raw("json"))["learner"]
    json.loads(booster.save_config())
    _ = booster.feature_names, booster.feature_types, booster.attributes(), booster.copy()
    gradient, parameters = learner["gradient_booster"], learner["learner_model_param"]
    model = gradient.get("gbtree", gradient)["model"]
    outputs = max(1, int(parameters["num_class"]), int(parameters["num_target"]))
    for number, tree in enumerate(model.get("trees", ())):
        left, right = np.array(tree["left_children"]), np.array(tree["right_children"])
        leaf, features = left == -1, np.array(tree["split_indices"])
        check_tree(left, right, leaf, features[~leaf], booster.num_features(), what, number)
        if not 0 <= model["tree_info"][number] < outputs:
            raise FormatError(
                what, f"$.trees[{number}]", f"it adds to another output than the {outputs} that there are"
            )


def _read_lightgbm(data: bytes) -> Any:
    import lightgbm

    return lightgbm.Booster(model_str=data.decode())


def _go_through_lightgbm(booster: Any, data: bytes, what: str) -> None:
    for number, text in enumerate(data.split(b"\nTree=")[1:]):
        # Inner nodes are 0, 1 ... and the leaves -1, -2 ... which stand behind them here.
        left, right, features = (_numbers(text, name) for name in (b"left_child", b"right_child", b"split_feature"))
        inner = len(features)
        ends = np.zeros(inner + 1, dtype=np.int64)
        left, right = (np.append(np.where(one < 0, inner - 1 - one, one), ends) for one in (left, right))
        leaf = np.arange(2 * inner + 1) >= inner
        check_tree(left, right, leaf, features, booster.num_feature(), what, number)
    booster.dump_model()


def _read_catboost(data: bytes) -> Any:
    import catboost

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        path.write_bytes(data)
        return catboost.CatBoost().load_model(str(path), format="cbm" if data.startswith(b"CBM1") else "json")


def _go_through_catboost(model: Any, data: bytes, what: str) -> None:
    del data, what
    _ = model.classes_, model.feature_names_, model.get_all_params()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        json.loads(path.read_bytes())


def _answer_catboost(model: Any) -> None:
    rows = _rows(len(model.feature_names_)).astype(object)
    rows[:, model._get_cat_feature_indices()] = "x"
    model.predict(rows, thread_count=1)


_TRIED: Final[Mapping[str, tuple[Callable[[bytes], Any], Callable[[Any, bytes, str], None], Callable[[Any], Any]]]] = {
    "catboost": (_read_catboost, _go_through_catboost, _answer_catboost),
    "lightgbm": (
        _read_lightgbm,
        _go_through_lightgbm,
        lambda booster: booster.predict(_rows(booster.num_feature()), num_threads=1),
    ),
    "xgboost": (
        _read_xgboost,
        _go_through_xgboost,
        lambda booster: booster.inplace_predict(_rows(booster.num_features()), validate_features=False),
    ),
}
"""Library -> how it reads, what it says of the model, and how it answers."""


def _numbers(text: bytes, name: bytes) -> NDArray[np.int64]:
    found = re.search(rb"\n" + name + rb"=([-0-9 ]*)\n", text)
    return np.array(found[1].split() if found else [], dtype=np.int64)


def _rows(width: int) -> NDArray[np.float64]:
    rows = np.random.default_rng(0).normal(scale=3.0, size=(ROWS, width))
    rows[:6] = np.array([0.0, np.nan, 1.0, -1.0, 1e30, -1e30])[:, None]
    return rows


if __name__ == "__main__":
    look(_try)
