from __future__ import annotations

import threading
from typing import Any

import msgspec
import numpy as np
import pytest

from edgekit_contracts.counts import WindowCounts, decode_counts
from edgekit_contracts.manifest import Monitoring, Privacy
from edgekit_runtime.block import Rows
from edgekit_runtime.engine import Answers, Engine
from edgekit_runtime.observe import ClosedWindow, Observer
from tests import bundles
from tests.runtime.numeric_models import bins_of, engine_of

BINS = bundles.reference().bins


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(bundles.model(), bundles.manifest())


def counts(window: ClosedWindow) -> WindowCounts:
    return decode_counts(window.body.counts, BINS, window.n)


def send(observer: Observer, engine: Engine, rows: dict[str, list[Any]], latency_us: float = 50.0) -> None:
    batch = engine.encode(rows)
    observer.record(batch, engine.run(batch), latency_us)


def test_every_value_is_counted_on_its_bin(engine: Engine) -> None:
    observer = Observer(bundles.manifest(), BINS)
    send(observer, engine, {"age": [30, 30.1, 95], "bmi": [None, 25.0, 60], "sex": ["f", None, "x"]})
    window = observer.close()
    age, bmi, sex = counts(window).features
    assert (age.bins, age.null, age.out_of_range) == ((1, 1, 1), 0, 1)
    assert (bmi.bins, bmi.null, bmi.out_of_range) == ((1, 1), 1, 1)
    assert (sex.bins, sex.null, sex.out_of_range) == ((1, 0, 1), 1, 1)


def test_moments_are_those_of_numpy_over_many_blocks(engine: Engine) -> None:
    observer = Observer(bundles.manifest(), BINS)
    random = np.random.default_rng(1)
    ages = random.normal(50, 10, 3 * observer.block_rows + 17)
    for part in np.array_split(ages, 40):
        rows = len(part)
        send(observer, engine, {"age": part.tolist(), "bmi": [None] * rows, "sex": ["f"] * rows})
    window = observer.close()
    moments = np.frombuffer(window.body.moments, "<f4").reshape(2, 4)
    expected = [ages.mean(), ((ages - ages.mean()) ** 2).sum(), ages.min(), ages.max()]
    np.testing.assert_allclose(moments[0], expected, rtol=1e-5)
    assert np.isnan(moments[1]).all()
    assert window.n == len(ages)


def test_classes_scores_and_latency_add_up(engine: Engine) -> None:
    observer = Observer(bundles.manifest(monitoring=Monitoring(abstain_below=0.6)), BINS)
    send(observer, engine, dict(bundles.ROWS), latency_us=120)
    send(observer, engine, dict(bundles.ROWS), latency_us=5e7)
    found = counts(observer.close())
    expected = bundles.answers(bundles.ROWS)
    assert found.classes == (2 * int((expected[:, 0] > 0.5).sum()), 2 * int((expected[:, 1] > 0.5).sum()))
    assert sum(found.scores) == 8
    assert found.abstained == 2 * int((expected.max(axis=1) < 0.6).sum())
    assert sum(found.latency) == 2
    assert found.latency[-1] == 1


