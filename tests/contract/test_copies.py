"""How the store knows which copies live, the same in memory and on a real Redis."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from fixtures.labs import MemoryLab, RedisLab, StoreLab

LONG = timedelta(hours=1)


@pytest.fixture(params=["memory", "redis"])
async def lab(request: pytest.FixtureRequest, unique: str) -> AsyncIterator[StoreLab]:
    made: StoreLab
    made = MemoryLab() if request.param == "memory" else RedisLab(request.getfixturevalue("redis_url"), unique)
    try:
        yield made
    finally:
        await made.close()


async def names(lab: StoreLab, prefix: str = "") -> list[str]:
    return [one.name for one in await lab.connection().announced(prefix)]


async def test_a_copy_that_announced_itself_is_known_to_every_connection_with_what_it_says(lab: StoreLab) -> None:
    await lab.store.announce("health/b", b"\x00 {not json}", LONG)
    await lab.store.announce("health/a", b"", LONG)
    found = await lab.connection().announced()
    assert [(one.name, one.data) for one in found] == [("health/a", b""), ("health/b", b"\x00 {not json}")]
    now = await lab.store.now()
    assert all(now < one.expires_at <= now + LONG for one in found)


async def test_what_a_copy_says_last_counts(lab: StoreLab) -> None:
    await lab.store.announce("health/a", b"old", LONG)
    await lab.store.announce("health/a", b"new", LONG)
    assert [one.data for one in await lab.store.announced()] == [b"new"]


async def test_only_those_under_a_prefix_are_listed_where_one_is_given(lab: StoreLab) -> None:
    await lab.store.announce("health/a", b"", LONG)
    await lab.store.announce("provisioner/a", b"", LONG)
    assert await names(lab, "provisioner/") == ["provisioner/a"]


async def test_a_copy_that_says_nothing_more_is_gone_after_its_time(lab: StoreLab) -> None:
    await lab.store.announce("health/a", b"", timedelta(seconds=0.05))
    await lab.store.announce("health/b", b"", LONG)
    await lab.pass_time(0.1)
    assert await names(lab) == ["health/b"]


async def test_what_expired_takes_no_room(lab: StoreLab) -> None:
    """Every start of a copy has a name of its own: kept for ever, the dead would pile up."""
    await lab.store.announce("health/a", b"", timedelta(seconds=0.05))
    await lab.pass_time(0.1)
    await lab.store.announce("health/b", b"", LONG)
    kept = (
        list(lab.store.server.contents.copies)
        if isinstance(lab, MemoryLab)
        else [name.decode() for name in await lab.raw.hkeys(lab.names.copies)]  # type: ignore[attr-defined]
    )
    assert kept == ["health/b"]


async def test_a_withdrawn_copy_is_gone_at_once_and_twice_is_harmless(lab: StoreLab) -> None:
    await lab.store.announce("health/a", b"", LONG)
    await lab.store.withdraw("health/a")
    await lab.store.withdraw("health/a")
    assert await names(lab) == []
