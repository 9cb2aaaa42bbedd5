"""Requests that arrive together, answered by one call of the model, where its settings ask for it (ADR 0043).

A group is what one turn of the event loop finds, and is answered at that turn's end. Nobody waits for others to come:
where one client alone has sent something, it is answered at once.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from edgekit_runtime.engine import Answers, Batch
from edgekit_runtime.route import Route
from edgekit_runtime.serving.loop import Loop
from edgekit_runtime.serving.message import Request

Done = Callable[[Answers | None], None]
"""Told what the model says of a request's rows; None: they are to be answered by themselves."""


class Groups:
    """Requests that wait for the end of the loop's turn. Only for the loop's thread.

    Args:
        loop: Brings them.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._waiting: dict[Route, list[tuple[Batch, Done]]] = {}

    def takes(self, request: Request) -> bool:
        """Whether a request may have come with others; those of a broker come on another thread."""
        return request.whole is not None and self._loop.ready > 1

    def add(self, route: Route, batch: Batch, done: Done) -> None:
        """Has a request answered at the end of this turn.

        Args:
            route: Who answers.
            batch: Its rows.
            done: Called then.
        """
        if not self._waiting:
            self._loop.soon(self._answer)
        self._waiting.setdefault(route, []).append((batch, done))

    def _answer(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for route, requests in waiting.items():
            while requests:
                group = [requests.pop(0)]
                rows = group[0][0].rows
                while requests and rows + requests[0][0].rows <= route.first.group_rows:
                    rows += requests[0][0].rows
                    group.append(requests.pop(0))
                _answer_together(route, group)


def _answer_together(route: Route, group: list[tuple[Batch, Done]]) -> None:
    """One call for all of them; where it fails each is answered by itself, so that who is to blame is told."""
    said: Answers | None = None
    if len(group) > 1:
        with suppress(Exception):
            said = route.engine.run(Batch.joined([batch for batch, _ in group]))
    start = 0
    for batch, done in group:
        done(None if said is None else said.part(start, start + batch.rows))
        start += batch.rows
