"""Faults for simulated machines: what `navarch inject NODE …` asks of an agent with a simulated driver.

A fault is injected where the real one would show: an Xid is a line that the machine's kernel prints, a temperature is
what its driver reads. Real machines don't listen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from navarch_agent.gpu.base import DriverState, GpuDetail
from navarch_agent.gpu.fake import FakeGpuDriver
from navarch_common.errors import NavarchError
from navarch_common.xid import xid_entry

Verb = Literal[
    "xid",
    "ecc",
    "nvlink",
    "temperature",
    "reading",
    "gpu-lost",
    "busy",
    "idle",
    "silence",
    "nvml-hang",
    "nvml-missing",
    "heal",
]
READINGS: tuple[str, ...] = tuple(name for name in GpuDetail.__struct_fields__ if name not in ("index", "lost"))
"""What `reading` can set."""


class Injection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One request, as JSON: `{"verb": "xid", "code": 79, "gpu": 3}`."""

    verb: Verb
    code: Annotated[int, Meta(ge=1, le=99_999)] | None = None
    """`xid`: which."""
    gpu: Annotated[int, Meta(ge=0, le=1023)] = 0
    message: Annotated[str, Meta(max_length=512)] = ""
    """`xid`: what the line says after the code; by default what the driver would say."""
    temperature_c: Annotated[float, Meta(ge=0.0, le=200.0)] | None = None
    """`temperature`: what the GPU reads from now on; absent: what it really is."""
    reading: Annotated[str, Meta(max_length=64)] = ""
    """`reading`: which of a GPU's details, as `remap_pending`; the driver reads `value` there from now on."""
    value: bool | int | float | None = None
    processes: Annotated[int, Meta(ge=1, le=100)] = 1
    """`busy`: how many processes hold each GPU."""
    for_s: Annotated[float, Meta(ge=0.0, le=86_400.0)] = 3600.0
    """`silence`: how long; 0 ends it."""


class InjectionReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of it: a sentence."""

    ok: bool
    text: str


class InjectionRefused(NavarchError):
    """This machine cannot do that."""


_SAYS = {
    31: "channel 0x00000002, intr 00000000. MMU Fault: ENGINE GRAPHICS faulted @ 0x6f6f_320c2000. Fault is of type FAULT_PDE",
    43: "Ch 00000008",
    48: "An uncorrectable double bit error (DBE) has been detected on GPU in the framebuffer at physAddr 0x18f31d80.",
    63: "Row Remapper: New row (0x0000000018f31d80) marked for remapping, reset gpu to activate.",
    64: "Row Remapper Error: (0x0000000018f31d80) - All reserved rows for bank are remapped",
    74: "NVLink: fatal error detected on link 14(0x0, 0x0, 0x10000, 0x0, 0x0, 0x0, 0x0)",
    79: "GPU has fallen off the bus.",
    94: "Contained: SM (0x1). RST: No, D-RST: No",
    95: "Uncontained: FBHUB. RST: Yes, D-RST: No",
    119: "Timeout after 6s of waiting for RPC response from GPU0 GSP! Expected function 103 (GSP_RM_ALLOC) (0x2081 0x4).",
}
"""What the driver prints after the code, where a judge reads it."""
_PRINTED_ALONE = frozenset({144, 145, 146, 147, 148, 149, 150, 154})
"""Codes whose line names no process."""


class Simulation:
    """One simulated machine: its driver, its kernel's pen, and its silence. `printk` may raise OSError."""

    def __init__(
        self, driver: FakeGpuDriver, printk: Callable[[str], None], unreachable: Callable[[], bool] = lambda: False
    ) -> None:
        """`unreachable` says whether its network is down."""
        self._driver = driver
        self._printk = printk
        self._unreachable = unreachable
        self._silent_until_s = 0.0

    def silent(self, now_s: float) -> bool:
        """Tell whether the machine says nothing at the loop's time `now_s`."""
        return now_s < self._silent_until_s or self._unreachable()

    def silence(self, until_s: float) -> None:
        """Say nothing up to the loop's time `until_s`; a time that is past ends a silence."""
        self._silent_until_s = until_s

    def inject(self, injection: Injection, now_s: float) -> str:
        """Do it, and return a sentence that says what was done. Raises `InjectionRefused`."""
        match injection.verb:
            case "xid":
                return self._xid(injection, injection.code)
            case "ecc":
                return self._xid(injection, 48)
            case "nvlink":
                return self._xid(injection, 74)
            case "temperature" | "reading" | "gpu-lost":
                return self._on_gpu(injection, self._gpu(injection))
            case "busy":
                self._driver.work(injection.processes)
                return f"{injection.processes} process(es) now hold every GPU"
            case "idle":
                self._driver.work(0)
                return "no process holds a GPU any more"
            case "silence":
                self.silence(now_s + injection.for_s)
                return f"the machine says nothing for {injection.for_s:g} s"
            case "nvml-hang":
                self._driver.pretend(DriverState.HUNG)
                return "the driver does not answer any more"
            case "nvml-missing":
                self._driver.pretend(DriverState.MISSING)
                return "the driver is gone"
            case "heal":
                self._driver.pretend(DriverState.OK)
                for gpu in self._driver.gpus:
                    self._driver.pin_temperature(gpu.index, None)
                self._driver.restore()
                self.silence(0.0)
                return "the driver answers, its readings are real, the machine speaks"

    def _gpu(self, injection: Injection) -> int:
        if injection.gpu >= len(self._driver.gpus):
            raise InjectionRefused(
                f"there is no GPU {injection.gpu}: this machine has {len(self._driver.gpus)}, from 0"
            )
        return injection.gpu

    def _on_gpu(self, injection: Injection, gpu: int) -> str:
        """What its driver reads of one GPU."""
        if injection.verb == "gpu-lost":
            self._driver.lose(gpu)
            return f"GPU {gpu} has fallen off the bus, and no kernel line tells of it"
        if injection.verb == "temperature":
            self._driver.pin_temperature(gpu, injection.temperature_c)
            own = injection.temperature_c is None
            return f"GPU {gpu} now reads {'its own temperature' if own else f'{injection.temperature_c:g} degrees'}"
        name, value = injection.reading, injection.value
        if name not in READINGS:
            raise InjectionRefused(f"there is no reading {name!r}: expected one of {', '.join(READINGS)}")
        try:
            self._driver.change(gpu, **{name: value})
        except msgspec.ValidationError as error:
            raise InjectionRefused(f"{name} cannot be {value!r}: {error}") from error
        return f"{name} of GPU {gpu} {'cannot be read' if value is None else f'reads {value}'} from now on"

    def _xid(self, injection: Injection, code: int | None) -> str:
        if code is None:
            raise InjectionRefused("xid: expected a code, such as 79")
        line = xid_line(code, self._driver.gpus[self._gpu(injection)].pci, injection.message)
        try:
            self._printk(line)
        except OSError as error:
            raise InjectionRefused(f"the kernel log could not be written: {error}") from error
        return f"the kernel printed: {line}"


def xid_line(code: int, pci: str, message: str = "") -> str:
    """Return the line that the driver prints for an Xid."""
    said = " ".join(message.split()) or _SAYS.get(code) or xid_entry(code).name
    process = "" if code in _PRINTED_ALONE else "pid='<unknown>', name=<unknown>, "
    return f"NVRM: Xid (PCI:{pci}): {code}, {process}{said}"