def test_nothing_is_lost_between_threads_and_windows(engine: Engine) -> None:
    observer = Observer(bundles.manifest(), BINS)
    rows, batch = 500, engine.encode({"age": [30.0], "bmi": [20.0], "sex": ["f"]})
    answers = engine.run(batch)

    def work() -> None:
        for _ in range(rows):
            observer.record(batch, answers, 10.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    windows = [observer.close() for _ in range(50)]
    for thread in threads:
        thread.join()
    windows.append(observer.close())
    assert sum(window.n for window in windows) == 4 * rows
    assert sum(window.body.software.calls for window in windows) == 4 * rows
    assert all(sum(counts(window).features[0].bins) == window.n for window in windows)


def test_an_empty_window_is_a_heartbeat() -> None:
    observer = Observer(bundles.manifest(), BINS)
    observer.count_rejected()
    observer.count_failed()
    window = observer.close(outbox_records=7)
    assert window.n == 0
    software = window.body.software
    assert (software.calls, software.rejected, software.failed, software.outbox_records) == (0, 1, 1, 7)
    assert software.rss_kb > 1000


def test_private_moments_stay_on_the_device(engine: Engine) -> None:
    observer = Observer(msgspec.structs.replace(bundles.manifest(), privacy=Privacy(moments=False)), BINS)
    send(observer, engine, dict(bundles.ROWS))
    assert observer.close().body.moments == b""


def test_counting_that_fails_stops_neither_the_answers_nor_the_next_window(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    observer = Observer(bundles.manifest(), BINS)
    batch = engine.encode(bundles.ROWS)
    foreign = Answers(np.array(["neither"] * 4, dtype=object), engine.run(batch).probabilities, None)
    calls = -(-observer.block_rows // batch.rows)
    for _ in range(calls):
        observer.record(batch, foreign, 10.0)
    assert f"{observer.block_rows} rows could not be counted" in caplog.text
    lost = observer.close()
    assert (lost.n, sum(counts(lost).latency)) == (0, calls)
    send(observer, engine, dict(bundles.ROWS))
    window = observer.close()
    assert (window.n, sum(counts(window).classes)) == (4, 4)


@pytest.mark.parametrize("label", [5, "three"])
def test_a_label_that_is_none_of_the_classes_is_lost_and_said(label: Any, caplog: pytest.LogCaptureFixture) -> None:
    engine = engine_of("float64")  # its classes are 3 and 7
    observer, batch = Observer(engine.manifest, bins_of(engine)), engine.encode({"a": [1.0], "b": [2.0], "c": [3.0]})
    answers = engine.run(batch)
    observer.record(batch, answers, 10.0)
    assert observer.close().n == 1
    observer.record(batch, Answers(np.array([label], dtype=object), answers.probabilities, None), 10.0)
    assert observer.close().n == 0
    assert "1 rows could not be counted" in caplog.text
    observer.record(batch, answers, 10.0)
    assert observer.close().n == 1


def test_a_request_of_many_blocks_is_counted_as_its_rows_are(engine: Engine) -> None:
    whole, parted = Observer(bundles.manifest(), BINS), Observer(bundles.manifest(), BINS)
    random, count = np.random.default_rng(3), 2 * whole.block_rows + 5
    rows: dict[str, list[Any]] = {
        "age": random.normal(40, 20, count).tolist(),
        "bmi": random.normal(25, 9, count).tolist(),
        "sex": random.choice(["f", "m", "x"], count).tolist(),
    }
    send(whole, engine, {"age": [30.0], "bmi": [20.0], "sex": ["f"]})
    send(parted, engine, {"age": [30.0], "bmi": [20.0], "sex": ["f"]})
    send(whole, engine, rows)
    for start in range(0, count, 100):
        send(parted, engine, {name: column[start : start + 100] for name, column in rows.items()})
    one, other = whole.close(), parted.close()
    assert one.n == other.n == count + 1
    assert (counts(one).features, counts(one).classes) == (counts(other).features, counts(other).classes)
    assert (counts(one).scores, one.body.moments) == (counts(other).scores, other.body.moments)


def test_rows_that_wait_elsewhere_are_counted_when_the_window_closes(engine: Engine) -> None:
    observer = Observer(bundles.manifest(), BINS)
    waiting = [Rows(2, np.array([[30.0, 20.0], [31.0, np.nan]]), [["f"], ["m"]], [0, 1], np.array([[0.9], [0.7]]))]

    def flush() -> None:
        while waiting:
            observer.count(waiting.pop(), [3000, 4000])

    observer.follow(flush)
    window = observer.close()
    assert (window.n, window.body.software.calls, counts(window).scores) == (2, 2, (0, 1, 1))
    observer.leave(flush)
    waiting.append(Rows(0, None, (), (), None))
    observer.close()
    assert waiting
