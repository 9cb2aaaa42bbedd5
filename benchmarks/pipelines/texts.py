# The annotations that pyright infers for scikit-learn come from their defaults.
# pyright: reportArgumentType=false

"""Pipelines over texts: alone, and as a column of a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sklearn.compose import make_column_transformer
from sklearn.decomposition import TruncatedSVD
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import MaxAbsScaler, Normalizer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from benchmarks.pipelines import tables
from benchmarks.pipelines.case import Case


def cases() -> Iterator[Case]:
    """The pipelines."""
    yield from _alone()
    yield from _columns()


def _alone() -> Iterator[Case]:
    def case(name: str, *steps: Any) -> Case:
        return Case(f"reviews: {name}", tables.reviews, make_pipeline(*steps))

    yield case("tf-idf, logistic regression", TfidfVectorizer(), LogisticRegression())
    yield case("tf-idf of word pairs, linear SVC", TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC())
    yield case("rare and common words left out", TfidfVectorizer(min_df=3, max_df=0.8), SGDClassifier(random_state=0))
    yield case(
        "English stop words, word pairs", CountVectorizer(ngram_range=(1, 2), stop_words="english"), MultinomialNB()
    )
    yield case("counts, naive Bayes", CountVectorizer(), MultinomialNB())
    yield case("binary counts, complement Bayes", CountVectorizer(binary=True), ComplementNB())
    yield case("counts, then tf-idf", CountVectorizer(), TfidfTransformer(), RidgeClassifier())
    yield case("characters", TfidfVectorizer(analyzer="char", ngram_range=(2, 3)), LogisticRegression())
    yield case("characters within words", TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4)), LinearSVC())
    yield case("accents stripped", TfidfVectorizer(strip_accents="unicode"), LogisticRegression())
    yield case(
        "accents stripped to ASCII, case kept", TfidfVectorizer(strip_accents="ascii", lowercase=False), LinearSVC()
    )
    yield case("own pattern of tokens", TfidfVectorizer(token_pattern=r"[a-z]{3,}"), LogisticRegression())
    yield case("at most 20 words, forest", CountVectorizer(max_features=20), RandomForestClassifier(15, random_state=0))
    yield case("given vocabulary", CountVectorizer(vocabulary=["router", "invoice", "password"]), LogisticRegression())
    yield case("best words", TfidfVectorizer(norm=None, use_idf=False), SelectKBest(chi2, k=15), MultinomialNB())
    yield case(
        "latent semantics", TfidfVectorizer(), TruncatedSVD(8, random_state=0), Normalizer(), LogisticRegression()
    )
    yield case("hashed words", HashingVectorizer(n_features=256), SGDClassifier(random_state=0))
    yield case(
        "words beside characters",
        make_union(TfidfVectorizer(), TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3))),
        LinearSVC(),
    )
    yield Case(
        "reviews: grid search over the vectorizer",
        tables.reviews,
        GridSearchCV(
            make_pipeline(TfidfVectorizer(), LogisticRegression()),
            {"tfidfvectorizer__ngram_range": [(1, 1), (1, 2)]},
            cv=2,
        ),
    )


def _columns() -> Iterator[Case]:
    def case(name: str, columns: Any, last: Any) -> Case:
        return Case(f"tickets: {name}", tables.tickets, make_pipeline(columns, last))

    yield case(
        "tf-idf of one column beside channel and length",
        make_column_transformer(
            (TfidfVectorizer(), "body"), (OneHotEncoder(), ["channel"]), (StandardScaler(), ["length"])
        ),
        LogisticRegression(),
    )
    yield case(
        "two text columns",
        make_column_transformer((TfidfVectorizer(), "subject"), (CountVectorizer(max_features=30), "body")),
        LinearSVC(),
    )
    yield case(
        "counts of a column, forest",
        make_column_transformer((CountVectorizer(max_features=25), "body"), (MaxAbsScaler(), ["length"])),
        RandomForestClassifier(15, random_state=0),
    )
