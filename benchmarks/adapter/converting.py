"""The functions of skl2onnx and onnxmltools, answered by edgekit."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

from skl2onnx.common.data_types import FloatTensorType

from benchmarks.adapter.answered import GIVEN, REFUSED, NotGiven, answer, finish
from benchmarks.adapter.declared import DTYPES, Declared, declare, keys_of
from benchmarks.adapter.shaped import flatten, named, rename, retype, take_dictionary, without_argmax
from edgekit_contracts.errors import EdgekitError
from edgekit_converters.graph import ELEMENT, Dtype, GraphBuilder
from edgekit_converters.nodes import operators
from edgekit_converters.nulls import knows_none
from edgekit_converters.target import target_for
from edgekit_converters.walk import Walk, last_step, unwrap, wrapped

RUNTIME: Final = "1.32.0"
CUSTOM: Final = ("custom_conversion_functions", "custom_parsers", "custom_shape_calculators")
"""Arguments that give skl2onnx converters of classes that it does not know: for the steps that edgekit leaves to it."""
OWN_API: Final = ("intermediate",)
"""Arguments that inspect skl2onnx itself."""


class ConversionRefusedHere(NotImplementedError):
    """edgekit's refusal, as the kinds of error with which skl2onnx refuses; of a step left to it in its words too."""


class Calls:
    """What a test had converted."""

    def __init__(self) -> None:
        self.count = 0
        self.inside = False
        """In edgekit now: what it delegates to skl2onnx goes to skl2onnx."""
        self.custom: Mapping[str, Any] = {}
        """The converters that the test gives for that."""
        self.options: Mapping[Any, Mapping[str, Any]] = {}
        """The test's own, of the conversion now, by class or id of the estimator."""


CALLS = Calls()


