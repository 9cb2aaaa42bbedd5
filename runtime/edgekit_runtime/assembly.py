"""From settings to bundles in service: what is loaded, what watches it, and what happens when it is let go."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgekit_contracts.errors import EdgekitError, MissingFile, StorageFault
from edgekit_contracts.manifest import Manifest
from edgekit_contracts.slots import ModelSlots, Plan, Slot
from edgekit_contracts.telemetry import Labels
from edgekit_runtime import digests
from edgekit_runtime.bundle import Bundle, read_bundle, read_file, vouched_bundle
from edgekit_runtime.config import CandidateSettings, DeviceConfig, ModelSettings
from edgekit_runtime.events import Events
from edgekit_runtime.loading import load_bundle
from edgekit_runtime.observe import Observer
from edgekit_runtime.oversight.automation import Oversight
from edgekit_runtime.oversight.intake import Intake
from edgekit_runtime.oversight.item import FILE
from edgekit_runtime.route import Member
from edgekit_runtime.selftest import GoldenResult, check_golden
from edgekit_runtime.served import Lineup, Trial, check_trial
from edgekit_runtime.signature import load_public_keys
from edgekit_runtime.single import Single
from edgekit_runtime.slots import SlotStore
from edgekit_runtime.source import Source
from edgekit_runtime.thrift import sends_moments
from edgekit_runtime.vouching import Vouching
from edgekit_runtime.yielding import rest

if TYPE_CHECKING:
    from edgekit_runtime.oversight.review import ReviewQueue
    from edgekit_runtime.reporter import Reporter

_log = logging.getLogger("edgekit.models")


def configured(settings: ModelSettings) -> str:
    """A hash of what the settings say of a model, the bytes of its bundles included."""
    files = [Path(settings.bundle), *_bundle_of(settings.candidate)]
    tree = msgspec.to_builtins(settings)
    if settings.group_rows is None:
        del tree["group_rows"]  # so that what was commanded before there was this setting still counts
    said = [msgspec.json.encode(tree), *(str(digests.file_sha256(file)).encode() for file in files)]
    return hashlib.sha256(b"\0".join(said)).hexdigest()


class Assembly:
    """Loads bundles and puts them into service.

    Args:
        config: The device's settings.
        say: Takes a line for a person at each step.
        worker: Runs what is left to do when a bundle is let go.
        events: Where what does not load is told.
        vouching: Knows who signed bundles that were verified already.
    """

    def __init__(
        self,
        config: DeviceConfig,
        say: Callable[[str], None],
        worker: Executor,
        events: Events,
        vouching: Vouching | None = None,
    ) -> None:
        self.config, self._events, self._vouching = config, events, vouching
        self.reporter: Reporter | None = None
        """Takes the windows, once there is telemetry."""
        self.store = SlotStore(Path(config.state_dir))
        self._say, self._worker = say, worker
        self._lock = threading.Lock()
        self._review: ReviewQueue | None = None

    def lineup(self, settings: ModelSettings, kept: ModelSlots | None) -> Lineup:
        """The bundles of one model: what a person commanded, if the settings are still those of then, else they.

        Args:
            settings: Of the model.
            kept: What was commanded of these settings.

        Raises:
            EdgekitError: The bundle that the settings name does not load.
        """
        if kept is not None:
            with self._surviving("what was commanded cannot be had back"):
                return self._kept(settings, kept)
        live = self.member(Path(settings.bundle), settings)
        plan = settings.candidate
        if plan is not None:
            with self._surviving("the candidate is left out"):
                return Lineup(live, self.trial(live, self.candidate(Path(plan.bundle), settings, plan), plan))
        return Lineup(live)

    def member(self, path: Path, settings: ModelSettings) -> Member:
        """Verifies, loads and tests a bundle, and puts it into service.

        Raises:
            EdgekitError: It may not answer here.
        """
        config = self.config
        loaded = load_bundle(self._open(path), threads=settings.threads or config.serve.threads)
        manifest = loaded.manifest
        self._say(f"verified    {manifest.title}, signed by key {loaded.signer.hint[:12]}")
        golden = loaded.golden
        self._say(f"self-test   {golden.rows} golden rows, largest difference {golden.max_difference:.2g}")
        oversight = Oversight(manifest, level=settings.automation, safe=settings.safe_answer)
        observer = Observer(self._counted(manifest), loaded.bins, loaded.distance)
        rest()
        source = Source(manifest, loaded.reference, loaded.bins_id, observer, self.window_s(manifest))
        intake = Intake(manifest, loaded.bins, self._queue, per_minute=config.review.per_minute)
        member = Member(
            loaded.engine,
            observer,
            oversight,
            intake,
            sha256=loaded.sha256,
            group_rows=settings.group_rows or 1,
            source=source,
        )
        if member.plain:
            member.single.learn(loaded.engine, loaded.sample)
        weakref.finalize(member, self._release, source, intake, member.single).atexit = False
        if self.reporter is not None:
            source.idles = True  # until it is live
            self.reporter.add(source)
        return member

    def _counted(self, manifest: Manifest) -> Manifest:
        """A manifest as the settings have it counted."""
        telemetry = self.config.telemetry
        moments = manifest.privacy.moments and (telemetry is None or sends_moments(telemetry))
        return msgspec.structs.replace(manifest, privacy=msgspec.structs.replace(manifest.privacy, moments=moments))

    def window_s(self, manifest: Manifest) -> float:
        """The length of a bundle's windows in seconds: the settings', else its own."""
        telemetry = self.config.telemetry
        return (telemetry.window_s if telemetry is not None else None) or manifest.monitoring.window_s

    def test(self, member: Member, settings: ModelSettings) -> GoldenResult:
        """Replays the golden set of a bundle in service; it is read from the bundle's file again.

        Raises:
            GoldenMismatch: It answers wrongly.
            EdgekitError: The file is gone, or another one.
        """
        path = self.find(settings, member.sha256)
        if path is None:
            raise MissingFile(f"bundle of {member.manifest.title}", settings.bundle, "another file lies there by now")
        return check_golden(member.engine, self._open(path).golden)

    def _open(self, path: Path) -> Bundle:
        """A bundle, verified here or already.

        Raises:
            EdgekitError: As `open_bundle`.
        """
        files = self.config.keys
        signers = {} if self._vouching is None else self._vouching.signers(files)
        keys = () if signers else load_public_keys(files)
        rest()
        data = read_file(path)
        sha256 = digests.sha256(data).hexdigest()
        if sha256 in signers:
            return vouched_bundle(data, path.name, sha256=sha256, signer=signers[sha256])
        return read_bundle(data, path.name, keys=keys or load_public_keys(files), digest=sha256)

    def find(self, settings: ModelSettings, sha256: str) -> Path | None:
        """The file of a bundle: one that the settings name, or one that is kept; None where there is none any more."""
        files = [self.store.path(sha256), Path(settings.bundle), *_bundle_of(settings.candidate)]
        return next((path for path in files if digests.file_sha256(path) == sha256), None)

    def candidate(self, path: Path, settings: ModelSettings, plan: Plan) -> Member:
        """A bundle in service that is tried: in one thread, where it runs beside the live one.

        Raises:
            EdgekitError: It may not answer here.
        """
        alone = plan.strategy == "shadow"
        return self.member(path, msgspec.structs.replace(settings, threads=1) if alone else settings)

    def trial(self, live: Member, member: Member, plan: Plan) -> Trial:
        """A bundle that is tried beside a live one; a shadow begins.

        Raises:
            Refused: As `check_trial`.
        """
        check_trial(live.manifest, member.manifest, plan)
        shadow = None
        if plan.strategy == "shadow":
            from edgekit_runtime.strategies.shadow import Shadow

            title = member.manifest.title
            shadow = Shadow(
                live.manifest, member, plan, lambda fault: self._events.tell("shadow stopped", f"{title}: {fault}")
            )
            shadow.start()
        return Trial(member, plan, shadow)

    def verdicts(self) -> list[Labels]:
        """What people said of the models' answers, where there is a review queue.

        Raises:
            StorageFault: It cannot be read.
        """
        there = self._review is not None or (Path(self.config.state_dir) / FILE).exists()
        return self._queue().verdicts() if there else []

    def close(self) -> None:
        """Closes the review queue."""
        with self._lock:
            if self._review is not None:
                self._review.close()

    def _kept(self, settings: ModelSettings, kept: ModelSlots) -> Lineup:
        def found(slot: Slot) -> Path:
            return self.find(settings, slot.sha256) or self.store.path(slot.sha256)

        live = self.member(found(kept.live), settings)
        lineup = Lineup(live)
        if kept.candidate is not None:
            with self._surviving("the candidate is left out"):
                plan = kept.candidate.plan
                member = self.candidate(found(kept.candidate.slot), settings, plan)
                lineup = msgspec.structs.replace(lineup, candidate=self.trial(live, member, plan))
        if kept.former is not None:
            with self._surviving("there is no return to the former bundle"):
                lineup = msgspec.structs.replace(lineup, former=self.member(found(kept.former), settings))
        return lineup

    @contextlib.contextmanager
    def _surviving(self, consequence: str) -> Iterator[None]:
        """What answers must not fail for what only stands beside it."""
        try:
            yield
        except EdgekitError as error:
            self._say(f"not loaded  {error.sentence}; {consequence}")
            _log.error("%s; %s", error.sentence, consequence)
            self._events.tell("bundle refused", f"{error.sentence}; {consequence}")

    def _queue(self) -> ReviewQueue:
        review, path = self.config.review, Path(self.config.state_dir) / FILE
        with self._lock:
            if self._review is None:
                try:
                    from edgekit_runtime.oversight.review import open_queue  # with SQLite
                except OSError as error:  # no descriptor is left to read it with
                    raise StorageFault(str(path), error.strerror or str(error)) from error
                self._review = open_queue(path, max_items=review.max_items, max_bytes=int(1e6 * review.max_mb))
            return self._review

    def _release(self, source: Source, intake: Intake, single: Single) -> None:
        """A bundle was let go by the last request that held it; called by whoever that was."""
        with contextlib.suppress(RuntimeError):  # the service has ended
            self._worker.submit(self._put_away, source, intake, single)

    def _put_away(self, source: Source, intake: Intake, single: Single) -> None:
        single.close()
        intake.stop()
        if self.reporter is not None:
            self.reporter.retire(source)
        give_back_memory()


def give_back_memory() -> None:
    """What was freed goes back to the system at once, where the C library can (glibc)."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _bundle_of(candidate: CandidateSettings | None) -> list[Path]:
    return [] if candidate is None else [Path(candidate.bundle)]
