# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from edgekit_contracts.errors import MissingCode, MissingFile, NotAModel, UntrustedModel
from edgekit_converters import load
from edgekit_converters.load import load_model
from tests.converters.frames import features, target, textbook


class Mine(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    def fit(self, X: Any, y: Any = None) -> Mine:
        self.fitted_ = True
        return self

    def transform(self, X: Any) -> Any:
        return X


EXPLODES = b"\x80\x04cbuiltins\nexec\n(Vraise SystemExit('it ran')\ntR."


def fitted() -> LogisticRegression:
    return LogisticRegression().fit([[0.0], [1.0]], [0, 1])


@pytest.mark.parametrize("last", [LogisticRegression(), HistGradientBoostingClassifier(max_iter=2)])
def test_a_skops_file_of_a_whole_pipeline_is_loaded(tmp_path: Path, last: Any) -> None:
    model = textbook(last).fit(features(), target())
    skops.io.dump(model, tmp_path / "model.skops")
    again = load_model(tmp_path / "model.skops")
    assert again.predict(features()).tolist() == model.predict(features()).tolist()


def test_a_skops_file_of_boosting_over_categories_is_loaded(tmp_path: Path) -> None:
    X = np.arange(60.0).reshape(30, 2) % 7
    model = HistGradientBoostingClassifier(max_iter=2, categorical_features=[0]).fit(X, X[:, 0] > 2)
    skops.io.dump(model, tmp_path / "model.skops")
    assert load_model(tmp_path / "model.skops").predict(X).tolist() == model.predict(X).tolist()


def test_a_skops_file_with_a_partial_of_a_foreign_function_is_refused(tmp_path: Path) -> None:
    step = FunctionTransformer(partial(os.system))
    skops.io.dump(make_pipeline(step, LogisticRegression()), tmp_path / "model.skops")
    with pytest.raises(UntrustedModel, match=r"posix\.system|os\.system"):
        load_model(tmp_path / "model.skops")


def test_a_skops_file_with_a_foreign_type_is_refused_by_its_name(tmp_path: Path) -> None:
    model = make_pipeline(Mine(), LogisticRegression()).fit(np.eye(2), [0, 1])
    skops.io.dump(model, tmp_path / "model.skops")
    with pytest.raises(UntrustedModel, match=r"Mine") as refusal:
        load_model(tmp_path / "model.skops")
    assert "--trust" in refusal.value.next_step
    assert load_model(tmp_path / "model.skops", trust=True).predict(np.eye(2)).tolist() == [0, 1]


@pytest.mark.parametrize("name", ["m.pkl", "m.joblib", "m.pickle", "m.skops", "m"])
def test_a_pickle_is_not_loaded_without_trust(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(EXPLODES)
    with pytest.raises(UntrustedModel, match="runs whatever code") as refusal:
        load_model(tmp_path / name)
    assert "skops.io.dump" in refusal.value.next_step


@pytest.mark.parametrize("compress", [0, "zlib", "gzip", "bz2", "xz", "lzma"])
def test_a_joblib_file_of_any_compression_is_known_by_its_content(tmp_path: Path, compress: Any) -> None:
    path = tmp_path / "model"
    joblib.dump(fitted(), path, compress=(compress, 3) if compress else 0)
    with pytest.raises(UntrustedModel):
        load_model(path)
    assert load_model(path, trust=True).predict([[1.0]]).tolist() == [1]


def test_a_pickle_is_loaded_with_trust(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(pickle.dumps(fitted()))
    assert load_model(tmp_path / "m.pkl", trust=True).classes_.tolist() == [0, 1]


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 torn", b"\x80\x04 torn"])
def test_a_file_that_is_no_model_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(NotAModel) as refusal:
        load_model(path, trust=True)
    assert "\n" not in str(refusal.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="no such file"):
        load_model(tmp_path / "nowhere.skops")
    with pytest.raises(MissingFile, match="directory"):
        load_model(tmp_path)


def test_an_estimator_that_is_not_fitted_is_refused(tmp_path: Path) -> None:
    skops.io.dump(textbook(LogisticRegression()), tmp_path / "model.skops")
    with pytest.raises(NotAModel, match="Pipeline that is not fitted"):
        load_model(tmp_path / "model.skops")


@pytest.mark.parametrize(
    ("module", "name", "what"),
    [
        ("nowhere_at_all", "Mine", "the module 'nowhere_at_all'"),
        ("tests.converters.frames", "Gone", "'Gone' of the mod"),
    ],
)
def test_a_model_whose_classes_are_not_here_says_which(tmp_path: Path, module: str, name: str, what: str) -> None:
    asked = b"".join(b"\x8c" + bytes([len(one)]) + one.encode() for one in (module, name))
    (tmp_path / "m.pkl").write_bytes(b"\x80\x04" + asked + b"\x93.")
    with pytest.raises(MissingCode, match=what) as refusal:
        load_model(tmp_path / "m.pkl", trust=True)
    assert "PYTHONPATH" in refusal.value.next_step


class Letters:
    """A framework whose files begin with ABC."""

    files = "an ABC file"

    def reads(self, path: Path, head: bytes) -> bool:
        return head.startswith(b"ABC")

    def load(self, path: Path, *, trust: bool) -> Any:
        return path.read_text(), trust


def test_a_converter_reads_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "file_readers", lambda: (Letters(),))
    (tmp_path / "m.json").write_text("ABCD")
    (tmp_path / "other.json").write_text("{}")
    assert load_model(tmp_path / "m.json") == ("ABCD", False)
    assert load_model(tmp_path / "m.json", trust=True) == ("ABCD", True)
    with pytest.raises(NotAModel) as refusal:
        load_model(tmp_path / "other.json")
    assert "an ABC file" in refusal.value.next_step
