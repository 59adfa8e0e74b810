"""What the fake cloud has on disk when it says that something is done."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from navarch_common.model.node import LaunchRequest
from navarch_provisioner.cloud.fake_wire import Weather
from navarch_sim.fake_cloud.ledger import Ledger
from navarch_sim.fake_cloud.world import FakeMachine

AT = datetime(2026, 1, 1, tzinfo=UTC)


def machine(number: int, **changes: object) -> FakeMachine:
    request = LaunchRequest(
        node=f"n{number}", pool="p", cluster="c", installation="i", generation=1, provider="far",
        instance_type="x", token=f"token-{number}",
    )  # fmt: skip
    facts: dict[str, object] = {
        "instance_id": f"fake-{number:016x}", "request": request, "gpu_count": 8, "launched_at": AT,
        "boot_id": "b", "booted_at": AT,
    }  # fmt: skip
    return FakeMachine(**(facts | changes))  # type: ignore[arg-type]


@asynccontextmanager
async def opened(path: Path, kept: list[FakeMachine] | None = None) -> AsyncIterator[Ledger]:
    ledger = Ledger(path, (kept if kept is not None else []).append)
    await ledger.open()
    writing = asyncio.create_task(ledger.run())
    try:
        yield ledger
    finally:
        writing.cancel()
        await asyncio.wait({writing})
        await ledger.close()


def on_disk(path: Path) -> set[str]:
    """What another process sees: committed, and nothing else."""
    with sqlite3.connect(path) as database:
        return {row[0] for row in database.execute("SELECT instance_id FROM machines")}


def set_aside(directory: Path) -> int:
    return len(list(directory.glob("*.damaged-*")))


async def test_what_is_settled_is_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "cloud.db"
    kept: list[FakeMachine] = []
    async with opened(path, kept) as ledger:
        ledger.put(machine(1))
        assert kept == [], "nothing is done before it is on disk"
        await ledger.settled()
        assert on_disk(path) == {machine(1).instance_id}
        assert kept == [machine(1)]


async def test_a_thousand_changes_at_once_cost_a_few_commits(tmp_path: Path) -> None:
    path = tmp_path / "cloud.db"

    async def launch(ledger: Ledger, number: int) -> None:
        ledger.put(machine(number))
        await ledger.settled()

    async with opened(path) as ledger:
        await asyncio.gather(*(launch(ledger, number) for number in range(1000)))
        assert ledger.commits <= 3
    assert len(on_disk(path)) == 1000


async def test_the_latest_change_of_a_machine_counts(tmp_path: Path) -> None:
    path = tmp_path / "cloud.db"
    async with opened(path) as ledger:
        ledger.put(machine(1))
        ledger.put(machine(2))
        await ledger.settled()
        ledger.put(machine(1, power="off"))
        ledger.put(machine(1, power="ended"))
        ledger.forget([machine(2).instance_id])
        ledger.put_weather(Weather(capacity=7))
        await ledger.settled()
    machines, weather = await Ledger(path, lambda _: None).open()
    assert machines == [machine(1, power="ended")]
    assert weather == Weather(capacity=7)


async def test_closing_writes_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "cloud.db"
    async with opened(path) as ledger:
        ledger.put(machine(1))
    assert on_disk(path) == {machine(1).instance_id}


@pytest.mark.parametrize("damage", [b"no database at all" * 100, b""], ids=["garbage", "empty"])
async def test_a_damaged_file_is_set_aside_and_the_cloud_begins_empty(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "cloud.db"
    path.write_bytes(damage)
    async with opened(path) as ledger:
        ledger.put(machine(1))
        await ledger.settled()
    assert on_disk(path) == {machine(1).instance_id}
    assert set_aside(tmp_path) == (1 if damage else 0)


async def test_a_row_that_makes_no_sense_is_no_reason_to_start_never(tmp_path: Path) -> None:
    path = tmp_path / "cloud.db"
    async with opened(path) as ledger:
        ledger.put(machine(1))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE machines SET body = '{'")
    machines, _ = await Ledger(path, lambda _: None).open()
    assert machines == []
