"""Processor, heat and power: what makes the same model slower here than on the next board."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from edgekit_runtime.doctor.finding import Finding
from edgekit_runtime.doctor.machine import Machine
from edgekit_runtime.probe import cpu_features

_SHOWN: Final[Mapping[str, tuple[str, ...]]] = {
    "x86_64": ("sse4_1", "avx", "f16c", "fma", "avx2", "avx512f", "avx512_vnni", "amx_int8"),
    "aarch64": ("asimd", "atomics", "fphp", "asimdhp", "asimddp", "i8mm", "bf16", "sve"),
}
_WANTED: Final = {"x86_64": "avx2", "aarch64": "asimddp"}
"""Without it ONNX Runtime's matrix kernels take the slow way: AVX2, and the dot product of ARMv8.2."""

_THROTTLED: Final = (
    "/sys/devices/platform/soc/soc:firmware/get_throttled",
    "/sys/devices/platform/soc/soc.firmware/get_throttled",
)
"""The Raspberry Pi's firmware, through the driver raspberrypi."""
_THROTTLED_BITS: Final = (
    "the supply's voltage is too low",
    "the clock is capped",
    "the processor is throttled",
    "the soft limit of the temperature is reached",
)
"""Bits 0 to 3: now. Bits 16 to 19: at some time since the start.

Source: Raspberry Pi documentation, `vcgencmd get_throttled`; Linux, include/soc/bcm2835/raspberrypi-firmware.h.
"""
_SLOWING: Final = ("thermal-cpufreq", "cpufreq", "Processor")
"""Types of cooling devices that slow the processor down; a fan does not."""
_ACTING: Final = frozenset({"passive", "hot", "critical"})
"""Trip points at which the kernel slows down or stops (Documentation/driver-api/thermal/sysfs-api.rst)."""
_NEAR_C: Final = 5.0


def processor(machine: Machine) -> Iterator[Finding]:
    """Whether onnxruntime has a wheel for it, and which of its instructions count."""
    features = cpu_features(machine.root)
    shown = [one for one in _SHOWN.get(machine.architecture, ()) if one in features]
    detail = f"{machine.architecture} with {', '.join(shown) or 'no features that the kernel names'}"
    if machine.architecture not in _SHOWN or machine.pointer_bits != 64:
        yield Finding(
            "processor",
            "FAIL",
            f"onnxruntime has no wheel for {machine.architecture} with {machine.pointer_bits}-bit programs",
            "install a 64-bit operating system for x86-64 or aarch64",
        )
    elif features and _WANTED[machine.architecture] not in features:
        wanted = _WANTED[machine.architecture]
        yield Finding("processor", "ok", f"{detail}; without {wanted}: large networks are slower")
    else:
        yield Finding("processor", "ok", detail)


def heat(machine: Machine) -> Iterator[Finding]:
    """Whether heat or the supply slows the processor down."""
    slowed = list(_firmware(machine))
    for path in machine.find("/sys/class/thermal/cooling_device*"):
        kind, state = machine.read(f"{path}/type"), machine.number(f"{path}/cur_state")
        if kind.startswith(_SLOWING) and state:
            most = machine.number(f"{path}/max_state")
            slowed.append(f"the kernel slows the processor down ({kind}: step {state} of {most})")
    zones = list(_zones(machine))
    hottest = max(zones, key=lambda zone: zone[0], default=None)
    near = [(t, name, limit) for t, name, limit in zones if limit is not None and t >= limit - _NEAR_C]
    if slowed:
        yield Finding(
            "heat",
            "warn",
            "; ".join(slowed),
            "cool the board, and give it the power supply that its maker names",
        )
    elif near:
        t, name, limit = max(near)
        yield Finding(
            "heat",
            "warn",
            f"{name} has {t:.0f} C, and is slowed down at {limit:.0f} C",
            "cool the board, or load it less",
        )
    elif hottest is not None:
        yield Finding("heat", "ok", f"{hottest[0]:.0f} C at most ({hottest[1]}), nothing is slowed down")
    else:
        yield Finding("heat", "ok", "the kernel shows no temperature, and slows nothing down")


def _firmware(machine: Machine) -> Iterator[str]:
    for path in _THROTTLED:
        try:
            bits = int(machine.read(path), 16)
        except ValueError:
            continue
        for bit, sentence in enumerate(_THROTTLED_BITS):
            if bits >> bit & 1:
                yield f"{sentence} now"
            elif bits >> (bit + 16) & 1:
                yield f"{sentence.replace(' is ', ' was ')} at some time since the start"
        return


def _zones(machine: Machine) -> Iterator[tuple[float, str, float | None]]:
    """Degrees, name and the lowest limit of every zone."""
    for path in machine.find("/sys/class/thermal/thermal_zone*"):
        millidegrees = machine.number(f"{path}/temp")
        if millidegrees is None:
            continue
        limits = [
            limit / 1000
            for kind in machine.find(f"{path}/trip_point_*_type")
            if machine.read(kind) in _ACTING and (limit := machine.number(kind.replace("_type", "_temp"))) and limit > 0
        ]
        yield millidegrees / 1000, machine.read(f"{path}/type") or path.rpartition("/")[2], min(limits, default=None)
