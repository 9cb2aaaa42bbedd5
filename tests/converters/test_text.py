"""Text vectorizers give the counts of the original, whatever Unicode the documents hold."""

# The annotations that pyright infers for scikit-learn and joblib come from their defaults.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import re
import warnings
from functools import cache, partial
from operator import methodcaller
from typing import Any

import numpy as np
import onnxruntime as ort
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from sklearn.svm import LinearSVC

from edgekit_contracts import limits
from edgekit_contracts.counts import decode_counts
from edgekit_contracts.errors import BadInput, ConversionRefused, DataMismatch
from edgekit_converters import schema
from edgekit_converters.cost import cost
from edgekit_converters.draft import draft_manifest
from edgekit_converters.graph import GraphBuilder
from edgekit_converters.nodes import serialize
from edgekit_converters.operators.tokenizers import tokens_of
from edgekit_converters.reference import reference
from edgekit_converters.verify import verify
from edgekit_converters.walk import Walk
from edgekit_runtime.engine import Engine
from edgekit_runtime.observe import Observer
from tests.converters.frames import CONVERTER, TARGET, assert_same, converted, features, target

SCRIPTS = (
    "the cat sat on mat don't well-known A1_b x yy zzz über naïve élan ﬁne Straße İstanbul ΟΔΟΣ ΑΣ Σ ΣΑΣ 日本語 한국어 "
    "Ａｂ ١٢٣ Ⅷ ﷺ Ǆungla ª 👩\u200d🚀 #tag @me $4.50"  # noqa: RUF001
)
WORDS = SCRIPTS.split()
GLUE = [
    " ",
    "  ",
    "\n",
    "\t ",
    "",
    "\u2003",
    "\x1f",
    "\x85",
    "\u0301",
    "\u00ad",
    "'",
    "·",
    "-",
    ",",
    "\x00",
    "\u0345",
    "_",
]
EDGES = ["", " ", "a" * 300, "e\u0301", "İ", "\x00a\x00bc"]
SIGMAS = ["Σ", "ΑΣ'Σ", "'Σ", "Α\u00adΣ", "ΑΣ'", "ΑΣ'α", "\u0345Σ"]  # noqa: RUF001
ACCENTS = [None, "unicode", "ascii"]


@cache
def documents() -> list[str]:
    """Texts in many scripts, with whatever can stand between words."""
    random = np.random.default_rng(0)
    found = []
    for count in random.integers(0, 25, 120):
        words = [str(random.choice([word, word.upper(), word.lower()])) for word in random.choice(WORDS, count)]
        found.append("".join(word + str(random.choice(GLUE)) for word in words))
    return found + EDGES + SIGMAS


def session(step: Any) -> ort.InferenceSession:
    """The fitted step as a graph of its own."""
    graph = GraphBuilder(TARGET)
    _, table = schema.inputs(graph, {"text": "text"})
    graph.output("out", graph.matrix(Walk(graph, none=False).transform(step, table, ("step",)), "float64"))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(serialize(graph.build()), options, providers=["CPUExecutionProvider"])


def counted(run: ort.InferenceSession, texts: list[str]) -> Any:
    found: Any = run.run(None, {"text": np.array(texts, dtype=object).reshape(-1, 1)})[0]
    return found


def assert_counts(step: Any, texts: list[str] | None = None) -> None:
    """Fitted on the documents, the step counts them as the original, to the bit."""
    texts = documents() if texts is None else texts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of stop words that the analyzer would change
        theirs = step.fit(documents()).transform(texts).toarray()
    assert theirs.any()
    np.testing.assert_array_equal(counted(session(step), texts), theirs)


@pytest.mark.parametrize("lowercase", [True, False], ids=["lower", "as it is"])
@pytest.mark.parametrize("accents", ACCENTS)
@pytest.mark.parametrize("analyzer", ["word", "char", "char_wb"])
def test_every_analyzer_counts_what_the_original_counts(analyzer: str, accents: str | None, lowercase: bool) -> None:
    assert_counts(
        CountVectorizer(analyzer=analyzer, strip_accents=accents, lowercase=lowercase, ngram_range=(1, 3), min_df=2)
    )


