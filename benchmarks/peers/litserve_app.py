"""LitServe's side of `serving.py`: one ONNX file.

python litserve_app.py PORT MODEL PATH
"""

import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Request


class Ort(litserve.LitAPI):  # type: ignore[misc]  # the library has no types
    """Runs one file on ONNX Runtime."""

    def setup(self, device: str) -> None:
        """Opens the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(sys.argv[2], options)
        self._names = [output.name for output in self._session.get_outputs()]

    def decode_request(self, request: Request) -> Any:
        """Reads a request: LitServe gives its JSON where this type is named."""
        body: Any = request
        tensor = body["inputs"][0]
        return {tensor["name"]: np.array(tensor["data"], dtype=np.float64).reshape(tensor["shape"])}

    def predict(self, x: Any) -> Any:
        """Answers one request."""
        return self._session.run(self._names, x)

    def encode_response(self, output: Any) -> Any:
        """Writes an answer."""
        return {
            "outputs": [
                {"name": name, "shape": list(answer.shape), "data": answer.ravel().tolist()}
                for name, answer in zip(self._names, output, strict=True)
            ]
        }


if __name__ == "__main__":
    api = Ort(api_path=sys.argv[3])
    litserve.LitServer(api, accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning"
    )
