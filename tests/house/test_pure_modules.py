"""Decisions are functions: what is known and `now` go in, a value with its reason comes out."""

import ast
from pathlib import Path

import pytest

from support.workspace import ROOT, module_name, python_modules, settings

PURE_BY_DESIGN = {
    "navarch_provisioner": ["plan", "lifecycle", "placement", "budget", "bootstrap"],
    "navarch_health": ["policy", "verdict", "liveness", "episodes"],
    "navarch_autoscaler": ["strategies", "limits"],
    "navarch_agent": ["checks"],
    "navarch_common": ["model", "events", "xid"],
}
"""Modules and packages that the architecture names as pure, those that are not written yet included."""

IMPURE_CALLS = {
    "datetime.now", "datetime.utcnow", "datetime.today", "date.today",
    "uuid.uuid1", "uuid.uuid4", "uuid4", "uuid1",
    "secrets.token_hex", "secrets.token_bytes", "secrets.token_urlsafe", "token_hex",
    "open", "input", "print",
}  # fmt: skip
"""Calls that read a clock, draw a number or touch the outside without importing one of the forbidden modules."""


def pure_contract() -> dict[str, list[str]]:
    contracts = settings()["importlinter"]["contracts"]
    return next(contract for contract in contracts if contract["name"].startswith("pure modules"))


def listed(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in pure_contract()["source_modules"])


def designed_as_pure(module: str) -> bool:
    package, _, rest = module.partition(".")
    names = PURE_BY_DESIGN.get(package, [])
    return any(rest == name or rest.startswith(f"{name}.") for name in names) and not rest.endswith(".commands")


PURE_FILES = [
    file for file in python_modules() if listed(module := module_name(file)) and not module.endswith(".commands")
]


def test_every_module_that_the_architecture_names_as_pure_is_in_the_contract() -> None:
    missing = sorted(
        module for file in python_modules() if designed_as_pure(module := module_name(file)) and not listed(module)
    )
    assert not missing, (
        f"{', '.join(missing)}: add to source_modules of the contract 'pure modules …' in pyproject.toml, so that "
        "lint-imports keeps clocks, chance and clients out of decisions"
    )


def test_the_contract_names_no_module_that_is_gone() -> None:
    known = {module_name(file) for file in python_modules()}
    gone = sorted(set(pure_contract()["source_modules"]) - known)
    assert not gone, f"{', '.join(gone)}: listed as pure in pyproject.toml but not there; remove it from the contract"


@pytest.mark.parametrize("file", PURE_FILES, ids=module_name)
def test_a_pure_module_reads_no_clock_draws_no_number_and_is_not_async(file: Path) -> None:
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            found.append(f"line {node.lineno}: async code")
        if isinstance(node, ast.Call) and _dotted(node.func) in IMPURE_CALLS:
            found.append(f"line {node.lineno}: {_dotted(node.func)}()")
    assert not found, (
        f"{file.relative_to(ROOT)}: {'; '.join(found)}. A decision is told the time as `now` and given chance as a "
        "random.Random; the shell around it does the rest"
    )


def _dotted(node: ast.expr) -> str:
    """`datetime.datetime.now` and `dt.datetime.now` both end in `datetime.now`; two names are enough to know a call."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        names.append(node.id)
    return ".".join(reversed(names[:2]))
