"""The public API: whatever holds the rows, the answers are the engine's, bit for bit."""

from __future__ import annotations

import pickle
import re
import threading
import weakref
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnx.parser
import pandas as pd
import pyarrow as pa
import pytest

import edgekit_runtime
from edgekit_contracts.errors import BadInput, Refused, SignatureRefused, UsageError
from edgekit_contracts.manifest import Output
from edgekit_runtime.engine import Answer, Answers, Engine
from edgekit_runtime.model import Model
from edgekit_runtime.observe import Observer
from edgekit_runtime.ring import FIRST, PLACES
from edgekit_runtime.session import SessionSettings
from tests import bundles
from tests.runtime.numeric_models import HEAD, KINDS, bins_of, engine_of, rows


class Frame:
    """What every library's data frame can do."""

    def __init__(self, columns: Any) -> None:
        self._columns, self.columns = columns, list(columns)

    def __getitem__(self, name: Any, /) -> Any:
        return self._columns[name]


def plain(engine: Engine, table: Any) -> list[Answer]:
    """The engine's answers to each row alone; the table's columns are a, b, c."""
    found = []
    for row in table.tolist():
        answers = engine.predict({name: [value] for name, value in zip("abc", row, strict=True)})
        found.append(answers.row(0))
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("observed", [False, True])
def test_bound_rows_are_answered_bit_for_bit_like_the_engine_and_counted_alike(kind: str, observed: bool) -> None:
    engine = engine_of(kind)
    observer, other = (Observer(engine.manifest, bins_of(engine)) for _ in range(2))
    model, table = Model(engine, observer if observed else None), rows(600)
    expected = plain(engine, table)
    assert [model.predict(row) for row in table] == expected
    assert model._single._ring is not None
    assert [model.predict(row.tolist()) for row in table[:50]] == expected[:50]
    assert [type(answer.label) for answer in map(model.predict, table[:3])] == [type(expected[0].label)] * 3
    if not observed:
        return
    for row in (*table, *table[:50], *table[:3]):
        batch = engine.encode(dict(zip("abc", row[:, None], strict=True)))
        other.record(batch, engine.run(batch), 1.0)
    window, reference = observer.close(), other.close()
    assert (window.n, window.body.software.calls) == (653, 653)
    seen, right = (one.counts for one in (window, reference))
    assert (seen.features, seen.classes, seen.scores) == (right.features, right.classes, right.scores)
    moments, expected_moments = (np.frombuffer(one.body.moments, "<f4") for one in (window, reference))
    np.testing.assert_allclose(moments, expected_moments, rtol=1e-6)


@pytest.mark.parametrize("kind", ["float64", "float32", "text"])
def test_whatever_holds_the_rows_the_answers_are_the_same(kind: str) -> None:
    engine, table = engine_of(kind), rows(5)
    model = Model(engine)
    columns = dict(zip("abc", table.T, strict=True))
    frame = pd.DataFrame(columns)
    expected = engine.predict(columns)
    many: list[Any] = [
        table,
        table.tolist(),
        [tuple(row) for row in table],
        list(table),
        columns,
        OrderedDict(reversed(columns.items())),
        {name: column.tolist() for name, column in columns.items()},
        frame.to_dict("records"),
        frame,
        frame[["b", "c", "a"]],
        Frame(columns),
        table.astype(object),
    ]
    for given in many:
        answers = model.predict(given)
        assert isinstance(answers, Answers)
        assert answers.probabilities is not None
        assert answers.probabilities.tolist() == expected.probabilities.tolist()  # type: ignore[union-attr]
    first = plain(engine, table[:1])[0]
    one: list[Any] = [
        table[0],
        tuple(table[0]),
        table[0].tolist(),
        table[0].astype(object),
        frame.iloc[0],
        frame.iloc[0].to_dict(),
        {"c": table[0, 2], "a": table[0, 0], "b": table[0, 1]},
        {name: np.array(value) for name, value in zip("abc", table[0].tolist(), strict=True)},
    ]
    for _ in range(2):  # by tensors of its own first, then in the ring
        assert [model.predict(given) for given in one] == [first] * len(one)
    single = model.predict(table[0].astype(np.float32))
    assert single == plain(engine, table[:1].astype(np.float32).astype(np.float64))[0]


