from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import edgekit
import edgekit.building
import edgekit.profiles
import edgekit_runtime
from edgekit.clauses import describe_ulps, describe_worst_row
from edgekit_contracts.errors import ConversionRefused, DoesNotFit, UsageError
from edgekit_contracts.manifest import Parity, WorstRow
from edgekit_runtime.bundle import open_bundle
from tests import models
from tests.toolkit.conftest import Run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> models.Project:
    return models.project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def bundle(project: models.Project, tmp_path: Path, run: Run) -> Path:
    out = tmp_path / "press-1.2.edge"
    code, _, err = run(
        "build", project.model, "--data", project.data, "--target", "grade", "--device", "raspberry-pi-4", "-o", out
    )
    assert code == 0, err
    return out


def test_a_build_shows_each_step_and_prints_the_bundle(project: models.Project, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "press-1.2.edge"
    arguments = ["--data", project.data, "--device", "raspberry-pi-4", "--device", "intel-n100", "--target", "grade"]
    arguments += ["--unit", "width=mm"]
    code, words, err = run("build", project.model, *arguments, "-o", out)
    assert (code, words.strip()) == (0, str(out))
    for step in ("load", "data", "convert", "verify", "quality", "reference", "predict", "sign", "write"):
        assert f"ok  {step:<10}" in err
    assert "made now in" in err
    manifest = open_bundle(out, keys=None).manifest
    assert (manifest.name, manifest.version) == ("press", "1.2")
    assert manifest.classes == ("A", "B")
    assert [budget.profile for budget in manifest.budgets] == ["raspberry-pi-4", "intel-n100"]
    assert [(one.name, one.unit) for one in manifest.features] == [
        ("width", "mm"),
        ("height", None),
        ("material", None),
    ]
    assert " mm" in run("inspect", out)[1]
    assert manifest.lineage.data_origin == "data.csv"


def test_json_gives_the_same_to_a_program(project: models.Project, tmp_path: Path, run: Run) -> None:
    code, words, _ = run(
        "build",
        project.model,
        "--data",
        project.data,
        "--device",
        "raspberry-pi-5",
        "-o",
        tmp_path / "a-1.edge",
        "--json",
    )
    assert code == 0
    result = json.loads(words)
    assert result["schema"] == 1
    assert result["manifest"]["name"] == "a"
    assert [step["name"] for step in result["steps"]][-1] == "write"


def test_building_twice_gives_the_same_bytes(project: models.Project, tmp_path: Path, run: Run) -> None:
    first, second = tmp_path / "1" / "press-1.2.edge", tmp_path / "2" / "press-1.2.edge"
    for out in (first, second):
        run("build", project.model, "--data", project.data, "--device", "raspberry-pi-4", "-o", out)
    assert first.read_bytes() == second.read_bytes()


def test_the_bundle_answers_like_the_model(bundle: Path, project: models.Project) -> None:
    import skops.io

    model = skops.io.load(project.model, trusted=skops.io.get_untrusted_types(file=project.model))
    frame = pd.read_csv(project.data)[["width", "height", "material"]]
    columns: dict[str, Any] = {
        "width": frame["width"].to_numpy(),
        "height": frame["height"].to_numpy(),
        "material": [None if pd.isna(text) else text for text in frame["material"]],
    }
    public = bundle.parent / "keys" / "edgekit.pub.pem"
    with edgekit_runtime.load(bundle, keys=[public]) as engine:
        answers: Any = engine.predict(columns)
    assert answers.labels is not None
    assert answers.probabilities is not None
    assert answers.labels.tolist() == model.predict(frame).tolist()
    np.testing.assert_allclose(answers.probabilities, model.predict_proba(frame), atol=1e-4)


def test_inspect_verify_and_check_work_on_it(bundle: Path, run: Run) -> None:
    code, words, _ = run("inspect", bundle)
    assert code == 0
    assert "press 1.2" in words
    assert "material" in words
    assert "brass, steel, zinc" in words
    assert json.loads(run("inspect", bundle, "--json")[1])["manifest"]["task"] == "classification"
    code, words, _ = run("verify", bundle)
    assert code == 0
    assert "rows right on onnxruntime" in words
    assert json.loads(run("verify", bundle, "--json")[1])["golden_rows"] > 60
    code, words, _ = run("check", bundle)
    assert code == 0
    assert "raspberry-pi-4" in words
    assert json.loads(run("check", bundle, "--device", "jetson-orin-nano", "--json")[1])["budgets"][0]["fits"] is True


def test_a_model_that_does_not_fit_is_refused_with_exit_1(bundle: Path, project: models.Project, run: Run) -> None:
    profile = bundle.parent / "small.toml"
    text = Path(edgekit.__file__).parents[1].joinpath("device_profiles", "raspberry-pi-4.toml").read_text()
    profile.write_text(
        text.replace("memory_mb = 256.0", "memory_mb = 10.0").replace('name = "raspberry-pi-4"', 'name = "small"')
    )
    code, words, err = run("check", bundle, "--device", profile)
    assert code == 1
    assert "does not fit" in words
    assert "Error: the model does not fit small: memory" in err
    out = bundle.parent / "none-1.edge"
    code, _, err = run("build", project.model, "--data", project.data, "--device", profile, "-o", out)
    assert code == 1
    assert not out.exists()
    code, _, err = run("build", project.model, "--data", project.data, "--device", profile, "-o", out, "--allow-unfit")
    assert (code, out.exists()) == (0, True)


def test_the_report_is_one_page_with_nothing_from_elsewhere(bundle: Path, run: Run) -> None:
    code, words, _ = run("report", bundle)
    assert code == 0
    page = Path(words.strip()).read_text()
    assert page.count("<svg") >= 3
    assert "http" not in page.replace("http://www.w3.org", "")
    for text in ("press 1.2", "material", "raspberry-pi-4", "accuracy"):
        assert text in page


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["none.skops", "--data", "DATA"], 2, "cannot read the model none.skops"),
        (["MODEL", "--data", "none.csv"], 2, "cannot read the data file none.csv"),
        (["MODEL", "--data", "DATA", "--device", "toaster"], 2, "there is no device profile 'toaster'"),
        (["PICKLE", "--data", "DATA"], 2, "is a pickle, and loading a pickle runs whatever code is in it"),
        (["JOBLIB", "--data", "DATA"], 2, "is a pickle, and loading a pickle runs whatever code is in it"),
        (["NUMBER", "--data", "DATA", "--trust"], 2, "is not a model that can be converted"),
        (["UNFITTED", "--data", "DATA", "--trust"], 2, "is not fitted"),
        (["DATA", "--data", "DATA"], 2, "is not a model that can be converted"),
        (["MODEL", "--data", "LACKS"], 2, "the data does not fit the model: it lacks the column 'height'"),
        (["MODEL", "--data", "DATA", "--target", "colour"], 2, "'colour'"),
        (["MODEL", "--data", "DATA", "--target", "width"], 2, "the target 'width' is one of its features"),
        (["MODEL", "--data", "DATA", "--name", "A/B"], 2, "'A/B' cannot be a model's name"),
        (["MODEL", "--data", "DATA", "--version", "x"], 2, "'x' cannot be a version"),
        (["MODEL", "--data", "DATA", "--key", "DATA"], 2, "holds no EC P-256 private key"),
        (["MODEL", "--data", "DATA", "--allow-raw", "colour"], 2, "the model has no feature 'colour'"),
        (["MODEL", "--data", "DATA", "--unit", "colour=nm"], 2, "the model has no feature 'colour'"),
        (["MODEL", "--data", "DATA", "--unit", "width"], 2, "'width' is not FEATURE=UNIT"),
        (["MODEL", "--data", "DATA", "--unit", "width=" + 33 * "m"], 2, "cannot be a unit"),
        (["MODEL", "--data", "DATA", "--abstain-below", "2"], 2, "2.0 is not in the range 0<=x<=1"),
        (["MODEL", "--data", "DATA", "--automation", "full"], 2, "'full' is not one of 'shadow', 'advise'"),
        (["MODEL", "--data", "DATA", "--classes", "a,b"], 2, "are said of a network, and the model is scikit-learn"),
        (["MODEL", "--data", "DATA", "-o", "."], 2, ". is a folder"),
        (["MODEL", "--data", "DATA", "-o", "MODEL"], 2, "is there already, and is no .edge file"),
        (["MODEL", "--data", "DATA", "-o", "DATA"], 2, "is there already, and is no .edge file"),
        (["MODEL", "--data", "DATA", "-o", "/proc/press-1.0.edge"], 3, "cannot use /proc/press-1.0.edge: "),
        (["MODEL"], 2, "Missing option '--data'"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    arguments: list[str],
    code: int,
    sentence: str,
    project: models.Project,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    files = {name: tmp_path / f"{name.lower()}.pkl" for name in ("PICKLE", "NUMBER", "UNFITTED")}
    files["PICKLE"].write_bytes(pickle.dumps({"a": 1}))
    files["NUMBER"].write_bytes(pickle.dumps(42))
    files["UNFITTED"].write_bytes(pickle.dumps(models.pipeline(Ridge())))
    files["JOBLIB"] = tmp_path / "model.joblib"
    joblib.dump([1], files["JOBLIB"])
    files["LACKS"] = tmp_path / "lacks.csv"
    files["LACKS"].write_text("width,material\n1,steel\n")
    files |= {"MODEL": project.model, "DATA": project.data}
    # Not the default, which measures this machine.
    given = arguments if "--device" in arguments else [*arguments, "--device", "raspberry-pi-4"]
    found, words, err = run("build", *[files.get(argument, argument) for argument in given])
    assert found == code
    assert sentence in err
    assert "Traceback" not in err
    assert words == ""
    assert "Try" in err
    assert not list(tmp_path.glob("*.edge"))


@pytest.mark.parametrize("command", ["build", "convert"])
def test_what_cannot_be_written_is_said_before_the_work(
    command: str, project: models.Project, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "taken").touch()
    out = tmp_path / "taken" / ("press-1.0.edge" if command == "build" else "press.onnx")
    code, words, err = run(command, project.model, "--data", project.data, "-o", out)
    assert (code, words) == (3, "")
    assert err == f"Error: cannot use {out}: Not a directory\nTry:   check its permissions and the free space\n"


def test_a_key_that_cannot_be_made_is_said_before_the_work(
    project: models.Project, tmp_path: Path, run: Run, own_keys: Path
) -> None:
    own_keys.parent.mkdir(parents=True, exist_ok=True)
    own_keys.touch()
    code, words, err = run("build", project.model, "--data", project.data, "-o", tmp_path / "press-1.0.edge")
    assert (code, words) == (3, "")
    assert err.startswith(f"Error: cannot use {own_keys / 'edgekit.pem'}: Not a directory\n")


@pytest.mark.parametrize("lacking", ["model", "data"])
def test_a_file_that_is_not_there_is_said_before_this_machine_is_measured(
    lacking: str, project: models.Project, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edgekit.profiles, "load", lambda name: pytest.fail(f"{name} is measured"))
    files = {"model": project.model, "data": project.data} | {lacking: tmp_path / "nowhere"}
    code, _, err = run("build", files["model"], "--data", files["data"], "-o", tmp_path / "press-1.0.edge")
    assert (code, f"{tmp_path / 'nowhere'}: no such file or directory" in err) == (2, True)


def test_a_report_replaces_no_bundle(bundle: Path, run: Run) -> None:
    code, _, err = run("report", bundle, "-o", bundle)
    assert (code, "is there already, and is no .html file" in err) == (2, True)
    assert run("verify", bundle)[0] == 0


@pytest.mark.parametrize("command", ["inspect", "verify", "check", "report"])
def test_a_damaged_bundle_is_one_sentence_and_exit_1(bundle: Path, command: str, run: Run) -> None:
    data = bundle.read_bytes()
    bundle.write_bytes(data[: len(data) // 2])
    code, words, err = run(command, bundle)
    assert (code, words) == (1, "")
    assert "Error: press-1.2.edge is damaged: it is not a whole archive" in err
    assert "Try:   copy the bundle again" in err
    bundle.write_text("name,age\n")
    assert "perhaps another file was meant" in run(command, bundle)[2]
    flipped = bytearray(data)
    flipped[len(data) // 3] ^= 4
    bundle.write_bytes(flipped)
    assert run(command, bundle)[0] == 1


@pytest.mark.parametrize(
    ("ulps", "differs", "words"),
    [
        (32.0, "in the last digits of float32: ...", "32 ulps"),
        (5.37e8, "in the last digits of float32: ...", "1 ulps of float32"),
        (1.4e12, "in the last digits of float64: ...", "1.4e+12 ulps"),
    ],
)
def test_a_difference_is_told_in_the_units_of_the_original(ulps: float, differs: str, words: str) -> None:
    parity = Parity(
        rows=1,
        label_mismatches=0,
        ties=0,
        max_difference=0.1,
        tolerance=1.0,
        method="",
        worst_ulps=ulps,
        differs=differs,
    )
    assert describe_ulps(parity) == words


def test_of_the_worst_row_the_numbers_that_differ_most_are_told() -> None:
    row = WorstRow(values=(), original=(1.0, 0.5, 200.0, 3.0), converted=(1.0, 0.5625, 201.0, None))
    assert describe_worst_row(row, ()) == "None for 3.0, 0.5625 for 0.5 at "


def test_a_foreign_key_is_refused(bundle: Path, tmp_path: Path, run: Run) -> None:
    code, words, _ = run("keys", "create", "--dir", tmp_path / "other")
    assert code == 0
    code, _, err = run("verify", bundle, "--key", words.strip())
    assert code == 1
    assert "is not trusted here" in err
    assert run("keys", "create", "--dir", tmp_path / "other")[0] == 2


def test_the_python_api_takes_objects_and_shows_itself_in_notebooks(tmp_path: Path) -> None:
    frame = models.table()
    model = models.pipeline(Ridge()).fit(frame[["width", "height", "material"]], frame["price"])
    frame.attrs["units"] = {"height": "mm", "price": "EUR"}
    built = edgekit.build(
        model,
        frame.drop(columns="grade"),
        target="price",
        device="raspberry-pi-5",
        out=tmp_path / "price-2.0.edge",
    )
    assert built.manifest.task == "regression"
    assert {one.name: one.unit for one in built.manifest.features} == {"width": None, "height": "mm", "material": None}
    assert built.manifest.quality[0].metric == "mean absolute error"
    assert built.manifest.quality[0].model < built.manifest.quality[0].baseline
    assert "<table>" in built._repr_html_()
    with edgekit_runtime.load(built.path, keys=[tmp_path / "keys" / "edgekit.pub.pem"]) as engine:
        answer = engine.predict({"width": [10.0], "height": [None], "material": ["steel"]}).values
    expected = model.predict(pd.DataFrame({"width": [10.0], "height": [np.nan], "material": ["steel"]}))
    assert answer is not None
    assert answer.ravel().tolist() == pytest.approx(expected.tolist())


def test_a_model_that_is_worse_than_none_is_built_with_a_warning(tmp_path: Path, run: Run) -> None:
    frame = models.table()
    model = models.pipeline(Ridge()).fit(frame[["width", "height", "material"]], -frame["price"])
    joblib.dump(model, tmp_path / "poor.joblib")
    frame.drop(columns="grade").to_csv(tmp_path / "data.csv", index=False)
    out = tmp_path / "poor-1.0.edge"
    where = ["--data", tmp_path / "data.csv", "--target", "price", "--device", "raspberry-pi-4", "-o", out]
    code, _, err = run("build", tmp_path / "poor.joblib", "--trust", *where)
    warning = "the model is worse than a rule without one: mean absolute error"
    assert code == 0, err
    assert f"warning: {warning}" in err
    assert warning in run("inspect", out)[1]
    assert run("report", out, "-o", tmp_path / "poor.html")[0] == 0
    page = (tmp_path / "poor.html").read_text()
    assert warning in page
    assert '<tr class="alarm"><td>mean absolute error</td>' in page


def test_a_clusterer_becomes_a_bundle_and_its_target_is_no_truth(tmp_path: Path) -> None:
    frame = models.table()
    model = models.pipeline(KMeans(3, random_state=0)).fit(frame[["width", "height", "material"]])
    built = edgekit.build(
        model, frame.drop(columns="price"), target="grade", device="raspberry-pi-5", out=tmp_path / "groups-1.0.edge"
    )
    assert (built.manifest.format, built.manifest.task) == ("edgekit-bundle/2.1", "clustering")
    assert built.manifest.quality == ()
    opened = open_bundle(built.path, keys=None)
    assert sum(opened.reference.classes) == len(frame)


def test_a_preprocessing_becomes_a_bundle_that_hands_missing_values_on(tmp_path: Path) -> None:
    frame = models.table()[["width", "height"]]
    frame.loc[::5, "height"] = np.nan
    built = edgekit.build(StandardScaler().fit(frame), frame, device="raspberry-pi-5", out=tmp_path / "scaled-1.0.edge")
    assert built.manifest.task == "transformation"
    with edgekit_runtime.load(built.path, keys=[tmp_path / "keys" / "edgekit.pub.pem"]) as engine:
        answer = engine.predict({"width": [10.0], "height": [None]}).values
    assert answer is not None
    assert np.isnan(answer).tolist() == [[False, True]]


def test_the_owner_says_what_is_doubtful_and_what_a_person_may_see(
    project: models.Project, tmp_path: Path, run: Run
) -> None:
    out = tmp_path / "press-1.2.edge"
    options = ["--abstain-below", "0.7", "--automation", "confirm", "--allow-raw", "width", "--allow-raw", "material"]
    arguments = ["--data", project.data, "--target", "grade", "--device", "raspberry-pi-4", *options]
    code, _, err = run("build", project.model, *arguments, "-o", out)
    assert code == 0, err
    manifest = open_bundle(out, keys=None).manifest
    assert (manifest.monitoring.abstain_below, manifest.automation) == (0.7, "confirm")
    assert manifest.privacy.raw_fields == ("width", "material")
    people = (
        "level of automation: confirm; less confident than 0.7 is left to a person; a person may see width, material"
    )
    assert people in run("inspect", out)[1].replace("\n            ", " ")


def test_looking_at_a_bundle_imports_no_converter(bundle: Path) -> None:
    code = (
        "import sys; from edgekit.cli import run; "
        f"assert run(['inspect', {str(bundle)!r}]) == 0; "
        "sys.exit({'pandas', 'sklearn', 'onnx', 'skl2onnx'} & {*sys.modules} or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_model_without_confidence_cannot_abstain(tmp_path: Path) -> None:
    frame = models.table()[["width", "price"]]
    model = Ridge().fit(frame[["width"]], frame["price"])
    with pytest.raises(UsageError, match="gives no probabilities"):
        edgekit.build(
            model, frame[["width"]], device="raspberry-pi-5", out=tmp_path / "price-1.0.edge", abstain_below=0.5
        )


def test_of_several_labels_a_row_a_bundle_holds_the_chosen_one(tmp_path: Path) -> None:
    frame = models.table()[["width", "price"]]
    several = np.stack(
        [np.digitize(frame["price"], frame["price"].quantile([0.3, 0.6])), np.where(frame["width"] > 10, 7, 5)], axis=1
    )
    model = DecisionTreeClassifier(max_depth=2).fit(frame, several)
    with pytest.raises(ConversionRefused, match="2 labels a row, and a bundle holds one") as refused:
        edgekit.build(model, frame, device="raspberry-pi-5", out=tmp_path / "two-1.0.edge")
    assert "--label 0 to 1" in str(refused.value.next_step)
    for label, classes in enumerate([(0, 1, 2), (5, 7)]):
        data = frame.assign(true=several[:, label])
        out = tmp_path / f"{label}-1.0.edge"
        built = edgekit.build(
            model, data, target="true", device="raspberry-pi-4", out=out, label=label, check_runtimes=None
        )
        assert built.manifest.classes == classes
        assert built.manifest.lineage.model_type.endswith(f"DecisionTreeClassifier, label {label}")
        assert built.manifest.quality[0].model == np.mean(model.predict(frame)[:, label] == several[:, label])
        with edgekit_runtime.load(out, keys=[tmp_path / "keys" / "edgekit.pub.pem"]) as engine:
            found = engine.predict(frame.to_numpy())
        np.testing.assert_array_equal(found.labels, model.predict(frame)[:, label])
        np.testing.assert_array_equal(found.probabilities, model.predict_proba(frame)[label])
    conversion, parity = edgekit.building.convert(model, frame, "1.32.0")
    assert (len(conversion.targets), parity.label_mismatches) == (2, 0)


def test_a_matrix_model_names_its_columns(tmp_path: Path) -> None:
    from sklearn.datasets import load_wine
    from sklearn.ensemble import RandomForestClassifier

    X, y = load_wine(return_X_y=True)
    model = RandomForestClassifier(20, random_state=0).fit(X, y)
    built = edgekit.build(model, X, device="raspberry-pi-4", out=tmp_path / "wine-1.0.edge")
    assert [feature.name for feature in built.manifest.features][:3] == ["x0", "x1", "x2"]
    assert built.manifest.classes == (0, 1, 2)


def test_a_refused_profile_raises_in_python_too(tmp_path: Path) -> None:
    frame = models.table()
    model = models.pipeline(Ridge()).fit(frame[["width", "height", "material"]], frame["price"])
    profile = tmp_path / "small.toml"
    text = Path(edgekit.__file__).parents[1].joinpath("device_profiles", "raspberry-pi-4.toml").read_text()
    profile.write_text(text.replace("latency_ms = 20.0", "latency_ms = 0.001"))
    with pytest.raises(DoesNotFit, match="latency"):
        edgekit.build(model, frame, device=str(profile), out=tmp_path / "x-1.edge")
