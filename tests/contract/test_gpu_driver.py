# ruff: noqa: ASYNC240 - a test may write a small file
"""What every GPU driver promises: answers in time, states of its own for missing and hung, and nothing invented."""

from __future__ import annotations

import asyncio
import ctypes.util
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from navarch_agent.gpu import DriverState, GpuDriver
from navarch_agent.gpu.fake import FakeGpuDriver
from navarch_agent.gpu.nvml import NvmlDriver
from navarch_common.model.gpu import GpuSample

STANDIN = Path(__file__).parent / "standin"
CALL_TIMEOUT_S = 0.3


@dataclass
class Machine:
    """A driver and the means to break it."""

    driver: GpuDriver
    missing: Callable[[], object]
    hung: Callable[[], object]
    broken: Callable[[], object]
    healed: Callable[[], object]
    lost: Callable[[int], object]


def fake_machine() -> Machine:
    fake = FakeGpuDriver("training-a", random.Random(1))
    return Machine(
        fake,
        missing=lambda: fake.pretend(DriverState.MISSING),
        hung=lambda: fake.pretend(DriverState.HUNG),
        broken=lambda: fake.pretend(DriverState.UNKNOWN),
        healed=lambda: fake.pretend(DriverState.OK),
        lost=fake.lose,
    )


def nvml(control: Path) -> NvmlDriver:
    return NvmlDriver(
        call_timeout_s=CALL_TIMEOUT_S,
        start_timeout_s=10.0,
        environment={"PYTHONPATH": str(STANDIN), "STANDIN_PYNVML": str(control)},
    )


def nvml_machine(control: Path) -> Machine:
    control.write_text("ok")
    return Machine(
        nvml(control),
        missing=lambda: control.write_text("missing"),
        hung=lambda: control.write_text("hang nvmlDeviceGetCount"),
        broken=lambda: control.write_text("raise"),
        healed=lambda: control.write_text("ok"),
        lost=lambda index: control.write_text(f"lost {index}"),
    )


@pytest.fixture(params=["fake", "nvml"])
async def machine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Machine]:
    machine = fake_machine() if request.param == "fake" else nvml_machine(tmp_path / "pynvml-does")
    yield machine
    await machine.driver.close()


async def test_the_inventory_names_each_gpu_once(machine: Machine) -> None:
    inventory = await machine.driver.inventory()
    assert inventory.state is DriverState.OK
    assert inventory.driver == "570.133.20"
    assert [gpu.index for gpu in inventory.gpus] == list(range(len(inventory.gpus)))
    assert (
        len({gpu.uuid for gpu in inventory.gpus}) == len({gpu.pci for gpu in inventory.gpus}) == len(inventory.gpus) > 0
    )
    assert "0000:3b:00" in {gpu.pci for gpu in inventory.gpus}
    assert await machine.driver.inventory() == inventory


async def test_a_sample_reads_every_gpu(machine: Machine) -> None:
    inventory, sample = await machine.driver.inventory(), await machine.driver.sample()
    assert sample.state is DriverState.OK
    assert [gpu.index for gpu in sample.gpus] == [gpu.index for gpu in inventory.gpus]
    for gpu in sample.gpus:
        assert gpu.temperature_c is not None
        assert gpu.power_w is not None
        assert gpu.utilization_ratio is not None
        assert gpu.memory_used_bytes is not None
        assert gpu.process_count is not None


@pytest.mark.parametrize(("what", "state"), [("missing", "missing"), ("hung", "hung"), ("broken", "unknown")])
async def test_trouble_is_a_value_with_a_reason_and_no_gpus(machine: Machine, what: str, state: str) -> None:
    getattr(machine, what)()
    for answer in (await machine.driver.inventory(), await machine.driver.sample()):
        assert answer.state == state
        assert answer.reason
        assert answer.gpus == ()


@pytest.mark.parametrize("what", ["missing", "hung", "broken"])
async def test_a_driver_that_answers_again_is_believed_again(machine: Machine, what: str) -> None:
    before = await machine.driver.inventory()
    getattr(machine, what)()
    assert (await machine.driver.sample()).state is not DriverState.OK
    machine.healed()
    assert (await machine.driver.sample()).state is DriverState.OK
    assert await machine.driver.inventory() == before


