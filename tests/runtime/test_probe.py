from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit_contracts.errors import EnvironmentFault, RuntimeUnfit
from edgekit_runtime import probe
from edgekit_runtime.lock import Holder, hold, holder
from tests import bundles

DIES = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
"""As the import of onnxruntime 1.21.0 ends on a Raspberry Pi 4."""


def shadow(folder: Path, code: str) -> dict[str, str]:
    """An environment in which `import onnxruntime` runs this code."""
    (folder / "onnxruntime").mkdir(parents=True)
    (folder / "onnxruntime" / "__init__.py").write_text(code)
    return os.environ | {"PYTHONPATH": str(folder)}


def ended_with_3(words: list[str], environment: dict[str, str]) -> str:
    """What a command says on standard error."""
    done = subprocess.run(
        [sys.executable, "-m", "edgekit_runtime", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    return done.stderr


def run_words(folder: Path) -> list[str]:
    """What runs a service on a bundle that is made here."""
    made, config = bundles.make(folder), folder / "device.toml"
    config.write_text(f'bundle = "{made.path}"\nkeys = ["{made.public}"]\n[serve]\nport = 0\n')
    return ["run", "--config", str(config)]


def test_an_import_that_dies_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", shadow(tmp_path, DIES)["PYTHONPATH"])
    with pytest.raises(RuntimeUnfit, match="ends with an illegal instruction: it was built for another") as caught:
        probe.try_import("1.21.0")
    assert caught.value.exit_code == 3
    assert "pip install 'onnxruntime!=1.21.0'" in caught.value.next_step


def test_an_import_that_fails_or_hangs_is_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", shadow(tmp_path, "raise ImportError('GLIBC_2.99 not found')")["PYTHONPATH"])
    with pytest.raises(RuntimeUnfit, match=r"cannot be imported: ImportError: GLIBC_2\.99 not found"):
        probe.try_import("1.32.0")
    monkeypatch.setattr(probe, "TIMEOUT_S", 0.2)
    with pytest.raises(RuntimeUnfit, match=r"takes more than 0\.2 s"):
        probe.try_in_child(["-c", "import time; time.sleep(60)"], "1.32.0", "importing it")


def test_a_release_that_answers_wrongly_is_refused_before_it_is_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(probe, "installed_version", lambda name: "1.27.0")
    monkeypatch.setattr(probe, "try_import", lambda release: pytest.fail("imported"))
    with pytest.raises(RuntimeUnfit, match=r"onnxruntime 1\.27\.0 answers wrongly for tree ensembles"):
        probe.ensure_runs_here(tmp_path)


def test_the_child_is_asked_once_for_each_machine_and_release(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr(probe, "try_import", asked.append)
    state = tmp_path / "state"
    probe.ensure_runs_here(state)
    probe.ensure_runs_here(state)
    assert len(asked) == 1
    assert [path.name for path in state.iterdir()] == [probe.MARKER]
    monkeypatch.setattr(probe, "cpu_features", lambda: frozenset({"another", "processor"}))
    probe.ensure_runs_here(state)
    monkeypatch.setattr(probe, "installed_version", lambda name: "1.99.0")
    probe.ensure_runs_here(state)
    assert len(asked) == 3


def test_a_failed_probe_leaves_no_mark_and_a_disk_that_takes_none_does_not_matter(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(release: str) -> None:
        raise RuntimeUnfit(release, "does not run here", "")

    monkeypatch.setattr(probe, "try_import", fails)
    with pytest.raises(RuntimeUnfit):
        probe.ensure_runs_here(tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(probe, "try_import", lambda release: None)
    (tmp_path / "file").touch()
    probe.ensure_runs_here(tmp_path / "file" / "state")


@pytest.mark.parametrize("verb", ["verify", "predict"])
def test_a_command_says_it_and_ends_with_3(tmp_path: Path, verb: str) -> None:
    made = bundles.make(tmp_path)
    table = [str(tmp_path / "rows.csv")] if verb == "predict" else []
    said = ended_with_3(
        [verb, str(made.path), *table, "--key", str(made.public)],
        shadow(tmp_path / "shadow", DIES) | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    assert "does not run here: importing it ends with an illegal instruction" in said


def test_the_answer_of_a_command_is_kept_in_the_user_s_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []
    monkeypatch.setattr(probe, "try_import", asked.append)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    probe.ensure_runs_here()
    probe.ensure_runs_here()
    assert len(asked) == 1
    assert (tmp_path / "edgekit" / probe.MARKER).exists()

    def nowhere() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", nowhere)
    probe.ensure_runs_here()
    assert len(asked) == 2


def test_the_service_says_it_and_ends_with_3(tmp_path: Path) -> None:
    said = ended_with_3(run_words(tmp_path), shadow(tmp_path / "shadow", DIES))
    assert "does not run here: importing it ends with an illegal instruction" in said
    assert len(said.splitlines()) == 2


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_library_that_was_damaged_after_it_was_seen_to_run_is_a_sentence(tmp_path: Path, form: str) -> None:
    words = run_words(tmp_path)
    probe._keep(tmp_path / "state", probe._fingerprint(probe.installed_release()))
    said = ended_with_3(
        words, shadow(tmp_path / "shadow", "raise ImportError('no libstdc++')") | {"EDGEKIT_LOG_FORMAT": form}
    )
    assert "a library cannot be imported: no libstdc++" in said
    assert "Traceback" not in said
    if form == "json":
        assert [json.loads(line)["level"] for line in said.splitlines()] == ["critical"]


def test_one_process_holds_a_state_directory(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    with hold(tmp_path) as held:
        held.tell(["unix:/x"])
        assert holder(tmp_path) == Holder(os.getpid(), ("unix:/x",))
        with pytest.raises(EnvironmentFault, match=f"another edgekit-runtime \\(process {os.getpid()}\\) uses"):
            hold(tmp_path).__enter__()
    assert holder(tmp_path) is None
    with hold(tmp_path):  # what an earlier holder wrote, in full, is gone
        assert holder(tmp_path) == Holder(os.getpid())
    (tmp_path / "lock").write_bytes(b"\0half a li")
    assert holder(tmp_path) is None
