"""What runs in the simulated world is told the time and given its chance: a seed must be the same for ever."""

import ast
from pathlib import Path

import pytest

from support.workspace import ROOT, module_name, python_modules

OUTSIDE = (
    "navarch_agent.main", "navarch_agent.host", "navarch_agent.gpu.nvml", "navarch_agent.gpu.nvml_child",
    "navarch_agent.log.kmsg", "navarch_agent.log.file", "navarch_agent.journal", "navarch_agent.custom_run",
    "navarch_api", "navarch_cli", "navarch_controlplane",
    "navarch_common.bus.jetstream", "navarch_common.bus.nats_pull", "navarch_common.bus.nats_streams",
    "navarch_common.clock", "navarch_common.log_sink", "navarch_common.process", "navarch_common.run", "navarch_common.telemetry_otlp",
    "navarch_gateway.http", "navarch_gateway.rpc", "navarch_health.commands",
    "navarch_provisioner.cloud.fake", "navarch_provisioner.cloud.local", "navarch_provisioner.cloud.local_boot",
    "navarch_provisioner.cloud.local_files", "navarch_provisioner.cloud.processes",
    "navarch_sim.fake_cloud.cloud", "navarch_sim.fake_cloud.http", "navarch_sim.fake_cloud.ledger",
    "navarch_sim.fake_cloud.main", "navarch_sim.virtual.runs", "navarch_sim.virtual.commands",
)  # fmt: skip
"""Composition roots, adapters to the real outside, and what only people run: the simulator brings its own instead."""

BANNED = {
    "time.time": "ask the Clock", "time.time_ns": "ask the Clock", "time.monotonic": "ask the event loop",
    "time.sleep": "await asyncio.sleep", "datetime.now": "ask the Clock", "datetime.utcnow": "ask the Clock",
    "datetime.today": "ask the Clock", "uuid.uuid4": "use ids.new_token with the process's own random.Random",
    "uuid.uuid1": "use ids.new_token with the process's own random.Random", "os.urandom": "use the process's own random.Random",
}  # fmt: skip
CHANCE = frozenset(
    {"random", "choice", "choices", "shuffle", "sample", "uniform", "randint", "randrange", "getrandbits"}
)


def _outside(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in OUTSIDE)


INSIDE = [file for file in python_modules() if not _outside(module_name(file)) and "_pb2" not in file.name]


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def _is_a_set(node: ast.expr) -> bool:
    if isinstance(node, ast.Set | ast.SetComp):
        return True
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("set", "frozenset")


def wrongs(source: str) -> list[str]:
    """What in a module a seed would not decide."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = _dotted(node.func)
            if name in BANNED:
                found.append(f"line {node.lineno}: {name}(): {BANNED[name]}")
            if name.startswith("random.") and name.removeprefix("random.") in CHANCE:
                found.append(f"line {node.lineno}: {name}(): use the process's own random.Random")
            if isinstance(node.func, ast.Name) and node.func.id in ("list", "tuple") and any(map(_is_a_set, node.args)):
                found.append(f"line {node.lineno}: {node.func.id}() of a set: sort it, or use dict.fromkeys")
        if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension) and _is_a_set(node.iter):
            found.append(f"line {node.iter.lineno}: walks a set: sort it, or use dict.fromkeys")
    return found


@pytest.mark.parametrize("file", INSIDE, ids=module_name)
def test_what_runs_in_the_simulated_world_leaves_time_chance_and_order_to_the_seed(file: Path) -> None:
    found = wrongs(file.read_text())
    assert not found, f"{file.relative_to(ROOT)}: {'; '.join(found)}"


def test_the_list_of_what_stays_outside_names_nothing_that_is_gone() -> None:
    known = {module_name(file) for file in python_modules()}
    gone = [name for name in OUTSIDE if not any(m == name or m.startswith(f"{name}.") for m in known)]
    assert not gone, f"{', '.join(gone)}: remove it from OUTSIDE"


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("time.time()", id="the wall clock"),
        pytest.param("random.choice(x)", id="chance that nobody seeded"),
        pytest.param("uuid.uuid4()", id="a random id"),
        pytest.param("for x in {1, 2}: pass", id="the order of a set"),
        pytest.param("[x for x in set(y)]", id="the order of a set in a comprehension"),
        pytest.param("list(set(y))", id="a list of a set"),
    ],
)
def test_the_house_sees(source: str) -> None:
    assert wrongs(source)
