"""One request's way: who answers it, who does if that fails, and what is noted of it.

A request takes its `Route` once and keeps it: rows are encoded, answered and counted by what the route names, whatever
is exchanged meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import numpy as np

from edgekit_contracts.errors import BadInput, EdgekitError, Refused
from edgekit_contracts.manifest import Manifest
from edgekit_runtime.engine import Answers, Batch, Engine
from edgekit_runtime.interface import rewritten, takes_alike
from edgekit_runtime.observe import Observer
from edgekit_runtime.oversight.automation import Oversight
from edgekit_runtime.oversight.intake import Intake
from edgekit_runtime.ring import Held
from edgekit_runtime.single import Single
from edgekit_runtime.source import Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_runtime.strategies.shadow import Shadow

ServedBy = Literal["live", "canary", "candidate", "fallback", "safe"]
"""`candidate`: the client asked for its version by name."""

_log = logging.getLogger("edgekit.route")


class Member:
    """A bundle in service.

    Args:
        engine: What answers.
        observer: What counts.
        oversight: How far its answers may go by themselves; by default as far as its manifest says.
        intake: Where its doubtful answers go.
        sha256: Of the bundle.
        group_rows: Up to so many rows of requests that arrive together are answered by one call; 1: each by its own.
        source: Carries its windows to the outbox.
    """

    def __init__(
        self,
        engine: Engine,
        observer: Observer,
        oversight: Oversight | None = None,
        intake: Intake | None = None,
        *,
        sha256: str = "",
        group_rows: int = 1,
        source: Source | None = None,
    ) -> None:
        self.sha256, self.source, self.group_rows = sha256, source, group_rows
        self.engine, self.observer, self.intake = engine, observer, intake
        self.manifest = engine.manifest
        self.oversight = oversight or Oversight(self.manifest)
        self.single = Single(observer)
        """Its rows that come alone."""
        self._confirms = self.oversight.level == "confirm"
        marks = {"edgekit_automation": self.oversight.level, "edgekit_abstain": False}
        if self._confirms:
            marks["edgekit_needs_confirmation"] = True
        self._parameters: dict[ServedBy, dict[str, Any]] = {
            name: {**marks, "edgekit_served_by": name} for name in ("live", "canary", "candidate", "fallback", "safe")
        }

    @property
    def plain(self) -> bool:
        """Whether a client gets its answers as they are, and no person but those that are doubtful."""
        return self.oversight.level in {"act", "advise"}

    def marks(self, name: ServedBy) -> Mapping[str, Any]:
        """What is said of an answer that is neither withheld nor doubtful."""
        return self._parameters[name]

    def reply(self, batch: Batch, said: Answers, name: ServedBy) -> Reply:
        """What the client gets of this bundle's answers."""
        judged = self.oversight.judge(said)
        parameters = self._parameters[name if self.oversight.level != "shadow" else "safe"]
        if judged.doubtful is None:
            return Reply(judged.answers, self.manifest, parameters, self, batch, said)
        rows = np.flatnonzero(judged.doubtful).tolist()
        marks = {**parameters, "edgekit_abstain": True}
        if batch.rows > 1:
            # The protocol's parameters are single values.
            marks["edgekit_abstain_rows"] = ",".join(map(str, rows))
        return Reply(judged.answers, self.manifest, marks, self, batch, said, rows)

    def safe_reply(self, batch: Batch) -> Reply:
        """The owner's answer, where no bundle gave one."""
        return Reply(
            self.oversight.safe_answers(batch.rows), self.manifest, self._parameters["safe"], None, batch, None
        )

    def consider(self, reply: Reply, request: str | None) -> None:
        """Hands rows of this bundle's answers that a person should see to the review queue."""
        if self.intake is None or reply.said is None:
            return
        doubtful = reply.doubtful or []
        if doubtful:
            self.intake.offer(reply.batch, reply.said, doubtful, "abstain", request)
        if self._confirms:
            others = sorted(set(range(reply.batch.rows)) - set(doubtful))
            self.intake.offer(reply.batch, reply.said, others, "confirm", request)


class Reply(msgspec.Struct, frozen=True, eq=False, gc=False):
    """The answer to one request."""

    answers: Answers
    """What the client gets."""
    manifest: Manifest
    """Of the bundle that answered; of the live one for a safe answer."""
    parameters: Mapping[str, Any]
    """Of the response: level of automation, abstention, who answered."""
    member: Member | None
    """Who answered; None for a safe answer."""
    batch: Batch
    """The rows as that bundle takes them."""
    said: Answers | None
    """What the model said: this is counted, whatever the client gets."""
    doubtful: list[int] | None = None
    """Rows below the bundle's threshold."""


