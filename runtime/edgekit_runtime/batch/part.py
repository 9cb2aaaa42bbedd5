"""The file that is being made: it grows by whole segments, and takes its name when all is written."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TextIO

from edgekit_contracts.errors import EnvironmentFault
from edgekit_runtime.batch.journal import Checkpoint, Journal, Origin
from edgekit_runtime.batch.tables import End, Position, Segment
from edgekit_runtime.replacing import sync


class Sink(Protocol):
    """Where segments go."""

    eager: bool
    """Whether it wants each chunk at once."""

    @property
    def start(self) -> Position:
        """How far the rows are that it has already."""
        ...

    def append(self, segment: Segment, position: Position) -> None:
        """Adds the rows up to `position`."""
        ...


class Stream:
    """An open text file, which cannot be gone on with."""

    start = Position()
    eager = True

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def append(self, segment: Segment, position: Position) -> None:
        """Writes them."""
        self._file.write(bytes(segment.data).decode())


class Part:
    """A file beside `target` that takes its name at the end.

    Nobody else writes it meanwhile; what was appended is on disk when `append` returns.

    Args:
        target: The file to be.
        origin: What the answers are made of.
        head: The first bytes of such a file.
        end: What follows its last row.
        resume: Go on with what a former run left.

    Attributes:
        start: How far the rows are that it has already.

    Raises:
        CannotResume: What is there was made of something else.
        EnvironmentFault: Another process writes it.
        OSError: It cannot be written.
    """

    eager = False

    def __init__(self, target: Path, origin: Origin, head: bytes, end: End | None, *, resume: bool) -> None:
        self._target, self._head, self._end = target, len(head), end
        self._path = target.with_name(f".{target.name}.part")
        self._journal = Journal(target.with_name(f".{target.name}.journal"))
        self._file = _locked(self._path, target)
        try:
            size = os.fstat(self._file).st_size
            last = self._journal.resume(origin, size, target) if resume and size else None
            if last is None:
                # The journal first: it must never speak of a file that has begun anew.
                self._journal.path.unlink(missing_ok=True)
                os.ftruncate(self._file, 0)
                _write(self._file, head)
                self._journal.begin(origin)
                _sync_directory(target)
                self._bytes = len(head)
            else:
                self._bytes = last.size
                os.ftruncate(self._file, self._bytes)
            os.lseek(self._file, 0, os.SEEK_END)
            self.start = Position() if last is None else last.position
        except BaseException:
            os.close(self._file)
            raise

    def append(self, segment: Segment, position: Position) -> None:
        """Adds the rows up to `position`.

        Raises:
            OSError: The disk is full, or fails.
        """
        _write(self._file, segment.data)
        os.fsync(self._file)
        self._bytes += len(segment.data)
        checkpoint = Checkpoint(
            rows=position.rows,
            offset=position.offset,
            line=position.line,
            size=self._bytes,
            footer=segment.footer,
        )
        self._journal.append(checkpoint)

    def finish(self) -> None:
        """Gives the file its name.

        Raises:
            OSError: As `append`.
            ValueError: The segments do not make one file.
        """
        if self._end is not None:
            _write(self._file, self._end(self._footers()))
            os.fsync(self._file)
        os.replace(self._path, self._target)
        self._journal.path.unlink(missing_ok=True)
        _sync_directory(self._target)

    def _footers(self) -> Iterator[tuple[int, bytes]]:
        """Where each segment begins, and its footer."""
        start = self._head
        for checkpoint in self._journal.read():
            yield start, checkpoint.footer or b""
            start = checkpoint.size

    def discard(self) -> None:
        """Leaves nothing behind."""
        self._journal.path.unlink(missing_ok=True)
        self._path.unlink(missing_ok=True)

    def close(self) -> None:
        """Lets others write it."""
        os.close(self._file)


def _locked(path: Path, target: Path) -> int:
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            _lock(file)
            # The run that held it may just have given the file its name: then the lock is that finished file's.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(file)):
                return file
        except BlockingIOError as error:
            os.close(file)
            raise EnvironmentFault(
                f"another run is writing {target}", "wait for it, or write to another file"
            ) from error
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _lock(file: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems have no locks: then nobody but the person keeps two runs apart.
        if error.errno not in {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise


def _write(file: int, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _sync_directory(file: Path) -> None:
    # Not every file system does this, and not every directory may be opened: the data itself is synced already.
    with suppress(OSError):
        sync(file.resolve().parent)
