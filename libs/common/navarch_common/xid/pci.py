"""PCI addresses in the one form that Navarch compares: lower-case `dddd:bb:dd`."""

from __future__ import annotations

import re

PCI_PATTERN = r"[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}(?:\.[0-7])?"
"""A PCI address as the kernel, the driver or NVML prints it: four to eight digits of domain, function optional."""

_ADDRESS = re.compile(r"(?P<domain>[0-9A-Fa-f]{4,8}):(?P<slot>[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2})(?:\.[0-7])?\Z")


def normalize_pci(address: str) -> str | None:
    """Return `dddd:bb:dd` in lower case without function, or None where `address` is no PCI address.

    The domain is padded to four digits and never cut: NVML prints eight digits (`00000000:3B:00.0`), the kernel four,
    and Grace machines have real domains such as `0008` or longer.
    """
    match = _ADDRESS.match(address.strip())
    if match is None:
        return None
    return f"{int(match['domain'], 16):04x}:{match['slot'].lower()}"