class Route:
    """Who answers one request, and who does if that fails.

    Args:
        front: The bundle whose features the client sends.
        first: Who answers.
        name: What the answer is marked with.
        rest: Who answers where `first` fails, in this order.
        shadow: Sees the request too.
    """

    __slots__ = ("_alike", "_name", "_rest", "_shadow", "_single", "first", "front", "groups", "marks")
    _name: ServedBy

    def __init__(
        self,
        front: Member,
        first: Member,
        name: ServedBy,
        rest: tuple[Member, ...] = (),
        shadow: Shadow | None = None,
    ) -> None:
        self.front, self.first, self._name, self._rest, self._shadow = front, first, name, rest, shadow
        self._alike = takes_alike(front.manifest, first.manifest)
        self._single = first.single if first is front and first.plain else None
        self.marks = first.marks(name)
        """Of an answer that `hold` gives."""
        self.groups = first is front and first.group_rows > 1
        """Whether requests that arrive together are answered by one call of `engine`."""

    @property
    def engine(self) -> Engine:
        """Encodes the client's rows."""
        return self.front.engine

    @property
    def manifest(self) -> Manifest:
        """What the client's rows are checked against."""
        return self.front.manifest

    @property
    def observer(self) -> Observer:
        """Counts requests that are refused or fail."""
        return self.front.observer

    def reply(self, batch: Batch, said: Answers) -> Reply:
        """What the client gets of answers that `engine` gave, where this route groups."""
        return self.first.reply(batch, said, self._name)

    def answer(self, batch: Batch) -> Reply:
        """The answers to rows that `engine` encoded.

        Raises:
            BadInput: As `Engine.run` of the front bundle.
            Refused: No bundle answers, and the owner set no safe answer.
        """
        first = self.first
        try:
            rows = batch if self._alike else rewritten(batch, self.front.manifest, first.engine)
            return first.reply(rows, first.engine.run(rows), self._name)
        except Exception as error:
            return self._fall_back(batch, error)

    def hold(self, row: NDArray[np.float64]) -> Held | None:
        """The answer to one row that needs no more than to be counted; it is to be given to `note_held`.

        Args:
            row: [numeric features], in the order of the front bundle's tensor.

        Returns:
            None where `answer` is to be asked: a person is to see the row, or the ring does not take it.

        Raises:
            BadInput: The model has no answer for it.
        """
        if self._single is None:
            return None
        held = self._single.hold(row, 0)
        if held is not None and self.first.oversight.doubts(held[0]):
            return None
        return held

    def note_held(self, row: NDArray[np.float64], held: Held, latency_us: float, *, resent: bool = False) -> None:
        """Counts what `hold` answered, and shows it to the shadow; further arguments as of `note`."""
        self.first.single.note(held, round(1000 * latency_us))
        if self._shadow is not None:
            self._shadow.offer_row(row, held[0], latency_us)
        if resent:
            self.first.observer.count_resent()

    def note(
        self, batch: Batch, reply: Reply, latency_us: float, *, resent: bool = False, request: str | None = None
    ) -> None:
        """Counts an answered request, shows it to the shadow, and hands what is doubtful to the review queue.

        Args:
            batch: Its rows.
            reply: The answer.
            latency_us: From the request's arrival to its answer.
            resent: The same request was answered shortly before.
            request: The id that the client gave.
        """
        if reply.member is None or reply.said is None:
            self.front.observer.count_failed()
            return
        reply.member.observer.record(reply.batch, reply.said, latency_us, resent=resent)
        reply.member.consider(reply, request)
        if self._shadow is not None and reply.member is self.front:
            self._shadow.offer(batch, reply.said, latency_us)

    def _fall_back(self, batch: Batch, error: Exception) -> Reply:
        front, failed = self.front, [self.first]
        for member in self._rest:
            self._refuse_rows(failed[-1], error)
            try:
                rows = rewritten(batch, front.manifest, member.engine)
                reply = member.reply(rows, member.engine.run(rows), "fallback")
            except Exception as next_error:
                error = next_error
                failed.append(member)
                continue
            for one in failed:
                one.observer.count_failed()
            return reply
        self._refuse_rows(failed[-1], error)
        for one in failed:
            if one is not front:  # whose failure is counted with the request's
                one.observer.count_failed()
        if front.oversight.has_safe:
            return front.safe_reply(batch)
        if isinstance(error, EdgekitError):
            raise error
        raise Refused(
            f"no bundle answers for {front.manifest.title}: {error}",
            "see the log; set safe_answer of this model in device.toml for such a case",
        ) from error

    def _refuse_rows(self, failed: Member, error: Exception) -> None:
        """Where the rows are at fault, and not the bundle, who sent them must know."""
        if failed is self.front and isinstance(error, BadInput):
            raise error
        _log.error("%s failed on a request: %s", failed.manifest.title, error)
