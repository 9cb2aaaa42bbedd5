"""The review queue: doubtful requests on disk until a person has answered them; no network is needed.

SQLite in WAL mode: the service writes, and `edgekit-runtime review` reads and answers beside it. Of a row only the
features are kept that the bundle's `privacy.raw_fields` names. The queue is bounded in items and bytes; where it is
full, the oldest item of the label with the most items gives way, answered ones first, so that rare labels stay.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from edgekit_contracts.errors import StorageFault, UsageError
from edgekit_contracts.manifest import ClassLabel, Manifest
from edgekit_contracts.telemetry import Labels
from edgekit_runtime.oversight.item import Item
from edgekit_runtime.transaction import is_damage, make_durable, set_aside, stored_in, transaction

SCHEMA_VERSION: Final = 2
DEFAULT_ITEMS: Final = 10_000
DEFAULT_BYTES: Final = 16_000_000
BUSY_S: Final = 5.0
"""How long a process waits for the other one's transaction."""

_log = logging.getLogger("edgekit.review")

_VERDICT: Final = """
CREATE TABLE verdict (  -- totals, which outlive the items
    model INTEGER PRIMARY KEY REFERENCES model, items INTEGER NOT NULL, wrong INTEGER NOT NULL, deviation REAL NOT NULL
)"""
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE model (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL,
    classes TEXT NOT NULL,  -- JSON
    UNIQUE (name, version)
);
CREATE TABLE item (
    id INTEGER PRIMARY KEY AUTOINCREMENT, model INTEGER NOT NULL REFERENCES model,
    at_ms INTEGER NOT NULL, reason TEXT NOT NULL, request TEXT,
    answer TEXT NOT NULL,   -- JSON: what the model said
    score REAL,
    fields TEXT NOT NULL,   -- JSON: the permitted features
    size INTEGER NOT NULL,
    label TEXT,             -- JSON: what a person said
    answered_ms INTEGER
);
CREATE TABLE dropped (items INTEGER NOT NULL);
INSERT INTO dropped VALUES (0);
{_VERDICT};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""


