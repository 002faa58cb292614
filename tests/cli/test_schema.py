"""`tickwork schema`: valid schemas, and what Tickwork prints fits them."""

from __future__ import annotations

import jsonschema
import pytest

from tests.cli.process import Cli
from tickwork.cli.schema import SCHEMAS


def test_the_names_are_listed(cli: Cli) -> None:
    assert {row["name"] for row in cli("schema", "--json").json} == set(SCHEMAS)
    assert "records" in cli("schema").out


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_is_a_valid_schema(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name][1]())


def test_references_lead_somewhere() -> None:
    validator = jsonschema.Draft202012Validator(SCHEMAS["records"][1]())
    assert list(validator.iter_errors({"neither": 1}))


def test_the_command_prints_the_schema(cli: Cli) -> None:
    assert cli("schema", "outcome").json == SCHEMAS["outcome"][1]()
