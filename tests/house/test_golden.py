"""What travels and what is stored is read by other releases and by strangers: it changes on purpose or not at all."""

import json
from typing import Any

import msgspec
import pytest

from support import golden

REGENERATE = ".venv/bin/python tests/golden/regenerate.py"
KINDS = pytest.mark.parametrize(("name", "kind"), sorted(golden.types().items()), ids=sorted(golden.types()))


def stored(name: str) -> dict[str, Any]:
    file = golden.DIRECTORY / f"{name}.json"
    assert file.exists(), f"{name} is new: run {REGENERATE} and commit what it writes"
    content: dict[str, Any] = json.loads(file.read_text())
    return content


@KINDS
def test_a_schema_changes_on_purpose_only(name: str, kind: type[msgspec.Struct]) -> None:
    assert golden.golden(kind)["schema"] == stored(name)["schema"], (
        f"the schema of {name} changed. Fields may be added with a default; anything else breaks another release that "
        f"runs beside this one. If the change is wanted: {REGENERATE}"
    )


@KINDS
def test_a_stored_sample_is_read_and_written_back_whole(name: str, kind: type[msgspec.Struct]) -> None:
    sample = stored(name)["sample"]
    decoded = msgspec.json.decode(json.dumps(sample), type=kind)
    assert json.loads(msgspec.json.encode(decoded)) == sample


@KINDS
def test_a_field_of_a_later_release_is_ignored(name: str, kind: type[msgspec.Struct]) -> None:
    sample = stored(name)["sample"]
    later = {**sample, "a_field_of_a_later_release": {"deep": [1, 2, 3]}}
    assert msgspec.json.decode(json.dumps(later), type=kind) == msgspec.json.decode(json.dumps(sample), type=kind)


@KINDS
def test_a_sample_shows_every_field(name: str, kind: type[msgspec.Struct]) -> None:
    missing = {field.encode_name for field in msgspec.structs.fields(kind)} - set(stored(name)["sample"])
    assert not missing, f"the sample of {name} lacks {sorted(missing)}: run {REGENERATE}"


def test_no_golden_file_is_left_of_a_type_that_is_gone() -> None:
    left = {file.stem for file in golden.DIRECTORY.glob("*.json")} - set(golden.types())
    assert not left, f"{sorted(left)}: other releases still send or store these; if that is over, run {REGENERATE}"