def test_a_row_that_was_pickled_or_cut_out_of_a_table_is_answered_in_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, table = engine_of("float64"), rows(3)
    model, expected = Model(engine), plain(engine, rows(3))
    model.predict(table[0])
    monkeypatch.delattr(Model, "_usual")
    pickled = pickle.loads(pickle.dumps(table))  # its type equals float64, and is another object
    assert [model.predict(row) for row in pickled] == expected
    assert [model.predict(row) for row in np.asfortranarray(table)] == expected
    assert [model.predict(row) for row in np.tile(table, 2)[:, :3]] == expected


def test_integers_booleans_and_missing_values_are_numbers_of_a_row() -> None:
    model = Model(engine_of("float64"))
    for _ in range(2):
        assert model.predict([1, True, 0]) == model.predict(np.array([1.0, 1.0, 0.0]))
        assert model.predict(np.array([1, 1, 0])) == model.predict([1, True, 0])
        with pytest.raises(BadInput, match="the model gives no number"):
            model.predict({"a": None, "b": 1, "c": 2})
        with pytest.raises(BadInput, match="the model gives no number"):
            model.predict([float("nan"), 1, 2])


def test_a_row_in_the_ring_is_refused_exactly_where_the_encoder_refuses_it() -> None:
    engine = engine_of("float64")
    model, random = Model(engine), np.random.default_rng(0)
    model.predict([1.0, 2.0, 3.0])
    assert model._single._ring is not None
    largest = float(np.finfo(np.float32).max)
    marks = [0.0, 5e-324, 2.0**112, 2.0**113, 2.0**127, largest, np.nextafter(largest, np.inf), 2.0**128, 1e300, np.inf]
    refused = 0
    for _ in range(500):
        row = random.normal(size=3) * 10.0 ** random.integers(-300, 30)
        row[random.integers(3)] = random.choice(marks) * random.choice([-1, 1])
        try:
            engine.encode(dict(zip("abc", row[:, None], strict=True)))
        except BadInput as error:
            refused += 1
            with pytest.raises(BadInput, match=re.escape(error.sentence)):
                model.predict(row)
        else:
            model.predict(row)
    assert 100 < refused < 400


