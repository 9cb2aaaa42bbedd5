from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import load_digits, load_iris
from torch import nn

from edgekit import building
from edgekit_contracts.errors import ConversionRefused, DataMismatch, NotAModel, UntrustedModel
from edgekit_contracts.manifest import Parity
from edgekit_converters.load import load_model
from edgekit_converters.registry import Conversion, find
from edgekit_converters.torch import TorchConverter

RUNTIME = "1.24.1"
KINDS = ["setosa", "versicolor", "virginica"]


def flowers() -> pd.DataFrame:
    return pd.DataFrame(load_iris(return_X_y=True)[0], columns=["a", "b", "c", "d"])


def digits() -> Any:
    return np.asarray(load_digits(return_X_y=True)[0])[:120]


def perceptron(outputs: int = 3, *behind: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, outputs), *behind]
    return nn.Sequential(*layers).eval()


class Recurrent(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(8, 6, batch_first=True)
        self.last = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(self.cells(x)[0][:, -1])


class Attention(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(17, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.last = nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.last(self.layer(self.words(x)).mean(1))


class Function(nn.Module):  # type: ignore[misc]
    """A module of one function."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x)


def converted(model: Any, data: Any, **said: Any) -> tuple[Conversion, Parity]:
    return building.convert(model, data, RUNTIME, **said)


def test_scores_of_classes_become_probabilities_and_labels() -> None:
    conversion, parity = converted(perceptron(), flowers(), classes=KINDS)
    assert (conversion.task, conversion.classes) == ("classification", tuple(KINDS))
    assert [one.role for one in conversion.outputs] == ["label", "probabilities"]
    assert [feature.name for feature in conversion.features] == ["a", "b", "c", "d"]
    assert conversion.inputs[0].dtype == "float32"
    assert parity.max_difference < 1e-6
    assert conversion.opset == 18


def test_without_classes_the_numbers_are_the_answer_and_a_softmax_is_seen() -> None:
    values, _ = converted(perceptron(2), flowers())
    assert (values.task, [one.role for one in values.outputs]) == ("regression", ["value"])
    softmax, _ = converted(perceptron(3, nn.Softmax(dim=1)), flowers())
    assert softmax.classes == (0, 1, 2)


def test_an_image_network_takes_the_columns_in_its_shape() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 10)).eval()
    conversion, parity = converted(model, digits(), classes=list(range(10)), shape=(1, 8, 8))
    assert len(conversion.inputs[0].features) == 64
    assert parity.label_mismatches == 0
    with pytest.raises(DataMismatch, match=r"a row of the shape \[1, 9, 9\] takes 81"):
        converted(model, digits(), shape=(1, 9, 9))


def test_a_recurrent_network_and_a_transformer_answer_like_the_original() -> None:
    torch.manual_seed(0)
    for model, said in ((Recurrent(), {"shape": (8, 8)}), (Attention(), {})):
        conversion, parity = converted(model.eval(), digits(), classes=["no", "yes"], **said)
        assert conversion.task == "classification"
        assert parity.max_difference < 1e-5


def test_a_module_in_training_mode_is_taken_in_evaluation_mode_and_keeps_its_own() -> None:
    model = perceptron().train()
    conversion, _ = converted(model, flowers())
    assert "training mode" in conversion.notes[0]
    assert all(part.training for part in model.modules())


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: x * 2 if x.sum() > 0 else x, "exporter does not follow it"),
        (lambda x: nn.functional.dropout(x, 0.5), "differently each time"),
        (lambda x: x - x.mean(0), "depends on the other rows"),
    ],
    ids=["branch", "random", "mixed"],
)
def test_what_is_no_function_of_the_row_is_refused(function: Any, why: str) -> None:
    with pytest.raises(ConversionRefused, match=why) as refusal:
        converted(Function(function), flowers())
    assert "Function" in refusal.value.sentence
    assert len(str(refusal.value)) < 600


def test_a_module_that_fails_on_the_rows_is_one_sentence() -> None:
    with pytest.raises(DataMismatch, match="does not answer them") as refusal:
        converted(nn.Linear(5, 2), flowers())
    assert "\n" not in str(refusal.value)


def test_an_exported_program_is_loaded_with_trust_only(tmp_path: Path) -> None:
    path, model = tmp_path / "model.pt2", perceptron()
    rows = ({0: torch.export.Dim.DYNAMIC},)
    torch.export.save(torch.export.export(model, (torch.zeros(3, 4),), dynamic_shapes=rows), path)
    with pytest.raises(UntrustedModel, match="may run code"):
        load_model(path)
    conversion, _ = building.convert(path, flowers(), RUNTIME, trust=True, classes=KINDS)
    assert conversion.classes == tuple(KINDS)
    fixed = torch.export.export(model, (torch.zeros(3, 4),))
    with pytest.raises(ConversionRefused, match="was exported for the shape") as refusal:
        converted(fixed, flowers())
    assert "dynamic_shapes" in refusal.value.next_step


def test_pickled_modules_need_trust_and_weights_alone_are_refused(tmp_path: Path) -> None:
    torch.save(perceptron(), tmp_path / "module.pt")
    torch.save(perceptron().state_dict(), tmp_path / "weights.pth")
    for name in ("module.pt", "weights.pth"):
        with pytest.raises(UntrustedModel):
            load_model(tmp_path / name)
    assert isinstance(find(load_model(tmp_path / "module.pt", trust=True)), TorchConverter)
    with pytest.raises(NotAModel, match="weights and no module") as refusal:
        load_model(tmp_path / "weights.pth", trust=True)
    assert "into their module" in refusal.value.next_step
    (tmp_path / "torn.pt").write_bytes((tmp_path / "module.pt").read_bytes()[:300])
    with pytest.raises(NotAModel, match="cannot be read"):
        load_model(tmp_path / "torn.pt", trust=True)


def test_torch_is_not_imported_before_a_model_of_it_is_given() -> None:
    code = "import sys; import edgekit.building; from edgekit_converters.registry import find\n"
    code += "from sklearn.linear_model import Ridge; find(Ridge()); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_same_module_gives_the_same_bytes_and_no_file_names() -> None:
    first, second = (converted(perceptron(), flowers(), classes=np.arange(3).tolist())[0].onnx for _ in range(2))
    assert first == second
    assert b"nn/modules" not in first
    assert b"stack_trace" not in first
