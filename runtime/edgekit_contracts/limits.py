"""Every limit, as data. Checked before parsing; a larger need is a change of format, made with an ADR."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

BUNDLE_MAX_BYTES: Final = 512 * MIB
BUNDLE_MAX_ENTRIES: Final = 256
MANIFEST_MAX_BYTES: Final = 4 * MIB
SIGNATURE_MAX_BYTES: Final = 1 * MIB
REFERENCE_MAX_BYTES: Final = 8 * MIB
GOLDEN_MAX_BYTES: Final = 16 * MIB
PROFILE_MAX_BYTES: Final = 64 * KIB
CONFIG_MAX_BYTES: Final = 64 * KIB
STATE_MAX_BYTES: Final = 16 * KIB

ENROLMENT_MAX_BYTES: Final = 32 * KIB
"""A request for a certificate, or a grant; the head of an HTTP message around it too."""

DOCUMENT_MAX_DEPTH: Final = 32
"""Nested arrays, objects and tables in any document."""

MESSAGE_MAX_BYTES: Final = 64 * KIB
"""An MQTT message that is larger is not decoded."""
MESSAGE_TARGET_BYTES: Final = 32 * KIB
"""A device stops adding records to a message here."""
MESSAGE_MAX_RECORDS: Final = 8
REFERENCE_PART_BYTES: Final = 24 * KIB
REFERENCE_MAX_PARTS: Final = 512
RECORD_MAX_BYTES: Final = 60 * KIB
"""One record: it must fit into a message, alone."""
RECORD_MAX_ROWS: Final = 1_000_000_000
"""Rows in one window: an hour at 250,000 rows/s."""
DISTANCE_MAX_BINS: Final = 64
MOMENTS_MIN_ROWS: Final = 10
"""A window of fewer rows sends no moments: the mean of one row is that row."""
CLOCK_MAX_FUTURE_MS: Final = 10 * 60 * 1000
"""A record dated further ahead of the collector's clock is dated by its arrival."""
SEQUENCE_MAX_JUMP: Final = 10_000_000
"""A sequence number further ahead of the last one stored is refused."""

WRONG_RUNTIMES: Final = frozenset({"1.26.0", "1.27.0"})
"""Releases of onnxruntime that answer wrongly for tree ensembles (microsoft/onnxruntime#28557)."""

REQUEST_MAX_BYTES: Final = 4 * MIB
REQUEST_LARGEST_BYTES: Final = 256 * MIB
"""What a device may be told to accept instead."""
REQUEST_HEAD_MAX_BYTES: Final = 64 * KIB
REQUEST_MAX_S: Final = 30.0
"""From a request's first byte to its last."""
REQUEST_MAX_ROWS: Final = 10_000
TEXT_MAX_CHARS: Final = 4096
"""One text value in a request."""
DOCUMENT_MAX_CHARS: Final = 65_536
"""The same, of a feature without categories: a free text."""
DOCUMENT_ROWS: Final = 4
"""Rows of free texts that are answered in one call of ONNX Runtime: each is as wide as a vocabulary, up to 8 MiB."""
UNIT_MAX_CHARS: Final = 32
FEATURES_MAX: Final = 1024
"""So that the widest window (20 bins a feature, two bytes a count) fits into a record."""
