"""The README's console blocks, run as they stand; `...` in their output stands for anything."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def pattern(expected: str) -> str:
    """A regular expression for output in which `...` on a line is any text, and a line of its own any lines."""
    lines = [
        r"(?:.*\n)*?" if line == "..." else ".*".join(map(re.escape, line.split("..."))) + r"\n"
        for line in expected.splitlines()
    ]
    return "".join(lines)


def test_every_console_block_runs_and_says_what_is_printed(tmp_path: Path) -> None:
    (script,) = blocks("python")
    assert script.startswith("# train.py\n")
    (tmp_path / "train.py").write_text(script)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "EDGEKIT_KEYS": str(tmp_path / "keys"),
        "COLUMNS": "200",
        "PYTHONWARNINGS": "ignore",
    }
    code = "0"
    for block in blocks("console"):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, expected = step.partition("\n")
            done = subprocess.run(
                ["bash", "-c", f"(exit {code}); {command}"],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            code = str(done.returncode)
            assert re.fullmatch(pattern(expected), done.stdout), f"$ {command}\n{done.stdout}"


def test_no_line_installs_the_distribution_of_somebody_else() -> None:
    for path in [ROOT / "README.md", ROOT / "runtime" / "README.md", *ROOT.glob("docs/**/*.md")]:
        assert not re.search(r"pip install (-\S+ )*'?edgekit(?![-_])", path.read_text()), path


def test_every_file_that_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_the_readme_s_device_configuration_is_valid(tmp_path: Path) -> None:
    from edgekit_runtime.settings import load_settings

    (configuration,) = blocks("toml")
    (tmp_path / "device.toml").write_text(configuration)
    assert load_settings(tmp_path / "device.toml").config.device == "clinic-7"
