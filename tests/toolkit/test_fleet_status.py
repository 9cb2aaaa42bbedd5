from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from edgekit.collector.ingest import Birth, Message, read
from edgekit.collector.store import Store, open_store
from edgekit.fleet.status import DeviceStatus, fleet_status
from edgekit_contracts import topics
from edgekit_contracts.state import Running, Status
from edgekit_contracts.telemetry import Clock, Envelope, Gap, Labels, Software, Window, encode, encode_message
from tests.telemetry_samples import NOW_MS, envelope, reference_parts, window

DT_MS = 10_000


@pytest.fixture
def store(where: str) -> Iterator[Store]:
    with open_store(where) as opened:
        yield opened


def ingest(store: Store, *records: Envelope, at_ms: int = NOW_MS) -> None:
    for record in records:
        topic = str(topics.Up(record.device))
        store.ingest(read(Message(topic, encode_message([encode(record)]), at_ms), store))


def reference(device: str = "pump-1") -> list[Envelope]:
    return [envelope(body, sequence=i + 1, device=device) for i, body in enumerate(reference_parts())]


def status_of(store: Store, now_ms: int = NOW_MS + 1000, **options: int) -> DeviceStatus:
    (line,) = fleet_status(store, now_ms, **options)
    return line


def born(store: Store, *, dead: bool = False, at_ms: int = NOW_MS, refused: str | None = None) -> None:
    run = Running(model="diabetes", version="1.0.0", bundle_sha256="0" * 64, bins_id="0" * 16)
    status = Status(device="pump-1", session=1, dead=dead, running=() if dead or refused else (run,), refused=refused)
    store.ingest([Birth(status, at_ms)])


def test_what_people_said_on_the_device_is_counted(store: Store) -> None:
    born(store)
    for number, version in enumerate(("0.9", "1.0.0"), start=1):
        ingest(store, envelope(Labels("diabetes", version, 10 * number, number, 0.0), sequence=number, n=10 * number))
    line = status_of(store)
    assert (line.version, line.reviewed, line.wrong, line.alarms) == ("1.0.0", 20, 2, ())


def test_a_healthy_device_has_a_line_without_alarms(store: Store) -> None:
    born(store)
    body, n = window(calls=50, latency=31)
    ingest(store, *reference(), *(envelope(body, sequence=i, n=n) for i in (3, 4)))
    line = status_of(store)
    assert (line.device, line.model, line.version, line.state) == ("pump-1", "diabetes", "1.0.0", "online")
    assert (line.requests, line.rows, line.rejected, line.failed) == (100, 200, 0, 0)
    # Bin 31 is 1.0 to 1.26 ms.
    assert line.latency_p50_ms == pytest.approx(1.12, abs=0.02)
    assert line.latency_p99_ms == pytest.approx(1.256, abs=0.01)
    assert (line.last_seen_ms, line.tested_rows, line.drifted, line.alarms) == (NOW_MS, 200, (), ())
    assert msgspec.json.decode(msgspec.json.encode(line), type=DeviceStatus) == line


def test_drift_is_named_from_merged_windows(store: Store) -> None:
    body, n = window((0, 5, 5, 20))
    ingest(store, *reference(), *(envelope(body, sequence=i, n=n) for i in range(3, 9)))
    line = status_of(store)
    assert [item.name for item in line.drifted] == ["bmi"]
    assert line.alarms == ("drift: bmi",)
    assert line.drifted[0].p < 1e-6


def test_windows_before_the_look_back_do_not_count(store: Store) -> None:
    body, n = window()
    ingest(store, *reference(), envelope(body, sequence=3, n=n, t0_ms=NOW_MS - 7_200_000))
    ingest(store, envelope(body, sequence=4, n=n))
    assert status_of(store).rows == n
    assert status_of(store, look_back_ms=8_000_000).rows == 2 * n


def test_only_the_present_model_is_tested_for_drift(store: Store) -> None:
    (old, n), (new, _) = window((0, 0, 0, 100)), window()
    newer = msgspec.structs.replace(new, model_version="2.0.0")
    ingest(store, *reference(), envelope(old, sequence=3, n=n, t0_ms=NOW_MS - 60_000))
    ingest(store, envelope(newer, sequence=4, n=n))
    line = status_of(store)
    assert (line.version, line.drifted, line.tested_rows, line.rows) == ("2.0.0", (), n, 2 * n)


def test_a_device_of_several_models_has_a_line_for_each(store: Store) -> None:
    models = ("diabetes", "pump")
    running = tuple(Running(model=m, version="1.0.0", bundle_sha256="0" * 64, bins_id="0" * 16) for m in models)
    store.ingest([Birth(Status(device="pump-1", session=1, running=running), NOW_MS)])
    body, n = window(calls=50)
    ingest(store, *reference(), envelope(body, sequence=3, n=n))
    ingest(store, *(envelope(msgspec.structs.replace(body, model="pump"), sequence=i, n=n) for i in (4, 5)))
    lines = fleet_status(store, NOW_MS + 1000)
    assert [(one.device, one.model, one.requests, one.rows) for one in lines] == [
        ("pump-1", "diabetes", 50, n),
        ("pump-1", "pump", 100, 2 * n),
    ]


