"""The process that talks to NVML, so that a call that never returns can be killed: `python -m navarch_agent.gpu.nvml_child`.

It reads one word a line from standard input (`inventory`, `sample`, `details`) and writes JSON lines: before each NVML call
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
_NVLINKS_MAX = 64
_NVLINK_ERRORS = ("NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", "NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL")
_VALUES = ("dVal", "uiVal", "ulVal", "ullVal", "sllVal", "siVal", "usVal")
"""The member of a field's value, by NVML's number of its type."""
_FIELDS = (
    "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION",
    "NVML_FI_DEV_MEMORY_TEMP",
    "NVML_FI_DEV_RETIRED_SBE",
    "NVML_FI_DEV_RETIRED_DBE",
    "NVML_FI_DEV_RETIRED_PENDING",
    "NVML_FI_DEV_NVLINK_LINK_COUNT",
    *_NVLINK_ERRORS,
)
"""What NVML has as a numbered field and under no function of its own."""

Call = Callable[..., Any]


class Nvml:
    """pynvml, with every call announced before it is made and the library opened when first needed."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._module: Any = None
        self._gpu: int | None = None
        self._lost = False
        """A call on this GPU was answered by the word that it is lost."""
        self._open = False

    def write(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()

    def call(self, name: str, *args: Any) -> Any:
        """Call an NVML function by name. Raises `pynvml.NVMLError`."""
        self.write({"calling": name, "gpu": self._gpu})
        return getattr(self._module, name)(*args)

    def read(self, name: str, *args: Any) -> Any:
        """Call, and take None for what this GPU, or this driver, does not support or cannot say."""
        if not hasattr(self._module, name):
            return None
        try:
            return self.call(name, *args)
        except self._module.NVMLError as error:
            self._lost = self._lost or error.value == self._module.NVML_ERROR_GPU_IS_LOST
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
            return {"inventory": self._inventory, "sample": self._sample, "details": self._details}[request]()
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
            self._gpu, self._lost = index, False
            handle = self.read("nvmlDeviceGetHandleByIndex", index)
            row = {} if handle is None else read(index, handle)
            rows.append({"index": index, **row, "lost": self._lost})
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

    def _details(self) -> dict[str, Any]:
        return {"state": "ok", "gpus": self._each_gpu(self._detail)}

    def _detail(self, _index: int, handle: Any) -> dict[str, Any]:
        nvml = self._module
        remapped = self.read("nvmlDeviceGetRemappedRows", handle) or (None,) * 4
        fields = self._fields(handle)
        limit = self.read("nvmlDeviceGetEnforcedPowerLimit", handle)
        ecc = self.read("nvmlDeviceGetEccMode", handle)
        found = {
            "recovery_action": fields.get("NVML_FI_DEV_GET_GPU_RECOVERY_ACTION"),
            "ecc_enabled": None if ecc is None else bool(ecc[0]),
            "ecc_corrected": self._ecc(handle, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, nvml.NVML_VOLATILE_ECC),
            "ecc_uncorrected": self._ecc(handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC),
            "ecc_uncorrected_ever": self._ecc(handle, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_AGGREGATE_ECC),
            "remapped_rows": _sum(remapped[0], remapped[1]),
            "remap_pending": _flag(remapped[2]),
            "remap_failed": _flag(remapped[3]),
            "retired_pages": _sum(fields.get("NVML_FI_DEV_RETIRED_SBE"), fields.get("NVML_FI_DEV_RETIRED_DBE")),
            "retirement_pending": _flag(fields.get("NVML_FI_DEV_RETIRED_PENDING")),
            "temperature_memory_c": fields.get("NVML_FI_DEV_MEMORY_TEMP"),
            "slowdown_c": self._threshold(handle, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
            "memory_max_c": self._threshold(handle, nvml.NVML_TEMPERATURE_THRESHOLD_MEM_MAX),
            "throttle": self.read("nvmlDeviceGetCurrentClocksThrottleReasons", handle),
            "clock_sm_mhz": self.read("nvmlDeviceGetClockInfo", handle, nvml.NVML_CLOCK_SM),
            "clock_sm_max_mhz": self.read("nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_SM),
            "power_limit_w": None if limit is None else limit / 1000,
            **self._nvlinks(handle, fields),
            "pcie_generation": self.read("nvmlDeviceGetCurrPcieLinkGeneration", handle),
            "pcie_generation_max": self.read("nvmlDeviceGetMaxPcieLinkGeneration", handle),
            "pcie_width": self.read("nvmlDeviceGetCurrPcieLinkWidth", handle),
            "pcie_width_max": self.read("nvmlDeviceGetMaxPcieLinkWidth", handle),
            "pcie_replays": self.read("nvmlDeviceGetPcieReplayCounter", handle),
            **self._fabric(handle),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _fields(self, handle: Any) -> dict[str, int]:
        """The fields that this GPU has, by NVML's names. One that this nvidia-ml-py does not know is left out."""
        names = [name for name in _FIELDS if hasattr(self._module, name)]
        values = self.read("nvmlDeviceGetFieldValues", handle, [getattr(self._module, name) for name in names]) or ()
        read = zip(names, values, strict=False)
        return {
            name: getattr(value.value, _VALUES[value.valueType])
            for name, value in read
            if value.nvmlReturn == 0 and value.valueType < len(_VALUES)
        }

    def _ecc(self, handle: Any, errors: int, since: int) -> Any:
        return self.read("nvmlDeviceGetTotalEccErrors", handle, errors, since)

    def _threshold(self, handle: Any, which: int) -> Any:
        return self.read("nvmlDeviceGetTemperatureThreshold", handle, which)

    def _nvlinks(self, handle: Any, fields: dict[str, int]) -> dict[str, Any]:
        links = range(min(fields.get("NVML_FI_DEV_NVLINK_LINK_COUNT", 0), _NVLINKS_MAX))
        read = (self.read("nvmlDeviceGetNvLinkState", handle, link) for link in links)
        states = [state for state in read if state is not None]
        if not states:
            return {}
        errors = [fields[name] for name in _NVLINK_ERRORS if name in fields]
        up = sum(1 for state in states if state)
        return {"nvlinks": len(states), "nvlinks_up": up, "nvlink_errors": sum(errors) if errors else None}

    def _fabric(self, handle: Any) -> dict[str, Any]:
        info = getattr(self._module, "c_nvmlGpuFabricInfo_t", None)
        if info is None:
            return {}
        found = info()
        if self.read("nvmlDeviceGetGpuFabricInfo", handle, ctypes.byref(found)) is None:
            return {}
        return {"fabric_state": found.state, "fabric_status": found.status}

    def _process_count(self, handle: Any) -> int | None:
        """Count the processes that hold the GPU; None where it is not known, which is not none."""
        compute = self.read("nvmlDeviceGetComputeRunningProcesses", handle)
        if compute is None:
            return None
        graphics = self.read("nvmlDeviceGetGraphicsRunningProcesses", handle) or ()
        return len({process.pid for process in (*compute, *graphics)})


def _sum(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _flag(value: int | None) -> bool | None:
    return None if value is None else bool(value)


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