def test_a_transformation_hands_a_missing_value_on() -> None:
    model = Model(engine_of("transformation"))
    for _ in range(2):
        assert np.isnan(model.predict([float("nan"), 1.0, 2.0]).values).all()


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ([1.0, float("nan"), 1.0], "feature 'b': is missing, and the model has no answer for that"),
        (np.array([1.0, np.nan, 1.0]), "feature 'b': is missing"),
        (np.array([1.0, 1.0, 1e39]), "feature 'c': a value is beyond 3.4e38"),
        (np.array([-np.inf, 1.0, 1.0]), "feature 'a': a value is beyond 3.4e38"),
        (np.array([1e200, 1.0, 1.0]), "feature 'a': a value is beyond 3.4e38"),
        (["1", 1.0, 1.0], "feature 'a': '1' is not a number"),
        (np.array(["1", "2", "3"]), "feature '[ac]': '[13]' is not a number"),
        ([1.0, 10**400, 1.0], "feature 'b': a value is not a 64-bit number"),
        (np.array([1.0]), "the row has 1 values; the model has 3 features"),
        ([], "the row has 0 values"),
        (np.array([1.0 + 1j, 1, 1]), r"feature '[ac]': \(1\+[01]j\) is not a number"),
        ({"a": 1.0, "b": 2.0}, "the request lacks 'c'"),
        ({"a": 1.0, "b": 2.0, "c": 1.0, "d": 1.0}, "the model has no feature 'd'"),
        ({"a": 1.0, "b": [2.0], "c": [1.0]}, "feature 'a': is one value beside columns"),
        ({"a": [1.0, 2.0], "b": np.zeros((2, 1)), "c": [1.0, 2.0]}, r"feature 'b': has the shape \[2, 1\]"),
        ({"a": [1.0], "b": np.float64(2.0), "c": [1.0]}, "feature 'b': is one value beside columns"),
        (np.zeros((2, 4)), "the rows have 4 columns; the model has 3 features"),
        ([[1.0, 2.0, 3.0], [1.0, 2.0]], "the row has 2 values"),
        ([{"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 1.0, "b": 2.0}], "the request lacks 'c'"),
        ({"a": [1.0], "b": [2.0, 3.0], "c": [1.0]}, "different lengths"),
        ({"a": [], "b": [], "c": []}, "no rows"),
        (np.zeros((0, 3)), "no rows"),
        ({"a": 1.0, "B": 2.0, "c": 1.0}, "the request lacks 'b', and has 'B', which the model does not know"),
        (pd.DataFrame([[1.0, 2.0, 3.0, 4.0]], columns=list("abcb")), "feature 'b': there are two columns of this name"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_name_in_the_ring_and_out_of_it(row: Any, sentence: str) -> None:
    engine = engine_of("float64")
    observer = Observer(engine.manifest, bins_of(engine))
    model = Model(engine, observer)
    with pytest.raises(BadInput, match=sentence):
        model.predict(row)
    model.predict([1.0, 2.0, 3.0])
    assert model._single._ring is not None
    with pytest.raises(BadInput, match=sentence):
        model.predict(row)
    window = observer.close()
    assert (window.n, window.body.software.rejected, window.body.software.calls) == (1, 2, 1)


def test_what_holds_no_rows_is_said() -> None:
    model = Model(engine_of("float64"))
    odd: Any
    for odd in (3.0, np.zeros((2, 2, 3)), iter([])):
        with pytest.raises(UsageError, match="holds no rows that the model reads"):
            model.predict(odd)


def test_a_table_with_texts_and_missing_values_is_read_from_any_data_frame() -> None:
    engine = Engine(bundles.model(), bundles.manifest())
    observer = Observer(engine.manifest, bundles.reference().bins)
    model = Model(engine, observer)
    expected = engine.predict(bundles.ROWS)
    assert expected.probabilities is not None
    frame = pd.DataFrame(bundles.ROWS)
    frames: list[Any] = [
        frame,
        frame.astype({"sex": "category"}),
        frame.astype({"age": "Float64", "bmi": "Float64", "sex": "string"}),
        Frame(bundles.ROWS),
        pa.table(bundles.ROWS),
        pa.RecordBatch.from_pydict(bundles.ROWS),
        frame.where(frame.notna(), None).to_dict("records"),
    ]
    for given in frames:
        answers = model.predict(given)
        assert answers.probabilities is not None
        assert answers.probabilities.tolist() == expected.probabilities.tolist()
    for row in frame.to_dict("records"):
        answer = model.predict({str(name): value for name, value in row.items()})
        assert answer.probabilities in [tuple(each) for each in expected.probabilities.tolist()]
    assert model.predict([20, 22.0, "f"]) == expected.row(0)
    assert observer.close().n == 4 * len(frames) + 5
    with pytest.raises(BadInput, match="feature 'sex': 3 is not text"):
        model.predict([20, 22.0, 3])


def test_what_is_masked_is_missing() -> None:
    engine = Engine(bundles.model(), bundles.manifest())
    expected = engine.predict(bundles.ROWS)
    bmi = np.ma.masked_equal([22.0, -1.0, 31.5, 40.0], -1.0)
    sex = np.ma.masked_equal(np.array(["f", "m", "?", "x"], dtype=object), "?")
    answers = Model(engine).predict({"age": bundles.ROWS["age"], "bmi": bmi, "sex": sex})
    assert answers.probabilities is not None
    assert expected.probabilities is not None
    assert answers.probabilities.tolist() == expected.probabilities.tolist()
    numbers = engine_of("float64")
    table = np.ma.masked_equal([[1.0, -9.0, 3.0], [1.0, 2.0, 3.0]], -9.0)
    for masked in (table, table[0]):
        with pytest.raises(BadInput, match="feature 'b': is missing"):
            Model(numbers).predict(masked)


@pytest.mark.parametrize(
    ("units", "sentence"),
    [
        ({"age": "a"}, None),
        ({"age": "months"}, "feature 'age': is in 'months', and the model takes a"),
        ({"age": "a", "bmi": "kg/m2"}, "feature 'bmi': is said to be in 'kg/m2', and the bundle names no unit"),
        ({"height": "cm"}, None),
        ("a", None),
    ],
)
def test_the_units_that_a_data_frame_carries_along_are_checked(units: Any, sentence: str | None) -> None:
    model = Model(Engine(bundles.model(), bundles.manifest()))
    frame = pd.DataFrame(bundles.ROWS)
    frame.attrs["units"] = units
    if sentence is None:
        assert model.predict(frame).labels is not None
        return
    with pytest.raises(BadInput, match=sentence):
        model.predict(frame)


def test_threads_share_a_model_and_every_row_is_counted_once() -> None:
    engine = engine_of("text")
    observer = Observer(engine.manifest, bins_of(engine))
    model, table = Model(engine, observer), rows(200)
    expected = plain(engine, table)
    wrong: list[Answer] = []

    def work() -> None:
        for _ in range(5):
            for row, answer in zip(table, expected, strict=True):
                if model.predict(row) != answer:
                    wrong.append(answer)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    windows = [observer.close() for _ in range(30)]
    for thread in threads:
        thread.join()
    windows.append(observer.close())
    assert not wrong
    assert sum(window.n for window in windows) == sum(window.body.software.calls for window in windows) == 4000
    assert sum(sum(w.counts.classes) for w in windows) == 4000


def test_rows_in_the_ring_are_counted_when_the_model_is_closed() -> None:
    manifest = engine_of("float64").manifest
    engine = Engine(MODEL_BYTES(), manifest)
    observer = Observer(manifest, bins_of(engine))
    engine_session = engine._session
    with Model(engine, observer) as model:
        for row in rows(7):
            model.predict(row)
    model.close()
    session = weakref.ref(engine_session)
    del engine_session
    assert session() is None, "its memory comes back at once"
    assert observer.close().n == 7
    assert observer.close().n == 0
    with pytest.raises(UsageError, match="the model is closed"):
        model.predict([1.0, 2.0, 3.0])


def MODEL_BYTES() -> bytes:  # noqa: N802
    text = HEAD.format(type="double", integers="3, 7", outputs="int64[N] integer, double[N, 2] probabilities")
    return bytes(onnx.parser.parse_model(text).SerializeToString())


def test_without_the_inner_objects_of_onnxruntime_the_public_ones_answer_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = engine_of("text")
    expected = plain(shown, rows(30))
    engine = Engine.__new__(Engine)
    engine.__dict__.update(shown.__dict__)
    session, made = shown._session, []
    bare: Any = session
    io_binding, run = bare.io_binding, bare.run_with_iobinding

    def public_binding() -> Any:
        binding = io_binding()
        made.append(binding)
        public = ("bind_input", "bind_output", "get_outputs_as_ortvaluevector")
        return SimpleNamespace(real=binding, **{name: getattr(binding, name) for name in public})

    monkeypatch.setattr(session, "io_binding", public_binding)
    monkeypatch.setattr(session, "run_with_iobinding", lambda binding: run(binding.real))
    model = Model(engine)
    assert [model.predict(row) for row in rows(30)] == expected
    assert model._single._ring is not None
    assert len(made) == FIRST


def test_a_session_that_cannot_be_bound_answers_the_usual_way() -> None:
    engine = engine_of("float64")

    class Remote:
        def run(self, names: Any, feed: Any, /) -> Any:
            return engine._session.run(names, feed)

    model = Model(Engine(b"", engine.manifest, session=Remote()))
    assert [model.predict(row) for row in rows(3)] == plain(engine, rows(3))
    assert model._single._ring is None


def test_a_bound_call_that_answers_otherwise_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("float64", "text"):
        engine = engine_of(kind)
        right = engine.outputs(engine.encode({"a": [1.0], "b": [2.0], "c": [3.0]}))
        wrong = [np.array(["no" if right[0][0] == "yes" else "yes"], dtype=object), right[1]]
        with monkeypatch.context() as patch:
            patch.setattr(engine, "outputs", lambda *_, w=wrong, r=right: w if r[0].dtype == object else [r[0], -r[1]])
            model = Model(engine)
            model.predict([1.0, 2.0, 3.0])
        assert model._single._ring is None
        assert model.predict([1.0, 2.0, 3.0]) == plain(engine, np.array([[1.0, 2.0, 3.0]]))[0]


def test_places_are_made_as_rows_come_at_once_and_no_more_than_there_is_memory_for() -> None:
    engine, row = engine_of("float64"), [1.0, 2.0, 3.0]
    model = Model(engine, Observer(engine.manifest, bins_of(engine)))
    expected = model.predict(row)
    assert model._single._ring is not None
    free: Any = model._single._ring._free
    taken = [free.pop() for _ in range(len(free))]
    for _ in range(2 * PLACES):  # each finds none, as where other threads have them all
        assert model.predict(row) == expected
        taken += [free.pop() for _ in range(len(free))]
    assert len(taken) == PLACES
    free += taken
    assert model.predict(row) == expected
    assert model.observer is not None
    assert model.observer.close().n == 2 * PLACES + 2


def test_a_bound_call_that_fails_gives_way_to_the_usual_one_and_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of("float64")
    observer = Observer(engine.manifest, bins_of(engine))
    model = Model(engine, observer)
    expected = model.predict([1.0, 2.0, 3.0])
    assert model._single._ring is not None
    free: Any = model._single._ring._free
    free[:] = [(row, lambda: 1 / 0, *others) for row, _, *others in free]
    assert model.predict([1.0, 2.0, 3.0]) == expected
    assert len(free) == FIRST
    monkeypatch.setattr(engine, "_run", lambda *_: 1 / 0)
    with pytest.raises(Refused, match="ONNX Runtime failed on 1 rows"):
        model.predict([1.0, 2.0, 3.0])
    window = observer.close()
    assert (window.n, window.body.software.failed) == (2, 1)


def test_what_onnx_runtime_fails_on_is_raised_and_it_writes_nothing_itself(capfd: pytest.CaptureFixture[str]) -> None:
    # The rows of this model are places in a list of three.
    graph = """<ir_version: 8, opset_import: ["" : 18]> model (double[N, 3] numbers) => (double[N, 3] decision)
    <double[3] list = {1, 2, 3}> { place = Cast <to = 7> (numbers)  decision = Gather (list, place) }"""
    manifest = engine_of("transformation").manifest
    output = Output(name="decision", role="value", dtype="float64")
    engine = Engine(
        onnx.parser.parse_model(graph).SerializeToString(), msgspec.structs.replace(manifest, outputs=(output,))
    )
    model = Model(engine)
    assert model.predict([0.0, 1.0, 2.0]).values == (3.0, 1.0, 2.0)
    assert model._single._ring is not None
    with pytest.raises(Refused, match=r"ONNX Runtime failed on 1 rows: .* out of data bounds"):
        model.predict([0.0, 1.0, 7.0])
    assert capfd.readouterr() == ("", "")


def test_an_answer_gives_its_only_value_and_its_confidence() -> None:
    assert Model(engine_of("regression")).predict([1.0, 2.0, 3.0]).value == pytest.approx(3 * 1.5 - 1 * 0.3 + 2 * 0.1)
    answer = Model(engine_of("float64")).predict([1.0, 2.0, 3.0])
    assert answer.confidence == max(answer.probabilities)
    with pytest.raises(UsageError, match="the answer has 0 values"):
        assert answer.value


@pytest.mark.parametrize(
    "settings", [SessionSettings(optimisation="none"), SessionSettings(arena=False, threads=2, spinning=True)]
)
def test_the_session_runs_as_its_settings_say(settings: SessionSettings) -> None:
    engine = Engine(MODEL_BYTES(), engine_of("float64").manifest, settings=settings)
    assert engine.predict(dict(zip("abc", rows(3).T, strict=True))).labels is not None
    options = engine._session.get_session_options()  # type: ignore[attr-defined]
    assert options.intra_op_num_threads == settings.threads
    assert options.enable_cpu_mem_arena == settings.arena
    assert (options.graph_optimization_level.name == "ORT_DISABLE_ALL") == (settings.optimisation == "none")
    spinning = options.get_session_config_entry("session.intra_op.allow_spinning")
    assert spinning == ("1" if settings.spinning else "0")


@pytest.mark.parametrize("threads", [-1, 0, 65])
def test_load_takes_as_many_threads_as_the_service(threads: int, tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    with pytest.raises(UsageError, match="threads cannot be"):
        edgekit_runtime.load(made.path, keys=made.public, threads=threads)


def test_load_verifies_and_counts_where_it_is_told_to(tmp_path: Path) -> None:
    made = bundles.make(tmp_path)
    with edgekit_runtime.load(made.path, keys=[made.public], observe=True) as model:
        assert [feature.name for feature in model.features] == ["age", "bmi", "sex"]
        assert model.predict({"age": 30.0, "bmi": 22.0, "sex": "f"}).label == "no"
        assert model.predict(bundles.ROWS).row(3).label == "no"
        assert model.observer is not None
    window = model.observer.close()
    assert (window.n, sum(window.counts.classes)) == (5, 5)
    with edgekit_runtime.load(made.path, keys=made.public) as model:
        assert model.observer is None


def test_load_trusts_the_settings_keys_and_without_settings_the_user_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bundles.make(tmp_path / "made")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEKIT_KEYS", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="no key to check the signature with") as refused:
        edgekit_runtime.load(made.path)
    assert "keys= in Python" in refused.value.next_step
    monkeypatch.setenv("EDGEKIT_KEYS", str(made.public.parent))
    edgekit_runtime.load(made.path).close()
    other = bundles.make(tmp_path / "other")
    (tmp_path / "device.toml").write_text(f'bundle = "x.edge"\nkeys = ["{other.public}"]\n')
    edgekit_runtime.load(other.path).close()
    with pytest.raises(SignatureRefused):
        edgekit_runtime.load(made.path)
