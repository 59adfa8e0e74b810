"""The process that talks to NVML, so that a call that never returns can be killed: `python -m navarch_agent.gpu.nvml_child`.

It reads one word a line from standard input (`inventory`, `sample`) and writes JSON lines: before each NVML call
`{"calling": NAME, "gpu": INDEX}`, at the end `{"state": …, "reason": …, …}`. It lives until its input ends. It imports
the least possible: nothing of Navarch, pynvml last.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, TextIO

_PR_SET_PDEATHSIG = 1

Call = Callable[..., Any]


class Nvml:
    """pynvml, with every call announced before it is made and the library opened when first needed."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._module: Any = None
        self._gpu: int | None = None
        self._open = False

    def write(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def call(self, name: str, *args: Any) -> Any:
        """Call an NVML function by name. Raises `pynvml.NVMLError`."""
        self.write({"calling": name, "gpu": self._gpu})
        return getattr(self._module, name)(*args)

    def read(self, name: str, *args: Any) -> Any:
        """Call, and take None for what this GPU does not support or cannot say."""
        try:
            return self.call(name, *args)
        except self._module.NVMLError:
            return None

    def answer(self, request: str) -> dict[str, Any]:
        """Answer one request. Never raises for what NVML does."""
        try:
            import pynvml  # type: ignore[import-untyped, unused-ignore]
        except ImportError as error:
            return {"state": "missing", "reason": f"nvidia-ml-py is not installed: {error}"}
        self._module = pynvml
        try:
            if not self._open:
                self.call("nvmlInit")
                self._open = True
            return self._inventory() if request == "inventory" else self._sample()
        except pynvml.NVMLError as error:
            return self._failure(error)

    def _failure(self, error: Any) -> dict[str, Any]:
        missing = (self._module.NVML_ERROR_LIBRARY_NOT_FOUND, self._module.NVML_ERROR_DRIVER_NOT_LOADED)
        if self._open:
            # What was opened before a driver reload answers nothing but errors: open it anew next time.
            self._open = False
            self.read("nvmlShutdown")
        state = "missing" if error.value in missing else "unknown"
        return {"state": state, "reason": f"NVML: {error}"}

    def _each_gpu(self, read: Callable[[int, Any], dict[str, Any]]) -> list[dict[str, Any]]:
        rows = []
        for index in range(self.call("nvmlDeviceGetCount")):
            self._gpu = index
            handle = self.read("nvmlDeviceGetHandleByIndex", index)
            rows.append({"index": index} if handle is None else {"index": index, **read(index, handle)})
        self._gpu = None
        return rows

    def _inventory(self) -> dict[str, Any]:
        driver = self.call("nvmlSystemGetDriverVersion")
        return {"state": "ok", "driver": driver, "gpus": self._each_gpu(self._identity)}

    def _identity(self, _index: int, handle: Any) -> dict[str, Any]:
        pci = self.read("nvmlDeviceGetPciInfo", handle)
        memory = self.read("nvmlDeviceGetMemoryInfo", handle)
        return {
            "uuid": self.read("nvmlDeviceGetUUID", handle) or "",
            "serial": self.read("nvmlDeviceGetSerial", handle) or "",
            "pci": _text(pci.busId) if pci is not None else "",
            "name": self.read("nvmlDeviceGetName", handle) or "",
            "memory_total_bytes": memory.total if memory is not None else 0,
        }

    def _sample(self) -> dict[str, Any]:
        return {"state": "ok", "gpus": self._each_gpu(self._readings)}

    def _readings(self, _index: int, handle: Any) -> dict[str, Any]:
        rates = self.read("nvmlDeviceGetUtilizationRates", handle)
        memory = self.read("nvmlDeviceGetMemoryInfo", handle)
        power = self.read("nvmlDeviceGetPowerUsage", handle)
        return {
            "utilization_ratio": None if rates is None else rates.gpu / 100,
            "memory_used_bytes": None if memory is None else memory.used,
            "temperature_c": self.read("nvmlDeviceGetTemperature", handle, self._module.NVML_TEMPERATURE_GPU),
            "power_w": None if power is None else power / 1000,
            "process_count": self._process_count(handle),
        }

    def _process_count(self, handle: Any) -> int | None:
        """Count the processes that hold the GPU; None where it is not known, which is not none."""
        compute = self.read("nvmlDeviceGetComputeRunningProcesses", handle)
        if compute is None:
            return None
        graphics = self.read("nvmlDeviceGetGraphicsRunningProcesses", handle) or ()
        return len({process.pid for process in (*compute, *graphics)})


def _text(value: str | bytes) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else value


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main() -> None:
    """Answer until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()
    # The library may print to standard output: it gets another one, and our answers keep theirs to themselves.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        nvml = Nvml(out)
        for line in sys.stdin:
            nvml.write(nvml.answer(line.strip()))


if __name__ == "__main__":
    main()
