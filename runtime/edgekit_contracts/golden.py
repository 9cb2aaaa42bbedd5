"""The golden set: inputs and the original model's answers, which travel in the bundle.

The same check runs at build, at install, at each start of the service, after every runtime upgrade, and on demand.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_json
from edgekit_contracts.errors import FormatError
from edgekit_contracts.manifest import ClassLabel

FORMAT: Final = "edgekit-golden/1.0"


class GoldenSet(msgspec.Struct, frozen=True, kw_only=True):
    """Rows and their answers, column by column.

    `columns[f][i]` is row i's value of feature f, in the manifest's order; null is a missing value. The answers are the
    original model's, so a runtime that is wrong in the same way as the converter is still caught.
    """

    format: str = FORMAT
    features: tuple[str, ...]
    columns: tuple[tuple[float | str | None, ...], ...]
    labels: tuple[ClassLabel, ...] = ()
    probabilities: tuple[tuple[float, ...], ...] = ()
    values: tuple[tuple[float, ...], ...] = ()
    tolerance: Annotated[float, msgspec.Meta(ge=0)]
    """Allowed difference of a probability (absolute) or a value (relative to max(1, |value|))."""

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.columns[0])


def decode_golden(data: bytes) -> GoldenSet:
    """Reads `golden.json`.

    Raises:
        TooLarge, UnsupportedFormat, FormatError: As `decode_json`; also where lengths do not agree.
    """
    golden = decode_json(data, GoldenSet, what="golden set", limit=limits.GOLDEN_MAX_BYTES, format=FORMAT)
    if not golden.columns or len(golden.columns) != len(golden.features):
        raise FormatError("golden set", "$.columns", "not one column for each feature")
    lengths = {len(column) for column in golden.columns}
    lengths |= {len(part) for part in (golden.labels, golden.probabilities, golden.values) if part}
    if lengths != {golden.rows} or golden.rows == 0:
        raise FormatError("golden set", "$", "its parts have different numbers of rows")
    if not golden.labels and not golden.values:
        raise FormatError("golden set", "$", "it has no answers")
    return golden
