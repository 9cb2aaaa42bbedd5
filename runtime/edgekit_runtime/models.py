"""Several models in one process: tried, exchanged and let go, by what the settings say and a person commands.

Loading takes seconds and may fail: it runs on a thread of its own, and what answers goes on until the new one has
passed its self-test. A command is carried out first and kept on disk then; where that fails the exchange holds until
the next start, and says so. The settings say what a model begins with. A command holds over restarts until the settings
of that model change.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from edgekit_contracts.alerts import EventName
from edgekit_contracts.decode import decode_json
from edgekit_contracts.errors import EdgekitError, GoldenMismatch, MissingFile, StorageFault, UsageError
from edgekit_contracts.limits import CONFIG_MAX_BYTES
from edgekit_contracts.slots import Candidate, ModelSlots, Plan, Slot
from edgekit_contracts.state import Running
from edgekit_runtime.assembly import Assembly, configured
from edgekit_runtime.config import CandidateSettings, DeviceConfig, ModelSettings
from edgekit_runtime.events import Events
from edgekit_runtime.interface import unlike
from edgekit_runtime.route import Member
from edgekit_runtime.selftest import GoldenResult, SelfTest
from edgekit_runtime.served import Lineup, Served, Trial, check_trial
from edgekit_runtime.showing import describe, titles
from edgekit_runtime.source import Source
from edgekit_runtime.vouching import Vouching
from edgekit_runtime.yielding import give_way

if TYPE_CHECKING:
    from edgekit_runtime.reporter import Reporter

Command = Literal["stage", "activate", "return", "promote", "drop"]
_TOLD: Final[dict[Command, EventName]] = {
    "stage": "staged",
    "activate": "activated",
    "return": "returned",
    "promote": "promoted",
    "drop": "dropped",
}
COMMANDS: Final[frozenset[Command]] = frozenset({"stage", "activate", "return", "promote", "drop"})

_log = logging.getLogger("edgekit.models")


class _Unit(msgspec.Struct):
    """One model: what the settings say of it, and what serves."""

    settings: ModelSettings
    configured: str
    served: Served


class Models:
    """The models of one device.

    Args:
        config: The device's settings.
        say: Takes a line for a person at each step of loading.
        events: Where exchanges and refusals are told.
        vouching: Knows who signed bundles that were verified already.

    Raises:
        EdgekitError: A bundle that the settings name does not load.
    """

    def __init__(
        self,
        config: DeviceConfig,
        say: Callable[[str], None],
        events: Events | None = None,
        vouching: Vouching | None = None,
    ) -> None:
        self._events = events or Events()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="edgekit-models", initializer=give_way)
        self._assembly = Assembly(config, say, self._worker, self._events, vouching)
        self._units: dict[str, _Unit] = {}
        self.served: dict[str, Served] = {}
        """Name -> model; changed in place."""
        self.changed: Callable[[], None] = lambda: None
        """Called after an exchange."""
        for unit in self._load((one, configured(one)) for one in config.served):
            self._put_in(unit)

    # --- what others ask --------------------------------------------------------------------------------------------

    @property
    def running(self) -> tuple[Running, ...]:
        """What is live, for the device's status at the centre."""
        return tuple(_running(served.lineup.live) for served in list(self.served.values()))

    def status(self) -> list[dict[str, Any]]:
        """Every model with its bundles, for people."""
        return [describe(served.lineup) for served in list(self.served.values())]

    # --- the service's life -----------------------------------------------------------------------------------------

    def report_to(self, reporter: Reporter) -> Iterable[Source]:
        """From now on windows go to this reporter.

        Returns:
            What it begins with.
        """
        # Behind an exchange that is under way, whose bundle would be in neither list.
        return self._worker.submit(self._report_to, reporter).result()

    def _report_to(self, reporter: Reporter) -> list[Source]:
        self._assembly.reporter = reporter
        reporter.verdicts = self._assembly.verdicts
        sources = []
        for served in self.served.values():
            for member in _members(served.lineup):
                if member.source is not None:
                    member.source.idles = member is not served.lineup.live
                    sources.append(member.source)
        return sources

    def stop(self) -> None:
        """Ends trials and writes what waits for the review queue; what is live could still answer."""
        self._worker.shutdown(wait=True)
        for served in self.served.values():
            _end_shadow(served.lineup.candidate)
            for member in _members(served.lineup):
                if member.intake is not None:
                    member.intake.stop()

    def close(self) -> None:
        """Closes the review queue, which a reporter asks for verdicts until its own end."""
        self._assembly.close()

    # --- commands ---------------------------------------------------------------------------------------------------

    def command(self, name: str, command: Command, body: bytes = b"") -> Future[dict[str, Any]]:
        """Carries out a command on a thread of its own.

        Args:
            name: The model.
            command: `stage` tries the bundle that `body` names; `activate` makes the candidate live and keeps the one
                that was; `return` makes that one live again; `promote` makes it final; `drop` ends the trial.
            body: JSON of `CandidateSettings`, for `stage`.

        Returns:
            What `describe` says then, or the error.
        """
        return self._worker.submit(self._command, name, command, body)

    def apply(self, config: DeviceConfig) -> Future[list[str]]:
        """Goes over to other settings: all of the models, or none where one of them does not load.

        Returns:
            A line for each model that changed, or the error.
        """
        return self._worker.submit(self._apply, config)

    def test(self) -> Future[SelfTest]:
        """Replays the golden set of every bundle in service, on the engine that answers.

        A live one that answers wrongly gives way to its former bundle, where there is one that takes and gives the same
        and passes; it is not kept. A candidate or a former one that does is let go.

        Returns:
            What was found, or the error.
        """
        return self._worker.submit(self._test)

    def _test(self) -> SelfTest:
        results, faults = list[GoldenResult](), list[str]()
        for unit in list(self._units.values()):
            try:
                results.append(self._assembly.test(unit.served.lineup.live, unit.settings))
            except GoldenMismatch as wrong:
                results.append(self._fall_back(unit, wrong))
                faults.append(self._wrong(wrong, f"{unit.served.lineup.live.manifest.title} answers instead"))
            for member in _members(unit.served.lineup)[1:]:
                try:
                    results.append(self._assembly.test(member, unit.settings))
                except GoldenMismatch as wrong:
                    self._let_go(unit, member)
                    faults.append(self._wrong(wrong, "it is let go"))
                except MissingFile:
                    pass  # as `_slots`: a former bundle's file may be gone
        return SelfTest(tuple(results), tuple(faults))

    def _wrong(self, wrong: GoldenMismatch, consequence: str) -> str:
        fault = f"{wrong.sentence}; {consequence}"
        _log.error("self-test: %s", fault)
        self._events.tell("self-test failed", fault)
        return fault

    def _let_go(self, unit: _Unit, member: Member) -> None:
        """Lets go what stands beside the live bundle."""
        lineup = unit.served.lineup
        beside = {"former": None} if member is lineup.former else {"candidate": None}
        self._change(unit, msgspec.structs.replace(lineup, **beside))

    def _fall_back(self, unit: _Unit, wrong: GoldenMismatch) -> GoldenResult:
        """Returns to the former bundle; raises what was wrong where that cannot be."""
        lineup = unit.served.lineup
        if lineup.former is None or unlike(lineup.live.manifest, lineup.former.manifest) is not None:
            raise wrong
        try:
            result = self._assembly.test(lineup.former, unit.settings)
        except EdgekitError:
            raise wrong from None
        self._change(unit, Lineup(lineup.former))
        return result

    def _change(self, unit: _Unit, lineup: Lineup) -> None:
        self._settle(unit.served.replace(lineup), lineup)
        self._kept()
        self.changed()

    def _command(self, name: str, command: Command, body: bytes) -> dict[str, Any]:
        unit = self._units.get(name)
        if unit is None:
            raise UsageError(f"there is no model '{name[:64]}' here", f"name one of {', '.join(self._units)}")
        served = unit.served
        exchanges: dict[Command, Callable[[], Lineup]] = {
            "stage": lambda: self._stage(unit, body),
            "activate": lambda: self._widened(unit).activate(),
            "return": served.go_back,
            "promote": lambda: self._widened(unit).promote(),
            "drop": served.drop,
        }
        before = exchanges[command]()
        self._settle(before, served.lineup)
        del before  # the last that holds what was let go
        found = describe(served.lineup)
        _log.info("%s: %s", command, titles(served.lineup))
        self._events.tell(_TOLD[command], titles(served.lineup))
        if (fault := self._kept()) is not None:
            found["warning"] = fault
        self.changed()
        return found

    def _kept(self) -> str | None:
        """Keeps an exchange for the next start; a sentence where the disk takes nothing."""
        try:
            self._keep()
        except StorageFault as fault:
            said = f"a restart returns to what was before: {fault.sentence}"
            _log.error("%s", said)
            return said
        return None

    def _stage(self, unit: _Unit, body: bytes) -> Lineup:
        order = decode_json(body, CandidateSettings, what="order", limit=CONFIG_MAX_BYTES)
        path = Path(order.bundle)
        if not path.is_absolute():
            raise UsageError(f"'{path}' is a relative path", "name the bundle with its whole path")
        member = self._assembly.candidate(path, unit.settings, order)
        live = unit.served.lineup.live
        check_trial(live.manifest, member.manifest, order)
        self._assembly.store.keep(path, member.sha256)
        return unit.served.stage(self._assembly.trial(live, member, order))

    def _widened(self, unit: _Unit) -> Served:
        """The model, its shadow loaded anew where it was to have more threads than the one that a shadow gets."""
        served, threads = unit.served, unit.settings.threads or self._assembly.config.serve.threads
        trial = served.lineup.candidate
        if trial is not None and trial.shadow is not None and threads > 1:
            path = self._assembly.find(unit.settings, trial.member.sha256)
            if path is None:
                raise MissingFile("bundle", trial.member.manifest.title, "it lies nowhere any more")
            trial.shadow.stop()
            served.stage(Trial(self._assembly.member(path, unit.settings), Plan(strategy="blue-green")))
        return served

    def _apply(self, config: DeviceConfig) -> list[str]:
        before = self._assembly.config
        self._assembly.config = config
        try:
            lines = self._go_over(config)
        except BaseException:
            self._assembly.config = before
            raise
        if lines:
            try:
                self._keep()
            except StorageFault as fault:
                # What was commanded before is kept with the settings of then, and counts no more.
                _log.warning("nothing is kept for a restart: %s", fault.sentence)
            self.changed()
        return lines

    def _go_over(self, config: DeviceConfig) -> list[str]:
        present = {unit.configured: name for name, unit in self._units.items()}
        wanted = [(one, configured(one)) for one in config.served]  # which reads every bundle
        same = {present[digest] for _, digest in wanted if digest in present}
        fresh = self._load((one for one in wanted if one[1] not in present), beside=same)
        lines = []
        for unit in fresh:
            lineup = unit.served.lineup
            before = self._units.get(lineup.live.manifest.name)
            if before is None:
                self._put_in(unit)
                lines.append(f"{lineup.live.manifest.title} is served")
                continue
            old = before.served.lineup
            if old.live.sha256 != lineup.live.sha256:
                lineup = msgspec.structs.replace(lineup, former=old.live)
            before.settings, before.configured = unit.settings, unit.configured
            before.served.replace(lineup)
            self._settle(old, lineup)
            was, title = old.live.manifest.title, lineup.live.manifest.title
            same_bundle = old.live.sha256 == lineup.live.sha256
            lines.append(f"{title} has other settings" if same_bundle else f"{was} gives way to {title}")
            del old
        for name in set(self._units) - same - {unit.served.lineup.live.manifest.name for unit in fresh}:
            _end_shadow(self._units[name].served.lineup.candidate)
            lines.append(f"{name} is served no more")
            del self._units[name], self.served[name]
        for unit in self._units.values():
            for member in _members(unit.served.lineup):
                if member.source is not None:
                    member.source.resize(self._assembly.window_s(member.manifest))
        return lines

    def _load(self, models: Iterable[tuple[ModelSettings, str]], beside: Iterable[str] = ()) -> list[_Unit]:
        """Loads models of these settings and their digests; none of them answers yet."""
        units: list[_Unit] = []
        names = set(beside)
        kept = {one.configured: one for one in self._assembly.store.read()}
        try:
            for settings, digest in models:
                lineup = self._assembly.lineup(settings, kept.get(digest))
                units.append(_Unit(settings, digest, Served(lineup)))
                name = lineup.live.manifest.name
                if name in names:
                    raise UsageError(f"two models of the settings are called '{name}'", "build one with another --name")
                names.add(name)
        except BaseException:
            for unit in units:
                _end_shadow(unit.served.lineup.candidate)
            raise
        return units

    def _put_in(self, unit: _Unit) -> None:
        name, live = unit.served.lineup.live.manifest.name, unit.served.lineup.live
        self._units[name], self.served[name] = unit, unit.served
        if live.source is not None:
            live.source.idles = False

    def _settle(self, before: Lineup, now: Lineup) -> None:
        """After an exchange: a trial that ended stops, and the window of what is not live any more is closed."""
        if before.candidate is not None and before.candidate is not now.candidate:
            _end_shadow(before.candidate)
        for member in _members(now):
            if member.source is not None:
                member.source.idles = member is not now.live
        if before.live is not now.live and before.live.source is not None:
            before.live.source.idles = True
            if self._assembly.reporter is not None:
                self._assembly.reporter.close_window(before.live.source)

    def _keep(self) -> None:
        units = list(self._units.values())
        self._assembly.store.write(map(self._slots, units))
        self._assembly.store.prune(member.sha256 for unit in units for member in _members(unit.served.lineup))

    def _slots(self, unit: _Unit) -> ModelSlots:
        """What is kept of a model."""
        lineup, candidate, former = unit.served.lineup, None, None
        if lineup.candidate is not None:
            plan = Plan(**{name: getattr(lineup.candidate.plan, name) for name in Plan.__struct_fields__})
            candidate = Candidate(slot=_slot(lineup.candidate.member), plan=plan)
        # Where the settings name another bundle now, the file of the former one may be gone.
        if lineup.former is not None and self._assembly.find(unit.settings, lineup.former.sha256) is not None:
            former = _slot(lineup.former)
        return ModelSlots(
            model=lineup.live.manifest.name,
            configured=unit.configured,
            live=_slot(lineup.live),
            candidate=candidate,
            former=former,
        )


def _members(lineup: Lineup) -> list[Member]:
    trial = None if lineup.candidate is None else lineup.candidate.member
    return [one for one in (lineup.live, trial, lineup.former) if one is not None]


def _running(member: Member) -> Running:
    manifest = member.manifest
    return Running(model=manifest.name, version=manifest.version, bundle_sha256=member.sha256, bins_id=manifest.bins_id)


def _slot(member: Member) -> Slot:
    return Slot(version=member.manifest.version, sha256=member.sha256)


def _end_shadow(trial: Trial | None) -> None:
    if trial is not None and trial.shadow is not None:
        trial.shadow.stop()
