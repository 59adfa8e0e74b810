"""What we show people works as it stands."""

from pathlib import Path

import pytest
import yaml

from navarch_common.config.load import load_file, load_text
from support.workspace import ROOT, members

EXAMPLES = sorted((ROOT / "deploy/examples").glob("*.yaml"))


def test_there_are_examples() -> None:
    assert EXAMPLES, "deploy/examples holds a configuration for each way to run"


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_configuration_loads(file: Path) -> None:
    assert load_file(file, env={}).config.pools, f"{file.name} runs nothing"


def test_the_configuration_in_the_compose_file_loads() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    assert load_text(compose["configs"]["navarch"]["content"], "compose.yaml", env={}).config.pools


def test_the_compose_file_starts_only_programs_that_we_have() -> None:
    compose = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    scripts = {name for member in members() for name in member.project.get("scripts", {})}
    started = {service["command"][0] for service in compose["services"].values() if service["image"] == "navarch"}
    assert started <= scripts, f"{sorted(started - scripts)}: no member of the workspace brings these"
