from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from edgekit_contracts import schema
from tests.telemetry_samples import REFERENCE

FORMATS = Path(__file__).parents[2] / "docs" / "formats"


@pytest.mark.parametrize("name", schema.DOCUMENTS)
def test_the_schema_in_docs_is_the_one_of_the_types(name: str) -> None:
    assert (FORMATS / f"{name}.schema.json").read_bytes() == schema.document(name), "run 'make schema'"


@pytest.mark.parametrize("name", schema.DOCUMENTS)
def test_every_schema_is_a_valid_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schema.document(name)))


def test_no_schema_is_left_over() -> None:
    assert {path.name for path in FORMATS.glob("*.schema.json")} == {f"{name}.schema.json" for name in schema.DOCUMENTS}


def test_a_document_and_its_schema_agree() -> None:
    tree: Any = json.loads(msgspec.json.encode(REFERENCE))
    validator = jsonschema.Draft202012Validator(json.loads(schema.document("reference")))
    validator.validate(tree)
    del tree["bins"]
    assert not validator.is_valid(tree)
