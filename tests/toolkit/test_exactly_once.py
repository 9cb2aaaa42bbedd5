"""Whatever happens between a device's outbox and the collector's store, each record is stored once or counted in a gap.

Each window puts its one row into a bin of its own, so that what became of it can be told after merging too.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.collector.blocks import windows_of
from edgekit.collector.ingest import Message, read_batch
from edgekit.collector.store import open_store
from edgekit_contracts import topics
from edgekit_contracts.counts import FeatureWindow, WindowCounts, encode_counts
from edgekit_contracts.decode import encode_json
from edgekit_contracts.reference import LATENCY_BINS, Bins, FeatureBins, FeatureCounts, Reference
from edgekit_contracts.telemetry import (
    Ack,
    Clock,
    Event,
    Kind,
    ReferencePart,
    Software,
    Window,
    decode_envelope,
    encode,
)
from edgekit_runtime.flight import packets
from edgekit_runtime.outbox import Outbox
from tests.telemetry_samples import NOW_MS

NUMBERS = 200
REFERENCE = Reference(
    bins=Bins(
        features=(FeatureBins(name="which", categories=tuple(f"{number:03}" for number in range(NUMBERS))),),
        classes=(),
        score_edges=(0.5,),
    ),
    rows=2,
    features=(FeatureCounts(bins=(2, *[0] * NUMBERS), null=0),),
    classes=(),
    scores=(1, 1),
)
MAX_BYTES = 4_000


def window(number: int, model: str) -> bytes:
    bins = [0] * (NUMBERS + 1)
    bins[number] = 1
    counts = WindowCounts(
        features=(FeatureWindow(bins=tuple(bins), null=0, invalid=0, out_of_range=0),),
        classes=(),
        scores=(1, 0),
        output_nulls=0,
        abstained=0,
        resent=0,
        latency=(1, *[0] * (LATENCY_BINS - 1)),
    )
    software = Software(calls=1, rejected=0, failed=0, rss_kb=1, cpu_ms=1, uptime_s=1, outbox_records=0)
    return encode(Window(model, "1.0", encode_counts(counts), b"", software))


class Killed(BaseException):
    """The process is no more."""


class Killing:
    """A connection in which the process dies at one of the statements that follow: before it, or after a commit."""

    def __init__(self, db: sqlite3.Connection, statements: int) -> None:
        self._db, self._left = db, statements

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        self._left -= 1
        if self._left == 0 and statement != "COMMIT":
            raise Killed
        done = self._db.execute(statement, *values)
        if self._left <= 0:
            raise Killed
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


class World:
    """One device, a wire that loses, repeats and reorders, and the collector's store."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.store = open_store(folder / "fleet.db")
        self.outbox = self._open()
        self.wire: list[Message] = []
        self.acks: list[Ack] = []
        self.windows = self.events = 0
        text = encode_json(REFERENCE)
        pieces = (text[:400], text[400:800], text[800:])
        self.outbox.append_all(
            Kind.REFERENCE,
            [encode(ReferencePart("a", "1.0", part, 3, piece)) for part, piece in enumerate(pieces)],
            bins_id=REFERENCE.bins_id,
            t0_ms=NOW_MS,
        )

    def _open(self) -> Outbox:
        outbox = Outbox(self.folder / "outbox.db", "pump-1", max_bytes=self.max_bytes)
        # A process that dies loses nothing by it, only a machine without power would; and it is much quicker.
        outbox._records.db.execute("PRAGMA synchronous = OFF")
        return outbox

    # --- what happens ---

    def append(self, number: int) -> None:
        for _ in range(1 + number % 12):
            produced = self.outbox.produced
            try:
                if self.windows < NUMBERS:
                    self._append_window(number)
            except Killed:
                self.restart()
            # It is stored where the process died after the commit.
            self.windows += self.outbox.produced - produced

    def _append_window(self, number: int) -> None:
        model = "a" if (self.windows + number) % 3 else "b"
        clock = Clock.SYNCED if (self.windows + number) % 17 else Clock.UNKNOWN
        at_ms = NOW_MS + 60_000 * self.windows
        body = window(self.windows, model)
        self.outbox.append(Kind.WINDOW, body, bins_id=REFERENCE.bins_id, n=1, t0_ms=at_ms, dt_ms=60_000, clock=clock)

    def tell(self, number: int) -> None:
        produced = self.outbox.produced
        try:
            self.outbox.append(Kind.EVENT, encode(Event(f"event {self.events}", "x" * number)), t0_ms=NOW_MS)
        except Killed:
            self.restart()
        self.events += self.outbox.produced - produced

    def send(self, number: int) -> None:
        try:
            self.outbox.give_keys(number, number)
            for packet in packets(self.outbox.pending())[: 1 + number % 4]:
                self.wire.append(Message(str(topics.Up("pump-1", packet.lane)), packet.payload, NOW_MS))
        except Killed:
            self.restart()

    def arrive(self, number: int) -> None:
        """Some message arrives; it may again."""
        if self.wire:
            at = number % len(self.wire)
            message = self.wire[at] if number % 3 == 0 else self.wire.pop(at)
            self.acks += [ack for _, ack in self.store.ingest(read_batch([message], self.store)).acks]

    def acknowledge(self, number: int) -> None:
        """Some acknowledgement arrives; half of them are lost."""
        if self.acks:
            ack = self.acks.pop(number % len(self.acks))
            try:
                if number % 2:
                    self.outbox.acknowledge(ack)
            except Killed:
                self.restart()

    def live(self, number: int) -> None:
        self.outbox.live = bool(number % 2)

    def kill(self, number: int) -> None:
        """At one of the next statements."""
        self.outbox._records.db = Killing(self.outbox._records.db, number)  # type: ignore[assignment]

    def restart(self, number: int = 0) -> None:
        self.outbox.close()
        self.outbox = self._open()

    def give_up(self, number: int) -> None:
        try:
            for waiting in self.outbox.pending()[:1]:
                self.outbox.give_up(waiting.id, "above broker's limit")
        except Killed:
            self.restart()

    def condense(self, number: int) -> None:
        """As for a budget."""
        try:
            self.outbox.condense(60.0 * number)
        except Killed:
            self.restart()

    # --- what came of it ---

    def drain(self) -> None:
        self.restart()
        for _ in range(500):
            self.outbox.give_keys(64, 64)
            sent = packets(self.outbox.pending())
            if not sent:
                return
            messages = [Message(str(topics.Up("pump-1", one.lane)), one.payload, NOW_MS) for one in sent]
            for _, ack in self.store.ingest(read_batch(messages, self.store)).acks:
                self.outbox.acknowledge(ack)
        pytest.fail("the outbox does not empty")

    def close(self) -> None:
        self.outbox.close()
        self.store.close()


