"""Everything that can go wrong, as values: a sentence, the next step, an exit code.

Each class takes the facts and builds its own sentence, so that the same failure reads the same everywhere.
Foreign exceptions are wrapped where they occur; a traceback that reaches a person is a bug.

Exit codes: 1 refused for a stated reason; 2 usage or a missing extra; 3 the environment; 130 interrupted.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import ClassVar


class EdgekitError(Exception):
    """A failure that a person can act on.

    Attributes:
        sentence: What happened, in one sentence.
        next_step: What to do about it, in the imperative.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, sentence: str, next_step: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.next_step = next_step


# --- 1: refused for a stated reason ---------------------------------------------------------------------------------


class Refused(EdgekitError):
    """The request was understood, and the answer is no."""


class FormatError(Refused):
    """A document is not what its format says; `path` points at the fault."""

    def __init__(self, what: str, path: str, fault: str) -> None:
        where = f" at {path}" if path not in {"", "$"} else ""
        super().__init__(f"{what} is not valid{where}: {fault}", f"correct the {what}, or make it anew")
        self.what, self.path, self.fault = what, path, fault


class UnsupportedFormat(Refused):
    """A document of a newer major format, which this release must not guess at."""

    def __init__(self, what: str, found: str, supported: str) -> None:
        super().__init__(
            f"{what} has format {found}; this release reads {supported}",
            "update edgekit here, or rebuild the file with an older one",
        )
        self.found = found


class TooLarge(Refused):
    """A document passes a limit that is checked before it is parsed."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        super().__init__(
            f"{what} has {size:,} bytes; the limit is {limit:,}", f"make the {what} smaller than the limit"
        )


class BundleDamaged(Refused):
    """The bundle's bytes are not those that were written."""

    def __init__(self, bundle: str, fault: str) -> None:
        super().__init__(
            f"{bundle} is damaged: {fault}", "copy the bundle again from where it was built, or rebuild it"
        )
        self.fault = fault


class SignatureRefused(Refused):
    """The bundle is not signed by a key that is trusted here."""

    def __init__(self, bundle: str, fault: str) -> None:
        super().__init__(
            f"the signature of {bundle} is refused: {fault}",
            "check where the bundle comes from; trust its key by naming the public key file, or sign it again",
        )


class GoldenMismatch(Refused):
    """The model does not give the answers that were recorded when it was built."""

    def __init__(self, model: str, rows: int, wrong: int, detail: str) -> None:
        super().__init__(
            f"{model} fails its self-test here: {wrong} of {rows} golden rows differ ({detail})",
            "compare the onnxruntime version with the manifest's, and try another version of it",
        )


class ConversionRefused(Refused):
    """A step of the model has no faithful conversion."""

    def __init__(self, step: str, why: str, next_step: str) -> None:
        super().__init__(f"cannot convert {step}: {why}", next_step)
        self.step = step


class UnsupportedRuntime(Refused):
    """A release of onnxruntime that no model is written for."""

    def __init__(self, version: str, why: str, oldest: str) -> None:
        super().__init__(
            f"cannot convert for onnxruntime {version}: {why}",
            f"aim at another release of onnxruntime, {oldest} or newer",
        )
        self.version = version


class ParityBroken(Refused):
    """The converted model does not answer like the original."""

    def __init__(
        self,
        detail: str,
        next_step: str = "report the model's steps as an issue; until then, replace the step that differs",
    ) -> None:
        super().__init__(f"the converted model does not answer like the original: {detail}", next_step)
        self.detail = detail


class RuntimeDiffers(Refused):
    """The converted model answers otherwise on another release of onnxruntime."""

    def __init__(self, version: str, detail: str) -> None:
        super().__init__(
            f"onnxruntime {version} does not answer like the original model: {detail}",
            f"keep onnxruntime {version} off the devices, and aim at another release",
        )
        self.version = version


class DoesNotFit(Refused):
    """The model passes a limit of the device profile."""

    def __init__(self, profile: str, excess: Sequence[str]) -> None:
        super().__init__(
            f"the model does not fit {profile}: {'; '.join(excess)}",
            "choose a smaller model or a larger device, or change the limit in the profile",
        )


class BadInput(Refused):
    """A request's rows do not fit the model's features."""

    def __init__(self, feature: str, fault: str, next_step: str = "correct the request") -> None:
        super().__init__(f"feature '{feature}': {fault}" if feature else fault, next_step)
        self.feature = feature


class CannotResume(Refused):
    """What a run left unfinished was made of something else."""

    def __init__(self, target: str, difference: str) -> None:
        super().__init__(
            f"cannot go on with {target}: {difference} since its first rows were answered",
            "run it without --resume to begin anew",
        )


class EnrolmentRefused(Refused):
    """A certificate was not granted, or what was granted is not what was asked for."""


class AuthorityRefused(Refused):
    """The authority does not do what it was asked for."""


# --- 2: usage --------------------------------------------------------------------------------------------------------


class UsageError(EdgekitError):
    """The command or call was not given what it needs."""

    exit_code = 2


