"""The reference: on which bins the device counts, and what the training data looked like on them.

The bins are frozen in the bundle, so merging windows over devices and time is the addition of integers, and a drift
test needs no raw row. `bins_id` is a hash of the bins alone: two bundles with equal bins can be compared directly.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final

import msgspec

from edgekit_contracts import limits
from edgekit_contracts.decode import decode_json
from edgekit_contracts.errors import FormatError
from edgekit_contracts.manifest import ClassLabel
from edgekit_contracts.names import Count

FORMAT: Final = "edgekit-reference/1.1"

LATENCY_DECADES: Final = 7
LATENCY_BINS_PER_DECADE: Final = 10
LATENCY_FIRST_EDGE_US: Final = 1.0
LATENCY_BINS: Final = LATENCY_DECADES * LATENCY_BINS_PER_DECADE + 2
"""Log-spaced from 1 us to 10 s, with an open bin at each end: a percentile read from them is within 26 % (one bin)."""


def latency_edges_us() -> tuple[float, ...]:
    """Upper edges of all latency bins but the last, in microseconds."""
    count = LATENCY_DECADES * LATENCY_BINS_PER_DECADE + 1
    return tuple(LATENCY_FIRST_EDGE_US * 10 ** (i / LATENCY_BINS_PER_DECADE) for i in range(count))


class FeatureBins(msgspec.Struct, frozen=True, kw_only=True):
    """The bins of one feature. Either `edges` (numbers) or `categories` (text)."""

    name: str
    edges: tuple[float, ...] = ()
    """Inner edges, strictly increasing: value v is in bin `number of edges below v`, so bins are (e[i-1], e[i]]."""
    categories: tuple[str, ...] | None = None
    """One bin each, and a last one for every other text."""
    minimum: float | None = None
    maximum: float | None = None
    """Range of the reference data: what lies outside is counted as out of range as well."""

    @property
    def size(self) -> int:
        """Number of bins."""
        return len(self.edges if self.categories is None else self.categories) + 1


class Bins(msgspec.Struct, frozen=True, kw_only=True):
    """All bins of a model: what `bins_id` is the hash of."""

    features: tuple[FeatureBins, ...]
    classes: tuple[ClassLabel, ...]
    """Empty for a regression."""
    score_edges: tuple[float, ...]
    """Inner edges for the confidence (largest probability) or the predicted value."""

    @property
    def score_size(self) -> int:
        """Number of score bins."""
        return len(self.score_edges) + 1


class Distance(msgspec.Struct, frozen=True, kw_only=True):
    """How far a row lies from the reference data, all numeric features together: a change of their correlation shows.

    The squared Mahalanobis distance under a covariance of a few principal components and one variance for all other
    directions. With z = (row - center) / scale, 0 where a value is missing and bounded by +-1000, it is
    `rest * sum(z^2) - sum(weights * (components @ z)^2)`. Source: Tipping and Bishop 1999, "Probabilistic Principal
    Component Analysis", J. R. Statist. Soc. B 61.
    """

    center: tuple[float, ...]
    """For each numeric feature in the bins' order."""
    scale: tuple[Annotated[float, msgspec.Meta(ge=0)], ...]
    """Likewise; 0 for one that never varied, which then has no part in it."""
    components: tuple[tuple[float, ...], ...]
    """[components, numeric features]."""
    weights: tuple[float, ...]
    """For each component 1 / (variance of the rest) - 1 / (its own variance)."""
    rest: float
    """1 / (variance of every direction that is no component)."""
    edges: tuple[float, ...]
    """Inner edges of its bins, strictly increasing."""

    @property
    def size(self) -> int:
        """Number of bins."""
        return len(self.edges) + 1

    @property
    def name(self) -> bytes:
        """The 4 bytes that windows name it by: the first of its JSON's SHA-256."""
        read_back = msgspec.json.decode(msgspec.json.encode(self), type=Distance)
        return hashlib.sha256(msgspec.json.encode(read_back)).digest()[:4]


class FeatureCounts(msgspec.Struct, frozen=True, kw_only=True):
    """One feature of the reference data, on its bins."""

    bins: tuple[Count, ...]
    null: Count
    mean: float | None = None
    m2: float | None = None
    """Sum of squared deviations from the mean (Welford), so that deviation = sqrt(m2 / (n - 1))."""


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """The bins and the reference data's counts on them."""

    format: str = FORMAT
    bins: Bins
    rows: Annotated[int, msgspec.Meta(ge=1)]
    features: tuple[FeatureCounts, ...]
    classes: tuple[Count, ...]
    scores: tuple[Count, ...]
    distance: Distance | None = None
    """None where fewer than two numeric features vary, or the data is too small to tell."""
    distances: tuple[Count, ...] = ()
    """The reference rows by their distance, each measured by what the other rows say."""

    @property
    def bins_id(self) -> bytes:
        """The 8 bytes that name the bins."""
        return bins_id(self.bins)


def bins_id(bins: Bins) -> bytes:
    """First 8 bytes of the SHA-256 of the bins' JSON in declared order."""
    # Read back once: an edge given as the integer 18 must hash like the 18.0 that a reader sees.
    read_back = msgspec.json.decode(msgspec.json.encode(bins), type=Bins)
    return hashlib.sha256(msgspec.json.encode(read_back)).digest()[:8]


def decode_reference(data: bytes) -> Reference:
    """Reads `reference.json`.

    Raises:
        TooLarge, UnsupportedFormat, FormatError: As `decode_json`; also where counts and bins do not agree.
    """
    reference = decode_json(data, Reference, what="reference", limit=limits.REFERENCE_MAX_BYTES, format=FORMAT)
    bins = reference.bins
    if len(reference.features) != len(bins.features):
        raise FormatError("reference", "$.features", "not one entry for each feature's bins")
    for index, (spec, counts) in enumerate(zip(bins.features, reference.features, strict=True)):
        if any(a >= b for a, b in zip(spec.edges, spec.edges[1:], strict=False)):
            raise FormatError("reference", f"$.bins.features[{index}].edges", "edges must increase")
        if len(counts.bins) != spec.size:
            raise FormatError("reference", f"$.features[{index}].bins", f"expected {spec.size} counts")
    if len(reference.classes) != len(bins.classes) or len(reference.scores) != bins.score_size:
        raise FormatError("reference", "$.classes", "the counts of the answers do not fit their bins")
    _check_distance(reference)
    return reference


def _check_distance(reference: Reference) -> None:
    distance = reference.distance
    if len(reference.distances) != (0 if distance is None else distance.size):
        raise FormatError("reference", "$.distances", "the counts do not fit the distance's bins")
    if distance is None:
        return
    numbers = sum(feature.categories is None for feature in reference.bins.features)
    widths = {len(distance.center), len(distance.scale), *(len(one) for one in distance.components)}
    if widths != {numbers}:
        raise FormatError("reference", "$.distance", f"not one number for each of {numbers} numeric features")
    if len(distance.weights) != len(distance.components):
        raise FormatError("reference", "$.distance.weights", "not one weight for each component")
    if any(a >= b for a, b in zip(distance.edges, distance.edges[1:], strict=False)):
        raise FormatError("reference", "$.distance.edges", "edges must increase")
    if not 2 <= distance.size <= limits.DISTANCE_MAX_BINS:
        raise FormatError(
            "reference", "$.distance.edges", f"{distance.size} bins; 2 to {limits.DISTANCE_MAX_BINS} allowed"
        )
