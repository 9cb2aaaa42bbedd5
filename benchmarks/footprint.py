"""What the device's wheel costs: disk, import time and memory of each dependency, measured in a fresh environment.

    .venv/bin/python benchmarks/footprint.py

Builds the wheel, installs it alone with the constraints, and imports each library in processes of its own. Prints a
table and the sum. Ends by itself, in about a minute. Figures are for the machine that it describes.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from importlib.metadata import Distribution, distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = {
    "cryptography": "cryptography.hazmat.primitives.asymmetric.ec",
    "httptools": "httptools",
    "msgspec": "msgspec",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "paho-mqtt": "paho.mqtt.client",
    "edgekit-runtime": "edgekit_runtime.service",
}
REPEATS = 7
PROBE = (
    "import sys, time; before = time.perf_counter(); __import__(sys.argv[1]) if len(sys.argv) > 1 else None; "
    "took = time.perf_counter() - before; "
    "print(took, next(line for line in open('/proc/self/status') if line.startswith('VmRSS')).split()[1])"
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        python = install(Path(folder))
        site = next((Path(folder) / "venv" / "lib").glob("python*/site-packages"))
        sizes = {found.metadata["Name"].lower(): size_mb(found) for found in distributions(path=[str(site)])}
        sizes = {name: size for name, size in sizes.items() if name not in {"pip", "setuptools"}}
        empty_ms, empty_mb = cost(python, None)
        print(f"{platform.machine()}, Python {platform.python_version()}, {cpu()}; medians of {REPEATS} runs")
        print(f"an empty interpreter: {empty_mb:.1f} MB resident\n")
        print(f"| {'library':<18} | {'MB on disk':>10} | {'import ms':>9} | {'resident MB':>11} |")
        print(f"|{'-' * 20}|{'-' * 11}:|{'-' * 10}:|{'-' * 12}:|")
        for name, module in IMPORTS.items():
            took, resident = cost(python, module)
            line = f"{sizes[name]:>10.1f} | {took - empty_ms:>9.0f} | {resident - empty_mb:>11.1f} |"
            print(f"| {name:<18} | {line}")
        rest = {name: size for name, size in sizes.items() if name not in IMPORTS}
        print(f"\nwhat they bring along: {', '.join(f'{name} {size:.1f} MB' for name, size in sorted(rest.items()))}")
        took, resident = cost(python, IMPORTS["edgekit-runtime"])
        print(f"all of it: {sum(sizes.values()):.0f} MB on disk, imported in {took:.0f} ms, {resident:.0f} MB resident")


def install(folder: Path) -> Path:
    """An environment that holds the device's wheel alone; its interpreter."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT / "runtime")], check=True)
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    (wheel,) = folder.glob("edgekit_runtime-*.whl")
    pip[0] = str(python)
    subprocess.run([*pip, "install", "--constraint", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    return python


def size_mb(found: Distribution) -> float:
    """What a distribution occupies without compiled caches."""
    files = [Path(str(file.locate())) for file in found.files or [] if file.suffix != ".pyc"]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def cost(python: Path, module: str | None) -> tuple[float, float]:
    """Median milliseconds and resident MB of a process that imports the module."""
    arguments = [str(python), "-c", PROBE, *([module] if module else [])]
    runs = []
    for _ in range(REPEATS):
        took, resident = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout.split()
        runs.append((float(took) * 1000, float(resident) * 1024 / 1e6))
        time.sleep(0.05)
    return statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs)


def cpu() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


if __name__ == "__main__":
    main()
