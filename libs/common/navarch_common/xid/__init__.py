"""What the NVIDIA driver and the kernel print about broken hardware, and what it means.

`lines` turns one kernel line into a `KernelFault`, or `None` where the line tells of no fault; `kinds` holds the
patterns of everything that is not an Xid; `catalogue` says what an Xid or SXid code is called, how bad it is and what
NVIDIA advises, `nvlink5` what NVLink's registers ask for; `decoding` puts it all together. Everything here is pure: text
in, values out.
"""

from navarch_common.xid.catalogue import CatalogueEntry, Severity, sxid_entry, sxids, xid_entry, xids
from navarch_common.xid.decoding import Decoded, Decoder
from navarch_common.xid.lines import KernelFault, parse_line
from navarch_common.xid.pci import normalize_pci

__all__ = [
    "CatalogueEntry",
    "Decoded",
    "Decoder",
    "KernelFault",
    "Severity",
    "normalize_pci",
    "parse_line",
    "sxid_entry",
    "sxids",
    "xid_entry",
    "xids",
]
