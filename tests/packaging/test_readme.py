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


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_of_readme_and_docs_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("tests/**/*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text()):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            assert target.exists(), f"{page}: {link}"
            assert not anchor or anchor in anchors(target), f"{page}: {link}"


def test_every_decision_is_in_the_index() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    for page in ROOT.glob("docs/adr/[0-9]*.md"):
        assert f"[{page.name[:4]}]({page.name})" in index, page


def test_every_module_that_the_architecture_names_in_full_is_there() -> None:
    folders = {"edgekit": ROOT, "edgekit_converters": ROOT / "converters"}
    names = set(re.findall(r"`(edgekit(?:_\w+)?(?:\.\w+)+)", (ROOT / "docs" / "architecture.md").read_text()))
    assert names
    for name in names - {"edgekit.converters"}:  # a group of entry points
        package, *parts, last = name.split(".")
        folder = folders.get(package, ROOT / "runtime").joinpath(package, *parts)
        holders = [path for path in (folder.with_suffix(".py"), folder / "__init__.py") if path.exists()]
        module = (folder / f"{last}.py").exists() or (folder / last).is_dir()
        assert module or any(re.search(rf"\b{last}\b", path.read_text()) for path in holders), name


def test_the_readme_s_device_configuration_is_valid(tmp_path: Path) -> None:
    from edgekit_runtime.settings import load_settings

    (configuration,) = blocks("toml")
    (tmp_path / "device.toml").write_text(configuration)
    assert load_settings(tmp_path / "device.toml").config.device == "clinic-7"