@contextmanager
def counted(custom: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Counts a conversion, and marks that edgekit is at work, with the test's own converters."""
    CALLS.count += 1
    CALLS.inside, CALLS.custom, CALLS.options = True, custom or {}, {}
    try:
        yield
    except EdgekitError as error:
        cause = error.__cause__.__cause__ if error.__cause__ is not None else None
        raise ConversionRefusedHere(str(error) if cause is None else f"{error}: {cause}") from error
    finally:
        CALLS.inside, CALLS.custom = False, {}


def convert(
    model: Any,
    types: Declared,
    options: Mapping[str, Any] | None = None,
    final: Declared | None = None,
) -> Any:
    """The model as edgekit writes it, with declared inputs and skl2onnx's names of outputs.

    Args:
        model: Fitted.
        types: skl2onnx's `initial_types`.
        options: skl2onnx's, of the model's last step.
        final: skl2onnx's `final_types`: the test's own names and types of the outputs.

    Raises:
        EdgekitError: A step has no faithful conversion.
        NotGiven: The test asks for something beside the model's answers.
    """
    model = without_mixin(model)
    graph = GraphBuilder(target_for(RUNTIME))
    table = declare(graph, model, types)
    walk = Walk(graph, none=any(knows_none(one) for one in wrapped(model)))
    number: Dtype = "float64" if any(column.dtype == "float64" for column in table) else "float32"
    outputs, wanted = answer(walk, model, table, options or {}, number)
    written = finish(graph, outputs, wanted, [name for name, _ in final] if final else None)
    for name, kind in final or ():
        if kind is not None:
            retype(written, name, ELEMENT[DTYPES[type(kind).__name__]])
    for name, kind in types:
        if type(kind).__name__ == "DictionaryType":
            take_dictionary(written, name, keys_of(model))
            continue
        rank = len(kind.shape or ())
        if rank == 1 or (rank == 0 and type(kind).__name__ == "StringTensorType"):
            flatten(written, name, any_rank=rank == 0)
    return written


def in_place_of(original: Callable[..., Any]) -> Callable[..., Any]:
    """`skl2onnx.convert_sklearn`."""

    def convert_sklearn(model: Any, name: Any = None, initial_types: Any = None, *args: Any, **settings: Any) -> Any:
        if CALLS.inside:
            settings["options"] = own_options(model) or settings.get("options")
            return original(model, name, initial_types, *args, **CALLS.custom, **settings)
        if args:  # doc_string, target_opset
            settings |= dict(zip(("doc_string", "target_opset"), args, strict=False))
        if initial_types is None:
            if not hasattr(model, "infer_initial_types"):
                raise ValueError(
                    "Initial types are required. See usage of convert(...) in skl2onnx.convert for details"
                )
            initial_types = model.infer_initial_types()
        custom = {name: settings[name] for name in CUSTOM if settings.get(name)}
        for name, given in custom.items():
            if not all(isinstance(kind, type) for kind in given):
                raise TypeError(f"Keys in {name} must be types not strings.")
        with counted(custom):
            used = sorted(one for one in OWN_API if settings.get(one))
            if used:
                raise NotGiven(f"skl2onnx's own {', '.join(used)}")
            options = options_of(model, settings.get("options"))
            found = convert(model, initial_types, options, settings.get("final_types"))
            if "ArgMax" in (settings.get("black_op") or ()):
                without_argmax(found)
            _check_operators(found, settings.get("white_op"), settings.get("black_op"))
            return named(found, settings["naming"]) if settings.get("naming") else found

    return convert_sklearn


def to_onnx_in_place_of(original: Callable[..., Any], convert_sklearn: Callable[..., Any]) -> Callable[..., Any]:
    """`skl2onnx.to_onnx`: an object that writes itself with skl2onnx's algebra keeps doing so."""

    def to_onnx(model: Any, X: Any = None, name: Any = None, initial_types: Any = None, *args: Any, **more: Any) -> Any:
        from skl2onnx.algebra.onnx_operator_mixin import OnnxOperatorMixin
        from skl2onnx.algebra.type_helper import guess_initial_types

        if CALLS.inside or isinstance(model, OnnxOperatorMixin):
            return original(model, X, name, initial_types, *args, **more)
        if args:
            more |= dict(zip(("target_opset", "options"), args, strict=False))
        more.pop("verbose", None)
        return convert_sklearn(model, name, guess_initial_types(X, initial_types), **more)

    return to_onnx


def booster_in_place_of(zipmap: bool) -> Callable[..., Any]:
    """`onnxmltools.convert_xgboost`, `convert_lightgbm` and `convert_catboost`.

    Args:
        zipmap: What the original does by default.
    """

    def convert_booster(model: Any, name: Any = None, initial_types: Any = None, *args: Any, **settings: Any) -> Any:
        del name, args  # of the graph; doc_string, target_opset
        with counted():
            used = sorted(one for one in (*CUSTOM, *OWN_API, "without_onnx_ml") if settings.get(one))
            if used:
                raise NotGiven(f"onnxmltools' own {', '.join(used)}")
            if initial_types is None:
                initial_types = [("features", FloatTensorType([None, len(model.feature_names_)]))]
            options = {"zipmap": settings.get("zipmap", zipmap), "raw_scores": _gives_margins(model)}
            found = convert(estimator_of(model), initial_types, options)
            if any(info.name == "output_probability" for info in found.graph.output):
                rename(found, {"probabilities": "matrix"})
                rename(found, {"output_label": "label", "output_probability": "probabilities"})
            return found

    return convert_booster


def _gives_margins(model: Any) -> bool:
    """Whether onnxmltools gives margins beside the labels: of XGBoost's own Booster whose `predict` gives labels."""
    if type(model).__name__ != "Booster" or not hasattr(model, "save_config"):
        return False
    return bool(json.loads(model.save_config())["learner"]["objective"]["name"] == "multi:softmax")


def without_mixin(model: Any) -> Any:
    """The scikit-learn estimator that `wrap_as_onnx_mixin` made another class of; others as they are."""
    kind = type(model)
    if kind.__module__ != "skl2onnx.algebra.sklearn_ops":
        return model
    plain: Any = next(
        one for one in kind.__mro__ if one.__module__.startswith("sklearn.") and kind.__name__.endswith(one.__name__)
    )
    found = plain.__new__(plain)
    vars(found).update(vars(model))
    return found


def estimator_of(model: Any) -> Any:
    """The estimator as which edgekit converts a native Booster; others as they are."""
    package = type(model).__module__.partition(".")[0]
    if type(model).__name__ != "Booster" or package not in {"lightgbm", "xgboost"}:
        return model
    return import_module(f"edgekit_converters.{package}").estimator(model)


def options_of(model: Any, options: Any) -> dict[str, Any]:
    """skl2onnx's options for the model or its last step, by class, id, or name of the step.

    Raises:
        NameError: An option that skl2onnx does not know.
        ValueError: A value that it does not know.
    """
    from skl2onnx.common._container import _build_options
    from skl2onnx.common.utils_sklearn import _process_options

    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        CALLS.options = given = _process_options(model, options) or {}
    for key in ("global", type(model), type(unwrap(model)), type(last_step(model)), *map(id, _chain(model))):
        found |= given.get(key) or {}
    allowed = _allowed(last_step(model))
    if allowed is not None:
        _build_options(last_step(model), {id(last_step(model)): found}, None, allowed, True)
    # What is neither answered nor refused shapes skl2onnx's own graph alone, as `optim` does.
    return {name: value for name, value in found.items() if name in GIVEN | REFUSED}


def own_options(step: Any) -> dict[int, Any]:
    """The test's options for a converter of its own, which it has registered with skl2onnx."""
    found = {**(CALLS.options.get(type(step)) or {}), **(CALLS.options.get(id(step)) or {})}
    return {id(step): found} if found and not type(step).__module__.startswith("sklearn.") else {}


def _allowed(step: Any) -> Any:
    """skl2onnx's own register of options and their values; None of a class that it does not know."""
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common._registration import _converter_pool

    converter = _converter_pool.get(sklearn_operator_name_map.get(type(step)))
    return None if converter is None else converter.get_allowed_options()


def _chain(model: Any) -> list[Any]:
    return [model, unwrap(model), last_step(model)]


def _check_operators(model: Any, allowed: Any, forbidden: Any) -> None:
    used = {name.partition(":")[2] for name in operators(model)}
    if forbidden and used & set(forbidden):
        raise RuntimeError(f"Operator {sorted(used & set(forbidden))} is in the black list.")
    if allowed and used - set(allowed):
        raise RuntimeError(f"Operator {sorted(used - set(allowed))} is not in the white list.")
