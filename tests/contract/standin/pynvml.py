# ruff: noqa: N802 - the names are NVML's
"""Stands in for nvidia-ml-py in the NVML child: does what the file named by STANDIN_PYNVML says, read at every call.

`ok`: three GPUs answer. `missing`: no driver. `raise`: every call fails. `hang NAME`: that call never returns.
`lost N`: GPU N fell off the bus. `absurd`: numbers that cannot be. `die NAME`: the process ends in that call.
"""

import os
import time
from pathlib import Path
from types import SimpleNamespace

NVML_ERROR_UNINITIALIZED = 1
NVML_ERROR_NOT_SUPPORTED = 3
NVML_ERROR_DRIVER_NOT_LOADED = 9
NVML_ERROR_LIBRARY_NOT_FOUND = 12
NVML_ERROR_GPU_IS_LOST = 15
NVML_ERROR_UNKNOWN = 999
NVML_TEMPERATURE_GPU = 0


class NVMLError(Exception):
    def __init__(self, value):
        super().__init__(f"error {value}")
        self.value = value


def _behave(name, gpu=None):
    verb, _, what = Path(os.environ["STANDIN_PYNVML"]).read_text().strip().partition(" ")
    if verb == "hang" and what == name:
        time.sleep(3600)
    if verb == "die" and what == name:
        os._exit(7)
    if verb == "missing":
        raise NVMLError(NVML_ERROR_LIBRARY_NOT_FOUND)
    if verb == "raise":
        raise NVMLError(NVML_ERROR_UNKNOWN)
    if verb == "lost" and gpu == int(what):
        raise NVMLError(NVML_ERROR_GPU_IS_LOST)
    return verb


def nvmlInit():
    print("a library that chats on standard output")
    _behave("nvmlInit")


def nvmlShutdown():
    pass


def nvmlSystemGetDriverVersion():
    _behave("nvmlSystemGetDriverVersion")
    return "570.133.20"


def nvmlDeviceGetCount():
    _behave("nvmlDeviceGetCount")
    return 3


def nvmlDeviceGetHandleByIndex(index):
    _behave("nvmlDeviceGetHandleByIndex", index)
    return index


def nvmlDeviceGetPciInfo(handle):
    _behave("nvmlDeviceGetPciInfo", handle)
    return SimpleNamespace(busId=f"00000000:{0x39 + handle:02X}:00.0".encode())


def nvmlDeviceGetUUID(handle):
    _behave("nvmlDeviceGetUUID", handle)
    return f"GPU-0000{handle}"


def nvmlDeviceGetSerial(handle):
    raise NVMLError(NVML_ERROR_NOT_SUPPORTED)


def nvmlDeviceGetName(handle):
    return "NVIDIA H100 80GB HBM3"


def nvmlDeviceGetMemoryInfo(handle):
    verb = _behave("nvmlDeviceGetMemoryInfo", handle)
    return SimpleNamespace(total=80 << 30, used=-5 if verb == "absurd" else 1 << 30)


def nvmlDeviceGetUtilizationRates(handle):
    _behave("nvmlDeviceGetUtilizationRates", handle)
    return SimpleNamespace(gpu=97, memory=40)


def nvmlDeviceGetTemperature(handle, sensor):
    _behave("nvmlDeviceGetTemperature", handle)
    return 61


def nvmlDeviceGetPowerUsage(handle):
    _behave("nvmlDeviceGetPowerUsage", handle)
    return 412_345


def nvmlDeviceGetComputeRunningProcesses(handle):
    _behave("nvmlDeviceGetComputeRunningProcesses", handle)
    return [SimpleNamespace(pid=7), SimpleNamespace(pid=8)]


def nvmlDeviceGetGraphicsRunningProcesses(handle):
    return [SimpleNamespace(pid=8)]
