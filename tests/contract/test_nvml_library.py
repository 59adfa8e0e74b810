"""The NVML adapter over a real shared library, by the real bindings: what it reads, and what an unkind driver does.

The library is built here from `standin/nvml.c`; with a GPU of one's own, `tests/gpu` asks the real one.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from navarch_agent.gpu import DriverState
from navarch_agent.gpu.base import GpuDetail
from navarch_agent.gpu.nvml import NvmlDriver

SOURCE = Path(__file__).parent / "standin" / "nvml.c"
COMPILER = shutil.which("cc") or shutil.which("gcc")
CALL_TIMEOUT_S = 0.5

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler to build the stand-in library with")

Says = Callable[..., object]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert COMPILER is not None
    built = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-Wall", "-Werror", "-o", built, SOURCE], check=True, timeout=60)
    return built


@pytest.fixture
def says(tmp_path: Path) -> Says:
    def say(*lines: str) -> None:
        (tmp_path / "nvml").write_text("".join(f"{line}\n" for line in lines))

    say()
    return say


@pytest.fixture
async def driver(library: Path, says: Says, tmp_path: Path) -> AsyncIterator[NvmlDriver]:
    environment = {"LD_LIBRARY_PATH": str(library.parent), "STANDIN_NVML": str(tmp_path / "nvml")}
    driver = NvmlDriver(call_timeout_s=CALL_TIMEOUT_S, start_timeout_s=20.0, environment=environment)
    yield driver
    await driver.close()


async def details(driver: NvmlDriver) -> tuple[GpuDetail, ...]:
    read = await driver.details()
    assert read.state is DriverState.OK, read.reason
    return read.gpus


async def test_who_the_gpus_are_and_how_they_are(driver: NvmlDriver) -> None:
    inventory = await driver.inventory()
    assert (inventory.state, inventory.driver) == (DriverState.OK, "570.133.20")
    assert [(gpu.uuid, gpu.serial, gpu.pci) for gpu in inventory.gpus] == [
        ("GPU-00000", "1650000", "0000:39:00"),
        ("GPU-00001", "1650001", "0000:3a:00"),
    ]
    sample = await driver.sample()
    assert [(gpu.temperature_c, gpu.power_w, gpu.process_count) for gpu in sample.gpus] == [(41, 72, 0)] * 2
    assert sample.lost == ()


async def test_a_well_gpu_reads_so(driver: NvmlDriver) -> None:
    assert (await details(driver))[0] == GpuDetail(
        index=0, recovery_action=0, ecc_enabled=True, ecc_corrected=0, ecc_uncorrected=0, ecc_uncorrected_ever=0,
        remapped_rows=0, remap_pending=False, remap_failed=False, temperature_memory_c=48, slowdown_c=90,
        memory_max_c=95, throttle=0, clock_sm_mhz=1980, clock_sm_max_mhz=1980, power_limit_w=700, nvlinks=18,
        nvlinks_up=18, nvlink_errors=0, pcie_generation=5, pcie_generation_max=5, pcie_width=16, pcie_width_max=16,
        pcie_replays=0, fabric_state=3, fabric_status=0,
    )  # fmt: skip


READINGS = {
    "recovery_action 2": ("recovery_action", 2),
    "ecc 0": ("ecc_enabled", False),
    "ecc_corrected 7": ("ecc_corrected", 7),
    "ecc_uncorrected 70000": ("ecc_uncorrected", 70_000),
    "ecc_uncorrected_ever 3": ("ecc_uncorrected_ever", 3),
    "remapped 4": ("remapped_rows", 4),
    "remap_pending 1": ("remap_pending", True),
    "remap_failed 1": ("remap_failed", True),
    "retired_dbe 5": ("retired_pages", 5),
    "retired_pending 1": ("retirement_pending", True),
    "temperature_memory 97": ("temperature_memory_c", 97),
    "throttle 72": ("throttle", 0x48),
    "clock 345": ("clock_sm_mhz", 345),
    "nvlinks_up 17": ("nvlinks_up", 17),
    "nvlink_recoveries 6": ("nvlink_errors", 6),
    "pcie_generation 1": ("pcie_generation", 1),
    "pcie_width 4": ("pcie_width", 4),
    "pcie_replays 99": ("pcie_replays", 99),
    "fabric_state 2": ("fabric_state", 2),
    "fabric_status 1": ("fabric_status", 1),
}


@pytest.mark.parametrize("line", READINGS)
async def test_each_reading_is_of_its_gpu(driver: NvmlDriver, says: Says, line: str) -> None:
    name, value = READINGS[line]
    reading, number = line.split()
    says(f"{reading}@1 {number}")
    first, second = await details(driver)
    assert getattr(second, name) == value
    assert getattr(first, name) != value


async def test_what_a_gpu_does_not_have_is_unknown_and_the_rest_is_read(driver: NvmlDriver, says: Says) -> None:
    says("remap -1", "recovery_action -1", "nvlinks 0", "pcie_replays -1", "fail nvmlDeviceGetGpuFabricInfo")
    gpu = (await details(driver))[0]
    unknown = (
        gpu.remap_pending,
        gpu.remap_failed,
        gpu.recovery_action,
        gpu.nvlinks,
        gpu.pcie_replays,
        gpu.fabric_state,
    )
    assert unknown == (None,) * 6
    assert gpu.ecc_enabled
    assert not gpu.lost


async def test_a_number_that_cannot_be_is_no_reading_and_takes_no_other_with_it(driver: NvmlDriver, says: Says) -> None:
    says("ecc_uncorrected 9223372036854775807", "temperature_memory 4000000000", "remap_failed 1")
    gpu = (await details(driver))[0]
    assert (gpu.ecc_uncorrected, gpu.temperature_memory_c) == (None, None)
    assert (gpu.remap_failed, gpu.pcie_width) == (True, 16)


async def test_a_lost_gpu_is_named_so_by_every_reading_and_its_neighbour_is_read(
    driver: NvmlDriver, says: Says
) -> None:
    assert [gpu.lost for gpu in await details(driver)] == [False, False]
    says("lost@1 1")
    first, second = await details(driver)
    assert (first.lost, first.ecc_enabled) == (False, True)
    assert (second.lost, second.ecc_enabled) == (True, None)
    sample = await driver.sample()
    assert (sample.state, sample.lost) == (DriverState.OK, (1,))
    assert sample.gpus[0].temperature_c == 41


async def test_a_call_that_hangs_is_named_and_the_driver_is_asked_anew_afterwards(
    driver: NvmlDriver, says: Says
) -> None:
    assert await details(driver)
    says("hang nvmlDeviceGetRemappedRows")
    hung = await driver.details()
    assert hung.state is DriverState.HUNG
    assert "nvmlDeviceGetRemappedRows on GPU 0 did not return" in hung.reason
    assert (await driver.sample()).state is DriverState.OK, "what does not hang is still read"
    says()
    assert len(await details(driver)) == 2


async def test_a_driver_that_is_gone_or_ends_the_process_is_told_so(driver: NvmlDriver, says: Says) -> None:
    says("die nvmlDeviceGetEccMode")
    died = await driver.details()
    assert died.state is DriverState.UNKNOWN
    assert "ended (7) in nvmlDeviceGetEccMode on GPU 0" in died.reason
    says("no_driver 1")
    assert (await driver.details()).state is DriverState.MISSING
    says()
    assert len(await details(driver)) == 2