class MissingFile(UsageError):
    """A file that was named does not exist or cannot be read."""

    def __init__(self, what: str, path: str, reason: str = "no such file") -> None:
        super().__init__(f"cannot read the {what} {path}: {reason}", "check the path")


class MissingExtra(UsageError):
    """A library of an extra that is not installed."""

    def __init__(self, library: str, distribution: str, extra: str) -> None:
        super().__init__(
            f"this needs the library '{library}', which is not installed",
            f"pip install '{distribution}[{extra}]'",
        )


class UntrustedModel(UsageError):
    """A pickle or joblib file, which runs code when it is loaded."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} is a pickle, and loading a pickle runs whatever code is in it",
            "pass --trust if you made the file yourself, or save the model with skops.io.dump and build from that",
        )


class MissingCode(UsageError):
    """A model was saved with a class whose module is not here."""

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            f"{path} was saved with {what}, which is not here",
            "install its package, in the release that it was saved with, or put the folder of your own module on "
            "PYTHONPATH; what a script or a notebook defines must move into a module",
        )


class NotAModel(UsageError):
    """A file or object that no converter takes."""

    def __init__(self, found: str, supported: str) -> None:
        super().__init__(f"{found} is not a model that can be converted", f"give one of: {supported}")


class DataMismatch(UsageError):
    """The data lacks what the model was trained on."""

    def __init__(
        self, fault: str, next_step: str = "give the data that the model was trained on, or more of its kind"
    ) -> None:
        super().__init__(f"the data does not fit the model: {fault}", next_step)


class UnknownProfile(UsageError):
    """No device profile of that name."""

    def __init__(self, name: str, known: Sequence[str]) -> None:
        super().__init__(
            f"there is no device profile '{name}'",
            f"use one of {', '.join(known)}, or the path of a profile file",
        )


class UnknownName(UsageError):
    """A name (device, model, bundle) that breaks the rule for names."""

    def __init__(self, what: str, name: str, rule: str) -> None:
        super().__init__(f"'{name}' cannot be a {what}", f"use {rule}")


class BothInstalled(UsageError):
    """Both wheels in one environment: removing one would break the other."""

    def __init__(self) -> None:
        super().__init__(
            "edgekit-toolkit and edgekit-runtime are both installed here, and both hold the runtime's packages",
            "pip uninstall -y edgekit-runtime edgekit-toolkit, then install the toolkit alone: it contains the runtime",
        )


# --- 3: the environment ----------------------------------------------------------------------------------------------


class EnvironmentFault(EdgekitError):
    """The machine or the network does not give what is needed."""

    exit_code = 3


class RuntimeMissing(EnvironmentFault):
    """A release of onnxruntime that a model is to be checked on cannot be installed."""

    def __init__(self, version: str, here: str, reason: str, kept: str) -> None:
        super().__init__(
            f"onnxruntime {version} cannot be installed for {here}: {reason}",
            f"let pip reach a package index once (what it installs is kept in {kept}), "
            "use a Python that has a wheel of it, or build with --no-runtime-check",
        )
        self.version = version


class RuntimeUnfit(EnvironmentFault):
    """The installed onnxruntime does not run on this machine, or is known to answer wrongly."""

    def __init__(self, version: str, why: str, next_step: str) -> None:
        super().__init__(f"onnxruntime {version} {why}" if version else f"onnxruntime {why}", next_step)
        self.version = version


class BrokerUnreachable(EnvironmentFault):
    """No MQTT broker answers there."""

    def __init__(self, broker: str, reason: str) -> None:
        super().__init__(
            f"no MQTT broker answers at {broker}: {reason}",
            "start the broker, or correct the address and its TLS settings",
        )


class AuthorityUnreachable(EnvironmentFault):
    """No enrolment service answers there."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(
            f"no enrolment service answers at {address}: {reason}",
            "start it with `edgekit fleet enrol serve`, or correct the address",
        )


class PortInUse(EnvironmentFault):
    """The address to listen on is taken or not ours."""

    def __init__(self, address: str, reason: str, number: int | None = errno.EADDRINUSE) -> None:
        """Args: the address, what the system says, and the number of its error (below 0: of a host's name)."""
        if number == errno.EADDRINUSE:
            step = "stop the other process, or choose another port"
        elif address.startswith("unix:"):
            step = "choose a shorter path, or a folder that this user may write to"
        elif number in {errno.EACCES, errno.EPERM}:
            step = "choose a port from 1024 on: lower ones are for root"
        elif number == errno.EADDRNOTAVAIL or (number is not None and number < 0):
            step = "name an address of this machine: 127.0.0.1, or 0.0.0.0 for all that it has"
        else:
            step = "choose another address or port"
        super().__init__(f"cannot listen on {address}: {reason}", step)


class StorageFault(EnvironmentFault):
    """A file of ours cannot be written or read."""

    def __init__(self, path: str, reason: str, next_step: str = "check its permissions and the free space") -> None:
        super().__init__(f"cannot use {path}: {reason}", next_step)
