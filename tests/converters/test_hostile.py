"""Files from elsewhere: each is refused in one sentence, runs nothing, and leaves nothing behind."""

# The annotations that pyright infers for joblib come from its defaults.
# pyright: reportArgumentType=false

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import sklearn
import skops.io
from catboost import CatBoostClassifier
from lightgbm import LGBMClassifier
from onnx import TensorProto, helper, numpy_helper
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

from edgekit import cli
from edgekit_contracts.errors import ConversionRefused, EdgekitError, FormatError, NotAModel, TooLarge
from edgekit_converters import confined
from edgekit_converters.examination import examined
from edgekit_converters.load import load_model
from tests.converters.onnx_models import WEIGHTS, graph, linear, saved, tensor

RELU = helper.make_node("Relu", ["x"], ["y"])


def refusal(path: Path) -> EdgekitError:
    """What `load_model` says, which is one sentence; nothing is written."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(EdgekitError) as caught:
        load_model(path)
    assert sorted(path.parent.rglob("*")) == before
    assert "\n" not in caught.value.sentence
    assert len(str(caught.value)) < 600
    return caught.value


def external(location: str, **more: str) -> bytes:
    """A model whose weights lie in another file."""
    model = linear()
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **more}.items():
        entry = weights.external_data.add()
        entry.key, entry.value = key, value
    return bytes(model.SerializeToString())


def test_the_command_says_it_in_a_line_writes_nothing_and_gives_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.csv").write_text("a,b,c,d\n1,2,3,4\n")
    (tmp_path / "torn.onnx").write_bytes(linear().SerializeToString()[:-40])
    (tmp_path / "outside.onnx").write_bytes(external("/etc/hostname"))
    for name, code in (("torn.onnx", 2), ("outside.onnx", 1)):
        out = tmp_path / "out.onnx"
        arguments = ["convert", str(tmp_path / name), "--data", str(tmp_path / "data.csv"), "-o", str(out)]
        assert cli.run(arguments) == code
        error = capsys.readouterr().err.splitlines()
        assert [line.split(":")[0] for line in error] == ["Error", "Try"]
        assert not out.exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a model, beside which there is a secret."""
    (tmp_path / "secret").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "models" / "inner").mkdir(parents=True)
    return tmp_path / "models"


def test_external_data_inside_the_folder_becomes_part_of_the_model(folder: Path) -> None:
    (folder / "inner" / "w.bin").write_bytes(b"1234" + WEIGHTS.tobytes() + b"1234")
    (folder / "m.onnx").write_bytes(external("inner/w.bin", offset="4", length=str(WEIGHTS.nbytes)))
    model = load_model(folder / "m.onnx").model
    assert numpy_helper.to_array(model.graph.initializer[0]).tolist() == WEIGHTS.tolist()


@pytest.mark.parametrize("location", ["../secret", "inner/../../secret", "{}/secret", "", "inner\\w.bin"])
def test_external_data_outside_of_the_folder_is_refused(folder: Path, location: str) -> None:
    (folder / "m.onnx").write_bytes(external(location.format(folder.parent)))
    error = refusal(folder / "m.onnx")
    assert isinstance(error, FormatError)
    assert "outside of the model's folder" in error.sentence


