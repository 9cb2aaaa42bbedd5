"""The models that this device serves: which bundle answers a request, and what is noted of it.

A request takes its `Route` once and keeps it: rows are encoded, answered and counted by one bundle, whatever is
exchanged meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgekit_contracts.manifest import Manifest
from edgekit_runtime.engine import Answers, Batch, Engine
from edgekit_runtime.observe import Observer


@dataclass(frozen=True, slots=True)
class Route:
    """The bundle that answers one request."""

    engine: Engine
    observer: Observer

    @property
    def manifest(self) -> Manifest:
        """Of the bundle."""
        return self.engine.manifest

    def answer(self, batch: Batch) -> Answers:
        """The answers to rows that `engine` encoded.

        Raises:
            BadInput, Refused: As `Engine.run`.
        """
        return self.engine.run(batch)

    def note(self, batch: Batch, answers: Answers, latency_us: float, *, resent: bool = False) -> None:
        """Counts an answered request; see `Observer.record`."""
        self.observer.record(batch, answers, latency_us, resent=resent)


class Served:
    """One model's name, and the bundle behind it.

    Args:
        engine: What answers.
        observer: What counts.
    """

    def __init__(self, engine: Engine, observer: Observer) -> None:
        self._route = Route(engine, observer)

    def route(self, key: str | None = None) -> Route:
        """Who answers.

        Args:
            key: What a request is about (a machine, a patient); requests of one key are answered by one bundle.
        """
        return self._route
