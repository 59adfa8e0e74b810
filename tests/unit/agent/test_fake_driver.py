"""The simulated driver and the faults that can be injected into a simulated machine."""

from __future__ import annotations

import random

import pytest

from navarch_agent.gpu import DriverState
from navarch_agent.gpu.fake import FakeGpuDriver
from navarch_agent.inject import Injection, InjectionRefused, Simulation, xid_line
from navarch_common.events import BadMessage, decode
from navarch_common.model.gpu import is_idle
from navarch_common.xid import parse_line


def driver(node: str = "training-a", seed: int = 1, gpu_count: int = 8) -> FakeGpuDriver:
    return FakeGpuDriver(node, random.Random(seed), gpu_count=gpu_count)


def machine() -> tuple[Simulation, FakeGpuDriver, list[str]]:
    fake, printed = driver(), list[str]()
    return Simulation(fake, printed.append), fake, printed


def test_identity_follows_from_the_node_alone() -> None:
    assert driver(seed=1).gpus == driver(seed=2).gpus
    ours, theirs = driver().gpus, driver("training-b").gpus
    assert not {gpu.uuid for gpu in ours} & {gpu.uuid for gpu in theirs}
    assert not {gpu.serial for gpu in ours} & {gpu.serial for gpu in theirs}


def test_gpu_3_of_8_sits_where_the_documents_say() -> None:
    assert driver().gpus[3].pci == "0000:3b:00"


@pytest.mark.parametrize("gpu_count", [0, 1, 8, 20])
async def test_any_number_of_gpus_has_distinct_addresses(gpu_count: int) -> None:
    fake = driver(gpu_count=gpu_count)
    assert len({gpu.pci for gpu in fake.gpus}) == gpu_count
    assert len((await fake.sample()).gpus) == gpu_count


async def test_readings_change_and_stay_plausible() -> None:
    fake, seen = driver(), set()
    for step in range(2000):
        if step == 1000:
            fake.work()
        for gpu in (await fake.sample()).gpus:
            assert gpu.temperature_c is not None
            assert gpu.power_w is not None
            assert gpu.utilization_ratio is not None
            assert gpu.memory_used_bytes is not None
            assert 15 < gpu.temperature_c < 90
            assert 30 < gpu.power_w <= 700
            assert 0 <= gpu.utilization_ratio <= 1
            assert 0 < gpu.memory_used_bytes < 80 * 1024**3
            seen.add(gpu.temperature_c)
    assert len(seen) > 50


async def test_the_same_seed_reads_the_same() -> None:
    one, other = driver(), driver()
    assert [await one.sample() for _ in range(20)] == [await other.sample() for _ in range(20)]


async def test_a_machine_is_idle_until_it_is_made_busy_and_idle_again() -> None:
    simulation, fake, _ = machine()
    assert is_idle((await fake.sample()).gpus) is True
    simulation.inject(Injection(verb="busy", processes=2), 0)
    busy = await fake.sample()
    assert is_idle(busy.gpus) is False
    assert all((gpu.utilization_ratio or 0) > 0.3 for gpu in busy.gpus)
    simulation.inject(Injection(verb="idle"), 0)
    assert is_idle((await fake.sample()).gpus) is True


@pytest.mark.parametrize(
    ("injection", "code"),
    [
        (Injection(verb="xid", code=79, gpu=3), 79),
        (Injection(verb="xid", code=154, gpu=3, message="GPU recovery action changed from 0x0 (None) to 0x2 (X)"), 154),
        (Injection(verb="xid", code=4711, gpu=3), 4711),
        (Injection(verb="ecc", gpu=3), 48),
        (Injection(verb="nvlink", gpu=3), 74),
    ],
)
def test_an_injected_xid_is_a_line_like_the_driver_s(injection: Injection, code: int) -> None:
    simulation, _, printed = machine()
    simulation.inject(injection, 0)
    (line,) = printed
    fault = parse_line(line)
    assert fault is not None
    assert (fault.kind, fault.code, fault.pci, fault.pid) == ("xid", code, "0000:3b:00", None)


def test_the_line_of_xid_79_is_the_documented_one() -> None:
    assert xid_line(79, "0000:3b:00") == (
        "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus."
    )


def test_an_injected_message_is_one_line() -> None:
    assert "\n" not in xid_line(79, "0000:3b:00", "one\nNVRM: Xid (PCI:0000:07:00): 48, two")


async def test_a_pinned_temperature_is_read_until_it_is_let_go() -> None:
    simulation, fake, _ = machine()
    simulation.inject(Injection(verb="temperature", gpu=2, temperature_c=96), 0)
    for _ in range(20):
        assert (await fake.sample()).gpus[2].temperature_c == 96
    simulation.inject(Injection(verb="temperature", gpu=2), 0)
    assert (await fake.sample()).gpus[2].temperature_c != 96


async def test_a_hung_driver_is_healed() -> None:
    simulation, fake, _ = machine()
    simulation.inject(Injection(verb="nvml-hang"), 0)
    assert (await fake.sample()).state is DriverState.HUNG
    simulation.inject(Injection(verb="nvml-missing"), 0)
    assert (await fake.inventory()).state is DriverState.MISSING
    simulation.inject(Injection(verb="heal"), 0)
    assert (await fake.sample()).state is DriverState.OK


def test_silence_ends_by_itself() -> None:
    simulation, _, _ = machine()
    simulation.inject(Injection(verb="silence", for_s=10), 100)
    assert simulation.silent(109)
    assert not simulation.silent(111)


@pytest.mark.parametrize(
    ("injection", "words"),
    [
        (Injection(verb="xid", gpu=3), "expected a code"),
        (Injection(verb="xid", code=79, gpu=8), "there is no GPU 8: this machine has 8, from 0"),
        (Injection(verb="temperature", gpu=99, temperature_c=90), "there is no GPU 99"),
    ],
)
def test_what_cannot_be_injected_is_refused(injection: Injection, words: str) -> None:
    simulation, _, printed = machine()
    with pytest.raises(InjectionRefused, match=words):
        simulation.inject(injection, 0)
    assert printed == []


def test_a_kernel_log_that_cannot_be_written_is_a_refusal() -> None:
    def broken(_: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(InjectionRefused, match="No space left"):
        Simulation(driver(), broken).inject(Injection(verb="xid", code=79), 0)


@pytest.mark.parametrize(
    "request_",
    [b"", b"[]", b'{"verb":"xid","code":"79"}', b'{"verb":"explode"}', b'{"verb":"xid","code":79,"gpus":3}', b'{"verb":"busy","processes":0}'],
)  # fmt: skip
def test_a_request_that_makes_no_sense_is_refused(request_: bytes) -> None:
    with pytest.raises(BadMessage):
        decode(request_, Injection)
