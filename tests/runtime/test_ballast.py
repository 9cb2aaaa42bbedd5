"""The outbox on a file system that is full: a small one in memory, in a namespace of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit_runtime import ballast
from edgekit_runtime.ballast import Ballast
from tests.disks import on_a_small_disk

SCRIPT = """
import os, sys
from pathlib import Path
from edgekit_contracts.errors import StorageFault
from edgekit_contracts.telemetry import Ack, Event, Kind, encode
from edgekit_runtime.outbox import Outbox

folder, with_ballast, again = Path(sys.argv[1]), sys.argv[2] == "with", sys.argv[3:] == ["reopened"]
now = [0.0]
outbox = Outbox(folder / "outbox.db", "pump-1", clock_s=lambda: now[0])
assert outbox.ballast.held
if not with_ballast:
    (folder / "outbox.db.ballast").unlink()
body = encode(Event("note", "x" * 1000))
for _ in range(300):
    outbox.append(Kind.EVENT, body, t0_ms=1)
outbox.give_keys(200, 0)

def fill():
    with (folder / "other").open("ab", buffering=0) as other:
        try:
            while True:
                other.write(bytes(4096))
        except OSError:
            pass

fill()
try:
    while True:
        outbox.append(Kind.EVENT, body, t0_ms=1)
except StorageFault as fault:
    assert "full" in str(fault), fault
fill()
if again:
    outbox.close()
    fill()
    outbox = Outbox(folder / "outbox.db", "pump-1", clock_s=lambda: now[0])
produced = outbox.produced
try:
    while outbox.records:
        outbox.give_keys(64, 0)
        for one in {e.epoch for e in outbox.waiting()}:
            outbox.acknowledge(Ack(one, 200 if one != outbox.epoch or not again else outbox._records.given))
            outbox.acknowledge(Ack(outbox.epoch, outbox._records.given))
        fill()
except StorageFault as fault:
    print("stuck", outbox.records < produced)
    sys.exit(0)
assert not outbox.ballast.held
(folder / "other").unlink()
for _ in range(3):
    now[0] += 60.0
    outbox.append(Kind.EVENT, body, t0_ms=1)
    outbox.give_keys(1, 0)
    outbox.acknowledge(Ack(outbox.epoch, outbox._records.given))
assert outbox.ballast.held and (folder / "outbox.db.ballast").stat().st_blocks
print("emptied", produced, outbox.produced)
"""


def test_on_a_full_disk_what_the_centre_has_is_deleted_with_the_room_of_the_ballast(tmp_path: Path) -> None:
    assert on_a_small_disk(tmp_path, SCRIPT, "with").startswith("emptied")


def test_without_it_nothing_can_be_deleted(tmp_path: Path) -> None:
    assert on_a_small_disk(tmp_path, SCRIPT, "without").startswith("stuck")


def test_a_service_that_starts_on_a_full_disk_opens_its_outbox(tmp_path: Path) -> None:
    assert on_a_small_disk(tmp_path, SCRIPT, "with", "reopened").startswith("emptied")


def test_ballast_is_not_taken_in_where_it_would_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    one = Ballast(tmp_path / "ballast", lambda: now[0])
    with monkeypatch.context() as small:
        small.setattr(ballast, "SPARE_BYTES", 2**62)
        one.take_in()
        assert not one.held
        assert not one.throw_off()
    now[0] += 60.0
    one.take_in()
    assert one.held
    assert (tmp_path / "ballast").stat().st_blocks * 512 >= ballast.BYTES
    assert one.throw_off()
    assert not (tmp_path / "ballast").exists()
    one.take_in()
    assert not one.held, "not at once"
    now[0] += 60.0
    one.take_in()
    assert one.held