@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (2, 5), (4, 6), (7, 7)], ids=str)
@pytest.mark.parametrize("analyzer", ["word", "char", "char_wb"])
def test_a_range_of_sizes_and_short_words(analyzer: str, sizes: tuple[int, int]) -> None:
    assert_counts(CountVectorizer(analyzer=analyzer, ngram_range=sizes))
    assert_counts(
        HashingVectorizer(analyzer=analyzer, ngram_range=sizes, n_features=61, norm=None, alternate_sign=False)
    )


@pytest.mark.parametrize("accents", ACCENTS)
@pytest.mark.parametrize("analyzer", ["word", "char", "char_wb"])
def test_hashes_fall_where_the_original_puts_them(analyzer: str, accents: str | None) -> None:
    assert_counts(HashingVectorizer(analyzer=analyzer, strip_accents=accents, n_features=64, norm=None))
    assert_counts(HashingVectorizer(analyzer=analyzer, strip_accents=accents, n_features=5, norm=None, binary=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=5))
@pytest.mark.parametrize("kind", ["words", "characters", "edges", "ascii", "ahead", "wider"])
def test_any_text_is_hashed_as_the_original_does(kind: str, texts: list[str]) -> None:
    step, run = _hashing(kind)
    np.testing.assert_array_equal(counted(run, texts), step.transform(texts).toarray())


@cache
def _hashing(kind: str) -> tuple[Any, ort.InferenceSession]:
    step = {
        "words": HashingVectorizer(n_features=2**10, norm=None, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b"),
        "characters": HashingVectorizer(n_features=2**10, norm=None, analyzer="char", ngram_range=(1, 2)),
        "edges": HashingVectorizer(n_features=2**10, norm=None, analyzer="char_wb", ngram_range=(2, 4)),
        "ascii": HashingVectorizer(n_features=2**10, norm=None, strip_accents="ascii", lowercase=False),
        "ahead": HashingVectorizer(n_features=2**10, norm=None, ngram_range=(1, 2), token_pattern=r"\w+(?=\s)"),
        "wider": HashingVectorizer(n_features=2**10, norm=None, token_pattern=r"\b[\w'-]{2,}\b"),
    }[kind]
    return step, session(step)


def test_every_character_becomes_what_python_makes_of_it() -> None:
    planes = [*range(0xD800), *range(0xE000, 0x32000), *range(0xE0000, 0xE1000)]  # what is assigned, and more
    everything = [chr(point) for point in planes]
    texts = ["".join(everything[start : start + 4096]) for start in range(0, len(everything), 4096)]
    for accents in (None, "unicode"):
        step = HashingVectorizer(
            n_features=2**12, norm=None, strip_accents=accents, token_pattern=r"\S", alternate_sign=False
        )
        np.testing.assert_array_equal(counted(session(step), texts), step.transform(texts).toarray())


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"(?u)\b\w+\b", r"\w+", r"\w{3,}", r"(?u)\b\w\w\w+\b", r"(\w+)", r"\b(\w+)\b", r"(?a)\b\w\w+\b"),
        *(r"[a-zA-Z]+", r"(?u)\b[a-zA-Z]{2,}\b", r"\b[a-zA-Z]\w+\b", r"\b[^\d\W]+\b", r"\b\w{1,3}\b", r"(?i)[a-z]+"),
        *(r"\S+", r"[^,]+", r".", r"\d{1,2}", r"\W+", r"#?\w+", r"\w+|[^\w\s]", r"[\w-]+"),
        *(r"[A-Za-z]+(?:'[a-z]+)?", r"\b\w+(?:'\w+)?\b", r"\b\w\w+(?:-\w+)*\b"),
        *(r"(?u)\b[\w-]+\b", r"\b[\w'.,-]{3,}\b", r"\b\w[\w'-]*\b", r"\b\w[\w\s-]*\w\b", r"(?a)\b[\w-]+\b"),
        *(r"[A-Za-z0-9]+(?=\s+)", r"\w{2,}(?=[^\w\s])", r"\w\w+(?=\W)"),
    ],
)
def test_a_token_pattern_finds_the_tokens_of_python(pattern: str) -> None:
    stop_words = ["the", "cat", "yy", "οδος"]
    assert_counts(CountVectorizer(token_pattern=pattern, ngram_range=(1, 2), stop_words=stop_words))
    assert_counts(CountVectorizer(token_pattern=pattern, lowercase=False))


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"\w+|\$[\d.]+|\S+", "several ways"),
        (r"ab|abc", "several ways"),
        (r"\b[a-z'-]+\b", "boundaries"),
        (r"\b\w\w[\w-]*\b", "boundaries"),
        (r"\b\w", "boundaries"),
        (r"\w+?", "not greedy"),
        (r"(?<=a)\w+", "look-around"),
        (r"\w+(?!\d)", "look-around"),
        (r"\w+(?=\d)", "may be its own"),
        (r"[^\W\d]\w*(?=\s)", "not from a run"),
        (r"\w*", "empty text"),
        (r"\b\d+\b|\b[a-z]+\b", "a position inside"),
        (r"(\w)\w+", "a group that is not the whole"),
        (r"\w{2,90}", "more than 64"),
    ],
)
def test_a_token_pattern_without_a_counterpart_is_refused(pattern: str, why: str) -> None:
    with pytest.raises(ConversionRefused, match=why) as refusal:
        session(CountVectorizer(token_pattern=pattern, vocabulary=["a"]).fit(["a"]))
    assert len(refusal.value.sentence) < 600