def account(world: World) -> tuple[Counter[int], int, int]:
    """How often each window is stored; the other records; and the records of gaps, without what is stored of them."""
    times, others = Counter[int](), 0
    with closing(sqlite3.connect(world.folder / "fleet.db")) as db:
        blocks = [records for (records,) in db.execute("SELECT records FROM window")]
        found = [(one.merged, one.window) for one in windows_of(blocks)]
        for (record,) in db.execute("SELECT record FROM quarantine"):
            waiting = decode_envelope(record)
            found.append((waiting.merged, msgspec.msgpack.decode(waiting.body, type=Window)))
        for merged, window in found:
            bins = window.counts[: NUMBERS + 1]
            assert sum(bins) == 1 + merged
            times.update({number: count for number, count in enumerate(bins) if count})
        (others,) = db.execute("SELECT (SELECT COUNT(*) FROM event) + (SELECT COUNT(*) FROM part)").fetchone()
    return times, others, sum(world.store.lost().values())


OFTEN = ("append", "send", "arrive", "acknowledge")
SELDOM = ("tell", "live", "kill", "restart", "give_up", "condense")
STEPS = st.lists(st.tuples(st.sampled_from(3 * OFTEN + SELDOM), st.integers(1, 60)), max_size=80)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_each_record_is_stored_once_or_counted_in_a_gap(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    world = World(tmp_path_factory.mktemp("world"))
    try:
        for what, number in steps:
            getattr(world, what)(number)
            assert world.outbox.size <= MAX_BYTES or all(one.kind is Kind.GAP for one in world.outbox.waiting())
        world.drain()
        times, others, lost = account(world)
        assert max(times.values(), default=0) <= 1, "a window is counted twice"
        assert set(times) <= set(range(world.windows))
        assert world.outbox.produced == world.windows + world.events + 3
        assert len(times) + others + lost == world.outbox.produced
        assert world.store.refused() == {}
        if world.store.count("part") == 3:
            assert world.store.quarantined() == {}, "the parts of the reference stood apart"
    finally:
        world.close()


def test_an_outbox_put_back_to_an_earlier_state_loses_nothing_that_it_produces_then(tmp_path: Path) -> None:
    world = World(tmp_path, 1_000_000)
    world.append(8)
    world.send(4)
    world.outbox._records.db.execute(f"VACUUM INTO '{tmp_path / 'copy.db'}'")
    before = world.windows
    world.append(9)
    lost = range(before, world.windows)
    world.drain()  # the centre has all of it, and the outbox is empty
    world.outbox.close()
    (tmp_path / "copy.db").replace(tmp_path / "outbox.db")
    world.outbox = world._open()
    world.append(11)
    since = range(lost.stop, world.windows)
    world.drain()
    times, _, gone = account(world)
    assert gone == 0
    assert {number: times[number] for number in (*lost, *since)} == dict.fromkeys((*lost, *since), 1)
    # What had been on its way when the copy was made is known again by its key; what had no key then comes twice.
    assert set(times.values()) == {1, 2}
    world.close()
