"""Messages that a collector must survive, each with what must become of it. The broker lets everything through here.

Nobody may be stored under another's name: `VICTIM` sends nothing of this itself, so what is in the store of it must be
what it sent.
"""

from __future__ import annotations

import random
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import msgspec

from edgekit.collector.ingest import Reason
from edgekit_contracts import limits, topics
from edgekit_contracts.counts import encode_varints
from edgekit_contracts.decode import encode_json
from edgekit_contracts.reference import Reference
from edgekit_contracts.state import Status
from edgekit_contracts.telemetry import (
    Envelope,
    Gap,
    ReferencePart,
    Software,
    encode,
    encode_message,
)
from tests.telemetry_samples import BINS_ID, REFERENCE, envelope, reference_parts, window

VICTIM: Final = "victim"
MALLORY: Final = "mallory"
"""Sends what is refused, under its own name, on its own topic."""
AHEAD: Final = "ahead"
"""Its clock is beyond every bound."""
STRANGER: Final = "stranger"
"""Counts on bins that nobody knows."""
JUMPER: Final = "jumper"

EPOCH: Final = 7
PAST_MS: Final = 1_700_000_000_000
_NAN, _INFINITE = float("nan"), float("inf")

Outcome = Reason | str
"""Why it is refused, or `stored`, or `duplicate`."""


class Hostile(NamedTuple):
    """One message."""

    kind: str
    topic: str
    payload: bytes
    outcomes: tuple[Outcome, ...]
    """Of each of its records."""
    ahead: int = 0
    """Of those stored, how many come from the future."""


