"""Several models in one process: commands, restarts, other settings; with real bundles."""

from __future__ import annotations

import gc
import hashlib
import json
import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgekit_contracts.errors import EdgekitError, FormatError, GoldenMismatch, MissingFile, Refused, UsageError
from edgekit_contracts.golden import GoldenSet
from edgekit_contracts.manifest import Manifest, Monitoring, Privacy
from edgekit_contracts.telemetry import Kind, Window, decode_body
from edgekit_runtime import assembly
from edgekit_runtime.assembly import configured
from edgekit_runtime.config import CandidateSettings, DeviceConfig, ModelSettings, ReviewSettings
from edgekit_runtime.engine import Engine
from edgekit_runtime.models import Command, Models
from edgekit_runtime.outbox import Outbox
from edgekit_runtime.oversight.review import ReviewQueue
from edgekit_runtime.reporter import Reporter
from edgekit_runtime.selftest import GoldenResult, check_golden
from edgekit_runtime.session import SessionSettings, open_session
from edgekit_runtime.single import Single
from tests import bundles
from tests.brokers import wait_until


@dataclass
class Device:
    """A state directory, some bundles, and the process's models, which may be started again."""

    directory: Path
    bundles: dict[str, bundles.Made] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    started: list[Models] = field(default_factory=list)

    def config(self, *models: ModelSettings, **changes: Any) -> DeviceConfig:
        one = self.bundles["1.0"]
        return DeviceConfig(
            device="dev-1",
            keys=(str(one.public),),
            models=models or (ModelSettings(bundle=str(one.path)),),
            state_dir=str(self.directory / "state"),
            **changes,
        )

    def start(self, config: DeviceConfig | None = None) -> Models:
        self.said.clear()
        self.started.append(Models(config or self.config(), self.said.append))
        return self.started[-1]

    def path(self, version: str) -> str:
        return str(self.bundles[version].path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bundles.Made]:
    directory = tmp_path_factory.mktemp("bundles")
    one = bundles.make(directory)
    two = bundles.make(directory, version="2.0", weights=bundles.OTHER_WEIGHTS, key=one.key)
    wrong = bundles.make(directory, version="3.0", golden_set=bundles.golden(bundles.OTHER_WEIGHTS), key=one.key)
    other = bundles.make(directory, name="other", version="1.0", key=one.key)
    return {"1.0": one, "2.0": two, "wrong": wrong, "other": other}


@pytest.fixture
def device(tmp_path: Path, built: dict[str, bundles.Made]) -> Iterator[Device]:
    device = Device(tmp_path, built)
    yield device
    for models in device.started:
        models.stop()


def command(models: Models, name: Command, **body: Any) -> dict[str, Any]:
    return models.command("tiny", name, json.dumps(body).encode()).result()


def version(models: Models, model: str = "tiny") -> str:
    route = models.served[model].route()
    return route.answer(route.engine.encode(bundles.ROWS)).manifest.version


def test_a_command_outlives_a_restart_and_the_file_that_was_staged(device: Device, tmp_path: Path) -> None:
    models = device.start()
    staged = tmp_path / "upload.edge"
    staged.write_bytes(Path(device.path("2.0")).read_bytes())
    found = command(models, "stage", bundle=str(staged), strategy="canary", share=0.0)
    assert (found["live"]["version"], found["candidate"]["version"]) == ("1.0", "2.0")
    assert version(models) == "1.0"
    assert command(models, "activate")["former"]["version"] == "1.0"
    assert version(models) == "2.0"
    staged.unlink()
    again = device.start()
    assert version(again) == "2.0"
    assert command(again, "return")["live"]["version"] == "1.0"
    assert version(device.start()) == "1.0"


def test_a_kept_bundle_that_was_damaged_is_replaced_when_it_is_staged_again(device: Device) -> None:
    command(device.start(), "stage", bundle=device.path("2.0"), strategy="canary", share=1.0)
    (kept,) = (device.directory / "state" / "bundles").iterdir()
    os.truncate(kept, 100)
    again = device.start()
    assert again.status()[0]["candidate"] is None
    command(again, "stage", bundle=device.path("2.0"), strategy="canary", share=1.0)
    assert kept.read_bytes() == Path(device.path("2.0")).read_bytes()
    assert version(device.start()) == "2.0"


