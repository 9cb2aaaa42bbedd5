"""Looks at a foreign file in a process of its own, with bounds on memory, time and files.

What is found comes back as one sentence; that the process dies is one too.

Source: setrlimit(2): RLIMIT_AS, RLIMIT_CPU, RLIMIT_FSIZE.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Final

from edgekit_contracts import limits
from edgekit_contracts.errors import ConversionRefused, EdgekitError, FormatError, NotAModel, TooLarge

MEMORY_BYTES: Final = 4 * 1024 * limits.MIB
"""Address space of the child, beside `MEMORY_FACTOR` times the file."""
MEMORY_FACTOR: Final = 8
SECONDS: Final = 60
"""Of computing; loading and running one row of a model that fits a device takes a second or two."""

REFUSALS: Final = (ConversionRefused, FormatError, NotAModel, TooLarge)


def confined(
    module: str, data: bytes, what: str, *arguments: str, seconds: int = SECONDS, written_bytes: int = 0
) -> None:
    """Has a module look at a file's bytes: it ends with `if __name__ == "__main__": look(...)`.

    Args:
        module: Its name.
        data: The file's bytes.
        what: The file's name, for the sentence.
        arguments: More for the module.
        seconds: Computing time of the child.
        written_bytes: At most in one file that it writes, in a folder that is removed.

    Raises:
        ConversionRefused, FormatError, NotAModel, TooLarge: What it found.
        FormatError: It asks for too much memory or time, or does not survive.
    """
    memory = MEMORY_BYTES + MEMORY_FACTOR * len(data)
    bounds = [str(one) for one in (memory, seconds, written_bytes)]
    # -P: a file 'onnx.py' in the current directory is not ours to run.
    command = [sys.executable, "-P", "-m", module, *bounds, what, *arguments]
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TMPDIR": folder}
        try:
            done = subprocess.run(
                command, input=data, capture_output=True, timeout=10 * seconds, check=False, env=environment
            )
            answer = json.loads(done.stdout) if done.returncode == 0 else None
        except (subprocess.TimeoutExpired, json.JSONDecodeError):
            done, answer = None, None
    if answer is None:
        raise FormatError(what, "$", _how_it_died(done.returncode if done is not None else None, memory, seconds))
    if answer:
        kind = next(one for one in REFUSALS if one.__name__ == answer["error"])
        error = kind.__new__(kind)
        EdgekitError.__init__(error, answer["sentence"], answer["next_step"])
        raise error


def look(at: Callable[..., None]) -> None:
    """In the child: calls `at(data, what, *arguments)` within the bounds, and says what it refuses."""
    memory, seconds, written = map(int, sys.argv[1:4])
    what, *arguments = sys.argv[4:]
    for bound, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, written),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
    ):
        resource.setrlimit(bound, (value, value))
    answer: dict[str, str] = {}
    try:
        at(sys.stdin.buffer.read(), what, *arguments)
    except REFUSALS as error:
        answer = _said(error)
    except MemoryError:
        answer = _said(FormatError(what, "$", f"reading it takes more than {memory / 2**30:.0f} GiB of memory"))
    print(json.dumps(answer))


def _said(error: EdgekitError) -> dict[str, str]:
    return {"error": type(error).__name__, "sentence": error.sentence, "next_step": error.next_step}


def _how_it_died(code: int | None, memory: int, seconds: int) -> str:
    if code is None or -code in {signal.SIGXCPU, signal.SIGKILL}:
        return f"to read it and answer one row takes more than {seconds} s"
    died = signal.Signals(-code).name if code < 0 and -code in set(signal.Signals) else f"exit code {code}"
    return f"a process that reads it and answers one row does not survive it in {memory / 2**30:.0f} GiB ({died})"