class Attacker:
    """Makes hostile messages without end, all kinds in turn.

    Args:
        seed: Of what is random in them.
        replayed: A message that the victim sent, and that was stored.
    """

    def __init__(self, seed: int, replayed: bytes) -> None:
        self._random, self._replayed = random.Random(seed), replayed
        self._sequence: Counter[str] = Counter()
        self.kinds: tuple[Callable[[], Hostile], ...] = (
            self._garbage,
            self._nested,
            self._long,
            self._zlib_bomb,
            self._cut_zlib,
            self._oversize,
            self._spoofed,
            self._replayed_elsewhere,
            self._replayed_again,
            self._spoofed_birth,
            self._birth_bomb,
            self._large_birth,
            self._wrong_partition,
            self._jump,
            self._newer,
            self._future,
            self._end_of_time,
            self._unknown_bins,
            self._moments,
            self._overflow,
            self._contradiction,
            self._false_gap,
            self._false_reference,
            self._poison_among_good,
        )

    def messages(self, count: int) -> Iterator[Hostile]:
        """So many."""
        for at in range(count):
            yield self.kinds[at % len(self.kinds)]()

    # --- bytes ---

    def _garbage(self) -> Hostile:
        data = self._random.randbytes(self._random.randint(1, 2000))
        # A first byte that no message begins with; a stream of zlib has its own kinds.
        return Hostile("random bytes", _up(MALLORY), b"\xc1" + data, ("garbage",))

    def _nested(self) -> Hostile:
        return Hostile("60,000 levels deep", _up(MALLORY), b"\x91" * 60_000, ("garbage",))

    def _long(self) -> Hostile:
        claim = self._random.choice((b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91\xdf\xff\xff\xff\xff"))
        return Hostile("claims to be 4 GB", _up(MALLORY), claim, ("garbage",))

    def _zlib_bomb(self) -> Hostile:
        return Hostile("zlib, 32 MiB", _up(MALLORY), _BOMB, ("too large",))

    def _cut_zlib(self) -> Hostile:
        return Hostile("zlib, cut short", _up(MALLORY), _BOMB[: self._random.randint(10, 50)], ("garbage",))

    def _oversize(self) -> Hostile:
        return Hostile("beyond 64 KiB", _up(MALLORY), bytes(limits.MESSAGE_MAX_BYTES + 1), ("too large",))

    # --- identities ---

    def _spoofed(self) -> Hostile:
        return self._records("another's envelope", envelope(_GOOD, device=VICTIM, n=100), outcome="wrong device")

    def _replayed_elsewhere(self) -> Hostile:
        return Hostile("replayed on another topic", _up(MALLORY), self._replayed, ("wrong device",))

    def _replayed_again(self) -> Hostile:
        return Hostile("replayed", _up(VICTIM), self._replayed, ("duplicate",))

    def _spoofed_birth(self) -> Hostile:
        status = encode_json(Status(device=VICTIM, session=2**62, dead=True))
        return Hostile("another's death", topics.status(self._fresh_name()), status, ("wrong device",))

    def _birth_bomb(self) -> Hostile:
        payload = b'{"format":"edgekit-status/1.0","running":' + b"[" * 10_000
        return Hostile("birth, nested", topics.status(self._fresh_name()), payload, ("garbage",))

    def _large_birth(self) -> Hostile:
        payload = b" " * (limits.STATE_MAX_BYTES + 1)
        return Hostile("birth, large", topics.status(self._fresh_name()), payload, ("too large",))

    def _wrong_partition(self) -> Hostile:
        topic = f"ek/1/up/{(topics.partition(VICTIM) + 1) % topics.PARTITIONS}/{VICTIM}/w"
        return Hostile("another partition", topic, self._replayed, ("wrong topic",))

    # --- envelopes ---

    def _jump(self) -> Hostile:
        far = limits.SEQUENCE_MAX_JUMP + 1 + self._random.randrange(2**62)
        return self._records("jump", envelope(_GOOD, device=JUMPER, sequence=far, n=100), outcome="jump")

    def _newer(self) -> Hostile:
        return self._records(
            "newer version", msgspec.structs.replace(self._mine(_GOOD), version=2), outcome="newer version"
        )

    def _future(self) -> Hostile:
        # The collector's clock is the machine's: any time far beyond today.
        t0_ms = time.time_ns() // 1_000_000 + self._random.randint(3_600_000, 10**13)
        return self._records("future clock", self._of(AHEAD, _GOOD, t0_ms), outcome="stored")._replace(ahead=1)

    def _end_of_time(self) -> Hostile:
        record = msgspec.structs.replace(self._of(AHEAD, _GOOD, 2**63 - 1), dt_ms=2**63 - 1)
        return self._records("end of time", record, outcome="stored")._replace(ahead=1)

    # --- bodies ---

    def _unknown_bins(self) -> Hostile:
        record = msgspec.structs.replace(self._of(STRANGER, _GOOD), bins_id=self._random.randbytes(8))
        return self._records("unknown bins", record, outcome="stored")

    def _moments(self) -> Hostile:
        lie = self._random.choice(
            (
                (_NAN, 1.0, 0.0, 2.0),
                (1.0, _NAN, 0.0, 2.0),
                (1.0, 1.0, _NAN, _NAN),
                (_INFINITE, 1.0, 0.0, 2.0),
                (1.0, _INFINITE, 0.0, 2.0),
                (1.0, -1.0, 0.0, 2.0),
                (1.0, 1.0, 2.0, 0.0),
                (1.0, 1e9, 0.0, 2.0),
            )
        )
        body = msgspec.structs.replace(_GOOD, moments=struct.pack("<4f", *lie))
        return self._records("moments", self._mine(body), outcome="body")

    def _overflow(self) -> Hostile:
        # Four of these add up to nothing in 64 bits.
        counts = [*(25 + 2**62 for _ in range(4)), *[0] * 89]
        body = msgspec.structs.replace(_GOOD, counts=encode_varints(counts))
        return self._records("counts beyond 64 bits", self._mine(body), outcome="body")

    def _contradiction(self) -> Hostile:
        lies = (
            self._mine(_GOOD, n=101),
            self._mine(window(software=Software(2**62, 0, 0, 0, 0, 0, 0))[0]),
            self._mine(window(abstained=101)[0]),
            self._mine(msgspec.structs.replace(_GOOD, counts=b"\xff" * 40)),
            self._mine(msgspec.structs.replace(_GOOD, counts=b"")),
        )
        return self._records("counts", self._random.choice(lies), outcome="body")

    def _false_gap(self) -> Hostile:
        sequence = self._next(MALLORY)
        gap = Gap(first=sequence, last=sequence, records=2**40, rows=0, bytes=0, reason="")
        return self._records("gap", envelope(gap, device=MALLORY, sequence=sequence, epoch=EPOCH), outcome="body")

    def _false_reference(self) -> Hostile:
        """Somebody else's bins under a name that windows wait for, or the right bins with another text each time."""
        bins_id = self._random.randbytes(8)
        (part,) = reference_parts(1, _other_reference(self._random))
        record = msgspec.structs.replace(self._of(STRANGER, part), bins_id=bins_id)
        return self._records("reference of other bins", record, outcome="stored", more=("body",))

    def _poison_among_good(self) -> Hostile:
        poison = msgspec.structs.replace(_GOOD, counts=b"\x00")
        good = limits.MESSAGE_MAX_RECORDS - 1
        records = [self._of(AHEAD, body) for body in (*[_GOOD] * good, poison)]
        payload = encode_message([encode(one) for one in records])
        return Hostile("poison among good", _up(AHEAD), payload, ("stored",) * good + ("body",))

    # --- how they are made ---

    def _mine(self, body: msgspec.Struct, n: int = 100) -> Envelope:
        return envelope(body, device=MALLORY, sequence=self._next(MALLORY), epoch=EPOCH, n=n)

    def _of(self, device: str, body: msgspec.Struct, t0_ms: int = PAST_MS) -> Envelope:
        rows = 0 if isinstance(body, ReferencePart) else 100
        return envelope(body, device=device, sequence=self._next(device), epoch=EPOCH, n=rows, t0_ms=t0_ms)

    def _next(self, device: str) -> int:
        self._sequence[device] += 1
        return self._sequence[device]

    def _fresh_name(self) -> str:
        # The collector keeps only the latest status of a device that waits, so each has its own.
        return f"nobody-{self._next('nobody')}"

    def _records(self, kind: str, record: Envelope, *, outcome: Outcome, more: tuple[Outcome, ...] = ()) -> Hostile:
        topic = _up(MALLORY if record.device == VICTIM else record.device)
        return Hostile(kind, topic, encode_message([encode(record)]), (outcome, *more))


def expected(messages: list[Hostile]) -> Counter[Outcome]:
    """How often each outcome must have been counted."""
    return Counter(outcome for message in messages for outcome in message.outcomes)


def honest(sequence: int, t0_ms: int) -> bytes:
    """A message of the victim itself."""
    return encode_message([encode(envelope(_GOOD, device=VICTIM, sequence=sequence, epoch=EPOCH, n=100, t0_ms=t0_ms))])


def honest_reference() -> bytes:
    """What the victim sends first, as its sequence 1: then the bins are known."""
    (part,) = reference_parts(1)
    return encode_message([encode(envelope(part, device=VICTIM, sequence=1, epoch=EPOCH, bins_id=BINS_ID))])


def _up(device: str) -> str:
    return str(topics.Up(device))


def _other_reference(dice: random.Random) -> Reference:
    return msgspec.structs.replace(REFERENCE, rows=dice.randint(1, 10**6))


_GOOD: Final = window()[0]
_BOMB: Final = zlib.compress(bytes(32 * limits.MIB), 9)
