"""Files that releases wrote, read with today's code."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from cryptography.x509 import load_pem_x509_certificate

import edgekit_runtime
from edgekit.fleet.certificates import read_request
from edgekit_contracts import telemetry
from edgekit_contracts.alerts import decode_alert
from edgekit_contracts.counts import decode_counts, decode_distances
from edgekit_contracts.decode import decode_json, decode_msgpack
from edgekit_contracts.enrolment import Token, decode_grant, decode_request
from edgekit_contracts.limits import MESSAGE_MAX_BYTES, STATE_MAX_BYTES
from edgekit_contracts.profile import decode_profile
from edgekit_contracts.reference import decode_reference
from edgekit_contracts.slots import decode_slots
from edgekit_contracts.state import WANT_FORMAT, Want, decode_host, decode_now, decode_status
from edgekit_contracts.telemetry import Ack, Clock, Event, Gap, Kind, ReferencePart, Window
from edgekit_runtime.batch import predict_file
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.engine import Engine
from edgekit_runtime.identity import authority_of
from edgekit_runtime.observe import Observer
from edgekit_runtime.route import Member
from edgekit_runtime.served import Lineup, Served
from edgekit_runtime.serving.app import App
from edgekit_runtime.serving.message import Request
from edgekit_runtime.serving.mqtt import Unanswered

CORPUS = Path(__file__).parents[1] / "corpus"
EPOCH = 81985529216486895


def test_a_bundle_1_0_verifies_tests_itself_and_answers(tmp_path: Path) -> None:
    folder = CORPUS / "bundle-1.0"
    with edgekit_runtime.load(folder / "progression-1.0.edge", keys=[folder / "signer.pub.pem"]) as model:
        assert model.manifest.title == "progression 1.0"
        predict_file(model.engine, folder / "patients.csv", tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert len(lines) == 21
    assert lines[0].endswith("progression,prediction,probability_fast,probability_slow")


def test_a_bundle_1_1_tells_what_was_proved(tmp_path: Path) -> None:
    folder = CORPUS / "bundle-1.1"
    with edgekit_runtime.load(folder / "disease-1.1.edge", keys=[folder / "signer.pub.pem"]) as model:
        parity = model.manifest.parity
        predict_file(model.engine, folder / "patients.csv", tmp_path / "out.csv")
    assert model.manifest.format == "edgekit-bundle/1.1"
    assert 0 < parity.marks_reached <= parity.marks
    assert parity.worst_row is not None
    assert parity.worst_row.original != parity.worst_row.converted
    assert len(parity.worst_row.values) == len(model.manifest.features)
    assert parity.differs is not None
    assert parity.runtimes == ("1.32.0", "1.28.0")
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 21


def test_a_bundle_2_0_verifies_tests_itself_and_answers(tmp_path: Path) -> None:
    folder = CORPUS / "bundle-2.0"
    with edgekit_runtime.load(folder / "unusual-2.0.edge", keys=[folder / "signer.pub.pem"]) as model:
        assert (model.manifest.task, model.manifest.classes) == ("outlier_detection", (-1, 1))
        predict_file(model.engine, folder / "patients.csv", tmp_path / "out.csv")
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0].endswith("blood_pressure,prediction,decision")
    assert sorted(line.split(",")[4] for line in lines[1:]) == ["-1"] * 2 + ["1"] * 18


def test_a_telemetry_message_1_is_read() -> None:
    records = telemetry.decode_message((CORPUS / "telemetry-1" / "message.msgpack").read_bytes())
    assert [(one.device, one.epoch, one.sequence) for one in records] == [("clinic-1", EPOCH, n) for n in (1, 2, 5, 6)]
    assert [one.kind for one in records] == [Kind.REFERENCE, Kind.WINDOW, Kind.GAP, Kind.EVENT]
    assert records[0].clock is Clock.SYNCED
    part, window, gap, event = [telemetry.decode_body(one) for one in records]
    assert isinstance(part, ReferencePart)
    assert isinstance(window, Window)
    reference = decode_reference(part.data)
    assert reference.bins_id == records[1].bins_id
    counts = decode_counts(window.counts, reference.bins, records[1].n)
    assert (counts.resent, sum(counts.latency), sum(counts.classes)) == (1, 1, 20)
    assert window.software.rejected == 1
    assert gap == Gap(3, 5, 3, 60, 2400, "outbox full")
    assert event == Event("started", "edgekit-runtime 0.1.0")


def test_a_window_1_with_distances_is_read_on_a_reference_1_1() -> None:
    reference = decode_reference((CORPUS / "reference-1.1" / "reference.json").read_bytes())
    (record,) = telemetry.decode_message((CORPUS / "telemetry-1" / "distances.msgpack").read_bytes())
    window = telemetry.decode_body(record)
    assert isinstance(window, Window)
    assert reference.distance is not None
    assert sum(reference.distances) == reference.rows == 200
    assert record.bins_id == reference.bins_id
    assert decode_distances(window.distances, record.n) == (reference.distance.name, [4, 2, 14])


def test_a_merged_window_of_telemetry_1_is_read() -> None:
    windows = telemetry.decode_message((CORPUS / "telemetry-1" / "merged.msgpack").read_bytes())
    assert [(one.sequence, one.n, one.merged, one.dt_ms) for one in windows] == [
        (1, 300, 2, 30_000),
        (2, 100, 0, 10_000),
    ]
    # A release without that field reads them as windows.
    older_release = msgspec.defstruct(
        "Envelope",
        [(one.name, one.type) for one in msgspec.structs.fields(telemetry.Envelope) if one.name != "merged"],
        array_like=True,
    )
    data = (CORPUS / "telemetry-1" / "merged.msgpack").read_bytes()
    for one, plain in zip(windows, msgspec.msgpack.decode(data, type=list[older_release]), strict=True):  # type: ignore[valid-type]
        assert [getattr(plain, name) for name in ("sequence", "n", "dt_ms")] == [one.sequence, one.n, one.dt_ms]
    # And one of a device without it stands for itself.
    older = telemetry.decode_message((CORPUS / "telemetry-1" / "message.msgpack").read_bytes())
    assert {one.merged for one in older} == {0}


def test_labels_1_are_read() -> None:
    (record,) = telemetry.decode_message((CORPUS / "telemetry-1" / "labels.msgpack").read_bytes())
    assert telemetry.decode_body(record) == telemetry.Labels("progression", "1.0", 40, 3, 0.0)


def test_an_acknowledgement_1_is_read() -> None:
    data = (CORPUS / "telemetry-1" / "ack.msgpack").read_bytes()
    ack = decode_msgpack(data, Ack, what="acknowledgement", limit=MESSAGE_MAX_BYTES)
    assert ack == Ack(EPOCH, 6, ((8, 9),))


@pytest.mark.parametrize(("name", "dead"), [("birth", False), ("will", True)])
def test_a_status_1_0_is_read(name: str, dead: bool) -> None:
    status = decode_status((CORPUS / "state-1.0" / f"{name}.json").read_bytes())
    assert (status.device, status.session, status.dead) == ("clinic-1", 3, dead)


def test_a_packed_message_1_is_read() -> None:
    folder = CORPUS / "telemetry-1"
    packed = (folder / "message.packed").read_bytes()
    assert telemetry.decode_message(packed) == telemetry.decode_message((folder / "message.msgpack").read_bytes())


def test_a_status_1_1_says_how_often_windows_come() -> None:
    assert decode_status((CORPUS / "state-1.1" / "birth.json").read_bytes()).sends_s == 10_800
    assert decode_status((CORPUS / "state-1.0" / "birth.json").read_bytes()).sends_s == 0


def test_a_presence_1_1_says_what_its_collector_reads() -> None:
    assert decode_host((CORPUS / "state-1.1" / "host.json").read_bytes()).accepts == ("zlib",)
    assert decode_host((CORPUS / "state-1.0" / "host.json").read_bytes()).accepts == ()


def test_an_enrolment_1_0_is_read() -> None:
    folder = CORPUS / "enrolment-1.0"
    request = decode_request((folder / "request.json").read_bytes())
    grant = decode_grant((folder / "grant.json").read_bytes())
    name, key = read_request(request.csr)
    assert (name, key) == ("press-7", load_pem_x509_certificate(grant.certificate.encode()).public_key())
    assert request.token is not None
    assert authority_of(Token.parse(request.token), grant.authority.encode()) == grant.authority


def test_scalars_1_0_are_read() -> None:
    now = decode_now((CORPUS / "state-1.0" / "now.json").read_bytes())
    assert (now.device, now.outbox_records, now.models[0].latency_p99_ms) == ("clinic-1", 2, 0.4311)


def test_an_alert_1_0_is_read() -> None:
    event, over = (decode_alert((CORPUS / "alert-1.0" / f"{name}.json").read_bytes()) for name in ("event", "over"))
    assert (event.source, event.name, event.level, event.over) == ("device", "shadow stopped", "warning", False)
    assert (over.source, over.name, over.at_ms, over.over) == ("centre", "drift", 1_795_000_600_000, True)


def test_presence_and_wish_1_0_are_read() -> None:
    assert decode_host((CORPUS / "state-1.0" / "host.json").read_bytes()).alive
    data = (CORPUS / "state-1.0" / "want.json").read_bytes()
    want = decode_json(data, Want, what="want", limit=STATE_MAX_BYTES, format=WANT_FORMAT)
    assert (want.model, want.revision) == ("progression", 1)


def test_slots_1_0_are_read() -> None:
    press, pump = decode_slots((CORPUS / "slots-1.0" / "slots.json").read_bytes()).models
    assert (press.model, press.live.version, press.configured[-1]) == ("press", "1.1", "d")
    assert press.candidate is not None
    assert press.former is not None
    assert (press.candidate.slot.version, press.former.version) == ("2.0", "1.0")
    assert (press.candidate.plan.strategy, press.candidate.plan.share) == ("canary", 0.25)
    assert (pump.candidate, pump.former) == (None, None)


def test_a_profile_1_0_is_read() -> None:
    assert decode_profile((CORPUS / "profile-1.0.toml").read_bytes()).name == "raspberry-pi-4"


def test_a_request_over_the_broker_is_answered_as_it_was() -> None:
    folder, bundle = CORPUS / "inference-1", open_bundle(CORPUS / "bundle-1.0" / "progression-1.0.edge", keys=None)
    member = Member(Engine(bundle.model, bundle.manifest), Observer(bundle.manifest, bundle.reference.bins))
    app = App({"progression": Served(Lineup(member))}, dict)
    request = Request("POST", b"/v2/models/progression/infer", {}, (folder / "request.json").read_bytes(), 0.0)
    found, kept = json.loads(app.answer(request).body), json.loads((folder / "answer.json").read_bytes())
    assert (found["id"], found["model_name"], found["model_version"]) == ("ward-3", "progression", "1.0")
    (labels, probabilities), (old_labels, old_probabilities) = found["outputs"], kept["outputs"]
    assert labels == old_labels
    assert probabilities.pop("data") == pytest.approx(old_probabilities.pop("data"))
    assert probabilities == old_probabilities
    unanswered = msgspec.json.decode((folder / "unanswered.json").read_bytes(), type=Unanswered)
    assert (unanswered.id, unanswered.status) == ("ward-3", 404)
