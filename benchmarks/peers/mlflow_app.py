"""MLflow's side of `serving.py`: writes an ONNX file as a model of its `onnx` flavour, for `mlflow models serve`.

python mlflow_app.py lr10.onnx FOLDER
"""

import sys

import mlflow.onnx
import onnx

if __name__ == "__main__":
    options = {"intra_op_num_threads": 1, "inter_op_num_threads": 1}
    mlflow.onnx.save_model(
        onnx.load(sys.argv[1]),
        sys.argv[2],
        onnx_execution_providers=["CPUExecutionProvider"],
        onnx_session_options=options,
    )
