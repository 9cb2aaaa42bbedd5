"""Levels of automation, abstention, and the review queue."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from edgekit_contracts.errors import StorageFault, UnsupportedFormat, UsageError
from edgekit_contracts.manifest import LEVELS, AutomationLevel, Monitoring, Output, Privacy
from edgekit_contracts.telemetry import Labels
from edgekit_runtime.engine import Answers, Engine
from edgekit_runtime.oversight.automation import Oversight, lower
from edgekit_runtime.oversight.intake import ROWS_PER_REQUEST, Intake, Sampler
from edgekit_runtime.oversight.item import Item
from edgekit_runtime.oversight.review import ReviewQueue
from tests import bundles

CAREFUL = bundles.manifest(monitoring=Monitoring(abstain_below=0.9), privacy=Privacy(raw_fields=("age", "sex")))
BINS = bundles.reference().bins


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine(bundles.model(), CAREFUL)


@pytest.fixture
def answers(engine: Engine) -> Answers:
    return engine.predict(bundles.ROWS)


def item(number: int, answer: Any = "yes", **changes: Any) -> Item:
    facts: dict[str, Any] = {"model": "tiny", "version": "1.0", "at_ms": number, "reason": "abstain", "request": None}
    return Item(**facts | {"answer": answer, "score": 0.6, "fields": {"age": float(number)}} | changes)


@pytest.mark.parametrize("bundle", LEVELS)
@pytest.mark.parametrize("device", [None, *LEVELS])
def test_a_device_lowers_the_level_and_never_raises_it(bundle: AutomationLevel, device: AutomationLevel | None) -> None:
    found = lower(bundle, device)
    assert LEVELS.index(found) <= LEVELS.index(bundle)
    assert device is None or LEVELS.index(found) <= LEVELS.index(device)
    assert Oversight(bundles.manifest(automation=bundle), level=device, safe="no").level == found


def test_a_doubtful_row_gets_the_safe_label_and_the_others_keep_theirs(answers: Answers) -> None:
    assert answers.probabilities is not None
    doubtful = answers.probabilities.max(axis=1) < 0.9
    assert doubtful.tolist() == [True, False, False, False]
    judged = Oversight(CAREFUL, safe="yes").judge(answers)
    assert judged.doubtful is not None
    assert judged.doubtful.tolist() == doubtful.tolist()
    assert judged.answers.labels is not None
    assert answers.labels is not None
    assert judged.answers.labels[doubtful].tolist() == ["yes"]
    assert judged.answers.labels[~doubtful].tolist() == answers.labels[~doubtful].tolist()
    assert answers.labels.tolist() != judged.answers.labels.tolist()  # what is observed stays the model's


def test_without_a_safe_label_a_doubtful_row_is_only_marked(answers: Answers) -> None:
    judged = Oversight(CAREFUL).judge(answers)
    assert judged.answers is answers
    assert judged.doubtful is not None


def test_at_the_level_shadow_nothing_of_the_model_is_let_through(answers: Answers) -> None:
    judged = Oversight(CAREFUL, level="shadow", safe="no").judge(answers)
    assert judged.answers.labels is not None
    assert judged.answers.labels.tolist() == ["no"] * 4
    assert np.isnan(np.asarray(judged.answers.probabilities)).all()
    with pytest.raises(UsageError, match="no safe answer"):
        Oversight(CAREFUL, level="shadow")


@pytest.mark.parametrize("safe", ["maybe", 1, True, 0.5])
def test_a_safe_answer_that_the_model_could_not_give_is_refused(safe: Any) -> None:
    with pytest.raises(UsageError, match="is no class of tiny"):
        Oversight(bundles.manifest(), safe=safe)


def test_the_safe_answer_of_a_regression_is_a_number() -> None:
    numbers = bundles.manifest(
        task="regression", classes=(), outputs=(Output(name="value", role="value", dtype="float64"),)
    )
    safe = Oversight(numbers, safe=20.5).safe_answers(2)
    assert (safe.labels, safe.probabilities, np.asarray(safe.values).tolist()) == (None, None, [[20.5], [20.5]])
    for wrong in (True, "no"):
        with pytest.raises(UsageError, match="none that tiny"):
            Oversight(numbers, safe=wrong)


def test_the_safe_answer_has_the_form_of_the_model_s(answers: Answers) -> None:
    safe = Oversight(CAREFUL, safe="no").safe_answers(3)
    assert safe.labels is not None
    assert safe.labels.tolist() == ["no"] * 3
    assert np.isnan(np.asarray(safe.probabilities)).tolist() == [[True, True]] * 3


def test_the_queue_keeps_what_a_person_said_over_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    with ReviewQueue(path) as queue:
        queue.add(CAREFUL, [item(1), item(2, "no", request="7", score=None)])
        assert queue.answer(2, "yes").label == "yes"
        # Values of rows are for who may see them.
        assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    with ReviewQueue(path) as queue:
        first, second = queue.items()
        assert (first.fields, first.label) == ({"age": 1.0}, None)
        assert (second.answer, second.label, second.request, second.score) == ("no", "yes", "7", None)
        assert second.answered_ms is not None
        assert [one.id for one in queue.items(answered=False)] == [1]
        assert [one.id for one in queue.items(answered=True)] == [2]
        assert queue.counts == {"waiting": 1, "answered": 1, "dropped": 0}


def test_an_answer_must_be_a_class_of_the_model(tmp_path: Path) -> None:
    with ReviewQueue(tmp_path / "review.db") as queue:
        queue.add(bundles.manifest(classes=(1, 2)), [item(1, answer=1)])
        assert queue.answer(1, "2").label == 2
        with pytest.raises(UsageError, match="no class '3'"):
            queue.answer(1, "3")
        with pytest.raises(UsageError, match="no item 9"):
            queue.answer(9, "2")


@pytest.mark.parametrize("said", ["true", "True"])
def test_a_truth_value_is_answered_as_it_is_shown(said: str, tmp_path: Path) -> None:
    with ReviewQueue(tmp_path / "review.db") as queue:
        queue.add(bundles.manifest(classes=(False, True)), [item(1, answer=False)])
        assert queue.answer(1, said).label is True


@pytest.mark.parametrize("bound", [{"max_items": 20}, {"max_bytes": 500}])
def test_a_full_queue_keeps_rare_labels_and_says_what_gave_way(tmp_path: Path, bound: dict[str, int]) -> None:
    with ReviewQueue(tmp_path / "review.db", **bound) as queue:
        queue.add(CAREFUL, [item(1, "yes")])
        queue.add(CAREFUL, [item(number, "no") for number in range(2, 102)])
        kept = list(queue.items())
        assert kept[0].answer == "yes"
        assert kept[-1].at_ms == 101
        assert len(kept) <= 20 if "max_items" in bound else len(kept) < 100
        assert queue.counts["dropped"] == 101 - len(kept)


def test_answered_items_give_way_first(tmp_path: Path) -> None:
    with ReviewQueue(tmp_path / "review.db", max_items=3) as queue:
        queue.add(CAREFUL, [item(number) for number in range(3)])
        queue.answer(2, "no")
        queue.add(CAREFUL, [item(9)])
        assert [one.id for one in queue.items()] == [1, 3, 4]


def test_another_process_reads_and_answers_beside_the_service(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    with ReviewQueue(path) as service, ReviewQueue(path) as person:
        service.add(CAREFUL, [item(1)])
        person.answer(1, "no")
        service.add(CAREFUL, [item(2)])
        assert [one.label for one in person.items()] == ["no", None]


def test_a_queue_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    ReviewQueue(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 3")
    db.close()
    with pytest.raises(UnsupportedFormat, match="version 3"):
        ReviewQueue(path)


def test_what_people_said_is_added_up_and_outlives_the_items(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    with ReviewQueue(path, max_items=3) as queue:
        queue.add(CAREFUL, [item(number) for number in range(3)])
        assert queue.verdicts() == []
        queue.answer(1, "yes")
        queue.answer(2, "no")
        queue.answer(3, "no")
        queue.answer(3, "no")  # said twice, counted once
        said = item(1).answer
        wrong = ["yes", "no", "no"].count("no" if said == "yes" else "yes")
        assert queue.verdicts() == [Labels(CAREFUL.name, CAREFUL.version, 3, wrong, 0.0)]
        queue.answer(1, "no")  # a later word replaces an earlier one
        wrong = 3 if said == "yes" else 0
        assert queue.verdicts() == [Labels(CAREFUL.name, CAREFUL.version, 3, wrong, 0.0)]
        queue.add(CAREFUL, [item(number) for number in range(4, 9)])
        assert queue.counts["answered"] < 3
        assert queue.verdicts()[0].reviewed == 3


def test_of_a_model_of_numbers_the_deviations_are_added_up(tmp_path: Path) -> None:
    numbers = replace(CAREFUL, classes=())
    with ReviewQueue(tmp_path / "review.db") as queue:
        queue.add(numbers, [replace(item(one), answer=10.0) for one in range(3)])
        for number, label in ((1, "12.5"), (2, "9"), (1, "10")):
            queue.answer(number, label)
        assert queue.verdicts() == [Labels(numbers.name, numbers.version, 2, 0, 1.0)]


def test_a_queue_of_version_1_gets_the_totals_of_its_answers(tmp_path: Path) -> None:
    path = tmp_path / "review.db"
    with ReviewQueue(path) as queue:
        queue.add(CAREFUL, [item(1), item(2), item(3)])
        queue.answer(1, "yes")
        queue.answer(2, "no")
        totals = queue.verdicts()
    with sqlite3.connect(path) as db:
        db.executescript("DROP TABLE verdict; PRAGMA user_version = 1;")
    db.close()
    with ReviewQueue(path) as queue, ReviewQueue(path) as another:
        assert queue.verdicts() == another.verdicts() == totals


def test_a_damaged_queue_is_a_storage_fault(tmp_path: Path) -> None:
    (tmp_path / "review.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StorageFault, match=r"review\.db"):
        ReviewQueue(tmp_path / "review.db")


def test_each_label_has_its_own_rate() -> None:
    sampler = Sampler(BINS, per_minute=2)
    rows: list[dict[str, float | str | None]] = [{"age": float(age), "sex": f"s{age}"} for age in range(20)]
    assert [sampler.wants("yes", row, 0.0) for row in rows[:4]] == [True, True, False, False]
    assert sampler.wants("no", rows[4], 0.0)
    assert not sampler.wants("yes", rows[5], 20.0)
    assert sampler.wants("yes", rows[5], 31.0)


def test_near_duplicates_come_once() -> None:
    sampler = Sampler(BINS, per_minute=1000)
    assert sampler.wants("yes", {"age": 35.0, "bmi": None, "sex": "f"}, 0.0)
    assert not sampler.wants("yes", {"age": 41.0, "bmi": None, "sex": "f"}, 0.0)  # the same bin
    assert sampler.wants("yes", {"age": 55.0, "bmi": None, "sex": "f"}, 0.0)
    assert sampler.wants("yes", {"age": 35.0, "bmi": 20.0, "sex": "f"}, 0.0)
    assert sampler.wants("yes", {"age": 35.0, "bmi": None, "sex": "m"}, 0.0)


def test_only_permitted_fields_are_stored(tmp_path: Path, engine: Engine) -> None:
    with ReviewQueue(tmp_path / "review.db") as queue:
        intake = Intake(CAREFUL, BINS, lambda: queue, per_minute=100)
        batch = engine.encode(bundles.ROWS)
        intake.offer(batch, engine.run(batch), [0, 2], "abstain", "42")
        intake.stop()
        first, second = queue.items()
    assert first.fields == {"age": 20.0, "sex": "f"}
    assert second.fields == {"age": 40.0, "sex": None}
    assert {first.request, second.request} == {"42"}
    assert b"31.5" not in (tmp_path / "review.db").read_bytes()


def test_a_large_request_is_not_looked_at_for_ever(tmp_path: Path, engine: Engine) -> None:
    with ReviewQueue(tmp_path / "review.db") as queue:
        intake = Intake(CAREFUL, BINS, lambda: queue, per_minute=10_000)
        rows = 500
        ages = np.linspace(20, 80, rows).tolist()
        batch = engine.encode({"age": ages, "bmi": [20.0] * rows, "sex": [f"s{n}" for n in range(rows)]})
        intake.offer(batch, engine.run(batch), list(range(rows)), "abstain", None)
        intake.stop()
        assert queue.counts["waiting"] == ROWS_PER_REQUEST


def test_what_goes_wrong_once_loses_no_later_answer(tmp_path: Path, engine: Engine) -> None:
    asked = threading.Event()
    with ReviewQueue(tmp_path / "review.db") as queue:

        def opened() -> ReviewQueue:
            if not asked.is_set():
                asked.set()
                raise RuntimeError("a fault of ours")
            return queue

        intake = Intake(CAREFUL, BINS, opened, per_minute=100)
        batch = engine.encode(bundles.ROWS)
        intake.offer(batch, engine.run(batch), [0], "abstain", None)
        assert asked.wait(20)
        intake.offer(batch, engine.run(batch), [2], "abstain", None)
        intake.stop()
        assert [item.fields["age"] for item in queue.items()] == [40.0]


def test_a_disk_that_refuses_stops_no_answer(tmp_path: Path, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    intake = Intake(CAREFUL, BINS, lambda: ReviewQueue(tmp_path / "file" / "review.db"))
    batch = engine.encode(bundles.ROWS)
    intake.offer(batch, engine.run(batch), [0], "abstain", None)
    intake.stop()
    assert "doubtful answers are not kept" in caplog.text
