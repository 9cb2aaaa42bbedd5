"""Tables as people have them, made from seeds and from scikit-learn's bundled data: nothing is downloaded.

Each function gives features and a target. The columns have the types that real tables have: texts with None or NaN,
categories, whole numbers, truth values, pandas' nullable types, float32 measurements, dates already made into numbers.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import datasets

Data = tuple[Any, NDArray[Any]]

ROWS = 320


def _chance(score: NDArray[Any], random: np.random.Generator) -> NDArray[np.bool_]:
    """True with the probability that the logistic function makes of the score."""
    share = 1 / (1 + np.exp(-(score - score.mean()) / score.std()))
    return np.asarray(random.random(len(score)) < share)


def _holes(series: pd.Series[Any], share: float, random: np.random.Generator, hole: Any = np.nan) -> pd.Series[Any]:
    """The series with a share of its values missing."""
    return series.astype(object if isinstance(series.iloc[0], str) else float).mask(
        random.random(len(series)) < share, hole
    )


@cache
def titanic() -> Data:
    """Passengers: ages with gaps, a port that two lack (NaN), a deck that most lack; 0 or 1."""
    random = np.random.default_rng(1)
    sex = random.choice(["male", "female"], ROWS, p=[0.65, 0.35])
    pclass = random.choice([1, 2, 3], ROWS, p=[0.25, 0.2, 0.55])
    fare = np.round(random.lognormal(4.2 - 0.8 * pclass, 0.6), 4)
    age = np.round(random.normal(30, 13, ROWS).clip(0.5, 80), 1)
    frame = pd.DataFrame({"pclass": pclass, "sex": sex.astype(object), "age": age})
    frame["sibsp"], frame["parch"], frame["fare"] = random.poisson(0.5, ROWS), random.poisson(0.4, ROWS), fare
    frame["embarked"] = random.choice(["S", "C", "Q"], ROWS, p=[0.7, 0.2, 0.1]).astype(object)
    frame["deck"] = random.choice(["A", "B", "C", "D"], ROWS).astype(object)
    frame["age"] = _holes(frame["age"], 0.2, random)
    frame["embarked"], frame["deck"] = _holes(frame["embarked"], 0.01, random), _holes(frame["deck"], 0.7, random)
    return frame, _chance(2 * (sex == "female") - 0.7 * pclass - 0.01 * age, random).astype(int)


@cache
def adult() -> Data:
    """Census: texts whose missing values are None, a rare country, skewed gains; texts as classes."""
    random = np.random.default_rng(2)
    hours, age = random.normal(40, 11, ROWS).clip(1, 99).astype(int), random.integers(17, 80, ROWS)
    school = random.integers(1, 17, ROWS)
    frame = pd.DataFrame({"age": age, "education_num": school, "hours": hours})
    frame["gain"] = np.where(random.random(ROWS) < 0.9, 0.0, random.lognormal(8, 1, ROWS).round())
    for name, values, share in (
        ("workclass", ["Private", "Self-emp", "Local-gov", "Federal-gov"], 0.06),
        ("occupation", ["Sales", "Craft", "Tech", "Exec", "Farming", "Service"], 0.06),
        ("country", ["US"] * 30 + ["Mexico", "México", "India", "Perú", "中国"], 0.02),
    ):
        frame[name] = _holes(pd.Series(random.choice(values, ROWS).astype(object)), share, random, None)
    frame["married"] = random.random(ROWS) < 0.5
    rich = _chance(0.1 * school + 0.03 * hours + 0.03 * age + 1.2 * frame["married"].to_numpy(), random)
    return frame, np.where(rich, ">50K", "<=50K").astype(object)


@cache
def credit() -> Data:
    """Loans in pandas' own types: category, Int64 and boolean with NA, float32; truth values as classes."""
    random = np.random.default_rng(3)
    income = random.lognormal(10, 0.5, ROWS)
    grade = random.choice(["A", "B", "C", "D", "E"], ROWS, p=[0.3, 0.3, 0.2, 0.15, 0.05])
    frame = pd.DataFrame({"income": income.astype(np.float32), "debt": random.gamma(2, 4000, ROWS).round(2)})
    frame["grade"] = pd.Categorical(grade, categories=list("ABCDE"), ordered=True)
    frame["home"] = pd.Categorical(_holes(pd.Series(random.choice(["own", "rent"], ROWS).astype(object)), 0.1, random))
    frame["lines"] = pd.array(random.poisson(4, ROWS), dtype="Int64")
    frame.loc[random.random(ROWS) < 0.1, "lines"] = pd.NA
    frame["employed"] = pd.array(random.random(ROWS) < 0.8, dtype="boolean")
    frame.loc[random.random(ROWS) < 0.05, "employed"] = pd.NA
    frame["months"] = random.integers(6, 72, ROWS).astype(np.int32)
    return frame, _chance(np.char.equal(grade, "E") * 2 + frame["debt"].to_numpy() / 8000, random)


