"""Steps that take texts apart, refused by name with the reason.

ONNX has no operator that splits text before opset 20, and none that does it as a regular expression of Python does;
`Tokenizer` is onnxruntime's own, and `StringNormalizer` needs a locale of the operating system that slim containers
and phones lack. MurmurHash3 of bytes has no operator at all.

Source: sklearn/feature_extraction/text.py and _hash.py; ONNX operator schemas StringSplit-20, StringNormalizer-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from edgekit_converters.graph import Table
from edgekit_converters.operators import Transform, Unfaithful

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

REASONS: Final[Mapping[str, tuple[str, str]]] = {
    **dict.fromkeys(
        ("CountVectorizer", "TfidfVectorizer"),
        (
            "it splits texts with a regular expression, which no ONNX operator does as Python does it",
            "take the texts apart before the model, and give it their counts as numbers",
        ),
    ),
    **dict.fromkeys(
        ("FeatureHasher", "HashingVectorizer"),
        (
            "it hashes texts with MurmurHash3, for which ONNX has no operator",
            "learn the categories with a OneHotEncoder, or hash before the model and give it the numbers",
        ),
    ),
    "DictVectorizer": ("it reads dictionaries, and a graph reads tensors", "use a OneHotEncoder on a DataFrame"),
}
"""Class -> why, what to do."""


def refuse(_walk: Walk, step: Any, _table: Table, _path: Path) -> NoReturn:
    """Refuses the step.

    Raises:
        Unfaithful: Always.
    """
    raise Unfaithful(*REASONS[type(step).__name__])


TRANSFORMERS: Final[Mapping[str, Transform]] = dict.fromkeys(REASONS, refuse)
