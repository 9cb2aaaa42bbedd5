"""MLServer's side of `serving.py`: the same ONNX file, as a model class of its user."""

from __future__ import annotations

from typing import Any

import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class OrtModel(MLModel):  # type: ignore[misc]  # the library has no types
    """Runs `parameters.uri` on ONNX Runtime."""

    async def load(self) -> bool:
        """Opens the session."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(self.settings.parameters.uri, options)
        self._names = [output.name for output in self._session.get_outputs()]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers one request."""
        numbers: Any = NumpyCodec.decode_input(payload.inputs[0])
        answers = self._session.run(self._names, {payload.inputs[0].name: numbers})
        return InferenceResponse(
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output(name, answer) for name, answer in zip(self._names, answers, strict=True)],
        )