@cache
def churn() -> Data:
    """Subscriptions, complete but for the new customers' total; yes and no as classes."""
    random = np.random.default_rng(4)
    tenure, monthly = random.integers(0, 72, ROWS), random.uniform(18, 118, ROWS).round(2)
    contract = random.choice(["month-to-month", "one year", "two years"], ROWS, p=[0.55, 0.2, 0.25])
    frame = pd.DataFrame({"tenure": tenure, "monthly": monthly, "contract": contract.astype(object)})
    frame["total"] = np.where(tenure == 0, np.nan, (tenure * monthly * random.uniform(0.9, 1.1, ROWS)).round(2))
    frame["senior"] = (random.random(ROWS) < 0.16).astype(int)
    frame["paperless"] = random.random(ROWS) < 0.6
    frame["payment"] = random.choice(["check", "mailed check", "transfer", "card"], ROWS).astype(object)
    left = _chance(-0.03 * tenure + 0.01 * monthly + (contract == "month-to-month"), random)
    return frame, np.where(left, "yes", "no").astype(object)


@cache
def housing() -> Data:
    """Houses with gaps in areas and quality, and a neighbourhood; a price in thousands."""
    random = np.random.default_rng(5)
    area, year = random.gamma(9, 160, ROWS).round(), random.integers(1900, 2011, ROWS)
    place = random.choice(["center", "hills", "north", "old town", "river", "station"], ROWS)
    worth = pd.Series(place).map({"center": 60, "hills": 40, "old town": 25, "river": 30}).fillna(0).to_numpy()
    frame = pd.DataFrame({"area": area, "year": year, "place": place.astype(object)})
    frame["quality"] = random.choice(["Po", "Fa", "TA", "Gd", "Ex"], ROWS, p=[0.05, 0.15, 0.4, 0.3, 0.1]).astype(object)
    frame["frontage"] = _holes(pd.Series(random.normal(70, 20, ROWS).round()), 0.18, random)
    frame["garage"] = _holes(pd.Series(random.choice(["Attchd", "Detchd"], ROWS).astype(object)), 0.08, random)
    frame["rooms"], frame["pool"] = random.integers(3, 12, ROWS), random.random(ROWS) < 0.03
    return frame, np.round(40 + 0.09 * area + 0.3 * (year - 1900) + worth + random.normal(0, 12, ROWS), 1)


@cache
def sensors() -> Data:
    """Float32 measurements of a machine with gaps, and its state of three as text."""
    random = np.random.default_rng(6)
    state = random.integers(0, 3, ROWS)
    signal = random.normal(0, 1, (ROWS, 8)) + np.outer(state, np.linspace(-1, 1, 8))
    frame = pd.DataFrame(signal.astype(np.float32), columns=[f"s{index}" for index in range(8)])
    frame["rpm"] = (1200 + 300 * state + random.normal(0, 90, ROWS)).round().astype(np.float32)
    return frame.mask(random.random(frame.shape) < 0.04), np.array(["idle", "good", "worn"], dtype=object)[state]


@cache
def bikes() -> Data:
    """Hourly rentals, the date made into numbers; counts."""
    random = np.random.default_rng(7)
    hour, month = random.integers(0, 24, ROWS), random.integers(1, 13, ROWS)
    temp = (12 - 11 * np.cos(2 * np.pi * month / 12) + random.normal(0, 4, ROWS)).round(1)
    weather = random.choice(["clear", "misty", "rain", "heavy_rain"], ROWS, p=[0.6, 0.25, 0.13, 0.02])
    frame = pd.DataFrame({"hour": hour, "month": month, "weekday": random.integers(0, 7, ROWS), "temp": temp})
    frame["humidity"] = random.uniform(0.2, 1, ROWS).round(2)
    frame["weather"], frame["workingday"] = weather.astype(object), random.random(ROWS) < 0.68
    busy = np.exp(1.5 + np.sin((hour - 7) / 24 * 2 * np.pi) + 0.03 * temp - 0.6 * (weather == "rain"))
    return frame, random.poisson(busy).astype(float)


