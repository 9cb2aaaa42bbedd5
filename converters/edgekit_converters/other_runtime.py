"""Runs a model on the onnxruntime of another environment: started as a program there, by `edgekit_converters.runtimes`.

    python -I other_runtime.py FOLDER ...

It knows nothing of edgekit: numpy, onnxruntime and the standard library are all that is there. Each folder holds
`model.onnx` and `rows.npz`; the answers go to `answers.npz`, or a sentence to `fault.txt`. Texts travel as JSON of the
different ones and a number for each cell, since an array of texts in a .npz would be a pickle.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MODEL: Final = "model.onnx"
ROWS: Final = "rows.npz"
ANSWERS: Final = "answers.npz"
FAULT: Final = "fault.txt"
BLOCK_ROWS: Final = 4_096
LARGE_BYTES, FEW_ROWS = 4 * 1024 * 1024, 16
"""Of a model whose file is large, whose rows may be wide inside of the graph, so few at once."""
CODES, TEXTS = "codes:", "texts:"


def save(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays of numbers, truth values and texts."""
    stored = {}
    for name, array in arrays.items():
        if array.dtype.kind in "OU":
            texts, codes = np.unique(array.astype(object).ravel(), return_inverse=True)
            stored[CODES + name] = codes.astype(np.int32).reshape(array.shape)
            stored[TEXTS + name] = np.frombuffer(json.dumps(texts.tolist()).encode(), dtype=np.uint8)
        else:
            stored[name] = array
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **stored)


def load(path: Path) -> dict[str, NDArray[Any]]:
    """Reads what `save` wrote."""
    found: dict[str, NDArray[Any]] = {}
    with np.load(path, allow_pickle=False) as stored:
        for name in stored.files:
            if name.startswith(CODES):
                texts = np.array(json.loads(stored[TEXTS + name[len(CODES) :]].tobytes()), dtype=object)
                found[name[len(CODES) :]] = texts[stored[name]]
            elif not name.startswith(TEXTS):
                found[name] = stored[name]
    return found


def _run(folder: Path) -> None:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(str(folder / MODEL), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    rows = load(folder / ROWS)
    count = len(next(iter(rows.values())))
    size = FEW_ROWS if (folder / MODEL).stat().st_size > LARGE_BYTES else BLOCK_ROWS
    blocks = [
        session.run(names, {name: array[at : at + size] for name, array in rows.items()})
        for at in range(0, count, size)
    ]
    save(folder / ANSWERS, {name: np.concatenate(parts) for name, *parts in zip(names, *blocks, strict=True)})


def main() -> None:
    """Answers the rows in each folder that is named."""
    for folder in map(Path, sys.argv[1:]):
        try:
            _run(folder)
        except Exception as error:  # onnxruntime raises several unrelated classes
            fault = (str(error).strip().splitlines() or [type(error).__name__])[0]
            (folder / FAULT).write_text(fault, encoding="utf-8")


if __name__ == "__main__":
    main()
