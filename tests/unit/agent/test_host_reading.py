"""What the kernel's files say, and that nothing in them breaks the reader or makes it guess."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from navarch_agent import host_reading as reading
from navarch_agent.host_reading import COUNT_MAX, Mount, Process

MOUNTINFO = r"""
22 27 0:21 / /proc rw,relatime shared:5 - proc proc rw
27 1 259:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 ro,errors=remount-ro
30 27 259:2 / /var rw - xfs /dev/nvme1n1 rw,attr2
31 30 259:3 / /var/lib/my\040data ro,nosuid shared:9 master:2 - ext4 /dev/nvme2n1 rw
32 27 0:5 / /usr ro - squashfs /dev/loop0 ro
33 30 0:6 / /var rw - tmpfs tmpfs rw
garbage
34 27 0:6 / relative rw - tmpfs tmpfs rw
"""
STAT = (
    "4242 (a) b (c) D 1 4242 4242 0 -1 4194304 120 0 0 0 17 5 0 0 20 0 9 0 98765 1000 200 18446744073709551615 1 1 0 0"
)


def test_mounts_say_whether_they_may_be_written_and_who_forbids_it() -> None:
    by_point = {mount.point: mount for mount in reading.mounts(MOUNTINFO)}
    assert by_point["/"] == Mount(point="/", read_only=True, turned=True)
    assert by_point["/usr"] == Mount(point="/usr", read_only=True, turned=False)
    assert by_point["/var/lib/my data"] == Mount(point="/var/lib/my data", read_only=True, turned=False)
    assert by_point["/proc"] == Mount(point="/proc")
    assert "relative" not in by_point


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("/", "/"),
        ("/variety", "/"),
        ("/var", "/var"),
        ("/var/lib", "/var"),
        ("/var/lib/my data/x", "/var/lib/my data"),
    ],
)
def test_a_path_lies_on_the_longest_mount_that_holds_it(path: str, point: str) -> None:
    found = reading.mount_of(path, reading.mounts(MOUNTINFO))
    assert found is not None
    assert found.point == point


def test_of_two_mounts_at_one_point_the_later_one_is_seen() -> None:
    first, second = Mount(point="/a", read_only=True), Mount(point="/a")
    assert reading.mount_of("/a/b", [first, second]) is second
    assert reading.mount_of("/b", [first, second]) is None


def test_a_process_may_have_any_name() -> None:
    assert reading.process(STAT) == Process(pid=4242, name="a) b (c", state="D", started=98765, cpu_ticks=22)
    thread = reading.process(STAT.replace("4194304", "69238880"))
    assert thread is not None
    assert thread.kernel_thread


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (reading.memory_available_ratio, "MemTotal:  1000 kB\nMemFree: 1 kB\nMemAvailable:  20 kB\n", 0.02),
        (reading.memory_available_ratio, "MemTotal:  0 kB\nMemAvailable:  20 kB\n", None),
        (reading.memory_available_ratio, "MemTotal:  1000 kB\n", None),
        (reading.load, "12.34 1.00 0.50 3/2000 4242\n", 12.34),
        (reading.load, "nan 1.00", None),
        (reading.modules, "mlx5_core 1 2 mlx5_ib, Live 0x0\nnvidia_peermem 1 0 - Loading 0x0\n", frozenset({"mlx5_core"})),
        (reading.port_word, "4: ACTIVE\n", "active"),
        (reading.port_word, "5: LinkUp\n", "linkup"),
        (reading.port_word, "1: DOWN", "down"),
        (reading.port_word, "ACTIVE", None),
        (reading.port_word, "", None),
        (reading.count, "65535\n", 65535),
        (reading.count, "-1", None),
        (reading.count, "N/A (no PMA)", None),
        (reading.count, "18446744073709551615\n", COUNT_MAX),
        (reading.unit_state, "LoadState=loaded\nActiveState=failed\n", "failed"),
        (reading.unit_state, "ActiveState=active\nLoadState=loaded\n", "active"),
        (reading.unit_state, "LoadState=not-found\nActiveState=inactive\n", None),
        (reading.unit_state, "LoadState=masked\nActiveState=inactive\n", None),
        (reading.unit_state, "inactive\n", None),
    ],
)  # fmt: skip
def test_what_a_file_says(read: Callable[[str], Any], text: str, value: object) -> None:
    assert read(text) == value


PARSERS: list[Callable[[str], Any]] = [
    reading.mounts,
    reading.process,
    reading.memory_available_ratio,
    reading.load,
    reading.modules,
    reading.port_word,
    reading.count,
    reading.unit_state,
]
SAMPLES = [MOUNTINFO, STAT, "MemTotal: 10 kB\nMemAvailable: 5 kB", "0.1 0.2 0.3", "a 1 2 - Live 0x0", "4: ACTIVE", "77", "LoadState=loaded\nActiveState=active"]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A good file that was cut, joined to another or filled with rubbish."""
    text = draw(st.sampled_from(SAMPLES))
    start, end = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
    return text[:start] + draw(st.text(max_size=12) | st.sampled_from(SAMPLES)) + text[end:]


@given(st.text(max_size=200) | damaged(), st.text(max_size=30))
def test_garbage_is_unknown_and_never_an_error(text: str, path: str) -> None:
    for read in PARSERS:
        read(text)
    found = reading.process(text)
    assert found is None or (0 <= found.pid <= COUNT_MAX and 0 <= found.cpu_ticks <= 2 * COUNT_MAX)
    ratio = reading.memory_available_ratio(text)
    assert ratio is None or 0 <= ratio <= 1
    amount = reading.count(text)
    assert amount is None or 0 <= amount <= COUNT_MAX
    reading.mount_of(path, reading.mounts(text))
