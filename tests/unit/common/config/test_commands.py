"""`navarch config check` and `navarch config schema`, as a user runs them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from navarch_common.config.commands import config

GOOD = (
    "providers: {here: {type: local}}\n"
    "pools: {a: {instance_type: x, max_nodes: 2, autoscaling: {type: queue}}, b: {instance_type: y, max_nodes: 1}}\n"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "navarch.yaml"


def test_a_good_file_is_summed_up_in_a_few_lines(file: Path) -> None:
    file.write_text(GOOD)
    result = CliRunner().invoke(config, ["check", str(file)])
    assert result.exit_code == 0
    assert result.stdout.splitlines()[1:] == [
        "providers: here (local)",
        "pool a: 0 to 2 nodes, x on here, queue",
        "pool b: 0 to 1 nodes, y on here, kept at its desired count",
    ]
    assert result.stderr == ""


def test_a_bad_file_could_not_be_done_and_each_mistake_is_a_line_on_stderr(file: Path) -> None:
    file.write_text(GOOD.replace("max_nodes: 2", "max_node: 2"))
    result = CliRunner().invoke(config, ["check", str(file)])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        f"{file}:2:9: pools.a.max_nodes: this key is required",
        f"{file}:2:31: pools.a.max_node: unknown key 'max_node'; did you mean 'max_nodes'?",
        f"{file}: 2 mistakes; nothing was changed",
    ]


def test_a_file_that_is_not_there_could_not_be_done(file: Path) -> None:
    result = CliRunner().invoke(config, ["check", str(file)])
    assert result.exit_code == 1
    assert "cannot be read: No such file or directory" in result.stderr


def test_a_check_without_a_file_was_the_wrong_command() -> None:
    assert CliRunner().invoke(config, ["check"]).exit_code == 2


def test_a_file_is_checked_from_standard_input() -> None:
    result = CliRunner().invoke(config, ["check", "-"], input=GOOD)
    assert result.exit_code == 0


def test_insecure_is_taken_from_the_command_line(file: Path) -> None:
    file.write_text("server: {address: '0.0.0.0:1'}\n" + GOOD)
    assert CliRunner().invoke(config, ["check", str(file)]).exit_code == 1
    assert CliRunner().invoke(config, ["check", str(file), "--insecure"]).exit_code == 0


def test_the_schema_is_printed_as_json() -> None:
    result = CliRunner().invoke(config, ["schema"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["title"] == "Navarch configuration"


def test_the_schema_of_the_configuration_needs_neither_yaml_nor_typer() -> None:
    program = (
        "import sys, navarch_common.config, navarch_common.config.diff, navarch_common.config.describe; "
        "print([name for name in ('yaml', 'typer', 'rich', 'asyncio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "[]"
