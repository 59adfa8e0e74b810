"""The real driver: NVML through nvidia-ml-py, in a child process that is killed when a call outlives its deadline.

An NVML call on a sick GPU may never return, and a process that waits in it may not even die of SIGKILL: it sits in the
kernel. So the agent never calls NVML itself, knows which call is under way, and takes a child that cannot be killed as
evidence: it starts no second one beside it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from navarch_agent.gpu.base import Details, DriverState, GpuDetail, Inventory, Sample
from navarch_common.model.gpu import GPUS_MAX, Gpu, GpuSample
from navarch_common.xid.pci import normalize_pci

_ANSWER_BYTES_MAX = 1 << 20
_KILL_WAIT_S = 1.0
_Item = TypeVar("_Item", Gpu, GpuSample, GpuDetail)


class _Broken(Exception):
    """The child gave no usable answer: what that makes of the driver's state, and why."""

    def __init__(self, state: DriverState, reason: str) -> None:
        super().__init__(reason)
        self.state = state
        self.reason = reason


class NvmlDriver:
    """A `GpuDriver` over NVML.

    `call_timeout_s` bounds each single NVML call, `start_timeout_s` the first (nvmlInit may load a driver and wake
    every GPU). `environment` is added to the child's.
    """

    def __init__(
        self,
        *,
        call_timeout_s: float = 10.0,
        start_timeout_s: float = 30.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._call_timeout_s = call_timeout_s
        self._start_timeout_s = start_timeout_s
        self._environment = {**os.environ, **(environment or {})}
        self._child: asyncio.subprocess.Process | None = None
        self._stuck: asyncio.subprocess.Process | None = None
        self._calling = "nothing yet"
        self._lock = asyncio.Lock()
        self._closed = False

    async def inventory(self) -> Inventory:
        try:
            answer = await self._ask("inventory")
            gpus = tuple(self._read(row, Gpu) for row in answer["gpus"])
        except _Broken as broken:
            return Inventory(state=broken.state, reason=broken.reason)
        return Inventory(state=DriverState.OK, driver=str(answer["driver"])[:256], gpus=gpus)

    async def sample(self) -> Sample:
        try:
            answer = await self._ask("sample")
            gpus = tuple(self._read(row, GpuSample) for row in answer["gpus"])
        except _Broken as broken:
            return Sample(state=broken.state, reason=broken.reason)
        lost = tuple(row["index"] for row in answer["gpus"] if row.get("lost"))
        return Sample(state=DriverState.OK, gpus=gpus, lost=lost)

    async def details(self) -> Details:
        try:
            answer = await self._ask("details")
            gpus = tuple(self._read(row, GpuDetail) for row in answer["gpus"])
        except _Broken as broken:
            return Details(state=broken.state, reason=broken.reason)
        return Details(state=DriverState.OK, gpus=gpus)

    async def close(self) -> None:
        self._closed = True
        await self._kill()

    @staticmethod
    def _read(row: dict[str, Any], item: type[_Item]) -> _Item:
        """Take one GPU's row; numbers that cannot be are no readings.

        Who a GPU is and whether it is idle is then unknown as a whole; of its details the rest counts.
        """
        if "pci" in row:
            row = {**row, "pci": normalize_pci(row["pci"]) or ""}
        try:
            return msgspec.convert(row, item)
        except msgspec.ValidationError:
            index = {"index": row["index"]}
            if item is not GpuDetail:
                return msgspec.convert(index, item)
            possible = {name: value for name, value in row.items() if _is(item, {**index, name: value})}
            return msgspec.convert({**index, **possible}, item)

    async def _ask(self, request: str) -> dict[str, Any]:
        """Return the child's answer. Raises `_Broken` where there is none, or none that says OK."""
        async with self._lock:
            try:
                answer = await self._exchange(request)
            except BaseException:
                # Also on cancellation: half an answer in the pipe would be taken for the next one's.
                await self._kill()
                raise
        state = answer.get("state")
        if state != DriverState.OK:
            missing = state == DriverState.MISSING
            raise _Broken(DriverState.MISSING if missing else DriverState.UNKNOWN, str(answer.get("reason"))[:1000])
        if not isinstance(answer.get("gpus"), list) or len(answer["gpus"]) > GPUS_MAX:
            raise _Broken(DriverState.UNKNOWN, f"NVML names no list of at most {GPUS_MAX} GPUs")
        return answer

    async def _exchange(self, request: str) -> dict[str, Any]:
        child = await self._running_child()
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(ConnectionError):  # a child that is gone says so by the end of its output
            child.stdin.write(request.encode() + b"\n")
            await asyncio.wait_for(child.stdin.drain(), self._call_timeout_s)
        while True:
            timeout_s = (
                self._start_timeout_s if self._calling.startswith(("nvmlInit", "nothing")) else self._call_timeout_s
            )
            try:
                async with asyncio.timeout(timeout_s):
                    line = await child.stdout.readline()
            except TimeoutError:
                raise _Broken(DriverState.HUNG, f"{self._calling} did not return within {timeout_s:g} s") from None
            except ValueError as error:
                raise _Broken(DriverState.UNKNOWN, f"the NVML process wrote an endless line: {error}") from error
            if not line:
                raise _Broken(DriverState.UNKNOWN, await self._epitaph(child))
            message: dict[str, Any] = msgspec.json.decode(line, type=dict)
            if "calling" not in message:
                return message
            gpu = message.get("gpu")
            self._calling = str(message["calling"]) + ("" if gpu is None else f" on GPU {gpu}")

    async def _running_child(self) -> asyncio.subprocess.Process:
        if self._closed:
            raise _Broken(DriverState.UNKNOWN, "the driver was closed")
        if self._stuck is not None:
            if self._stuck.returncode is None:
                reason = f"NVML process {self._stuck.pid} does not die of SIGKILL: it waits in the driver, in {self._calling}"
                raise _Broken(DriverState.HUNG, reason)
            self._stuck = None
        if self._child is None or self._child.returncode is not None:
            self._calling = "nothing yet"
            self._child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "navarch_agent.gpu.nvml_child",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=self._environment,
                limit=_ANSWER_BYTES_MAX,
            )
        return self._child

    async def _epitaph(self, child: asyncio.subprocess.Process) -> str:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_KILL_WAIT_S):
                await child.wait()
        return f"the NVML process ended ({child.returncode}) in {self._calling}"

    async def _kill(self) -> None:
        child, self._child = self._child, None
        if child is None or child.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        try:
            async with asyncio.timeout(_KILL_WAIT_S):
                await child.wait()
        except TimeoutError:
            self._stuck = child


def _is(item: type[_Item], row: dict[str, Any]) -> bool:
    try:
        msgspec.convert(row, item)
    except msgspec.ValidationError:
        return False
    return True
