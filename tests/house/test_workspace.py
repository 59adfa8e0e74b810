"""Rules about the repository as a whole."""

import importlib.util
import re
import subprocess
import tomllib

import pytest

from support.workspace import ROOT, Member, members, tracked_text

MEMBERS = pytest.mark.parametrize("member", members(), ids=lambda member: member.project["name"])


@MEMBERS
def test_every_package_tells_type_checkers_that_it_is_typed(member: Member) -> None:
    assert (member.package / "py.typed").is_file(), f"{member.package.name} needs an empty py.typed (PEP 561)"


@MEMBERS
def test_every_package_says_what_it_is_for(member: Member) -> None:
    text = (member.package / "__init__.py").read_text().lstrip()
    assert text.startswith(('"""', 'r"""')), f"{member.package.name}/__init__.py: say what it decides and what it owns"


def test_every_member_has_the_same_version() -> None:
    versions = {member.project["name"]: member.project["version"] for member in members()}
    assert len(set(versions.values())) == 1, f"one version for all, since they are released together: {versions}"


@MEMBERS
def test_members_depend_on_each_other_at_exactly_this_version(member: Member) -> None:
    version = member.project["version"]
    loose = [
        wanted
        for wanted in member.project["dependencies"]
        if wanted.startswith("navarch-") and not wanted.endswith(f"=={version}")
    ]
    assert not loose, f"{member.project['name']}: {loose} must be pinned to =={version}: members are released together"


def test_constraints_pin_exactly_and_name_no_index() -> None:
    for number, line in enumerate((ROOT / "constraints.txt").read_text().splitlines(), 1):
        if line and not line.startswith("#"):
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+(\s*;.+)?", line), (
                f"constraints.txt:{number}: {line!r} is not of the form name==version"
            )


def test_everything_that_is_asked_for_is_pinned() -> None:
    pinned = {
        _normal(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    wanted = set((ROOT / "tests/requirements.txt").read_text().splitlines())
    for member in members():
        wanted.update(member.project["dependencies"])
        for extra in member.project.get("optional-dependencies", {}).values():
            wanted.update(extra)
        wanted.update(tomllib.loads((member.path / "pyproject.toml").read_text())["build-system"]["requires"])
    names = {_normal(re.split(r"[\[<>=!~; ]", line)[0]) for line in wanted if line and not line.startswith("#")}
    missing = sorted(name for name in names if not name.startswith("navarch-") and name not in pinned)
    assert not missing, f"add exact versions to constraints.txt: {', '.join(missing)}"


def test_no_file_promises_to_be_finished_later() -> None:
    marker = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for file, text in tracked_text()
        for number, line in enumerate(text.splitlines(), 1)
        if marker.search(line)
    ]
    assert not found, "finish it, or write down in an issue what is missing:\n" + "\n".join(found)


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    path = re.compile(r"(?<![\w.$}~-])/(?:home|Users|root|work)/[A-Za-z0-9_.-]+")
    found = [
        f"{file.relative_to(ROOT)}:{number}: {match.group()}"
        for file, text in tracked_text()
        for number, line in enumerate(text.splitlines(), 1)
        if (match := path.search(line))
    ]
    assert not found, "write paths relative to the repository, or make them settings:\n" + "\n".join(found)


def test_no_file_names_a_package_index() -> None:
    index = re.compile(r"https?://[^\s'\"<>]*(?:/simple\b|pythonhosted|pypi)|--(?:extra-)?index-url|--find-links")
    found = [
        f"{file.relative_to(ROOT)}:{number}: {match.group()}"
        for file, text in tracked_text()
        for number, line in enumerate(text.splitlines(), 1)
        if file.name != "test_workspace.py" and (match := index.search(line))
    ]
    assert not found, "which index packages come from is the machine's affair:\n" + "\n".join(found)


def test_no_lock_file_is_tracked() -> None:
    names = {"uv.lock", "poetry.lock", "pdm.lock", "package-lock.json", "yarn.lock"}
    found = [str(file.relative_to(ROOT)) for file, _ in tracked_text() if file.name in names]
    assert not found, f"{found}: lock files hold an index's address; exact versions live in constraints.txt"


def test_the_makefile_installs_every_member() -> None:
    text = (ROOT / "Makefile").read_text()
    missing = [str(path) for member in members() if (path := member.path.relative_to(ROOT)).as_posix() not in text]
    assert not missing, f"MEMBERS in the Makefile lacks {missing}"


def test_continuous_integration_runs_the_tests_as_a_newcomer_does() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111, ".ci/run must be executable"
    assert re.search(r"^make .*\btest$", script.read_text(), re.MULTILINE), ".ci/run must call `make test`"
    subprocess.run(["bash", "-n", script], check=True, timeout=10)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@MEMBERS
def test_the_code_under_test_is_the_code_in_this_tree(member: Member) -> None:
    found = importlib.util.find_spec(member.package.name)
    assert found is not None, f"{member.package.name} is not installed: run make install"
    assert found.origin == str(member.package / "__init__.py"), (
        f"{member.package.name} comes from {found.origin}, a copy: install it editable (make install)"
    )
