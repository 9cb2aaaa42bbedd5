"""Classes that inherit their answers: a subclass that changes how it is made, fitted or scored answers as its base.

Whether it does is seen in what it defines: whatever the base has too, but the names in `AROUND`, may change an answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

AROUND: Final = frozenset(
    ["_parameter_constraints", "fit", "fit_predict", "fit_transform", "get_feature_names_out", "get_params",
     "partial_fit", "score", "set_params"]
)  # fmt: skip
"""What a subclass may define without changing what it answers for new rows; so may it names with two underscores."""
ACCESS: Final = frozenset({"__getattr__", "__getattribute__"})


def as_base(step: Any, packages: Mapping[str, str]) -> Any:
    """The step as an object of the known class that it answers as; itself where it is one, or answers as none.

    Args:
        step: Fitted.
        packages: Name of each known class -> the package that it comes from.
    """
    kinds = type(step).__mro__
    known = (place for place, one in enumerate(kinds) if packages.get(one.__name__) == one.__module__.partition(".")[0])
    place = next(known, 0)
    base, own = kinds[place], {name for kind in kinds[:place] for name in vars(kind)}
    if not place or any(name in ACCESS or (_may_answer(name) and hasattr(base, name)) for name in own):
        return step
    found: Any = object.__new__(base)
    vars(found).update(vars(step))
    return found


def _may_answer(name: str) -> bool:
    """Whether a method or value of that name may have a part in an answer."""
    special = name.startswith("__") and name.endswith("__")
    request = name.startswith("set_") and name.endswith("_request")
    return not (special or request or name in AROUND or name.startswith(("_abc_", "_sklearn_auto_wrap")))