class ReviewQueue:
    """The queue's file. Safe to use from several threads and processes.

    Args:
        path: The file; made where it is missing.
        max_items: Items that are kept.
        max_bytes: Bytes of the items' texts that are kept.

    Raises:
        StorageFault: The file cannot be opened or written.
        UnsupportedFormat: A newer release made it.
    """

    def __init__(self, path: Path, *, max_items: int = DEFAULT_ITEMS, max_bytes: int = DEFAULT_BYTES) -> None:
        self.path, self._max_items, self._max_bytes = path, max_items, max_bytes
        self._lock = threading.Lock()
        with stored_in(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # It holds values that a person may see, not everybody; SQLite's other files are made with its mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S)
            try:
                _prepare(db, path)
            except BaseException:
                db.close()
                raise

    def add(self, manifest: Manifest, items: Sequence[Item]) -> None:
        """Stores doubtful rows of one bundle durably; what is too much gives way.

        Raises:
            StorageFault: Nothing was stored.
        """
        with self._writing() as db:
            row = (manifest.name, manifest.version, _json(manifest.classes))
            db.execute("INSERT OR IGNORE INTO model (name, version, classes) VALUES (?, ?, ?)", row)
            (model,) = db.execute("SELECT id FROM model WHERE name = ? AND version = ?", row[:2]).fetchone()
            for item in items:
                texts = item.request, _json(item.answer), _json(item.fields)
                size = sum(len(text.encode()) for text in texts if text is not None)
                db.execute(
                    "INSERT INTO item (model, at_ms, reason, request, answer, fields, score, size)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (model, item.at_ms, item.reason, *texts, item.score, size),
                )
            self._make_room(db)

    def items(self, *, answered: bool | None = None, limit: int = -1) -> Iterator[Item]:
        """The items in order.

        Args:
            answered: Only these; None for all.
            limit: At most so many; below 0 for all.

        Raises:
            StorageFault: The file cannot be read.
        """
        where = {None: "", True: "WHERE label IS NOT NULL", False: "WHERE label IS NULL"}[answered]
        last = 0
        while limit != 0:
            # In pages, so that nobody waits for the reader.
            page = min(500, limit) if limit > 0 else 500
            with self._reading() as db:
                rows = db.execute(
                    "SELECT item.id, name, version, at_ms, reason, request, answer, score, fields, label, answered_ms"
                    f" FROM (SELECT * FROM item {where}) AS item JOIN model ON model.id = item.model"
                    " WHERE item.id > ? ORDER BY item.id LIMIT ?",
                    (last, page),
                ).fetchall()
            yield from map(_item, rows)
            if len(rows) < page:
                return
            last, limit = rows[-1][0], limit - len(rows)

    def answer(self, number: int, label: str) -> Item:
        """Stores what a person says of an item; a later word replaces an earlier one.

        Args:
            number: The item.
            label: A class of the model as text, or a number where the model gives numbers.

        Raises:
            UsageError: There is no such item, or the model has no such class.
            StorageFault: It was not stored.
        """
        with self._writing() as db:
            row = db.execute(
                "SELECT model, classes, answer, label FROM item JOIN model ON model.id = item.model WHERE item.id = ?",
                (number,),
            ).fetchone()
            if row is None:
                raise UsageError(f"the review queue has no item {number}", "see 'edgekit-runtime review list'")
            model, classes, answer, before = row
            said = _json(_label(label, msgspec.json.decode(classes, type=tuple[ClassLabel, ...])))
            db.execute("UPDATE item SET label = ?, answered_ms = ? WHERE id = ?", (said, _now_ms(), number))
            if before is not None:
                _count(db, model, classes, answer, before, -1)
            _count(db, model, classes, answer, said, 1)
        return next(item for item in self.items() if item.id == number)

    def verdicts(self) -> list[Labels]:
        """What people said of each model's answers, all in all.

        Raises:
            StorageFault: The file cannot be read.
        """
        with self._reading() as db:
            rows = db.execute(
                "SELECT name, version, items, wrong, deviation FROM verdict JOIN model ON model.id = verdict.model"
                " WHERE items > 0 ORDER BY model.id"
            ).fetchall()
        return [
            Labels(name, version, items, wrong, max(0.0, deviation)) for name, version, items, wrong, deviation in rows
        ]

    @property
    def counts(self) -> dict[str, int]:
        """Items that wait, that were answered, and that gave way to others.

        Raises:
            StorageFault: The file cannot be read.
        """
        with self._reading() as db:
            waiting, answered = db.execute("SELECT COUNT(*) - COUNT(label), COUNT(label) FROM item").fetchone()
            (dropped,) = db.execute("SELECT items FROM dropped").fetchone()
        return {"waiting": waiting, "answered": answered, "dropped": dropped}

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make_room(self, db: sqlite3.Connection) -> None:
        while True:
            items, size = db.execute("SELECT COUNT(*), TOTAL(size) FROM item").fetchone()
            if items <= self._max_items and size <= self._max_bytes:
                return
            db.execute(
                "DELETE FROM item WHERE id = (SELECT MIN(id) FROM item GROUP BY model, answer, label IS NOT NULL"
                " ORDER BY label IS NOT NULL DESC, COUNT(*) DESC LIMIT 1)"
            )
            db.execute("UPDATE dropped SET items = items + 1")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, stored_in(self.path):
            yield self._db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as db, transaction(db):
            yield db


def open_queue(path: Path, *, max_items: int, max_bytes: int) -> ReviewQueue:
    """The service's queue: a damaged file is set aside, so that what comes is kept.

    Raises:
        StorageFault, UnsupportedFormat: As `ReviewQueue`.
    """
    try:
        return ReviewQueue(path, max_items=max_items, max_bytes=max_bytes)
    except StorageFault as fault:
        if not is_damage(fault.__cause__):
            raise
        aside = set_aside(path, "damaged")
        _log.error("the review queue is set aside as %s, and a new one is begun: %s", aside.name, fault)
        return ReviewQueue(path, max_items=max_items, max_bytes=max_bytes)


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    version = make_durable(db, f"review queue {path}", SCHEMA_VERSION)
    db.execute("PRAGMA journal_size_limit = 1048576")
    if version == 0:
        db.executescript(_SCHEMA)
    elif version == 1:
        with transaction(db):
            _bring_up_to_date(db)


def _bring_up_to_date(db: sqlite3.Connection) -> None:
    """A file of version 1 gets the totals of the answers that are still in it; another process may have been first."""
    if db.execute("PRAGMA user_version").fetchone() != (1,):
        return
    db.execute(_VERDICT)
    rows = db.execute(
        "SELECT model, classes, answer, label FROM item JOIN model ON model.id = item.model WHERE label IS NOT NULL"
    ).fetchall()
    for model, classes, answer, label in rows:
        _count(db, model, classes, answer, label, 1)
    db.execute("PRAGMA user_version = 2")


def _count(db: sqlite3.Connection, model: int, classes: str, answer: str, label: str, times: int) -> None:
    """Adds a person's word to a model's totals, or (-1) takes it back."""
    said, truth = msgspec.json.decode(answer), msgspec.json.decode(label)
    numbers = classes == "[]"
    wrong = times * (not numbers and said != truth)
    deviation = times * abs(said - truth) if numbers else 0.0
    db.execute(
        "INSERT INTO verdict VALUES (?, ?, ?, ?) ON CONFLICT (model) DO UPDATE SET items = items + excluded.items,"
        " wrong = wrong + excluded.wrong, deviation = deviation + excluded.deviation",
        (model, times, wrong, deviation),
    )


def _item(row: tuple[Any, ...]) -> Item:
    number, model, version, at_ms, reason, request, answer, score, fields, label, answered_ms = row
    return Item(
        id=number,
        model=model,
        version=version,
        at_ms=at_ms,
        reason=reason,
        request=request,
        answer=msgspec.json.decode(answer),
        score=score,
        fields=msgspec.json.decode(fields),
        label=None if label is None else msgspec.json.decode(label),
        answered_ms=answered_ms,
    )


def _label(text: str, classes: tuple[ClassLabel, ...]) -> ClassLabel:
    if classes:
        for known in classes:
            if text in {_shown(known), str(known)}:  # a truth value as in JSON, or as every table here shows it
                return known
        raise UsageError(f"the model has no class '{text}'", f"use one of {', '.join(map(_shown, classes[:20]))}")
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"'{text}' is no number, and the model gives numbers", "answer with a number") from error


def _shown(label: ClassLabel) -> str:
    """A class as a person types it: as in JSON, a text without quotes."""
    return label if isinstance(label, str) else _json(label)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _now_ms() -> int:
    return max(0, round(time.time() * 1000))
