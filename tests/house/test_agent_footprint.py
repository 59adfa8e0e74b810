"""A GPU machine belongs to its owner's workload: the agent brings a handful of packages, and this is the list."""

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from support.workspace import ROOT

ALLOWED = {
    "navarch-agent", "navarch-common",
    "inotify-simple",  # follows kernel-log files without polling
    "msgspec",         # messages
    "nats-py",         # the bus
    "nvidia-ml-py",    # the driver's own readings
    "psutil",          # host facts and who holds a GPU
    "structlog",       # logs
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_agent_installed_alone_brings_a_handful_of_packages(tmp_path: Path) -> None:
    """Built from the tree, installed into an empty environment with the versions that we pin, and started there."""
    environment, wheels = tmp_path / "venv", tmp_path / "wheels"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    for member in ("libs/common", "services/agent"):
        source = tmp_path / member
        shutil.copytree(ROOT / member, source, ignore=shutil.ignore_patterns("__pycache__"))
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
        subprocess.run(build, check=True, cwd=source, timeout=60, capture_output=True)
    install = [
        *_installer(python),
        "-c",
        str(ROOT / "constraints.txt"),
        *(str(wheel) for wheel in wheels.glob("*.whl")),
    ]
    subprocess.run(install, check=True, cwd=tmp_path, timeout=240)
    listing = "import importlib.metadata as m, json; print(json.dumps([d.name for d in m.distributions()]))"
    came = json.loads(subprocess.run([python, "-I", "-c", listing], check=True, capture_output=True, timeout=30).stdout)
    names = {name.lower().replace("_", "-") for name in came}
    extra = sorted(names - ALLOWED)
    assert not extra, (
        f"navarch-agent now brings {', '.join(extra)} to every GPU machine. Do without, move it to an extra that the "
        "agent doesn't use, or say in ALLOWED why it is worth it"
    )
    assert names == ALLOWED, f"ALLOWED names {sorted(ALLOWED - names)}, which no longer comes: take it out"
    command = [str(environment / "bin" / "navarch-agent"), "--help"]
    subprocess.run(command, check=True, timeout=30, cwd=tmp_path, capture_output=True)


def _installer(python: Path) -> list[str]:
    """Installs into another environment, with uv or with this environment's pip."""
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", str(python)]
    return [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]