def test_a_given_vocabulary_may_name_what_no_text_holds() -> None:
    assert_counts(CountVectorizer(vocabulary=["the", "cat", "cat sat", "\ud800", "a-b"], stop_words=["the"]))
    assert_counts(CountVectorizer(vocabulary=["the cat", "cat", "the"], stop_words=["the"], ngram_range=(1, 2)))
    edged = [" a ", "ab", "a b", " x ", "  ", " ", " yy ", "cat", "at ", " the "]
    assert_counts(CountVectorizer(vocabulary=edged, analyzer="char_wb", ngram_range=(4, 5)))
    assert_counts(CountVectorizer(vocabulary=edged, analyzer="char_wb", ngram_range=(1, 2)))
    with pytest.raises(ConversionRefused, match="no text can hold"):
        session(CountVectorizer(vocabulary=["the"], stop_words=["the"]).fit(["cat"]))


@pytest.mark.parametrize(
    "step",
    [
        TfidfVectorizer(),
        TfidfVectorizer(sublinear_tf=True, norm="l1", ngram_range=(1, 2), stop_words="english"),
        TfidfVectorizer(use_idf=False, norm=None),
        TfidfVectorizer(smooth_idf=False, binary=True, max_df=0.5, min_df=2),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), max_features=200),
        make_pipeline(CountVectorizer(), TfidfTransformer(sublinear_tf=True)),
        make_pipeline(HashingVectorizer(n_features=64, alternate_sign=False, norm="l1"), TfidfTransformer()),
    ],
)
def test_weights_are_those_of_the_original(step: Any) -> None:
    theirs = step.fit(documents()).transform(documents()).toarray()
    ours = counted(session(step), documents())
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=0)
    np.testing.assert_allclose(counted(session(step), documents()[:1]), theirs[:1], rtol=1e-12, atol=0)


def frame() -> pd.DataFrame:
    """A column of documents beside numbers."""
    rows = (documents() * 2)[:240]
    return features()[["area"]].assign(text=pd.Series(rows, index=features().index))


