"""The manifest as far as conversion knows it, so that the Engine can run the model before anything is proved."""

from __future__ import annotations

from edgekit_contracts.manifest import FORMAT, FORMAT_1, MODEL_PATH, TASKS_1, Lineage, Manifest, Parity, Variant
from edgekit_converters.registry import Conversion

UNKNOWN: Lineage = Lineage(
    model_sha256=None,
    model_type="unknown",
    data_sha256="0" * 64,
    data_origin="unknown",
    data_rows=0,
    code_revision=None,
    libraries={},
)


def draft_manifest(
    name: str, version: str, conversion: Conversion, runtime: str, lineage: Lineage = UNKNOWN
) -> Manifest:
    """A manifest whose parity, quality, budgets, bins and files come later.

    Args:
        name: The model's name.
        version: Its version.
        conversion: The converted model.
        runtime: The onnxruntime that it was made for.
        lineage: Where it comes from.
    """
    variant = Variant(
        name="reference",
        file=MODEL_PATH,
        precision=conversion.precision,
        opset=conversion.opset,
        ml_opset=conversion.ml_opset,
        ir=conversion.ir,
        runtime=runtime,
        operators=conversion.operators,
    )
    decides = {"label", "value"} <= {output.role for output in conversion.outputs}
    return Manifest(
        format=FORMAT_1 if conversion.task in TASKS_1 and not decides else FORMAT,
        name=name,
        version=version,
        task=conversion.task,
        classes=conversion.classes,
        features=conversion.features,
        inputs=conversion.inputs,
        outputs=conversion.outputs,
        variants=(variant,),
        budgets=(),
        parity=Parity(rows=0, label_mismatches=0, ties=0, max_difference=0.0, tolerance=0.0, method="none yet"),
        lineage=lineage,
        bins_id="0" * 16,
        files=(),
    )