def test_the_memory_of_rows_that_come_alone_is_made_before_the_first_of_them(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[tuple[str, int]] = []
    monkeypatch.setattr(
        Single, "learn", lambda single, engine, sample: learned.append((engine.manifest.version, sample.rows))
    )
    command(device.start(), "stage", bundle=device.path("2.0"))
    assert learned == [("1.0", 1), ("2.0", 1)]


@pytest.fixture
def goes_wrong(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Versions whose answers have gone wrong, as when memory or the processor did."""
    versions: set[str] = set()

    def check(engine: Engine, golden: GoldenSet) -> GoldenResult:
        if engine.manifest.version in versions:
            raise GoldenMismatch(engine.manifest.title, golden.rows, 1, "first at row 0")
        return check_golden(engine, golden)

    monkeypatch.setattr(assembly, "check_golden", check)
    return versions


def test_a_bundle_that_goes_wrong_gives_way_to_the_former_one_for_good(device: Device, goes_wrong: set[str]) -> None:
    models = device.start()
    command(models, "stage", bundle=device.path("2.0"))
    command(models, "activate")
    assert models.test().result().faults == ()
    goes_wrong.add("2.0")
    found = models.test().result()
    assert [result.rows for result in found.results] == [4]
    assert found.faults[0].startswith("tiny 2.0 fails its self-test here: 1 of 4 golden rows differ")
    assert found.faults[0].endswith("; tiny 1.0 answers instead")
    told = models._events.oldest
    assert told is not None
    while told.event.name != "self-test failed":
        models._events.stored(told)
        told = models._events.oldest
        assert told is not None
    assert told.event.detail == found.faults[0]
    assert (version(models), models.served["tiny"].lineup.former) == ("1.0", None)
    assert version(device.start()) == "1.0"
    goes_wrong.add("1.0")
    with pytest.raises(GoldenMismatch, match=r"tiny 1\.0 fails"):
        models.test().result()


@pytest.mark.parametrize("stands", ["candidate", "former"])
def test_a_bundle_that_goes_wrong_beside_the_live_one_is_let_go(
    device: Device, goes_wrong: set[str], stands: str
) -> None:
    models = device.start()
    command(models, "stage", bundle=device.path("2.0"), strategy="canary", share=1.0)
    if stands == "former":
        command(models, "activate")
        command(models, "return")
    assert [result.rows for result in models.test().result().results] == [4, 4]
    goes_wrong.add("2.0")
    found = models.test().result()
    (fault,) = found.faults
    assert fault.startswith("tiny 2.0 fails its self-test here: 1 of 4 golden rows differ")
    assert fault.endswith("; it is let go")
    assert (version(models), models.status()[0][stands]) == ("1.0", None)
    assert device.start().status()[0][stands] is None
    assert models.test().result().faults == ()


def test_a_former_bundle_whose_file_is_gone_is_not_tested(device: Device, tmp_path: Path) -> None:
    first = tmp_path / "first.edge"
    first.write_bytes(Path(device.path("1.0")).read_bytes())
    models = device.start(device.config(ModelSettings(bundle=str(first))))
    models.apply(device.config(ModelSettings(bundle=device.path("2.0")))).result()
    first.unlink()
    assert models.status()[0]["former"] is not None
    assert [result.rows for result in models.test().result().results] == [4]


def test_a_former_bundle_that_is_wrong_too_helps_nobody(device: Device, goes_wrong: set[str]) -> None:
    models = device.start()
    command(models, "stage", bundle=device.path("2.0"))
    command(models, "activate")
    goes_wrong |= {"1.0", "2.0"}
    with pytest.raises(GoldenMismatch, match=r"tiny 2\.0 fails"):
        models.test().result()
    assert version(models) == "2.0"


def test_a_candidate_and_its_plan_outlive_a_restart(device: Device) -> None:
    command(device.start(), "stage", bundle=device.path("2.0"), strategy="canary", share=0.4, salt="x")
    trial = device.start().served["tiny"].lineup.candidate
    assert trial is not None
    assert (trial.plan.strategy, trial.plan.share, trial.plan.salt) == ("canary", 0.4, "x")


def test_what_an_older_release_kept_still_counts(device: Device) -> None:
    one, path = ModelSettings(bundle=device.path("1.0")), Path(device.path("1.0"))
    older = {"bundle": str(path), "threads": None, "automation": None, "safe_answer": None, "candidate": None}
    said = msgspec.json.encode(older), hashlib.sha256(path.read_bytes()).hexdigest().encode()
    assert configured(one) == hashlib.sha256(b"\0".join(said)).hexdigest()
    assert configured(msgspec.structs.replace(one, group_rows=8)) != configured(one)


def test_settings_that_change_win_over_a_command(device: Device) -> None:
    models = device.start()
    command(models, "stage", bundle=device.path("2.0"))
    command(models, "activate")
    changed = device.config(ModelSettings(bundle=device.path("1.0"), automation="advise"))
    assert version(device.start(changed)) == "1.0"
    assert version(device.start()) == "2.0"


def test_only_what_is_named_is_kept_on_disk(device: Device) -> None:
    models, folder = device.start(), device.directory / "state" / "bundles"
    command(models, "stage", bundle=device.path("2.0"))
    assert len(list(folder.iterdir())) == 1
    command(models, "drop")
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ({"bundle": "{wrong}"}, GoldenMismatch, "fails its self-test"),
        ({"bundle": "{1.0}"}, Refused, "is live already"),
        ({"bundle": "{other}"}, Refused, "is no version of tiny"),
        ({"bundle": "/none.edge"}, MissingFile, "cannot read the bundle"),
        ({"bundle": "tiny-2.0.edge"}, UsageError, "relative path"),
        ({"bundle": "{2.0}", "strategy": "magic"}, FormatError, r"\$\.strategy"),
        ({"bundle": "{2.0}", "shar": 1}, FormatError, "unknown field `shar`"),
        ({}, FormatError, "bundle"),
    ],
)
def test_what_cannot_be_staged_is_refused_and_live_goes_on(
    device: Device, body: dict[str, Any], error: type[EdgekitError], words: str
) -> None:
    models = device.start()
    paths = {"{" + name + "}": str(made.path) for name, made in device.bundles.items()}
    body = {name: paths.get(value, value) for name, value in body.items()}
    with pytest.raises(error, match=words):
        command(models, "stage", **body)
    assert models.status()[0]["candidate"] is None
    assert version(models) == "1.0"


def test_a_disk_that_cannot_keep_a_command_warns(device: Device) -> None:
    models = device.start(
        device.config(
            ModelSettings(
                bundle=device.path("1.0"),
                candidate=CandidateSettings(bundle=device.path("2.0"), strategy="blue-green"),
            )
        )
    )
    (device.directory / "state").write_text("no folder")
    assert "a restart returns to what was before" in command(models, "activate")["warning"]
    assert version(models) == "2.0"


def test_a_candidate_of_the_settings_that_fails_is_left_out(device: Device) -> None:
    one = ModelSettings(bundle=device.path("1.0"), candidate=CandidateSettings(bundle=device.path("wrong")))
    assert version(device.start(device.config(one))) == "1.0"
    assert any(line.startswith("not loaded  tiny 3.0 fails its self-test") for line in device.said)


def test_a_kept_bundle_that_was_spoiled_gives_way_to_the_settings(device: Device) -> None:
    models = device.start()
    command(models, "stage", bundle=device.path("2.0"))
    command(models, "promote")
    (kept,) = (device.directory / "state" / "bundles").iterdir()
    kept.write_bytes(kept.read_bytes()[:-10])
    assert version(device.start()) == "1.0"
    assert any("what was commanded cannot be had back" in line for line in device.said)


def test_several_models_each_have_their_own_bundles(device: Device) -> None:
    models = device.start(
        device.config(ModelSettings(bundle=device.path("1.0")), ModelSettings(bundle=device.path("other")))
    )
    command(models, "stage", bundle=device.path("2.0"))
    command(models, "activate")
    assert (version(models), version(models, "other")) == ("2.0", "1.0")
    assert [(one.model, one.version) for one in models.running] == [("tiny", "2.0"), ("other", "1.0")]
    with pytest.raises(UsageError, match="there is no model 'x'"):
        models.command("x", "drop").result()


def test_two_models_of_one_name_are_refused(device: Device) -> None:
    same = ModelSettings(bundle=device.path("1.0"))
    with pytest.raises(UsageError, match="two models"):
        device.start(device.config(same, ModelSettings(bundle=device.path("2.0"))))


def test_other_settings_exchange_add_and_take_away(device: Device) -> None:
    models = device.start(device.config(ModelSettings(bundle=device.path("1.0"))))
    served = models.served["tiny"]
    lines = models.apply(
        device.config(ModelSettings(bundle=device.path("2.0")), ModelSettings(bundle=device.path("other")))
    ).result()
    assert lines == ["tiny 1.0 gives way to tiny 2.0", "other 1.0 is served"]
    assert models.served["tiny"] is served
    assert command(models, "return")["live"]["version"] == "1.0"
    assert models.apply(device.config(ModelSettings(bundle=device.path("other")))).result() == [
        "tiny is served no more"
    ]
    assert list(models.served) == ["other"]
    assert models.apply(device.config(ModelSettings(bundle=device.path("other")))).result() == []


def test_other_settings_of_a_bundle_are_called_that(device: Device) -> None:
    models = device.start(device.config(ModelSettings(bundle=device.path("1.0"))))
    lowered = ModelSettings(bundle=device.path("1.0"), automation="advise")
    assert models.apply(device.config(lowered)).result() == ["tiny 1.0 has other settings"]
    assert models.status()[0]["automation"] == "advise"


def test_settings_that_cannot_be_had_change_nothing(device: Device) -> None:
    models = device.start()
    wanted = device.config(ModelSettings(bundle=device.path("other")), ModelSettings(bundle=device.path("wrong")))
    with pytest.raises(GoldenMismatch):
        models.apply(wanted).result()
    assert list(models.served) == ["tiny"]


def test_a_bundle_that_is_let_go_leaves_memory_and_its_last_window_is_stored(device: Device) -> None:
    with Outbox(device.directory / "outbox.db", "dev-1") as outbox:
        models = device.start()
        reporter = Reporter(outbox, lambda: None)
        reporter.start(models.report_to(reporter))
        engine = weakref.ref(models.served["tiny"].lineup.live.engine)

        def ask(route: Any) -> None:
            batch = route.engine.encode(bundles.ROWS)
            route.note(batch, route.answer(batch), 50.0)

        gc.disable()
        try:
            under_way = models.served["tiny"].route()
            command(models, "stage", bundle=device.path("2.0"))
            command(models, "promote")
            ask(models.served["tiny"].route())
            assert engine() is not None
            ask(under_way)  # after its window was closed
            del under_way
            wait_until(lambda: engine() is None, "the old engine's end")
        finally:
            gc.enable()
        wait_until(lambda: rows(outbox).get("1.0") == 4, "the last window")
        models.stop()
        reporter.stop()
        assert rows(outbox) == {"1.0": 4, "2.0": 4}


def rows(outbox: Outbox) -> dict[str, int]:
    """Rows of the windows by version."""
    found: dict[str, int] = {}
    for envelope in outbox.waiting():
        if envelope.kind is Kind.WINDOW and isinstance(body := decode_body(envelope), Window):
            found[body.model_version] = found.get(body.model_version, 0) + envelope.n
    return found


def test_doubtful_answers_are_marked_and_wait_for_a_person(tmp_path: Path) -> None:
    damaged = tmp_path / "state" / "review.db"
    damaged.parent.mkdir()
    damaged.write_bytes(b"no database" * 1000)
    careful = bundles.make(
        tmp_path, monitoring=Monitoring(abstain_below=0.9), privacy=Privacy(raw_fields=("age",)), automation="confirm"
    )
    config = DeviceConfig(
        device="dev-1",
        keys=(str(careful.public),),
        models=(ModelSettings(bundle=str(careful.path), safe_answer="yes", automation="act"),),
        state_dir=str(tmp_path / "state"),
        review=ReviewSettings(per_minute=600),
    )
    models = Models(config, lambda line: None)
    try:
        route = models.served["tiny"].route()
        batch = route.engine.encode(bundles.ROWS)
        reply = route.answer(batch)
        route.note(batch, reply, 50.0, request="42")
        assert reply.parameters == {
            "edgekit_automation": "confirm",  # not raised
            "edgekit_needs_confirmation": True,
            "edgekit_abstain": True,
            "edgekit_abstain_rows": "0",
            "edgekit_served_by": "live",
        }
        assert reply.answers.labels is not None
        assert reply.answers.labels.tolist() == ["yes", "no", "no", "no"]
    finally:
        models.stop()
    assert models._assembly.verdicts() == []  # a reporter asks until its own end
    models.close()
    assert damaged.with_name("review.db.damaged-1").read_bytes() == b"no database" * 1000
    with ReviewQueue(damaged) as queue:
        items = list(queue.items())
    assert [(one.reason, one.answer, one.request, one.fields) for one in items] == [
        ("abstain", "no", "42", {"age": 20.0}),
        *(("confirm", "no", "42", {"age": age}) for age in (30.5, 40.0, 80.0)),
    ]


def test_a_shadow_has_one_thread_and_what_is_activated_has_its_own(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []

    def noted(model: bytes, manifest: Manifest, settings: SessionSettings) -> Any:
        threads.append(settings.threads)
        return open_session(model, manifest, settings)

    monkeypatch.setattr("edgekit_runtime.engine.open_session", noted)
    models = device.start(device.config(ModelSettings(bundle=device.path("1.0"), threads=2)))
    command(models, "stage", bundle=device.path("2.0"), strategy="shadow")
    command(models, "activate")
    assert threads == [2, 1, 2]
    assert version(models) == "2.0"
    assert command(models, "return")["live"]["version"] == "1.0"


def test_other_settings_hold_where_the_disk_keeps_nothing(device: Device, tmp_path: Path) -> None:
    models = device.start()
    (tmp_path / "state").write_text("no folder")
    assert models.apply(device.config(ModelSettings(bundle=device.path("2.0")))).result() == [
        "tiny 1.0 gives way to tiny 2.0"
    ]
    assert version(models) == "2.0"


def test_a_safe_answer_that_fits_no_class_is_refused_at_the_start(device: Device) -> None:
    with pytest.raises(UsageError, match="no class of tiny"):
        device.start(device.config(ModelSettings(bundle=device.path("1.0"), safe_answer="perhaps")))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "either one bundle or"),
        ('bundle = "a"\n[[models]]\nbundle = "b"', "either one bundle or"),
        (
            '[[models]]\nbundle = "b"\nautomation = "all"',
            """expected "act", "advise", "confirm" or "shadow", found the text 'all'""",
        ),
        ('[[models]]\nbundle = "b"\n[models.candidate]\nbundle = "c"\nshare = 2', "<= 1"),
    ],
)
def test_settings_of_models_that_mean_nothing_are_refused(
    text: str, words: str, load: Callable[[str], DeviceConfig]
) -> None:
    with pytest.raises(FormatError, match=words):
        load('device = "d"\nkeys = ["k"]\n' + text)


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], DeviceConfig]:
    from edgekit_runtime.settings import load_settings

    def loaded(text: str) -> DeviceConfig:
        path = tmp_path / "device.toml"
        path.write_text(text)
        return load_settings(path, environ={}).config

    return loaded


def test_paths_of_models_are_relative_to_the_file(load: Callable[[str], DeviceConfig], tmp_path: Path) -> None:
    (model,) = load(
        'device = "d"\nkeys = ["k"]\n[[models]]\nbundle = "b"\nthreads = 2\n[models.candidate]\nbundle = "c"'
    ).served
    assert (model.bundle, model.threads) == (str(tmp_path / "b"), 2)
    assert model.candidate is not None
    assert model.candidate == CandidateSettings(bundle=str(tmp_path / "c"))
    assert msgspec.structs.asdict(model.candidate)["strategy"] == "shadow"
