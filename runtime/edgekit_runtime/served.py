"""The models that this device serves: which bundle answers a request.

An exchange is one assignment of a new table; a bundle that is let go ends with the last request that holds it.

A model has up to three bundles in memory. *Live* answers. A *candidate* is tried: as shadow it sees the requests and is
never heard, as canary it answers a share of the keys, as blue-green it waits to be activated. *Former* was live before:
it answers where live fails, and is back at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from edgekit_contracts.errors import Refused
from edgekit_contracts.manifest import Manifest
from edgekit_contracts.slots import Plan
from edgekit_runtime.interface import unlike
from edgekit_runtime.route import Member, Route
from edgekit_runtime.strategies.canary import is_chosen

if TYPE_CHECKING:
    from edgekit_runtime.strategies.shadow import Shadow


class Trial(msgspec.Struct, frozen=True):
    """A candidate and how it is tried."""

    member: Member
    plan: Plan
    shadow: Shadow | None = None

    def chooses(self, key: bytes) -> bool:
        """Whether a canary answers this key."""
        salt = self.plan.salt or self.member.sha256
        return is_chosen(key, salt.encode()[:64], self.plan.share)


class Lineup(msgspec.Struct, frozen=True):
    """The bundles of one model."""

    live: Member
    candidate: Trial | None = None
    former: Member | None = None


class _Table:
    """The routes of one line-up."""

    def __init__(self, lineup: Lineup) -> None:
        live, trial = lineup.live, lineup.candidate
        former = () if lineup.former is None or unlike(live.manifest, lineup.former.manifest) else (lineup.former,)
        self.lineup = lineup
        self.live = Route(live, live, "live", former, None if trial is None else trial.shadow)
        self.canary: Route | None = None
        self.versions = {live.manifest.version: Route(live, live, "live", shadow=self.live._shadow)}
        if trial is not None and trial.plan.strategy != "shadow":
            self.versions[trial.member.manifest.version] = Route(trial.member, trial.member, "candidate")
            if trial.plan.strategy == "canary":
                self.canary = Route(live, trial.member, "canary", (live, *former))


class Served:
    """One model's name, and the bundles behind it. Safe to use from several threads.

    Args:
        lineup: Its bundles.
    """

    def __init__(self, lineup: Lineup) -> None:
        self._lock = threading.Lock()
        self._table = _Table(lineup)

    @property
    def lineup(self) -> Lineup:
        """The bundles there are."""
        return self._table.lineup

    def route(self, key: bytes = b"") -> Route:
        """Who answers.

        Args:
            key: What a request is about (a machine, a patient), or its bytes where it does not say: requests of one
                key are answered by one bundle for as long as nothing is exchanged.
        """
        table = self._table
        trial = table.lineup.candidate
        if table.canary is not None and trial is not None and trial.chooses(key):
            return table.canary
        return table.live

    def version(self, version: str) -> Route | None:
        """Who answers for a client that asks for this version and no other; None where it is not served."""
        return self._table.versions.get(version)

    @property
    def versions(self) -> Sequence[str]:
        """Those that `version` knows, the live one first."""
        return tuple(self._table.versions)

    def stage(self, trial: Trial) -> Lineup:
        """Begins to try a candidate, in the place of another one.

        Returns:
            What there was before.

        Raises:
            Refused: As `check_trial`.
        """

        def staged(now: Lineup) -> Lineup:
            check_trial(now.live.manifest, trial.member.manifest, trial.plan)
            return msgspec.structs.replace(now, candidate=trial)

        return self._exchange(staged)

    def replace(self, lineup: Lineup) -> Lineup:
        """Puts other bundles in the place of all that there are.

        Returns:
            What there was before.
        """
        return self._exchange(lambda now: lineup)

    def activate(self) -> Lineup:
        """The candidate becomes live; what was live stays warm as the former one.

        Returns:
            What there was before.

        Raises:
            Refused: There is no candidate.
        """

        def activated(now: Lineup) -> Lineup:
            return Lineup(_candidate(now).member, None, now.live)

        return self._exchange(activated)

    def go_back(self) -> Lineup:
        """The former bundle becomes live again, and what was live the former one; a trial ends.

        Returns:
            What there was before.

        Raises:
            Refused: There is no former bundle.
        """

        def back(now: Lineup) -> Lineup:
            if now.former is None:
                raise Refused(
                    f"there is no former bundle of {now.live.manifest.title} to return to",
                    "stage and activate the one that you want",
                )
            return Lineup(now.former, None, now.live)

        return self._exchange(back)

    def promote(self) -> Lineup:
        """Makes it final: a candidate becomes live, and no former bundle is kept.

        Returns:
            What there was before.
        """
        return self._exchange(lambda now: Lineup(now.live if now.candidate is None else now.candidate.member))

    def drop(self) -> Lineup:
        """Ends the trial; the candidate is let go.

        Returns:
            What there was before.

        Raises:
            Refused: There is no candidate.
        """

        def dropped(now: Lineup) -> Lineup:
            _candidate(now)
            return msgspec.structs.replace(now, candidate=None)

        return self._exchange(dropped)

    def _exchange(self, change: Callable[[Lineup], Lineup]) -> Lineup:
        with self._lock:
            before = self._table.lineup
            self._table = _Table(change(before))
        return before


def check_trial(live: Manifest, candidate: Manifest, plan: Plan) -> None:
    """Whether a bundle may be tried beside a live one.

    Raises:
        Refused: It is of another model, has the live version's number, or (but as blue-green) takes other rows or gives
            other answers.
    """
    if candidate.name != live.name:
        raise Refused(f"{candidate.title} is no version of {live.name}", "stage it at its own model's name")
    if candidate.version == live.version:
        raise Refused(f"{live.title} is live already", "build the candidate with another --version")
    if plan.strategy != "blue-green" and (what := unlike(live, candidate)) is not None:
        raise Refused(
            f"{candidate.title} cannot be tried on the requests of {live.title}: its {what} differ",
            "stage it as blue-green, and activate it once the clients speak to the new one",
        )


def _candidate(lineup: Lineup) -> Trial:
    if lineup.candidate is None:
        raise Refused(f"there is no candidate beside {lineup.live.manifest.title}", "stage one first")
    return lineup.candidate