def test_external_data_behind_a_link_is_refused(folder: Path) -> None:
    (folder / "w.bin").symlink_to("../secret")
    (folder / "door").symlink_to("..")
    for location in ("w.bin", "door/secret"):
        (folder / "m.onnx").write_bytes(external(location))
        assert "cannot be read" in refusal(folder / "m.onnx").sentence


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"offset": "-1"}, "negative"),
        ({"offset": "10", "length": "48"}, "has 48 bytes, and 58 are asked for"),
        ({"offset": "99"}, "are asked for"),
        ({"length": "x"}, "cannot be read"),
        ({"length": "8"}, "has 8 bytes, and its shape"),
    ],
)
def test_external_data_that_is_not_as_long_as_it_says_is_refused(folder: Path, more: dict[str, str], why: str) -> None:
    (folder / "w.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "m.onnx").write_bytes(external("w.bin", **more))
    assert why in refusal(folder / "m.onnx").sentence


def test_external_data_in_a_pipe_or_a_directory_does_not_hang(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    for location in ("pipe", "inner"):
        (folder / "m.onnx").write_bytes(external(location))
        assert "cannot be read" in refusal(folder / "m.onnx").sentence


def weighted(**fields: Any) -> bytes:
    """A model with one odd constant."""
    model = graph([helper.make_node("Add", ["x", "w"], ["y"])])
    model.graph.initializer.append(TensorProto(name="w", **fields))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"data_type": 1, "dims": [2**20, 2**20], "raw_data": b"1234"}, "needs 4,398,046,511,104"),
        ({"data_type": 1, "dims": [-4], "raw_data": b""}, "negative"),
        ({"data_type": 1, "dims": [4], "raw_data": b"123"}, "has 3 bytes"),
        ({"data_type": 1, "dims": [4], "float_data": [1.0]}, "has 1 numbers"),
        ({"data_type": 8, "dims": [1], "raw_data": b"a"}, "texts cannot be raw"),
        ({"data_type": 99, "dims": [1], "raw_data": b"a"}, "its type is 99"),
        ({"dims": [1], "raw_data": b"a"}, "its type is 0"),
    ],
)
def test_a_tensor_that_is_not_what_it_says_is_refused(tmp_path: Path, fields: dict[str, Any], why: str) -> None:
    (tmp_path / "m.onnx").write_bytes(weighted(**fields))
    error = refusal(tmp_path / "m.onnx")
    assert why in error.sentence
    assert "initializer['w']" in error.sentence


def test_a_tensor_that_would_be_absurd_when_it_is_computed_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["s", "s"], ["q"]),
        helper.make_node("ConstantOfShape", ["q"], ["b"]),
        helper.make_node("ReduceSum", ["b"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["y"]),
    ]
    path = saved(graph(nodes, {"s": np.array([2**10, 2**10])}), tmp_path / "m.onnx")
    assert "1,099,511,627,776 elements" in refusal(path).sentence
    path = saved(graph([RELU], inputs=[tensor("x", ["n", 2**20, 2**20])]), tmp_path / "m.onnx")
    assert "1,099,511,627,776 elements" in refusal(path).sentence


def test_operators_that_no_device_has_are_refused_by_name(tmp_path: Path) -> None:
    path = saved(graph([helper.make_node("Open", ["x"], ["y"], domain="mine")]), tmp_path / "m.onnx")
    error = refusal(path)
    assert isinstance(error, ConversionRefused)
    assert "mine:Open" in error.sentence
    path = saved(graph([helper.make_node("Teleport", ["x"], ["y"])]), tmp_path / "m.onnx")
    assert "Teleport" in refusal(path).sentence


def test_an_opset_of_the_future_is_refused_in_words(tmp_path: Path) -> None:
    model = linear()
    model.opset_import[0].version = 999
    path = saved(model, tmp_path / "m.onnx")
    sentence = refusal(path).sentence
    assert "999" in sentence
    assert "onnxruntime_src" not in sentence


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Add", ["x", "z"], ["y"]), helper.make_node("Relu", ["y"], ["z"])]
    assert "topologically sorted" in refusal(saved(graph(nodes), tmp_path / "m.onnx")).sentence


def function(name: str, calls: str, times: int = 1) -> onnx.FunctionProto:
    domain = "" if calls == "Relu" else "mine"
    names = ["a", *(f"b{number}" for number in range(1, times)), "b"]
    nodes = [helper.make_node(calls, [one], [other], domain=domain) for one, other in pairwise(names)]
    opsets = [helper.make_opsetid("mine", 1), helper.make_opsetid("", 18)]
    return helper.make_function("mine", name, ["a"], ["b"], nodes, opsets)


def test_functions_are_unfolded_unless_they_never_end(tmp_path: Path) -> None:
    call = [helper.make_node("F", ["x"], ["y"], domain="mine")]
    path = saved(graph(call, functions=[function("F", "Relu")]), tmp_path / "m.onnx")
    assert [node.op_type for node in load_model(path).model.graph.node] == ["Relu"]
    path = saved(graph(call, functions=[function("F", "G"), function("G", "F")]), tmp_path / "m.onnx")
    assert "calls itself" in refusal(path).sentence
    laughs = [function("F", "F1", 10), *(function(f"F{at}", f"F{at + 1}", 10) for at in range(1, 11))]
    path = saved(graph(call, functions=[*laughs, function("F11", "Relu", 10)]), tmp_path / "m.onnx")
    assert "1,000,000,000,000 nodes" in refusal(path).sentence


