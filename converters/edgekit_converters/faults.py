"""What a foreign library's error says, for a sentence of ours."""

from __future__ import annotations

import re


def first_line(error: BaseException) -> str:
    """What an error says, in at most 200 characters without onnxruntime's codes and places in its source."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    return re.sub(r"/onnxruntime_src/\S+:\d+ .*?\) (?=[A-Z])", "", line).strip()[:200]
