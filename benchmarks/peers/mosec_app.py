"""mosec's side of `serving.py`: the same ONNX files, JSON by msgspec.

python mosec_app.py --port 8000, with MODELS=lr10=lr10.onnx,lr30=lr30.onnx
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
import numpy as np
import onnxruntime
from mosec import Server, Worker


class Ort(Worker):  # type: ignore[misc]  # the library has no types
    """Runs one file on ONNX Runtime."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(os.environ["MODEL"], options)
        self._names = [output.name for output in self._session.get_outputs()]

    def deserialize(self, data: bytes) -> Any:
        """Reads a request."""
        return msgspec.json.decode(data)

    def serialize(self, data: Any) -> bytes:
        """Writes an answer."""
        return msgspec.json.encode(data)

    def forward(self, data: Any) -> Any:
        """Answers one request."""
        tensor = data["inputs"][0]
        numbers = np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"])
        answers = self._session.run(self._names, {tensor["name"]: numbers})
        return {
            "outputs": [
                {"name": name, "shape": list(answer.shape), "data": answer.ravel().tolist()}
                for name, answer in zip(self._names, answers, strict=True)
            ]
        }


if __name__ == "__main__":
    server = Server()
    for entry in os.environ["MODELS"].split(","):
        name, _, path = entry.partition("=")
        server.append_worker(Ort, num=1, route=f"/v2/models/{name}/infer", env=[{"MODEL": path}])
    server.run()
