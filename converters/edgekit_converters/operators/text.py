"""CountVectorizer, TfidfVectorizer, HashingVectorizer and TfidfTransformer: from one text to numbers.

One document after another (Scan): fold its characters, take it apart, look the terms up or hash them, and add ones at
their places. So the memory is that of the longest document, and a row of the result is dense: eight bytes for each
term of the vocabulary, or for each of `n_features`.

tf-idf: each count (1 + log(count) where sublinear) times the idf of its term, and each row over its norm.
Hashing: MurmurHash3 (x86, 32 bit, seed 0) of the term's UTF-8; its absolute value modulo `n_features` is the place, and
its sign is added where `alternate_sign`.

Source: sklearn/feature_extraction/text.py and _hashing_fast.pyx; A. Appleby, SMHasher, MurmurHash3.cpp, which
onnxruntime's operator of that name (docs/ContribOperators.md) follows too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from onnx import TensorProto, numpy_helper

from edgekit_converters.graph import MICROSOFT, GraphBuilder, Table, Value, columns
from edgekit_converters.operators import Transform, Unfaithful, on_matrix
from edgekit_converters.operators.characters import Folding, folding, needed, white
from edgekit_converters.operators.documents import (
    OPSET,
    Texts,
    character_grams,
    edged_grams,
    folded,
    joined,
    split,
    word_grams,
)
from edgekit_converters.operators.expression import Expr
from edgekit_converters.operators.token_patterns import TokenPattern, separated, token_pattern
from edgekit_converters.operators.tokenizers import tokens_of

if TYPE_CHECKING:
    from edgekit_converters.walk import Path, Walk

OF_DOCUMENTS: Final = frozenset({"CountVectorizer", "HashingVectorizer", "TfidfVectorizer"})
"""What reads a sequence of texts, no table."""
WIDTH_MAX: Final = 2**20
"""Columns of the dense result: 8 MiB a row."""


def _count_vectorizer(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    return columns(_counts(walk, step, table).value)


def _tfidf_vectorizer(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    return columns(_weighted(step._tfidf, _counts(walk, step, table)).value)


def _tfidf_transformer(graph: GraphBuilder, step: Any, value: Value) -> Value:
    return _weighted(step, Expr(graph, value)).value


def _weighted(step: Any, counts: Expr) -> Expr:
    """TfidfTransformer; a place without a count stays 0."""
    x = counts
    if step.sublinear_tf:
        x = x.equals(0.0).where(0.0, x.log() + 1.0)
    if hasattr(step, "idf_"):
        x = x * np.asarray(step.idf_, dtype=np.float64)
    return _normalized(x, step.norm)


def _normalized(x: Expr, norm: str | None) -> Expr:
    """Each row over its norm; a row of zeros stays."""
    if norm is None:
        return x
    length = abs(x).sum() if norm == "l1" else (x * x).sum().sqrt()
    return x / length.equals(0.0).where(1.0, length)


def _counts(walk: Walk, step: Any, table: Table) -> Expr:
    """[rows, terms]: how often each term of the vocabulary is in each document."""
    vocabulary: Mapping[str, int] = step.vocabulary_
    width = len(vocabulary)
    pattern = _checked(walk, step, table, width)
    known = {term: int(place) for term, place in vocabulary.items() if _can_occur(step, pattern, term)}
    if not known:
        raise Unfaithful("no text can hold a term of its vocabulary", "fit it on texts of the kind that come")
    characters = frozenset("".join((*known, *_stop_words(step))))
    kinds = pattern.kinds if pattern is not None else (white(),)
    whole = folding(bool(step.lowercase), step.strip_accents)
    inner = walk.graph.inner()
    document = Texts(inner, inner.argument("document", "text", [1]))
    terms = _terms(document, step, pattern, needed(whole, characters, kinds), masked=False)
    places = terms.look_up(known, width)
    counts = _added(places, _filled(places.apply("Shape"), 1.0), width + 1).slice(0, width)
    x = _each_row(walk.graph, table, inner, counts, width)
    return x.at_most(1.0) if step.binary else x


def _hashing_vectorizer(walk: Walk, step: Any, table: Table, _path: Path) -> Table:
    width = int(step.n_features)
    pattern = _checked(walk, step, table, width)
    inner = walk.graph.inner()
    document = Texts(inner, inner.argument("document", "text", [1]))
    whole = folding(bool(step.lowercase), step.strip_accents)
    terms = _terms(document, step, pattern, whole, masked=True)
    hashes = terms.apply("MurmurHash3", domain=MICROSOFT, positive=0, seed=0).apply("Cast", to=TensorProto.INT64)
    places = hashes.apply("Abs").apply("Mod", hashes.of(width))
    ones = _filled(places.apply("Shape"), 1.0)
    if step.alternate_sign and not step.binary:
        ones = hashes.apply("Less", hashes.of(0)).where(hashes.of(-1.0), hashes.of(1.0))
    x = _each_row(walk.graph, table, inner, _added(places, ones, width), width)
    # scikit-learn sets whatever was hashed to 1, even where the signs have cancelled out.
    return columns(_normalized(x.at_most(1.0) if step.binary else x, step.norm).value)


def _terms(document: Texts, step: Any, pattern: TokenPattern | None, how: Folding, *, masked: bool) -> Texts:
    """All terms of a document."""
    low, high = step.ngram_range
    if pattern is None:
        characters = folded(document, how)
        characters = split(characters) if how.resizes else characters
        if step.analyzer == "char":
            grams = character_grams(characters, low, high)
        else:
            grams = edged_grams(characters, low, high, masked=masked)
    else:
        text = joined(folded(document, how)) if how.table or how.sigma else document
        tokens = text.tokens(separators=[pattern.finds]) if pattern.between else text.tokens(tokenexp=pattern.finds)
        # Without a mask or neighbours, what is dropped is in no table.
        if masked or high > 1 or pattern.within is not None:
            tokens = _kept(tokens, pattern, _stop_words(step))
        grams = word_grams(tokens, low, high)
    return grams[0].concat(*grams[1:])


def _kept(tokens: Texts, pattern: TokenPattern, stop_words: Sequence[str]) -> Texts:
    if pattern.keeps is not None:
        tokens = tokens.compress(tokens.matches(pattern.keeps))
    if pattern.within is not None:
        tokens = tokens.each_within(pattern.within)
    if stop_words:
        tokens = tokens.compress(tokens.is_in(stop_words).apply("Not"))
    return tokens


def _can_occur(step: Any, pattern: TokenPattern | None, term: Any) -> bool:
    """Whether a document can hold the term; a false yes does no harm but where the graph leaves out no window."""
    if not isinstance(term, str) or any("\ud800" <= one < "\ue000" for one in term):
        return False
    low, high = step.ngram_range
    if step.analyzer == "char_wb":
        if len(term) >= low:
            return len(term) <= high and " " not in term[1:-1]
        return len(term) > 2 and term[0] == term[-1] == " " and " " not in term[1:-1]
    if pattern is None or high > 1:
        return True
    return term not in _stop_words(step) and pattern.is_token(term)


def _stop_words(step: Any) -> list[str]:
    return sorted(step.get_stop_words() or ()) if step.analyzer == "word" else []


def _added(places: Texts, what: Texts, width: int) -> Texts:
    """[width]: zeros, to which `what` is added at the places."""
    zeros = _filled(places.of(width), 0.0)
    return zeros.apply("ScatterElements", places, what, axis=0, reduction="add")


def _filled(shape: Texts, value: float) -> Texts:
    return shape.apply("ConstantOfShape", value=numpy_helper.from_array(np.array([value])))


def _each_row(graph: GraphBuilder, table: Table, inner: GraphBuilder, row: Texts, width: int) -> Expr:
    """[rows, width]: `row`, which `inner` computes of one document, for every document."""
    body = inner.body({row.name: ("float64", [width])})
    name = graph.node("Scan", [graph.matrix(table)], body=body, num_scan_inputs=1)[0]
    return Expr(graph, Value(name, "float64", width))


def _checked(walk: Walk, step: Any, table: Table, width: int) -> TokenPattern | None:
    """The token pattern of an analyzer of words, once nothing stands against the step.

    Raises:
        Unfaithful: It calls functions of its own, or reads anything but one column of text.
    """
    tokens = tokens_of(step.tokenizer) if step.analyzer == "word" and step.tokenizer is not None else None
    for setting in ("analyzer", "preprocessor", "tokenizer", "strip_accents"):
        if callable(getattr(step, setting)) and not (setting == "tokenizer" and tokens is not None):
            raise Unfaithful(
                f"its {setting} is a function of its own",
                "use scikit-learn's own settings (analyzer, token_pattern, stop_words), or apply the function to the "
                "texts before the model",
            )
    if step.input != "content":
        raise Unfaithful(f"it reads documents by {step.input}", "give the documents themselves (input='content')")
    if len(table) != 1 or table[0].dtype != "text":
        raise Unfaithful("it reads one column of texts", "name that column in a ColumnTransformer before it")
    if min(step.ngram_range) < 1:
        raise Unfaithful(f"its ngram_range is {step.ngram_range}", "count from 1")
    if width > WIDTH_MAX:
        raise Unfaithful(
            f"it gives {width:,} columns, and a row of them is dense", f"use at most {WIDTH_MAX:,} (max_features)"
        )
    if np.dtype(step.dtype) not in (np.float64, np.float32, np.int64, np.int32):
        raise Unfaithful(f"its dtype {np.dtype(step.dtype)} can overflow", "use dtype float64 or int64")
    walk.rounded |= np.dtype(step.dtype) == np.float32
    walk.notes.append(
        "documents take time by their length, and the prediction of latency knows no length: measure with yours"
    )
    walk.graph.opset = max(walk.graph.opset, OPSET)
    if table[0].source is not None:
        walk.documents.add(table[0].source)
    if step.analyzer != "word":
        return None
    if tokens is None:
        return token_pattern(step.token_pattern)
    if tokens.separator and not _drops_empty(step):
        raise Unfaithful(
            "its tokenizer gives empty tokens, which count", r"use token_pattern, such as '[^,]+', and fit again"
        )
    return separated(tokens.separator) if tokens.separator else token_pattern(tokens.pattern)


def _drops_empty(step: Any) -> bool:
    """Whether an empty token is none of the terms, nor a part of one."""
    return step.ngram_range[1] == 1 and "" not in getattr(step, "vocabulary_", ("",))


TRANSFORMERS: Final[Mapping[str, Transform]] = {
    "CountVectorizer": _count_vectorizer,
    "HashingVectorizer": _hashing_vectorizer,
    "TfidfTransformer": on_matrix(_tfidf_transformer),
    "TfidfVectorizer": _tfidf_vectorizer,
}
