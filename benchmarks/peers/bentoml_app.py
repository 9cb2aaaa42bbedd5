"""BentoML's side of `serving.py`: one ONNX file.

MODEL=lr10.onnx bentoml serve bentoml_app:Ort --port 8000 --api-workers 1
"""

import os
from typing import Any

import bentoml
import numpy as np
import onnxruntime


@bentoml.service
class Ort:
    """Runs one file on ONNX Runtime."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
        self._names = [output.name for output in self._session.get_outputs()]

    @bentoml.api(route="/infer")  # type: ignore[untyped-decorator]  # the library has no types
    def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Answers one request."""
        tensor = inputs[0]
        numbers = np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"])
        answers = self._session.run(self._names, {tensor["name"]: numbers})
        return {
            "outputs": [
                {"name": name, "shape": list(answer.shape), "data": answer.ravel().tolist()}
                for name, answer in zip(self._names, answers, strict=True)
            ]
        }