def test_a_loop_that_never_ends_is_stopped() -> None:
    scalar = [tensor("i", [], TensorProto.INT64), tensor("go", [], TensorProto.BOOL), tensor("v", [None, 4])]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["v"], ["w"])],
        "body",
        scalar,
        [tensor("on", [], TensorProto.BOOL), tensor("w", [None, 4])],
    )
    loop = helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=body)
    model = graph([loop], {"turns": np.array(2**62), "yes": np.array(True)})
    with pytest.raises(FormatError, match="takes more than 2 s"):
        examined(model.SerializeToString(), "m.onnx", None, seconds=2)


def test_a_file_of_nothing_but_nodes_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = b"\x0a\x00" * 2**21
    size = len(nodes)
    length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14 & 127 | 128, size >> 21])
    monkeypatch.setattr(confined, "MEMORY_BYTES", 450 * 2**20)
    monkeypatch.setattr(confined, "MEMORY_FACTOR", 0)
    assert examined(linear().SerializeToString(), "m.onnx", None).graph.node
    with pytest.raises((FormatError, NotAModel)):
        examined(b"\x08\x08\x3a" + length + nodes, "m.onnx", None)


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    inside = b""
    for _ in range(60):  # GraphProto.node = 1, NodeProto.attribute = 5, AttributeProto.g = 6
        for field in (0x32, 0x2A, 0x0A):
            length, prefix = len(inside), b""
            while length > 127:
                prefix, length = prefix + bytes([length & 127 | 128]), length >> 7
            inside = bytes([field]) + prefix + bytes([length]) + inside
    (tmp_path / "m.onnx").write_bytes(b"\x08\x08\x3a" + bytes([len(inside) & 127 | 128, len(inside) >> 7]) + inside)
    assert isinstance(refusal(tmp_path / "m.onnx"), NotAModel)


@pytest.mark.parametrize(
    "content",
    [b"", b"a,b\n1,2\n", b'{"learner": {"version": [3, 2, 0]}}', b"PK\x03\x04", linear().SerializeToString()[:-40]],
    ids=["empty", "text", "json", "zip", "truncated"],
)
def test_what_is_no_onnx_file_is_said_so(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    error = refusal(tmp_path / "m.onnx")
    assert isinstance(error, NotAModel)
    assert error.exit_code == 2


def test_a_directory_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").mkdir()
    assert "directory" in refusal(tmp_path / "m.onnx").sentence


def test_a_module_in_the_current_directory_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "onnx.py").write_text("open('ran', 'w')")
    (tmp_path / "numpy.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    load_model(saved(linear(), tmp_path / "m.onnx"))
    assert not (tmp_path / "ran").exists()


class Payload:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["m.pkl", "m.joblib", "m.pt", "m.pth", "m.pt2", "m.onnx", "m.skops", "m.json", "m"])
def test_a_pickle_runs_nothing_under_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    assert refusal(tmp_path / name).exit_code == 2
    assert not (tmp_path / "ran").exists()


