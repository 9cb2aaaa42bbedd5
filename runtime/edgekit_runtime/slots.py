"""The bundles that a device keeps, and which of them is which: files in the state directory.

`slots.json` is replaced in one step, and a bundle is there whole or not at all, so that a crash or a power cut leaves
the old choice or the new one. A bundle that was staged is copied here: who staged it may take his file away.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edgekit_contracts.decode import encode_json
from edgekit_contracts.errors import FormatError, StorageFault, TooLarge
from edgekit_contracts.slots import ModelSlots, Slots, decode_slots
from edgekit_runtime import digests
from edgekit_runtime.replacing import replace

FILE: Final = "slots.json"
FOLDER: Final = "bundles"

_log = logging.getLogger("edgekit.slots")


class SlotStore:
    """The state directory's bundles.

    Args:
        state_dir: The state directory; made when something is first kept.
    """

    def __init__(self, state_dir: Path) -> None:
        self._file, self._folder = state_dir / FILE, state_dir / FOLDER

    def read(self) -> tuple[ModelSlots, ...]:
        """What was kept; nothing where there is no file, or one that is damaged.

        Raises:
            UnsupportedFormat: A newer release wrote it.
            StorageFault: It is there and cannot be read.
        """
        try:
            return decode_slots(self._file.read_bytes()).models
        except (FileNotFoundError, NotADirectoryError):
            return ()
        except OSError as error:
            raise StorageFault(str(self._file), error.strerror or str(error)) from error
        except (FormatError, TooLarge) as error:
            # The settings say what to run without it.
            _log.error("%s is ignored: %s", self._file, error.sentence)
            return ()

    def write(self, models: Iterable[ModelSlots]) -> None:
        """Keeps the choice, durably.

        Raises:
            StorageFault: The old one stands.
        """
        replace(self._file, encode_json(Slots(models=tuple(models)), indent=2))

    def keep(self, source: Path, sha256: str) -> None:
        """Copies a bundle here, unless it is here already, and whole.

        Args:
            source: The file.
            sha256: What its bytes were when they were checked.

        Raises:
            StorageFault: It cannot be copied, or has changed meanwhile.
        """
        target = self.path(sha256)
        if digests.file_sha256(target) == sha256:
            return
        try:
            data = source.read_bytes()
        except OSError as error:
            raise StorageFault(str(source), error.strerror or str(error)) from error
        if digests.sha256(data).hexdigest() != sha256:
            raise StorageFault(str(source), "it changed while it was staged")
        replace(target, data)

    def path(self, sha256: str) -> Path:
        """Where a bundle is kept, if it is."""
        return self._folder / f"{sha256}.edge"

    def prune(self, wanted: Iterable[str]) -> None:
        """Removes all bundles but these."""
        names = {self.path(sha256).name for sha256 in wanted}
        with contextlib.suppress(OSError):  # no folder yet, or a disk that cannot be written: the next time will do
            for path in list(self._folder.iterdir()):
                if path.name not in names:
                    path.unlink()