@pytest.mark.parametrize(
    "model",
    [
        make_pipeline(CountVectorizer(), MultinomialNB()),
        make_pipeline(TfidfVectorizer(), LogisticRegression()),
        make_pipeline(TfidfVectorizer(), LinearSVC()),
        make_pipeline(CountVectorizer(), TfidfTransformer(), SGDClassifier(loss="log_loss", random_state=0)),
        make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), SelectKBest(chi2, k=50), ComplementNB()),
        make_pipeline(TfidfVectorizer(), TruncatedSVD(5, random_state=0), LogisticRegression()),
        make_pipeline(HashingVectorizer(n_features=256), MaxAbsScaler(), LogisticRegression()),
        make_pipeline(
            FeatureUnion(
                [
                    ("words", TfidfVectorizer()),
                    ("characters", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3), max_features=300)),
                ]
            ),
            LogisticRegression(),
        ),
        CalibratedClassifierCV(make_pipeline(TfidfVectorizer(), LinearSVC()), cv=2),
        GridSearchCV(make_pipeline(CountVectorizer(), MultinomialNB()), {"multinomialnb__alpha": [0.5, 1.0]}, cv=2),
    ],
)
def test_a_model_of_documents_takes_a_series_a_list_or_a_column(model: Any) -> None:
    texts = frame()["text"]
    model.fit(texts.tolist(), target())
    conversion = assert_same(model, texts.tolist(), exact=True)
    assert [feature.name for feature in conversion.features] == ["text"]
    assert assert_same(model, texts.rename("review")).features[0].name == "review"
    assert assert_same(model, texts.to_frame()).onnx == conversion.onnx
    with pytest.raises(DataMismatch, match="one column of documents"):
        converted(model, frame())


def test_documents_stand_beside_numbers() -> None:
    columns = ColumnTransformer([("words", TfidfVectorizer(), "text"), ("numbers", StandardScaler(), ["area"])])
    model = make_pipeline(columns, Ridge()).fit(frame(), target("value"))
    conversion = assert_same(model, frame(), exact=True)
    assert conversion.opset == 20
    assert {"com.microsoft:Tokenizer", "ai.onnx:Scan"} <= set(conversion.operators)


def test_no_document_is_written_down() -> None:
    model = make_pipeline(CountVectorizer(), MultinomialNB()).fit(frame()["text"], target())
    feature = converted(model, frame()["text"]).features[0]
    assert feature.free
    assert feature.categories is None
    assert not feature.nullable


def test_a_device_answers_many_and_long_documents() -> None:
    model = make_pipeline(CountVectorizer(), MultinomialNB()).fit(frame()["text"], target())
    conversion = converted(model, frame()["text"])
    engine = Engine(conversion.onnx, draft_manifest("text", "1.0", conversion, TARGET.onnxruntime))
    rows = [*documents(), "the cat " * 8_000]
    assert len(rows) % limits.DOCUMENT_ROWS
    answers = engine.predict({"text": rows})
    assert answers.labels is not None
    assert answers.probabilities is not None
    np.testing.assert_allclose(answers.probabilities, model.predict_proba(rows), atol=1e-9)
    assert answers.labels.tolist() == model.predict(rows).tolist()
    with pytest.raises(BadInput, match="longer than 65536"):
        engine.predict({"text": ["a" * 65_537]})
    with pytest.raises(BadInput, match="no answer"):
        engine.predict({"text": [None]})


def test_the_reference_counts_documents_and_names_none() -> None:
    model = make_pipeline(CountVectorizer(), MultinomialNB()).fit(frame()["text"], target())
    conversion = converted(model, frame()["text"])
    manifest = draft_manifest("text", "1.0", conversion, TARGET.onnxruntime)
    with Engine(conversion.onnx, manifest) as engine:
        verified = verify(
            engine,
            lambda rows: CONVERTER.answers(model, rows),
            frame()[["text"]],
            precision=conversion.precision,
            model=model,
        )
        columns = {"text": documents()}
        answers = engine.predict(columns)
        found = reference(manifest, columns, answers)
        observer = Observer(manifest, found.bins)
        observer.record(engine.encode(columns), answers, 1.0)
        window = observer.close()
    assert verified.parity.rows > len(frame())
    assert found.bins.features[0].categories == ()
    assert found.features[0].bins == (len(documents()),)
    seen = decode_counts(window.body.counts, found.bins, window.n).features[0]
    assert (seen.bins, seen.out_of_range) == ((len(documents()),), 0)
    assert cost(conversion.onnx).nodes > 20