def test_rows_of_a_shadow_are_no_requests(store: Store) -> None:
    born(store)
    (body, n), (shadow, _) = window(calls=50), window((0, 0, 0, 100), calls=0)
    shadow = msgspec.structs.replace(shadow, model_version="2.0.0")
    ingest(store, *reference(), envelope(body, sequence=3, n=n), envelope(shadow, sequence=4, n=n))
    line = status_of(store)
    assert (line.version, line.requests, line.rows, line.drifted) == ("1.0.0", 50, n, ())


def test_two_starts_that_cover_the_same_time_are_an_alarm(store: Store) -> None:
    body, n = window()

    def later(number: int, *, epoch: int, late_ms: int = 0, model: str = "diabetes", merged: int = 0) -> Envelope:
        t0_ms = NOW_MS - 60 * DT_MS + number * DT_MS + late_ms
        one = envelope(
            msgspec.structs.replace(body, model=model), sequence=10 + number, epoch=epoch, n=n, t0_ms=t0_ms, dt_ms=DT_MS
        )
        return msgspec.structs.replace(one, merged=merged)

    # One after the other, a clock that was set a little, another model, and a long window around a live one.
    ingest(store, *reference(), *(later(i, epoch=7) for i in range(5)), *(later(i, epoch=8) for i in range(5, 9)))
    ingest(store, later(9, epoch=9, late_ms=-DT_MS // 2), later(1, epoch=9, model="other"), later(2, epoch=9, merged=3))
    assert "shared" not in status_of(store).alarm_kinds
    ingest(store, later(4, epoch=9, late_ms=DT_MS // 3))
    line = status_of(store)
    assert "shared" in line.alarm_kinds
    assert "two devices of this name" in line.alarms[-1]
    assert "shared" not in status_of(store, look_back_ms=50 * DT_MS).alarm_kinds


def test_windows_of_a_device_without_a_clock_are_no_proof_of_two(store: Store) -> None:
    body, n = window()
    ingest(store, *reference())
    for epoch in (7, 8):
        for number in range(10, 13):
            one = envelope(body, sequence=number, epoch=epoch, n=n, t0_ms=5)
            ingest(store, msgspec.structs.replace(one, clock=Clock.UNKNOWN))
    assert status_of(store).alarms == ()


def test_a_device_is_silent_when_nothing_comes_for_three_windows(store: Store) -> None:
    born(store)
    body, n = window()
    ingest(store, *reference(), envelope(body, sequence=3, n=n, dt_ms=DT_MS))
    assert status_of(store, NOW_MS + 3 * DT_MS).state == "online"
    line = status_of(store, NOW_MS + 301_000)
    assert (line.state, line.alarms) == ("silent", ("silent for 5 min",))


def test_a_short_last_window_before_a_restart_does_not_make_a_device_silent(store: Store) -> None:
    body, n = window()
    long, short = (envelope(body, sequence=i, n=n, dt_ms=dt) for i, dt in ((3, 60_000), (4, 1_000)))
    ingest(store, *reference(), long)
    ingest(store, short, at_ms=NOW_MS + 1_000)
    assert status_of(store, NOW_MS + 1_000 + 180_000).state == "online"
    assert status_of(store, NOW_MS + 1_000 + 181_000).state == "silent"


def test_a_device_that_was_born_again_gets_the_patience_of_a_new_one(store: Store) -> None:
    body, n = window()
    ingest(store, *reference(), envelope(body, sequence=3, n=n, dt_ms=1_000))
    born(store, at_ms=NOW_MS + 5_000)
    assert status_of(store, NOW_MS + 5_000 + 300_000).state == "online"
    assert status_of(store, NOW_MS + 5_000 + 301_000).state == "silent"


def test_the_present_model_is_what_the_device_says_it_runs(store: Store) -> None:
    born(store)
    (present, n), (other, _) = window((0, 0, 0, 100)), window()
    other = msgspec.structs.replace(other, model_version="2.0.0")
    ingest(store, *reference(), envelope(present, sequence=3, n=n, t0_ms=NOW_MS - 60_000))
    ingest(store, envelope(other, sequence=4, n=n))
    line = status_of(store)
    assert (line.version, line.tested_rows, line.alarms) == ("1.0.0", n, ("drift: bmi",))


def test_what_windows_say_of_the_device_is_shown(store: Store) -> None:
    status = Status(device="pump-1", session=1, agent="edgekit-runtime 0.1.0")
    store.ingest([Birth(status, NOW_MS)])
    for sequence, waiting in ((3, 9), (4, 2)):
        software = Software(5, 0, 0, rss_kb=1_000_000, cpu_ms=2_500, uptime_s=60 * sequence, outbox_records=waiting)
        body, n = window(software=software, out_of_range=7, abstained=4, resent=3)
        ingest(store, *reference(), envelope(body, sequence=sequence, n=n))
    line = status_of(store)
    assert (line.agent, line.rss_mb, line.cpu_percent) == ("edgekit-runtime 0.1.0", 1024.0, 25.0)
    assert (line.uptime_s, line.outbox_records) == (240, 2)
    assert (line.abstained, line.resent, line.output_nulls, line.out_of_range) == (8, 6, 0, {"bmi": 14})


def test_what_cannot_be_read_of_one_device_is_its_alarm_and_the_others_keep_their_lines(store: Store) -> None:
    body, n = window()
    for device in ("pump-1", "pump-2"):
        ingest(store, *reference(device), envelope(body, sequence=3, n=n, device=device))
    with store.database.writing() as db:
        ((records,),) = db.rows("""SELECT records FROM "window" WHERE dev = 'pump-1'""")
        db.run("""UPDATE "window" SET records = ? WHERE dev = 'pump-1'""", (bytes(records)[:-1],))
    ill, well = fleet_status(store, NOW_MS)
    assert (ill.state, ill.rows) == ("online", 0)
    assert [alarm[:27] for alarm in ill.alarms] == ["its windows cannot be read:"]
    assert (well.rows, well.alarms) == (n, ())


def test_windows_before_their_reference_are_counted_and_not_judged(store: Store) -> None:
    body, n = window((0, 0, 0, 100))
    ingest(store, *reference("pump-0"), envelope(body, sequence=3, n=n, device="pump-1"))
    line = fleet_status(store, NOW_MS)[1]
    assert (line.rows, line.tested_rows, line.drifted) == (n, 0, ())
    assert line.latency_p50_ms is not None


def test_a_device_that_was_born_and_never_spoke_is_silent_in_the_end(store: Store) -> None:
    born(store)
    assert status_of(store, NOW_MS + 60_000).state == "online"
    assert status_of(store, NOW_MS + 3_700_000).alarms == ("silent for 1 h",)


def test_a_device_whose_will_came_is_offline_until_it_speaks_again(store: Store) -> None:
    body, n = window()
    ingest(store, *reference(), envelope(body, sequence=3, n=n))
    born(store, dead=True, at_ms=NOW_MS + 5000)
    line = status_of(store, NOW_MS + 65_000)
    assert (line.state, line.last_seen_ms, line.alarms) == ("offline", NOW_MS, ("offline for 1 min",))
    ingest(store, envelope(body, sequence=4, n=n), at_ms=NOW_MS + 6000)
    assert status_of(store, NOW_MS + 7000).state == "online"


def test_losses_failures_quarantine_and_refusals_are_alarms(store: Store) -> None:
    born(store, refused="it does not fit")
    body, n = window()
    software = Software(calls=5, rejected=2, failed=1, rss_kb=1, cpu_ms=1, uptime_s=1, outbox_records=0)
    failing = window(software=software)[0]
    gap = Gap(first=4, last=6, records=3, rows=300, bytes=900, reason="outbox full")
    stray = envelope(body, sequence=7, n=n, bins_id=b"unknown!")
    ingest(store, *reference(), envelope(failing, sequence=3, n=n), envelope(gap, sequence=6), stray)
    line = status_of(store)
    assert (line.requests, line.rejected, line.failed, line.lost_records, line.quarantined) == (8, 2, 1, 3, 1)
    assert line.alarms == (
        "3 records lost",
        "failed requests",
        "1 window without a reference",
        "refused: it does not fit",
    )


def test_few_rows_are_shown_as_untested_not_as_healthy(store: Store) -> None:
    body, n = window((0, 0, 0, 20))
    ingest(store, *reference(), envelope(body, sequence=3, n=n))
    line = status_of(store)
    assert (line.tested_rows, line.drifted) == (20, ())


def test_every_device_has_its_own_line_by_name(store: Store) -> None:
    body, n = window()
    for device in ("pump-2", "pump-1"):
        ingest(store, *reference(device), envelope(body, sequence=3, n=n, device=device))
    assert [line.device for line in fleet_status(store, NOW_MS)] == ["pump-1", "pump-2"]
    assert fleet_status(store, NOW_MS)[0].model == "diabetes"


def test_an_empty_store_has_no_lines(store: Store) -> None:
    assert fleet_status(store, NOW_MS) == []


def test_an_idle_devices_empty_window_keeps_it_online(store: Store) -> None:
    empty, _ = window((0, 0, 0, 0), calls=0)
    assert isinstance(empty, Window)
    ingest(store, *reference(), envelope(empty, sequence=3, n=0))
    line = status_of(store)
    assert (line.state, line.latency_p50_ms, line.alarms) == ("online", None, ())