@cache
def claims() -> Data:
    """Insured cars, region and brand as texts; costs above zero."""
    random = np.random.default_rng(8)
    frame = pd.DataFrame({"power": random.integers(4, 16, ROWS), "age": random.integers(0, 25, ROWS)})
    frame["driver"], frame["bonus"] = random.integers(18, 90, ROWS), random.integers(50, 200, ROWS)
    frame["density"] = random.lognormal(5, 2, ROWS).round().clip(1)
    frame["brand"] = random.choice(["B1", "B2", "B3", "B12"], ROWS).astype(object)
    frame["region"] = random.choice([f"R{number:02d}" for number in range(22)], ROWS).astype(object)
    mean = np.exp(6 + 0.01 * frame["bonus"] - 0.03 * frame["age"])
    return frame, np.round(random.gamma(2, mean / 2) + 1, 2)


@cache
def shops() -> Data:
    """Sales with a postcode of many values as whole number, and an article number as text; turnover."""
    random = np.random.default_rng(9)
    postcode = random.choice(np.arange(10_000, 10_060), ROWS)
    frame = pd.DataFrame({"postcode": postcode, "article": [f"a-{number}" for number in random.integers(0, 40, ROWS)]})
    frame["article"] = frame["article"].astype(object)
    frame["price"], frame["promotion"] = random.uniform(1, 50, ROWS).round(2), random.random(ROWS) < 0.2
    return frame, np.round(200 + (postcode % 7) * 30 - 2 * frame["price"].to_numpy() + random.normal(0, 20, ROWS), 2)


_WORDS = {
    "account": [
        "password",
        "reset",
        "login",
        "locked",
        "e-mail",
        "address",
        "change",
        "name",
        "sign-in",
        "2fa",
        "code",
    ],
    "billing": ["invoice", "refund", "charged", "twice", "payment", "card", "VAT", "amount", "Überweisung", "café"],
    "network": ["router", "slow", "WIFI", "drops", "packet", "cannot", "connect", "line", "DSL", "since", "modem's"],
}
_ALL_WORDS = [word for words in _WORDS.values() for word in words]


@cache
def tickets() -> Data:
    """Support tickets: a subject, a text, a channel, a length; the queue."""
    random = np.random.default_rng(10)
    queue = random.choice(sorted(_WORDS), ROWS)
    texts = []
    for name in queue:
        words = [*random.choice(_WORDS[name], random.integers(3, 9)), *random.choice(_ALL_WORDS, 3)]
        texts.append(random.choice([" ", " ", ", ", ". ", "  "]).join(random.permutation(words)).capitalize() + ".")
    frame = pd.DataFrame({"subject": [text.split(" ")[0] for text in texts], "body": texts}, dtype=object)
    frame["channel"] = random.choice(["mail", "phone", "chat"], ROWS).astype(object)
    frame["length"] = frame["body"].str.len().astype(int)
    return frame, queue.astype(object)


@cache
def reviews() -> Data:
    """The tickets' texts alone, as a vectorizer takes them."""
    frame, queue = tickets()
    return frame["body"].to_numpy(dtype=object), queue


def _bundled(name: str) -> Data:
    bunch: Any = getattr(datasets, f"load_{name}")()
    chosen = np.random.default_rng(11).permutation(len(bunch.data))[:ROWS]
    return bunch.data[chosen], bunch.target[chosen]


@cache
def iris() -> Data:
    """150 flowers, three classes."""
    return _bundled("iris")


@cache
def wine() -> Data:
    """178 wines, three classes."""
    return _bundled("wine")


@cache
def cancer() -> Data:
    """Breast cancer, 30 measurements, two classes."""
    return _bundled("breast_cancer")


@cache
def diabetes() -> Data:
    """Diabetes, ten measurements, a number."""
    return _bundled("diabetes")


@cache
def digits() -> Data:
    """Handwritten digits of 8 x 8 pixels, ten classes."""
    return _bundled("digits")


@cache
def gaps() -> Data:
    """Breast cancer's first ten measurements with a tenth of the values missing."""
    X, y = cancer()
    return np.where(np.random.default_rng(12).random((len(X), 10)) < 0.1, np.nan, X[:, :10]), y


@cache
def named() -> Data:
    """Wine as a DataFrame of floats alone."""
    bunch: Any = datasets.load_wine(as_frame=True)
    return bunch.data, bunch.target.to_numpy()


@cache
def linnerud() -> Data:
    """Diabetes with three targets."""
    X, y = diabetes()
    return X, np.stack([y, np.sqrt(y) + X[:, 0], y * X[:, 2]], axis=1)


@cache
def labels() -> Data:
    """Two labels of each wine: its class is 0, its alcohol is high."""
    X, y = wine()
    return X, np.stack([(y == 0).astype(int), (X[:, 0] > 13).astype(int)], axis=1)


@cache
def alone() -> Data:
    """One column of positive numbers and a target that grows with it."""
    X, y = diabetes()
    return np.abs(X[:, [2]]) * 10, y
