"""`navarch config schema`: what editors are told about the file."""

import json

from navarch_common.config.describe import json_schema, notes
from navarch_common.config.schema import Config
from navarch_common.config.section import Section


def sections(root: type[Section] = Section) -> list[type[Section]]:
    return [section for child in root.__subclasses__() for section in (child, *sections(child))]


def test_every_key_of_the_schema_says_what_it_means() -> None:
    silent = [
        f"{section.__name__}.{field}"
        for section in sections()
        for field in section.__struct_fields__
        if field not in notes(section)
    ]
    assert not silent, f"{', '.join(silent)}: write unit, default and reason under the field"


def test_the_schema_is_json_in_the_file_s_own_forms() -> None:
    schema = json_schema()
    text = json.dumps(schema)
    assert schema["$ref"] == "#/$defs/Config"
    assert "\\\\Z" not in text
    assert "\\\\A" not in text
    assert '"PT' not in text
    assert schema["$defs"]["PoolConfig"]["properties"]["cooldown"]["default"] == "5m"
    assert schema["$defs"]["PoolConfig"]["properties"]["cooldown_period"]["deprecated"] is True
    assert set(schema["$defs"]["Config"]["properties"]) == set(Config.__struct_fields__)


def test_the_schema_forbids_unknown_keys_everywhere_but_for_others_adapters() -> None:
    definitions = json_schema()["$defs"]
    open_ones = {name for name, one in definitions.items() if one.get("additionalProperties") is not False}
    assert open_ones == {"ExternalProvider", "ExternalAutoscaling", "Share"}


def test_the_schema_takes_a_variable_where_a_number_is_expected() -> None:
    min_nodes = json_schema()["$defs"]["PoolConfig"]["properties"]["min_nodes"]
    assert {"type": "string", "pattern": r"\$\{"} in min_nodes["anyOf"]
