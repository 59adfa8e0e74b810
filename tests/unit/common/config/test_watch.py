"""A changed file is given once, whatever way it changed."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from navarch_common.config.load import Loaded, load_text
from navarch_common.config.problems import ConfigError
from navarch_common.config.watch import watch

GOOD = "providers: {here: {type: local}}\npools: {a: {instance_type: x, max_nodes: 2}}\n"
BETTER = GOOD.replace("max_nodes: 2", "max_nodes: 3")
BAD = GOOD.replace("max_nodes", "max_node")


async def following(changes: AsyncIterator[Loaded | ConfigError]) -> Loaded | ConfigError:
    async with asyncio.timeout(10):
        return await anext(changes)


async def nothing_follows(changes: AsyncIterator[Loaded | ConfigError]) -> bool:
    waiting = asyncio.ensure_future(anext(changes))
    done, _ = await asyncio.wait([waiting], timeout=0.1)
    waiting.cancel()
    return not done


def watching(file: Path, known: str | None = None) -> AsyncIterator[Loaded | ConfigError]:
    return watch(file, {}, known_sha256=known, period_s=0.005)


async def test_a_good_and_a_bad_change_are_both_given(tmp_path: Path) -> None:
    file = tmp_path / "navarch.yaml"
    file.write_text(GOOD)
    changes = watching(file)
    first = await following(changes)
    assert isinstance(first, Loaded)
    file.write_text(BAD)
    second = await following(changes)
    assert isinstance(second, ConfigError)
    assert "did you mean 'max_nodes'?" in str(second)
    file.write_text(BETTER)
    third = await following(changes)
    assert isinstance(third, Loaded)
    assert third.config.pools["a"].max_nodes == 3


async def test_the_text_in_force_is_not_given_again(tmp_path: Path) -> None:
    file = tmp_path / "navarch.yaml"
    file.write_text(GOOD)
    assert await nothing_follows(watching(file, known=load_text(GOOD, "f", {}).sha256))


async def test_a_file_written_again_with_the_same_text_is_not_given_again(tmp_path: Path) -> None:
    file = tmp_path / "navarch.yaml"
    file.write_text(GOOD)
    changes = watching(file)
    await following(changes)
    file.write_text(GOOD)
    os.utime(file, ns=(1, 1))
    assert await nothing_follows(changes)


async def test_a_way_back_from_a_mistake_is_given(tmp_path: Path) -> None:
    file = tmp_path / "navarch.yaml"
    file.write_text(BAD)
    changes = watching(file, known=load_text(GOOD, "f", {}).sha256)
    assert isinstance(await following(changes), ConfigError)
    file.write_text(GOOD)
    assert isinstance(await following(changes), Loaded)


async def test_a_change_that_leaves_size_time_and_inode_as_they_were_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "navarch.yaml"
    file.write_text(GOOD)
    os.utime(file, ns=(10**9, 10**9))
    changes = watching(file)
    await following(changes)
    file.write_text(BETTER)
    os.utime(file, ns=(10**9, 10**9))
    assert isinstance(await following(changes), Loaded)


async def test_a_file_that_is_still_being_written_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([GOOD, GOOD, BETTER[:10], BETTER[:40], "", BETTER, BETTER])
    monkeypatch.setattr("navarch_common.config.watch.read_text", lambda name: next(looks))
    changes = watching(Path("navarch.yaml"))
    given = [await following(changes), await following(changes)]
    assert [one.text for one in given if isinstance(one, Loaded)] == [GOOD, BETTER]


async def test_a_link_that_points_elsewhere_is_seen_as_in_a_config_map(tmp_path: Path) -> None:
    (tmp_path / "v1.yaml").write_text(GOOD)
    (tmp_path / "v2.yaml").write_text(BETTER)
    file, fresh = tmp_path / "navarch.yaml", tmp_path / "fresh"
    file.symlink_to("v1.yaml")
    changes = watching(file)
    await following(changes)
    fresh.symlink_to("v2.yaml")
    fresh.replace(file)
    assert isinstance(await following(changes), Loaded)


async def test_a_file_that_is_gone_is_told_once_and_its_return_is_given(tmp_path: Path) -> None:
    file = tmp_path / "navarch.yaml"
    changes = watching(file)
    gone = await following(changes)
    assert isinstance(gone, ConfigError)
    assert "cannot be read" in str(gone)
    file.write_text(GOOD)
    assert isinstance(await following(changes), Loaded)
