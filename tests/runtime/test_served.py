"""Who answers a request: live, canary, fallback; and what an exchange leaves alone."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from edgekit_contracts.counts import decode_counts
from edgekit_contracts.errors import BadInput, Refused
from edgekit_contracts.limits import DOCUMENT_MAX_CHARS
from edgekit_contracts.manifest import Feature, Manifest
from edgekit_contracts.slots import Plan
from edgekit_runtime.engine import Answers, Engine
from edgekit_runtime.interface import columns_of, rewritten, takes_alike
from edgekit_runtime.observe import Observer
from edgekit_runtime.oversight.automation import Oversight
from edgekit_runtime.route import Member, Reply, Route
from edgekit_runtime.served import Lineup, Served, Trial
from edgekit_runtime.strategies import shadow as shadows
from edgekit_runtime.strategies.budget import Brake
from edgekit_runtime.strategies.shadow import FAILURES_MAX, Shadow
from edgekit_runtime.strategies.waiting import BYTES_MAX, Waiting
from tests import bundles
from tests.brokers import wait_until

BINS = bundles.reference().bins
FEATURES = tuple(
    # The second version wants every number.
    Feature(name="bmi", dtype="float64", nullable=False) if one.name == "bmi" else one
    for one in bundles.FEATURES
)


class Faulty:
    """A session that fails as long as it is told to, and takes its time."""

    def __init__(self, model: bytes, manifest: Manifest) -> None:
        self.engine = Engine(model, manifest)
        self.error: Exception | None = None
        self.pause_s = 0.0

    def run(self, names: Sequence[str], feed: Mapping[str, Any], /) -> Sequence[Any]:
        time.sleep(self.pause_s)
        if self.error is not None:
            raise self.error
        return list(self.engine._run(list(names), dict(feed)))


@dataclass
class Made:
    """A bundle in service and its session."""

    member: Member
    session: Faulty


def made(version: str, weights: Any = bundles.WEIGHTS, *, safe: str | None = None, **changes: Any) -> Made:
    manifest = bundles.manifest(version=version, **changes)
    session = Faulty(bundles.model(weights), manifest)
    member = Member(
        Engine(b"", manifest, session=session), Observer(manifest, BINS), Oversight(manifest, safe=safe), sha256=version
    )
    return Made(member, session)


@pytest.fixture
def one() -> Made:
    return made("1.0", safe="no")


@pytest.fixture
def two() -> Made:
    return made("2.0", bundles.OTHER_WEIGHTS)


def ask(route: Route, rows: Mapping[str, list[Any]] = bundles.ROWS) -> Reply:
    batch = route.engine.encode(rows)
    reply = route.answer(batch)
    route.note(batch, reply, 50.0)
    return reply


def calls(made: Made) -> tuple[int, int, int]:
    """Calls, failures and rows of the window."""
    window = made.member.observer.close()
    decode_counts(window.body.counts, BINS, window.n)
    return window.body.software.calls, window.body.software.failed, window.n


def is_of(reply: Reply, weights: Any) -> bool:
    return np.allclose(np.asarray(reply.answers.probabilities), bundles.answers(bundles.ROWS, weights))


def test_each_answer_says_its_version_its_level_and_who_gave_it(one: Made) -> None:
    reply = ask(Served(Lineup(one.member)).route())
    assert reply.manifest.version == "1.0"
    assert reply.parameters == {"edgekit_automation": "act", "edgekit_abstain": False, "edgekit_served_by": "live"}


def test_a_canary_answers_its_keys_with_its_own_version_and_values(one: Made, two: Made) -> None:
    served = Served(Lineup(one.member))
    served.stage(Trial(two.member, Plan(strategy="canary", share=0.3)))
    keys, chosen = 1000, 0
    for key in range(keys):
        replies = [ask(served.route(b"%d" % key)) for _ in range(2)]
        versions = {reply.manifest.version for reply in replies}
        assert len(versions) == 1  # stable
        canary = versions == {"2.0"}
        assert all(is_of(reply, bundles.OTHER_WEIGHTS if canary else bundles.WEIGHTS) for reply in replies)
        assert replies[0].parameters["edgekit_served_by"] == ("canary" if canary else "live")
        chosen += canary
    assert abs(chosen - 0.3 * keys) <= 4 * math.sqrt(keys * 0.3 * 0.7)
    # Each bundle counts its own answers.
    assert calls(two) == (2 * chosen, 0, 8 * chosen)
    assert calls(one) == (2 * (keys - chosen), 0, 8 * (keys - chosen))


def test_a_client_that_asks_for_a_version_gets_that_one(one: Made, two: Made) -> None:
    served = Served(Lineup(one.member))
    served.stage(Trial(two.member, Plan(strategy="canary", share=1.0)))
    for version, weights in (("1.0", bundles.WEIGHTS), ("2.0", bundles.OTHER_WEIGHTS)):
        route = served.version(version)
        assert route is not None
        reply = ask(route)
        assert reply.manifest.version == version
        assert is_of(reply, weights)
    assert served.version("3.0") is None
    assert served.versions == ("1.0", "2.0")


def test_a_shadow_s_version_is_not_answered(one: Made, two: Made) -> None:
    served = Served(Lineup(one.member))
    served.stage(Trial(two.member, Plan()))
    assert served.version("2.0") is None
    assert served.versions == ("1.0",)


def test_where_a_canary_fails_the_live_bundle_answers(one: Made, two: Made) -> None:
    served = Served(Lineup(one.member))
    served.stage(Trial(two.member, Plan(strategy="canary", share=1.0)))
    two.session.error = RuntimeError("boom")
    reply = ask(served.route())
    assert (reply.manifest.version, reply.parameters["edgekit_served_by"]) == ("1.0", "fallback")
    assert is_of(reply, bundles.WEIGHTS)
    assert calls(two) == (0, 1, 0)
    assert calls(one) == (1, 0, 4)


def test_rows_that_only_the_canary_refuses_are_answered_by_the_live_bundle(one: Made) -> None:
    strict = made("2.0", bundles.OTHER_WEIGHTS, features=FEATURES)
    served = Served(Lineup(one.member))
    served.stage(Trial(strict.member, Plan(strategy="canary", share=1.0)))
    assert ask(served.route()).manifest.version == "1.0"  # a row lacks its bmi
    whole = {name: column[2:] for name, column in bundles.ROWS.items()}
    assert ask(served.route(), whole).manifest.version == "2.0"


def test_where_live_fails_the_former_bundle_answers_then_the_owner(one: Made, two: Made) -> None:
    served = Served(Lineup(one.member, None, two.member))
    one.session.error = RuntimeError("boom")
    reply = ask(served.route())
    assert (reply.manifest.version, reply.parameters["edgekit_served_by"]) == ("2.0", "fallback")
    two.session.error = RuntimeError("boom too")
    reply = ask(served.route())
    assert (reply.manifest.version, reply.parameters["edgekit_served_by"]) == ("1.0", "safe")
    assert np.asarray(reply.answers.labels).tolist() == ["no"] * 4
    assert np.isnan(np.asarray(reply.answers.probabilities)).all()


def test_without_a_safe_answer_a_failure_is_an_error(two: Made) -> None:
    two.session.error = RuntimeError("boom")
    with pytest.raises(Refused, match="boom"):
        ask(Served(Lineup(two.member)).route())


def test_rows_that_the_live_bundle_refuses_are_the_client_s_fault(one: Made, two: Made) -> None:
    one.session.error = BadInput("", "the model gives no number for these rows")
    with pytest.raises(BadInput, match="no number"):
        ask(Served(Lineup(one.member, None, two.member)).route())


def test_a_request_under_way_ends_with_the_bundle_it_began_with(one: Made, two: Made) -> None:
    served = Served(Lineup(one.member))
    served.stage(Trial(two.member, Plan(strategy="blue-green")))
    route = served.route()
    batch = route.engine.encode(bundles.ROWS)
    served.activate()
    reply = route.answer(batch)
    route.note(batch, reply, 50.0)
    assert (reply.manifest.version, is_of(reply, bundles.WEIGHTS)) == ("1.0", True)
    assert ask(served.route()).manifest.version == "2.0"
    assert calls(one) == (1, 0, 4)


def test_activate_return_promote_and_drop(one: Made, two: Made) -> None:
    served = Served(Lineup(one.member))
    for command in (served.activate, served.go_back, served.drop):
        with pytest.raises(Refused, match="there is no"):
            command()
    served.stage(Trial(two.member, Plan(strategy="blue-green")))
    served.drop()
    assert served.lineup == Lineup(one.member)
    served.stage(Trial(two.member, Plan(strategy="blue-green")))
    served.activate()
    assert served.lineup == Lineup(two.member, None, one.member)
    served.go_back()
    assert served.lineup == Lineup(one.member, None, two.member)
    served.go_back()
    served.promote()
    assert served.lineup == Lineup(two.member)


@pytest.mark.parametrize(
    ("changes", "strategy", "words"),
    [
        ({"name": "other", "version": "2.0"}, "blue-green", "is no version of tiny"),
        ({"version": "1.0"}, "blue-green", "is live already"),
        ({"version": "2.0", "classes": ("no", "yes", "maybe")}, "shadow", "its classes differ"),
        ({"version": "2.0", "outputs": bundles.manifest().outputs[:1]}, "canary", "its outputs differ"),
        ({"version": "2.0", "features": bundles.FEATURES[:2]}, "canary", "its features differ"),
    ],
)
def test_a_bundle_that_cannot_stand_in_is_no_candidate(
    one: Made, changes: dict[str, Any], strategy: Any, words: str
) -> None:
    candidate = bundles.manifest(**changes)
    member = Member(Engine(bundles.model(), candidate), Observer(bundles.manifest(), BINS))
    with pytest.raises(Refused, match=words):
        Served(Lineup(one.member)).stage(Trial(member, Plan(strategy=strategy)))


def test_swaps_under_clients_mix_no_version_with_another_s_values(one: Made, two: Made) -> None:
    served = Served(Lineup(one.member, None, two.member))
    wrong: list[str] = []
    done = threading.Event()

    def client() -> None:
        while not done.is_set():
            reply = ask(served.route())
            expected = bundles.WEIGHTS if reply.manifest.version == "1.0" else bundles.OTHER_WEIGHTS
            if not is_of(reply, expected):
                wrong.append(reply.manifest.version)

    clients = [threading.Thread(target=client) for _ in range(3)]
    for thread in clients:
        thread.start()
    for _ in range(200):
        served.go_back()
        time.sleep(0.001)
    done.set()
    for thread in clients:
        thread.join()
    assert not wrong


def test_a_batch_goes_from_one_bundle_s_form_to_the_other_s(one: Made) -> None:
    manifest = bundles.manifest(missing_text="?", features=FEATURES)
    other = Engine(bundles.model(), manifest)
    batch = one.member.engine.encode({"age": [20.0], "bmi": [25.0], "sex": [None]})
    assert not takes_alike(one.member.manifest, manifest)
    assert columns_of(batch, one.member.manifest)["sex"] == [None]
    found = rewritten(batch, one.member.manifest, other)
    assert found.text is not None
    assert found.text.tolist() == [["?"]]
    assert rewritten(batch, one.member.manifest, one.member.engine) is batch
    with pytest.raises(BadInput, match="bmi"):
        rewritten(one.member.engine.encode(bundles.ROWS), one.member.manifest, other)


# --- shadow ---


@pytest.fixture
def tried(one: Made, two: Made, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Served, Shadow]]:
    # What the brake does is tested by itself.
    monkeypatch.setattr(Brake, "is_at_work", lambda brake, now_s: True)
    shadow = Shadow(one.member.manifest, two.member, Plan(cpu_share=1.0))
    served = Served(Lineup(one.member))
    served.stage(Trial(two.member, Plan(), shadow))
    shadow.start()
    wait_until(lambda: shadow._takes, "the shadow")
    yield served, shadow
    shadow.stop()


def test_a_shadow_is_compared_and_never_heard(tried: tuple[Served, Shadow], two: Made) -> None:
    served, shadow = tried
    rows: dict[str, list[Any]] = {"age": [20, 80], "bmi": [22.0, 22.0], "sex": ["m", "m"]}
    live, other = (np.argmax(bundles.answers(rows, w), axis=1) for w in (bundles.WEIGHTS, bundles.OTHER_WEIGHTS))
    for _ in range(50):
        assert ask(served.route(), rows).manifest.version == "1.0"
    wait_until(lambda: shadow.state.overall.rows == 100, "all rows")
    state = shadow.state
    assert state.overall.agreed == 50 * int((live == other).sum())
    assert 0 < state.overall.low < state.overall.agreed / 100 < state.overall.high < 1
    assert {group: one.rows for group, one in state.groups.items()} == {"no": 100}
    assert state.failed_rows == state.skipped_rows == 0
    shadow.stop()
    assert calls(two)[2] == 100


def test_a_shadow_that_crashes_gives_up_and_disturbs_nobody(tried: tuple[Served, Shadow], two: Made) -> None:
    served, shadow = tried
    two.session.error = RuntimeError("boom")
    for _ in range(FAILURES_MAX):
        assert is_of(ask(served.route()), bundles.WEIGHTS)
    wait_until(lambda: shadow.state.fault is not None, "the end of the shadow")
    state = shadow.state
    assert "boom" in str(state.fault)
    assert FAILURES_MAX <= state.failed_rows == state.overall.rows
    assert state.overall.agreed == 0
    ask(served.route())
    assert shadow.state.overall.rows == state.overall.rows


def test_a_fault_in_the_comparison_is_seen(tried: tuple[Served, Shadow], monkeypatch: pytest.MonkeyPatch) -> None:
    served, shadow = tried
    monkeypatch.setattr(shadows, "_agree", lambda said, theirs, tolerance: 1 / 0)
    assert is_of(ask(served.route()), bundles.WEIGHTS)
    wait_until(lambda: shadow.state.fault == "ZeroDivisionError: division by zero", "the end of the shadow")


def test_one_row_that_the_shadow_refuses_does_not_stand_for_the_others(one: Made) -> None:
    strict = made("2.0", features=FEATURES)
    shadow = Shadow(one.member.manifest, strict.member, Plan(cpu_share=1.0))
    shadow._row_s, shadow._takes = 1e-6, True
    batch = one.member.engine.encode(bundles.ROWS)  # of which one row lacks its bmi
    shadow.offer(batch, one.member.engine.run(batch), 50.0)
    shadow._answer_waiting()
    assert (shadow.state.overall.agreed, shadow.state.overall.rows, shadow.state.failed_rows) == (3, 4, 1)
    assert calls(strict) == (0, 1, 3)  # rows, but no calls: nobody asked for them


def test_a_slow_shadow_sees_less_and_nobody_waits(tried: tuple[Served, Shadow], two: Made) -> None:
    served, shadow = tried
    two.session.pause_s = 0.2
    for _ in range(1 + shadow._waiting.rows):  # of four rows each, and there are two blocks
        assert is_of(ask(served.route()), bundles.WEIGHTS)
    assert shadow.state.skipped_rows > 0


def test_what_waits_for_a_shadow_is_bounded_in_rows_and_in_bytes(one: Made) -> None:
    batch = one.member.engine.encode(bundles.ROWS)
    said = one.member.engine.run(batch)
    block = Waiting(one.member.manifest)
    assert block.put(batch, said, 3) == 3
    assert sum(block.put(batch, said, 64) for _ in range(block.rows)) == block.rows - 3
    rows, labels = block.part(3, 7)
    assert rows.text is not None
    assert batch.text is not None
    assert said.labels is not None
    assert labels.labels is not None
    np.testing.assert_array_equal(np.asarray(rows.numbers), np.asarray(batch.numbers))
    assert (rows.text.tolist(), labels.labels.tolist()) == (batch.text.tolist(), said.labels.tolist())
    wordy = bundles.manifest(features=(*bundles.FEATURES[:2], Feature(name="sex", dtype="text", nullable=True)))
    assert Waiting(wordy).rows * DOCUMENT_MAX_CHARS <= BYTES_MAX


def test_a_shadow_that_spent_its_budget_rests(one: Made, two: Made) -> None:
    shadow = Shadow(one.member.manifest, two.member, Plan(cpu_share=0.01))
    batch = one.member.engine.encode(bundles.ROWS)
    said = one.member.engine.run(batch)
    shadow._takes = True
    shadow.offer(batch, said, 50.0)
    shadow._tokens.spend(10.0, time.monotonic())
    shadow._answer_waiting()
    shadow.offer(batch, said, 50.0)
    # One run of one row told that the budget is spent.
    assert (shadow.state.overall.rows, shadow.state.skipped_rows, shadow._waiting.used) == (1, 7, 0)


@pytest.mark.parametrize(("other", "alike"), [(1.009, True), (1.02, False), (float("nan"), False)])
def test_values_agree_within_the_tolerance(other: float, alike: bool) -> None:
    said, theirs = (Answers(None, None, np.array([[value]])) for value in (1.0, other))
    assert shadows._agree(said, theirs, 0.01) == [alike]
