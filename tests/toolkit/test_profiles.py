from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from edgekit import profiles
from edgekit_contracts.errors import FormatError, MissingFile, TooLarge, UnknownProfile, UnsupportedFormat
from edgekit_contracts.profile import DeviceProfile, Figure

# 1.21 stops with an illegal instruction on the Raspberry Pi 4 (microsoft/onnxruntime#23957); 1.26.0 and 1.27.0 are
# excluded by the runtime's own requirements.
BAD_RUNTIMES = ("1.20.", "1.21.", "1.26.0", "1.27.0")

ARMV7 = """
format = "edgekit-profile/1.0"
name = "raspberry-pi-2"
title = "Raspberry Pi 2"
[board]
soc = "Broadcom BCM2836"
cores = "4 x Arm Cortex-A7"
clock_ghz = { value = 0.9, source = "test", kind = "published" }
simd = "NEON"
ram_mb = { value = 1024, source = "test", kind = "published" }
architecture = "armv7"
os = "Raspberry Pi OS 12, 32-bit"
[runtime]
supported = false
onnxruntime = "none"
why = "there is no onnxruntime wheel for 32-bit Arm"
[limits]
latency_ms = 20
latency_percentile = 99
memory_mb = 256
bundle_mb = 64
[rates]
call_us = { value = 100, source = "test", kind = "estimated" }
node_us = { value = 10, source = "test", kind = "estimated" }
gflops = { value = 1, source = "test", kind = "estimated" }
element_ns = { value = 4, source = "test", kind = "estimated" }
tree_node_ns = { value = 100, source = "test", kind = "estimated" }
tail_ratio = { value = 3, source = "test", kind = "estimated" }
runtime_mb = { value = 70, source = "test", kind = "estimated" }
"""


def figures(profile: DeviceProfile) -> dict[str, Figure]:
    structs: tuple[msgspec.Struct, ...] = (profile.board, profile.rates)
    found = {name: getattr(struct, name) for struct in structs for name in struct.__struct_fields__}
    return {name: value for name, value in found.items() if isinstance(value, Figure)}


def test_the_boards_that_ship_are_these() -> None:
    assert profiles.names() == ("intel-n100", "jetson-orin-nano", "raspberry-pi-4", "raspberry-pi-5")


@pytest.mark.parametrize("name", profiles.names())
def test_every_shipped_profile_is_read_and_is_named_like_its_file(name: str) -> None:
    profile = profiles.load(name)
    assert profile.name == name
    assert profile.title
    assert profile.runtime.supported


@pytest.mark.parametrize("name", profiles.names())
def test_every_figure_names_a_source_and_no_source_is_a_registry(name: str) -> None:
    found = figures(profiles.load(name))
    assert len(found) == 9
    for figure in found.values():
        assert len(figure.source) > 15
        assert not any(host in figure.source for host in ("pypi", "pythonhosted", "piwheels", "conda"))


@pytest.mark.parametrize("name", profiles.names())
def test_nothing_is_called_measured_that_was_measured_elsewhere(name: str) -> None:
    # None of the boards was at hand; a measurement on another machine is an estimate for this one.
    assert {figure.kind for figure in figures(profiles.load(name)).values()} <= {"published", "estimated"}


@pytest.mark.parametrize("name", profiles.names())
def test_no_profile_aims_at_a_runtime_that_is_known_to_be_bad(name: str) -> None:
    assert not profiles.load(name).runtime.onnxruntime.startswith(BAD_RUNTIMES)


def test_a_slower_board_has_slower_rates() -> None:
    old, new = profiles.load("raspberry-pi-4").rates, profiles.load("raspberry-pi-5").rates
    assert old.call_us.value > new.call_us.value
    assert old.gflops.value < new.gflops.value
    assert old.element_ns.value > new.element_ns.value


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownProfile) as caught:
        profiles.load("raspberry-pi-6")
    assert caught.value.exit_code == 2
    for name in (*profiles.names(), "this-machine"):
        assert name in caught.value.next_step


def test_a_file_of_ones_own_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(ARMV7)
    profile = profiles.load(str(path))
    assert profile.board.architecture == "armv7"
    assert not profile.runtime.supported
    assert profile.runtime.why == "there is no onnxruntime wheel for 32-bit Arm"


def test_a_board_that_cannot_run_must_say_why(tmp_path: Path) -> None:
    path = tmp_path / "silent.toml"
    path.write_text("\n".join(line for line in ARMV7.splitlines() if not line.startswith("why")))
    with pytest.raises(FormatError, match=r"\$\.runtime\.why"):
        profiles.load(str(path))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("= no toml", "not valid"),
        (ARMV7.replace("gflops = { value = 1,", "gflops = { value = -1,"), r"\$\.rates\.gflops\.value"),
        (ARMV7.replace('kind = "published"', 'kind = "guessed"'), r"\$\.board\.clock_ghz\.kind"),
    ],
)
def test_a_broken_file_is_refused_with_its_path_and_the_fault(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(text)
    with pytest.raises(FormatError, match=fault) as caught:
        profiles.load(str(path))
    assert str(path) in caught.value.sentence


def test_a_newer_format_and_a_huge_file_are_refused_with_the_path(tmp_path: Path) -> None:
    newer, huge = tmp_path / "newer.toml", tmp_path / "huge.toml"
    newer.write_text(ARMV7.replace("edgekit-profile/1.0", "edgekit-profile/2.0"))
    huge.write_text(ARMV7 + "#" * 70_000)
    with pytest.raises(UnsupportedFormat, match=r"newer\.toml"):
        profiles.load(str(newer))
    with pytest.raises(TooLarge, match=r"huge\.toml"):
        profiles.load(str(huge))


def test_a_path_without_a_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match=r"none\.toml"):
        profiles.load(str(tmp_path / "none.toml"))
    with pytest.raises(MissingFile):
        profiles.load(f"{tmp_path}/")


def test_importing_and_reading_profiles_loads_no_heavy_library() -> None:
    code = """
import sys
from edgekit import profiles
profiles.load("raspberry-pi-4")
print([name for name in ("onnx", "onnxruntime", "numpy", "sklearn") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
