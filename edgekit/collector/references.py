"""References come in parts; windows wait in quarantine until the one that their bins belong to is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import msgspec

from edgekit.collector.database import Transaction
from edgekit.collector.ingest import HEAD_BYTES, Refused, check_window
from edgekit.collector.schema import PART, REFERENCE, STANDING
from edgekit_contracts.errors import EdgekitError, FormatError
from edgekit_contracts.reference import decode_reference
from edgekit_contracts.telemetry import Envelope, ReferencePart, Window, decode_body


class Untrue(Exception):
    """A text whose parts are all here and that is not what its records say."""

    def __init__(self, reason: EdgekitError, text: bytes) -> None:
        super().__init__(str(reason))
        self.text = text


def take(db: Transaction, envelope: Envelope, part: ReferencePart, received_ms: int) -> bool:
    """Keeps a part; joins the text of which it is the last that was missing.

    Returns:
        Whether these bins were not known before, and are now.

    Raises:
        Untrue: The text is whole, and wrong.
    """
    key, owner = (envelope.device, envelope.epoch), (envelope.bins_id, part.model, part.model_version)
    db.insert(PART, [(*key, envelope.sequence, *owner, part.part, part.parts, part.data, received_ms)])
    # The parts of one text have consecutive sequences: those of another text, or device, cannot mix with them.
    first = envelope.sequence - part.part
    where = (
        "WHERE dev = ? AND epoch = ? AND seq BETWEEN ? AND ?"
        " AND bins_id = ? AND model = ? AND version = ? AND parts = ? AND seq - part = ?"
    )
    values = (*key, first, first + part.parts - 1, *owner, part.parts, first)
    pieces = [data for (data,) in db.rows(f"SELECT data FROM part {where} ORDER BY seq", values)]
    if len(pieces) < part.parts:
        return False
    # A part is kept as a mark without its bytes.
    db.run(f"UPDATE part SET data = ? {where}", (b"", *values))
    text = b"".join(pieces)
    digest = hashlib.sha256(text).digest()
    known = db.rows("SELECT 1 FROM reference WHERE digest = ? AND bins_id = ?", (digest, envelope.bins_id))
    if not known:
        try:
            if decode_reference(text).bins_id != envelope.bins_id:
                raise FormatError("reference", "$.bins", "these are not the bins that its records name")
        except EdgekitError as error:
            raise Untrue(error, text) from error
        db.insert(REFERENCE, [(digest, envelope.bins_id, text, received_ms)])
    db.put(STANDING, [(*key, *owner, digest, received_ms)])
    return not known


def here(db: Transaction, bins_ids: set[bytes]) -> set[bytes]:
    """Those of them whose reference is here."""
    if not bins_ids:
        return set()
    marks = ", ".join("?" * len(bins_ids))
    found = db.rows(f"SELECT DISTINCT bins_id FROM reference WHERE bins_id IN ({marks})", sorted(bins_ids))
    return {bins_id for (bins_id,) in found}


def release(db: Transaction, bins_ids: set[bytes]) -> Iterator[tuple[Envelope, int] | Refused]:
    """Takes the windows on these bins out of quarantine, each with when it came, or refused for what is in it."""
    for bins_id in sorted(bins_ids):
        ((text,), *_) = db.rows("SELECT json FROM reference WHERE bins_id = ? LIMIT 1", (bins_id,))
        bins = decode_reference(text).bins
        rows = db.rows("DELETE FROM quarantine WHERE bins_id = ? RETURNING seq, received_ms, record", (bins_id,))
        for _, received_ms, record in sorted(rows):
            envelope = msgspec.msgpack.decode(record, type=Envelope)
            try:
                body = decode_body(envelope)
                assert isinstance(body, Window)
                check_window(envelope, body, bins)
            except EdgekitError as error:
                topic = f"quarantine of {envelope.device}"
                yield Refused(topic, "body", str(error), record[:HEAD_BYTES], received_ms)
            else:
                yield envelope, received_ms
