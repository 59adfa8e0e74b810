"""A GPU machine belongs to its owner's workload: the agent brings a handful of packages, and this is the list."""

import json
import os
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
BUILD_BACKEND = ["hatchling", "editables"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_agent_installed_alone_brings_a_handful_of_packages(tmp_path: Path) -> None:
    """Installed without its dependencies' build tools, from the local paths, with the versions that we pin."""
    environment = tmp_path / "venv"
    venv.create(environment, with_pip=False)
    python = environment / "bin" / "python"
    sources = tmp_path / "sources"
    for member in ("libs/common", "services/agent"):
        shutil.copytree(ROOT / member, sources / member, ignore=shutil.ignore_patterns("__pycache__"))
    install = [
        *_installer(python), "--no-build-isolation", "-c", str(ROOT / "constraints.txt"),
        str(sources / "libs/common"), str(sources / "services/agent"),
    ]  # fmt: skip
    subprocess.run(install, check=True, cwd=tmp_path, timeout=240, env=_environment())
    listing = "import importlib.metadata as m, json; print(json.dumps([d.name for d in m.distributions()]))"
    came = json.loads(subprocess.run([python, "-I", "-c", listing], check=True, capture_output=True, timeout=30).stdout)
    names = {name.lower().replace("_", "-") for name in came}
    extra = sorted(names - ALLOWED)
    assert not extra, (
        f"navarch-agent now brings {', '.join(extra)} to every GPU machine. Do without, move it to an extra that the "
        "agent doesn't use, or say in ALLOWED why it is worth it"
    )
    subprocess.run(
        [environment / "bin/navarch-agent", "--help"], check=True, timeout=30, cwd=tmp_path, capture_output=True
    )


def _installer(python: Path) -> list[str]:
    """Installs into another environment with this one's pip, and with the build backend that this one has."""
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--quiet", "--python", str(python)]
    return [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--disable-pip-version-check"]


def _environment() -> dict[str, str]:
    """The build backend runs with the new environment's Python, and is imported from ours."""
    site = next(path for path in sys.path if path.endswith("site-packages"))
    return {**os.environ, "PYTHONPATH": site}
