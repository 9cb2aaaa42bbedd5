from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit_runtime.bundle import read_file
from edgekit_runtime.config import DeviceConfig
from edgekit_runtime.lean import LARGE_BYTES
from edgekit_runtime.vouching import vouch
from tests import bundles

STARTS = """
import json, sys
from pathlib import Path
from edgekit_runtime.settings import load_settings
from edgekit_runtime.vouching import Vouching
config = load_settings(Path(sys.argv[1])).config
vouching = Vouching(config)
if sys.argv[2:]:
    Path(config.keys[0]).write_text(Path(sys.argv[2]).read_text())
from edgekit_contracts.errors import EdgekitError
from edgekit_runtime.models import Models
try:
    models = Models(config, lambda line: None, vouching=vouching)
    said = [one.model for one in models.running]
    models.stop()
except EdgekitError as error:
    said = error.sentence
print(json.dumps([said, "cryptography" in sys.modules]))
"""


@pytest.fixture
def made(tmp_path: Path) -> bundles.Made:
    return bundles.make(tmp_path)


def config(made: bundles.Made) -> DeviceConfig:
    return DeviceConfig(
        device="d", bundle=str(made.path), keys=(str(made.public),), state_dir=str(made.path.parent / "state")
    )


def started(made: bundles.Made, *exchanged: Path) -> tuple[object, bool]:
    """What a process says that loads the bundle with a child's help, and whether it has asked cryptography itself."""
    settings = made.path.parent / "device.toml"
    settings.write_text(f'device = "d"\nbundle = "{made.path}"\nkeys = ["{made.public}"]\n')
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", STARTS, str(settings), *map(str, exchanged)],
        capture_output=True,
        text=True,
        check=True,
    )
    said, asked = json.loads(done.stdout)
    return said, asked


def test_a_bundle_that_a_child_vouches_for_is_loaded_without_cryptography(made: bundles.Made) -> None:
    assert started(made) == (["tiny"], False)


def test_a_damaged_bundle_is_vouched_for_by_nobody_and_refused_in_the_same_words(made: bundles.Made) -> None:
    data = bytearray(made.path.read_bytes())
    data[len(data) // 2] ^= 1
    made.path.write_bytes(data)
    sentence, _ = started(made)
    assert "tiny-1.0.edge is damaged" in str(sentence)


def test_keys_that_are_others_by_now_make_the_child_s_word_worthless(made: bundles.Made, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = bundles.make(tmp_path / "other")
    sentence, asked = started(made, other.public)
    assert "is not trusted here" in str(sentence)
    assert asked


def test_a_bundle_of_another_key_is_not_vouched_for(made: bundles.Made, tmp_path: Path) -> None:
    assert len(vouch(config(made)).signers) == 1
    (tmp_path / "other").mkdir()
    made.public.write_bytes(bundles.make(tmp_path / "other").public.read_bytes())
    assert vouch(config(made)).signers == {}


def test_a_large_bundle_is_left_to_the_process_that_loads_it(made: bundles.Made) -> None:
    with made.path.open("r+b") as file:
        file.truncate(LARGE_BYTES + 1)
    assert len(read_file(made.path)) > LARGE_BYTES
    assert vouch(config(made)).signers == {}
