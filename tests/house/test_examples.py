"""What we show people works as it stands."""

from pathlib import Path

import pytest

from navarch_common.config.load import load_file
from support.workspace import ROOT

EXAMPLES = sorted((ROOT / "deploy/examples").glob("*.yaml"))


def test_there_are_examples() -> None:
    assert EXAMPLES, "deploy/examples holds a configuration for each way to run"


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_configuration_loads(file: Path) -> None:
    assert load_file(file, env={}).config.pools, f"{file.name} runs nothing"