async def test_a_lost_gpu_is_counted_and_has_no_readings(machine: Machine) -> None:
    machine.lost(1)
    sample = await machine.driver.sample()
    assert sample.state is DriverState.OK
    assert sample.gpus[1] == GpuSample(index=1)
    assert sample.gpus[0].temperature_c is not None


async def test_closing_twice_is_harmless(machine: Machine) -> None:
    await machine.driver.sample()
    await machine.driver.close()
    await machine.driver.close()


# What only a driver in a child process can get wrong.


@pytest.fixture
def control(tmp_path: Path) -> Path:
    path = tmp_path / "pynvml-does"
    path.write_text("ok")
    return path


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperature on GPU 0 did not return"),
        ("nvmlDeviceGetCount", "nvmlDeviceGetCount did not return"),
    ],
)
async def test_a_hang_names_the_call_and_ends_in_time(control: Path, call: str, words: str) -> None:
    driver = nvml(control)
    await driver.sample()
    control.write_text(f"hang {call}")
    began = time.monotonic()
    sample = await driver.sample()
    assert time.monotonic() - began < CALL_TIMEOUT_S + 2
    assert sample.state is DriverState.HUNG
    assert sample.reason.startswith(words)
    await driver.close()


async def test_a_child_that_dies_is_unknown_and_is_started_anew(control: Path) -> None:
    driver = nvml(control)
    control.write_text("die nvmlDeviceGetPowerUsage")
    sample = await driver.sample()
    assert sample.state is DriverState.UNKNOWN
    assert sample.reason == "the NVML process ended (7) in nvmlDeviceGetPowerUsage on GPU 0"
    control.write_text("ok")
    assert (await driver.sample()).state is DriverState.OK
    await driver.close()


async def test_numbers_that_cannot_be_are_no_readings(control: Path) -> None:
    driver = nvml(control)
    control.write_text("absurd")
    assert (await driver.sample()).gpus == tuple(GpuSample(index=index) for index in range(3))
    await driver.close()


async def test_a_cancelled_call_leaves_no_half_answer_behind(control: Path) -> None:
    driver = nvml(control)
    control.write_text("hang nvmlDeviceGetPowerUsage")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.25):
            await driver.sample()
    control.write_text("ok")
    inventory = await driver.inventory()
    assert (inventory.state, len(inventory.gpus)) == (DriverState.OK, 3)
    await driver.close()


async def test_two_callers_get_their_own_answers(control: Path) -> None:
    driver = nvml(control)
    inventory, sample = await asyncio.gather(driver.inventory(), driver.sample())
    assert inventory.gpus[0].uuid == "GPU-00000"
    assert sample.gpus[0].power_w == 412.345
    await driver.close()


async def test_a_child_that_cannot_be_killed_is_evidence_and_gets_no_second_one_beside_it(control: Path) -> None:
    driver = nvml(control)
    immortal = await asyncio.create_subprocess_exec("sleep", "60")
    driver._stuck = immortal
    sample = await driver.sample()
    assert sample.state is DriverState.HUNG
    assert f"NVML process {immortal.pid} does not die of SIGKILL" in sample.reason
    immortal.kill()
    await immortal.wait()
    assert (await driver.sample()).state is DriverState.OK
    await driver.close()


async def test_without_a_driver_the_real_library_says_missing() -> None:
    if ctypes.util.find_library("nvidia-ml"):
        pytest.skip("this machine has an NVIDIA driver")
    driver = NvmlDriver()
    inventory = await driver.inventory()
    assert (inventory.state, inventory.gpus) == (DriverState.MISSING, ())
    await driver.close()


async def test_the_real_driver_names_its_gpus() -> None:
    if not ctypes.util.find_library("nvidia-ml"):
        pytest.skip("no libnvidia-ml on this machine: there is no NVIDIA driver to ask")
    driver = NvmlDriver()
    inventory = await driver.inventory()
    sample = await driver.sample()
    await driver.close()
    assert inventory.state is DriverState.OK, inventory.reason
    assert len(sample.gpus) == len(inventory.gpus)
