"""ONNX Runtime's session: how it is opened, and the two shortest ways through its Python layer.

`InferenceSession.run` checks in Python what an Engine knows already, which takes longer than a small model. The object
under it (`_sess`) is asked directly, with run options made once: for a call without any, ONNX Runtime makes its own
each time. Where a release of onnxruntime has no such object, the public methods are called: the same answers, a
microsecond or two later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec
import onnxruntime as ort

from edgekit_contracts import limits
from edgekit_contracts.errors import EnvironmentFault, Refused
from edgekit_contracts.manifest import Manifest

if TYPE_CHECKING:
    from numpy.typing import NDArray


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How ONNX Runtime runs a model. With one thread a call, answers are equal bit for bit from run to run."""

    threads: int = 1
    """Threads inside one call."""
    spinning: bool = False
    """Whether threads wait for work by spinning: a worker that spins burns a core between requests."""
    arena: bool = True
    """Whether ONNX Runtime keeps the memory that it has allocated once."""
    optimisation: Literal["none", "basic", "extended", "all"] = "all"
    """How far ONNX Runtime rewrites the graph when it loads it."""


class Session(Protocol):
    """What an Engine needs of an `onnxruntime.InferenceSession`."""

    def run(self, names: Sequence[str], feed: Mapping[str, Any], /) -> Sequence[Any]:
        """The outputs of these names."""
        ...


class Bound(msgspec.Struct, frozen=True):
    """A call whose inputs and outputs lie in memory that was named once."""

    run: Callable[[], object]
    """Reads the bound inputs, writes the bound outputs."""
    results: Sequence[Any]
    """ONNX Runtime's values of the outputs, in order; `.numpy()` of those that it keeps itself (texts)."""
    memory: Sequence[NDArray[Any]]
    """What is read and written, kept alive."""


_LEVELS: Final = {
    "none": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}


def open_session(model: bytes, manifest: Manifest, settings: SessionSettings) -> ort.InferenceSession:
    """Loads a bundle's ONNX file.

    Raises:
        EnvironmentFault: This release of ONNX Runtime is known to answer wrongly.
        Refused: It does not load the model.
    """
    try:
        return session_of(model, settings)
    except EnvironmentFault:
        raise
    except Exception as error:  # onnxruntime raises several unrelated classes
        raise Refused(
            f"onnxruntime {ort.__version__} does not load {manifest.title}: {first_line(error)}",
            f"install onnxruntime {manifest.variant.runtime} or newer, or rebuild the bundle for this device",
        ) from error


def session_of(model: bytes, settings: SessionSettings) -> ort.InferenceSession:
    """Loads an ONNX file; raises whatever ONNX Runtime does.

    Raises:
        EnvironmentFault: This release of ONNX Runtime is known to answer wrongly.
    """
    if ort.__version__ in limits.WRONG_RUNTIMES:
        raise EnvironmentFault(
            f"onnxruntime {ort.__version__} answers wrongly for tree ensembles",
            "install another version of onnxruntime",
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = settings.arena
    options.graph_optimization_level = _LEVELS[settings.optimisation]
    options.log_severity_level = 4  # what fails is raised too; its lines on standard error would have no bounds
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if settings.spinning else "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def direct_run(session: Session) -> Callable[[Sequence[str], Mapping[str, Any]], Sequence[Any]]:
    """`session.run`, past the checks of its Python layer."""
    run = getattr(getattr(session, "_sess", None), "run", None)
    if run is None or not isinstance(session, ort.InferenceSession):
        return session.run
    options = ort.RunOptions()
    return lambda names, feed: run(names, feed, options)


def bind(
    session: Session, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any] | None]
) -> Bound | None:
    """A call of the session on memory that stays where it is; None where the session cannot do that.

    Args:
        session: ONNX Runtime's, or another.
        inputs: Name -> a contiguous array of the input's type.
        outputs: Name -> likewise, of the answer's shape; None: ONNX Runtime keeps the answer itself.
    """
    if not isinstance(session, ort.InferenceSession):
        return None
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    for name, kept in outputs.items():
        if kept is None:
            binding.bind_output(name, "cpu")
        else:
            binding.bind_output(name, "cpu", 0, kept.dtype.type, kept.shape, kept.ctypes.data)
    memory = [*inputs.values(), *(kept for kept in outputs.values() if kept is not None)]
    results = binding.get_outputs_as_ortvaluevector()
    run, inner = (
        getattr(getattr(session, "_sess", None), "run_with_iobinding", None),
        getattr(binding, "_iobinding", None),
    )
    if run is not None and inner is not None:
        return Bound(partial(run, inner, ort.RunOptions()), results, memory)
    # Here options cost more than they spare: the public method reads them, in 38 microseconds.
    return Bound(partial(session.run_with_iobinding, binding), results, memory)


def first_line(error: Exception) -> str:
    """What ONNX Runtime says, without its stack."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