def test_float32_weights_are_answered_in_float64_and_said_to_be() -> None:
    model = make_pipeline(TfidfVectorizer(dtype=np.float32), LogisticRegression()).fit(frame()["text"], target())
    assert_same(model, frame()["text"], exact=False)


@pytest.mark.parametrize(
    "tokenizer",
    [
        str.split,
        partial(str.split, sep=","),
        methodcaller("split", "|"),
        lambda text: text.split(" "),
        methodcaller("split", ", "),
        re.compile(r"\w+-?").findall,
    ],
    ids=["white space", "partial", "method", "lambda", "two characters", "pattern"],
)
def test_a_tokenizer_that_is_a_pattern_counts_what_the_original_counts(tokenizer: Any) -> None:
    texts = [*documents(), *(text.replace(" ", ", ").replace("-", "|") for text in documents())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # token_pattern is not used
        known = sorted(set().union(*map(tokenizer, (text.lower() for text in texts))) - {""})
        step = CountVectorizer(tokenizer=tokenizer, vocabulary=known[::3])
        assert_counts(step, texts)


def test_a_separator_that_is_a_sigma_is_none_at_the_end_of_a_word() -> None:
    step = CountVectorizer(tokenizer=methodcaller("split", "\u03c3"), token_pattern=None, vocabulary=["b", "c", "d"])
    texts = ["B\u03a3C", "BD\u03a3", "D\u03a3 C", "c\u03c3B"]
    np.testing.assert_array_equal(counted(session(step.fit(texts)), texts), step.transform(texts).toarray())


@pytest.mark.parametrize(
    "tokenizer",
    [
        list,
        re.compile(r"\w", re.ASCII).findall,
        re.compile(r"(\w)\w").findall,
        re.compile(r"\W").split,
        partial(str.split, maxsplit=1),
        methodcaller("split", ", ", 1),
        lambda text: ["none"] if text == "" else text.split(),
        lambda text: text.split() if text else [],
        lambda text: text.split() if isinstance(text, str) and len(text) < 200 else text.split(","),
        lambda text: str(text).split(),
        lambda text: [one for one in text.split() if len(one) > 2],
    ],
)
def test_a_tokenizer_that_looks_at_the_text_is_no_pattern(tokenizer: Any) -> None:
    assert tokens_of(tokenizer) is None


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (CountVectorizer(tokenizer=list, token_pattern=None), "its tokenizer is a function"),
        (HashingVectorizer(n_features=8, tokenizer=methodcaller("split", ","), token_pattern=None), "empty tokens"),
        (TfidfVectorizer(analyzer=str.split), "its analyzer is a function"),
        (TfidfVectorizer(preprocessor=str.strip), "its preprocessor is a function"),
        (CountVectorizer(strip_accents=str.strip), "its strip_accents is a function"),
        (CountVectorizer(dtype=np.uint8), "can overflow"),
        (HashingVectorizer(n_features=2**21), "a row of them is dense"),
    ],
    ids=["tokenizer", "empty tokens", "analyzer", "preprocessor", "strip_accents", "dtype", "width"],
)
def test_what_cannot_convert_is_refused_by_its_setting(step: Any, why: str) -> None:
    model = make_pipeline(ColumnTransformer([("words", step, "text")]), MaxAbsScaler(), Ridge())
    model.fit(frame()[["text"]], target("value"))
    with pytest.raises(ConversionRefused, match=why) as refusal:
        converted(model, frame()[["text"]])
    assert "columntransformer/words" in refusal.value.step
