"""How many scikit-learn estimators convert: skl2onnx alone beside edgekit, in one run, every mismatch listed.

    .venv/bin/python benchmarks/coverage.py

Each estimator is fitted on the data of `edgekit_converters.coverage`; skl2onnx is called as its documentation says
(`to_onnx` with a sample of the data, zipmap off), and its answers are compared on the same rows with the tolerance
that edgekit uses. A conversion that succeeds and answers differently counts as *wrong*; edgekit's build refuses those.
Ends by itself in about a minute.
"""

from __future__ import annotations

import platform
import warnings
from collections import Counter
from typing import Any

import numpy as np
import onnxruntime as ort
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import all_estimators

from edgekit_converters import coverage

TOLERANCE = 1e-4


def main() -> None:
    from sklearn.experimental import enable_halving_search_cv, enable_iterative_imputer  # noqa: F401

    ours = {row.estimator: row for row in coverage.measure()}
    versions = (
        f"scikit-learn {_version('scikit-learn')}, skl2onnx {_version('skl2onnx')}, onnxruntime {ort.__version__}"
    )
    print(f"{platform.machine()}, Python {platform.python_version()}, {versions}\n")
    for name, dtype in (("float64", np.float64), ("float32", np.float32)):
        theirs = {kind: alone(kind, instance, dtype) for kind, instance in _instances()}
        mine = {kind: getattr(ours[kind], name) for kind in theirs}
        right = sum(outcome in {"exact", "close"} for outcome in mine.values())
        counts = Counter(theirs.values())
        refused = f"{counts['refused']} refused or not loading"
        print(f"{name} input, {len(theirs)} classifiers, regressors and transformers:")
        print(f"  skl2onnx alone: {counts['right']} right, {counts['wrong']} wrong, {refused}")
        print(f"  edgekit:        {right} right, {sum(o == 'refused' for o in mine.values())} refused at conversion,")
        print(f"                  {sum(o == 'wrong' for o in mine.values())} refused by verification")
        for title, outcomes in (("wrong by skl2onnx", theirs), ("refused by verification", mine)):
            print(f"  {title}: {', '.join(kind for kind, outcome in outcomes.items() if outcome == 'wrong') or 'none'}")
        print()


def alone(kind: str, instance: Any, dtype: type) -> str:
    """What skl2onnx by itself makes of an estimator: right, wrong or refused."""
    from skl2onnx import to_onnx

    group = coverage.group(instance)
    frame, target = coverage.data(kind, group, dtype)
    X = frame.to_numpy()
    model = instance if group != "transformer" else make_pipeline(instance, LinearRegression())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model.fit(X, target)
            options = {id(model): {"zipmap": False}} if group == "classifier" else None
            onx: Any = to_onnx(model, X[:1], options=options)
            options_ = ort.SessionOptions()
            options_.log_severity_level = 4
            session = ort.InferenceSession(onx.SerializeToString(), options_, providers=["CPUExecutionProvider"])
            found: Any = session.run(None, {session.get_inputs()[0].name: X})
        except Exception:  # whatever a converter raises
            return "refused"
        try:
            if group == "classifier":
                same = np.array_equal(np.asarray(found[0]), model.predict(X))
                if hasattr(model, "predict_proba"):
                    same = same and np.allclose(found[1], model.predict_proba(X), atol=TOLERANCE)
            else:
                expected = np.asarray(model.predict(X), dtype=np.float64).reshape(len(X), -1)
                gap = np.abs(np.asarray(found[0]).reshape(expected.shape) - expected) / np.maximum(1, np.abs(expected))
                same = bool((gap <= TOLERANCE).all())
        except Exception:  # shapes that differ
            return "wrong"
    return "right" if same else "wrong"


def _instances() -> list[tuple[str, Any]]:
    made = [(name, coverage.instance(name, kind)) for name, kind in all_estimators()]
    return [(name, one) for name, one in made if one is not None and coverage.group(one) != "other"]


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


if __name__ == "__main__":
    main()
