"""What people write into labels, images, reasons and names is data: no shell ever reads it."""

import ast
from pathlib import Path

import pytest

from support.workspace import ROOT, module_name, python_modules

SHELLS = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell", "create_subprocess_shell", "eval", "exec", "pickle.loads", "pickle.load",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load", "marshal.loads",
}  # fmt: skip
LOADS_WITH_A_SAFE_LOADER = {"navarch_common.config.document"}
"""Read YAML with a loader of their own, made from the safe one."""


@pytest.mark.parametrize("file", python_modules(), ids=module_name)
def test_nothing_that_was_written_by_people_is_run(file: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in SHELLS and not (name == "yaml.load" and module_name(file) in LOADS_WITH_A_SAFE_LOADER):
            found.append(f"line {node.lineno}: {name}()")
        if name.startswith(("subprocess.", "Popen")) and any(keyword.arg == "shell" for keyword in node.keywords):
            found.append(f"line {node.lineno}: {name}(shell=…)")
    assert not found, (
        f"{file.relative_to(ROOT)}: {'; '.join(found)}. Start programs with a list of arguments, and decode what comes "
        "from outside into a Struct"
    )
