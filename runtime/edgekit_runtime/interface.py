"""Whether two bundles take the same rows and answer in the same form, and a batch of one in the form of the other."""

from __future__ import annotations

from edgekit_contracts.manifest import Feature, Manifest
from edgekit_runtime.engine import Batch, Column, Engine


def takes_alike(one: Manifest, other: Manifest) -> bool:
    """Whether a batch that was encoded and checked for one is a batch for the other."""

    def checks(feature: Feature) -> tuple[object, ...]:
        return feature.name, feature.nullable, feature.categories if feature.closed else None, feature.free

    return (one.inputs, one.missing_text) == (other.inputs, other.missing_text) and (
        [checks(feature) for feature in one.features] == [checks(feature) for feature in other.features]
    )


def unlike(live: Manifest, candidate: Manifest) -> str | None:
    """What keeps a candidate from answering the live model's requests: other features, or another form of answer."""
    aspects = {
        "features": ({one.name for one in live.features}, {one.name for one in candidate.features}),
        "task": (live.task, candidate.task),
        "outputs": (live.outputs, candidate.outputs),
        "classes": (live.classes, candidate.classes),
    }
    return next((what for what, (ours, theirs) in aspects.items() if ours != theirs), None)


def columns_of(batch: Batch, manifest: Manifest) -> dict[str, Column]:
    """The named columns that a batch was made of; None is a missing value."""
    columns: dict[str, Column] = {}
    for tensor in manifest.inputs:
        if tensor.dtype == "text":
            assert batch.text is not None
            for name, texts in zip(tensor.features, batch.text.T.tolist(), strict=True):
                columns[name] = [None if text == manifest.missing_text else text for text in texts]
        else:
            assert batch.numbers is not None
            columns.update(zip(tensor.features, batch.numbers.T, strict=True))
    return columns


def rewritten(batch: Batch, manifest: Manifest, engine: Engine) -> Batch:
    """A batch of one bundle, checked and encoded for another.

    Raises:
        BadInput: The other bundle has no answer for these rows, or reads other features.
    """
    if takes_alike(manifest, engine.manifest):
        return batch
    return engine.encode(columns_of(batch, manifest))