def archive(files: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return data.getvalue()


def test_an_archive_that_unpacks_to_gigabytes_is_refused_before_it_is(tmp_path: Path) -> None:
    size = 4 * 2**20
    bomb = archive({"schema.json": b"{}", "0.npy": bytes(size)})
    # The size stands in the archive's headers: the bomb is written there alone.
    (tmp_path / "m.skops").write_bytes(bomb.replace(size.to_bytes(4, "little"), (2**32 - 2).to_bytes(4, "little")))
    error = refusal(tmp_path / "m.skops")
    assert isinstance(error, TooLarge)
    assert "unpacked" in error.sentence


@pytest.mark.parametrize(("version", "why"), [("1.5.2", "fitted with scikit-learn 1.5.2"), ("9.9.0", "9.9.0")])
def test_a_model_of_another_release_of_scikit_learn_is_refused(tmp_path: Path, version: str, why: str) -> None:
    with pytest.MonkeyPatch.context() as then:
        then.setattr("sklearn.base.__version__", version)
        model = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
        skops.io.dump(model, tmp_path / "m.skops")
        (tmp_path / "m.pkl").write_bytes(pickle.dumps(model))
    assert why in refusal(tmp_path / "m.skops").sentence
    with pytest.raises(ConversionRefused, match=why) as caught:
        load_model(tmp_path / "m.pkl", trust=True)
    assert "fit the model again" in caught.value.next_step


def test_a_model_of_another_patch_release_is_loaded(tmp_path: Path) -> None:
    minor = sklearn.__version__.rsplit(".", 1)[0]
    with pytest.MonkeyPatch.context() as then:
        then.setattr("sklearn.base.__version__", f"{minor}.99")
        skops.io.dump(LogisticRegression().fit([[0.0], [1.0]], [0, 1]), tmp_path / "m.skops")
    assert load_model(tmp_path / "m.skops").predict([[1.0]]).tolist() == [1]


def boosted(suffix: str) -> bytes:
    """A file of a small booster, by the suffix that its library gives it."""
    X, y = np.random.default_rng(0).normal(size=(200, 3)), np.arange(200) % 2
    if suffix == ".json":
        return bytes(XGBClassifier(n_estimators=2, max_depth=2, n_jobs=1).fit(X, y).get_booster().save_raw("json"))
    if suffix == ".txt":
        text: str = LGBMClassifier(n_estimators=2, num_leaves=4, verbose=-1).fit(X, y).booster_.model_to_string()
        return text.encode()
    model: Any = CatBoostClassifier(
        iterations=2, grow_policy="Lossguide", verbose=False, allow_writing_files=False, thread_count=1
    ).fit(X, y)
    return bytes(model._serialize_model())


@pytest.mark.parametrize("suffix", [".json", ".txt", ".cbm"])
def test_an_honest_booster_is_tried_and_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(boosted(suffix))
    assert load_model(path) is not None


@pytest.mark.parametrize(
    ("suffix", "honest", "damaged", "why"),
    [
        (".json", rb'"left_children":\[1', b'"left_children":[0', "no tree"),
        (".json", rb'"split_indices":\[\d', b'"split_indices":[7', "feature"),
        (".json", rb'"tree_info":\[0', b'"tree_info":[9', "output"),
        (".txt", rb"left_child=\S+", b"left_child=0", "no tree"),
        (".txt", rb"split_feature=\S+", b"split_feature=9", "feature"),
        (".txt", rb"num_cat=0", b"num_cat=3", "cannot read|survive"),
    ],
)
def test_a_booster_that_its_library_would_not_survive_is_refused(
    tmp_path: Path, suffix: str, honest: bytes, damaged: bytes, why: str
) -> None:
    content = boosted(suffix)
    assert re.search(honest, content)
    path = tmp_path / f"model{suffix}"
    path.write_bytes(re.sub(honest, damaged, content, count=1))
    assert re.search(why, refusal(path).sentence)


@pytest.mark.parametrize(
    ("model", "child", "to"),
    [
        (RandomForestClassifier(2, max_depth=2, random_state=0), "left_child", 10**9),
        (RandomForestClassifier(2, max_depth=2, random_state=0), "right_child", 0),
        (RandomForestClassifier(2, max_depth=2, random_state=0), "feature", 3),
        (HistGradientBoostingClassifier(max_iter=1, max_depth=2), "left", 10**9),
        (HistGradientBoostingClassifier(max_iter=1, max_depth=2), "feature_idx", 3),
    ],
)
def test_a_tree_that_leads_anywhere_is_refused(tmp_path: Path, model: Any, child: str, to: int) -> None:
    model.fit(np.random.default_rng(0).normal(size=(100, 3)), np.arange(100) % 2)
    honest, damaged = tmp_path / "honest.skops", tmp_path / "damaged.skops"
    skops.io.dump(make_pipeline(StandardScaler().fit(np.ones((2, 3))), model), honest)
    load_model(honest)
    with zipfile.ZipFile(honest) as whole, zipfile.ZipFile(damaged, "w") as written:
        for name in whole.namelist():
            content = whole.read(name)
            nodes: Any = np.load(io.BytesIO(content)) if name.endswith(".npy") else np.zeros(1)
            if child in (nodes.dtype.names or ()):
                nodes[child][0] = to
                buffer = io.BytesIO()
                np.save(buffer, nodes)
                content = buffer.getvalue()
            written.writestr(name, content)
    assert re.search("no tree|another feature", refusal(damaged).sentence)
