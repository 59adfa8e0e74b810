"""Conditions of a host, from one reading to the next: each begins, lasts, ends, and is not made of what is unknown."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from navarch_agent.host_checks import HostChecks
from navarch_agent.host_ports import DAY_S, Tally
from navarch_agent.host_reading import ClockReading, Disk, HostReading, Mount, Port, Process
from navarch_common.events.messages import Observation

T0 = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE, HOUR = 60.0, 3600.0


class Host:
    """A host that is looked at once a minute."""

    def __init__(self) -> None:
        self.checks = HostChecks()
        self.now_s = 0.0

    def look(self, after_s: float = MINUTE, **reading: Any) -> list[Observation]:
        self.now_s += after_s
        return self.checks.look(HostReading(**reading), self.now_s, T0 + timedelta(seconds=self.now_s))

    def looks(self, *readings: dict[str, Any]) -> list[tuple[str, bool]]:
        """What is told after each look in turn: its kind, and whether it is over."""
        return [essence(observation) for reading in readings for observation in self.look(**reading)]


def essence(observation: Observation) -> tuple[str, bool]:
    assert (observation.event_type, observation.source) == ("host", "host")
    return str(observation.metrics["kind"]), bool(observation.metrics["ended"])


@pytest.fixture
def host() -> Host:
    return Host()


def disk(used: float | None = 0.5, inodes: float | None = 0.1, mount: str = "/") -> Disk:
    return Disk(mount=mount, used_ratio=used, free_bytes=10**9, inodes_used_ratio=inodes, free_inodes=7)


def port(state: str | None = "active", name: str = "mlx5_0/1", **counters: int) -> Port:
    return Port(name=name, state=state, phys_state="polling", rate="400 Gb/sec (4X NDR)", link_layer="InfiniBand", counters=counters)  # fmt: skip


def sleeper(pid: int = 7, *, state: str = "D", ticks: int = 3, **fields: Any) -> Process:
    return Process(pid=pid, name="nvidia-smi", state=state, started=100, cpu_ticks=ticks, **fields)


SYNCHRONIZED = ClockReading(synchronized=True, error_s=0.001)
UNSYNCHRONIZED = ClockReading(synchronized=False, error_s=16.0, error_s_max=16.0)
RW, RO, TURNED = Mount(point="/"), Mount(point="/", read_only=True), Mount(point="/", read_only=True, turned=True)
ZOMBIES = tuple(sleeper(pid, state="Z") for pid in range(150))

CASES: list[Any] = [
    pytest.param("disk_full", [{"disks": (disk(0.96),)}], {"disks": (disk(0.91),)}, {"disks": (disk(None),)}, id="disk"),
    pytest.param("inodes_full", [{"disks": (disk(0.5, 0.97),)}], {"disks": (disk(),)}, {"disks": (disk(0.5, None),)}, id="inodes"),
    pytest.param("read_only", [{"mounts": (TURNED,)}], {"mounts": (RW,)}, {"mounts": None}, id="read-only"),
    pytest.param("memory_pressure", [{"memory_available_ratio": 0.01}], {"memory_available_ratio": 0.05}, {}, id="memory"),
    pytest.param("stuck_processes", [{"processes": (sleeper(),)}] * 6, {"processes": ()}, {}, id="stuck"),
    pytest.param("zombies", [{"processes": ZOMBIES}] * 5, {"processes": ZOMBIES[:20]}, {}, id="zombies"),
    pytest.param("port_down", [{"ports": (port(),)}, {"ports": (port("down"),)}], {"ports": (port(),)}, {"ports": (port(None),)}, id="port down"),
    pytest.param("port_errors", [{"ports": (port(symbol_error=0),)}, {"ports": (port(symbol_error=500),)}], None, {}, id="port errors"),
    pytest.param("fabric_manager_down", [{"fabric_manager": "failed"}] * 2, {"fabric_manager": "active"}, {"fabric_manager": "activating"}, id="fabric manager"),
    pytest.param("peermem_missing", [{"peermem": True}, {"peermem": False}], {"peermem": True}, {}, id="peermem"),
    pytest.param("clock_unsynchronized", [{"clock": UNSYNCHRONIZED}] * 12, {"clock": SYNCHRONIZED}, {}, id="clock"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "begins", "ends", "unknown"), CASES)
def test_a_condition_is_told_when_it_begins_once_an_hour_and_when_it_is_over(
    host: Host, kind: str, begins: Sequence[dict[str, Any]], ends: dict[str, Any] | None, unknown: dict[str, Any]
) -> None:
    (begun,) = [one for reading in begins for one in host.look(**reading)]
    assert essence(begun) == (kind, False)
    last = begins[-1]
    assert host.looks(*[last] * 58) == []
    if ends is None:
        return
    told = host.looks(*[last] * 40)
    assert told == [(kind, False)], "once again after an hour"
    assert host.looks(*[unknown] * 90) == [], "unknown begins nothing, repeats nothing, ends nothing"
    (over,) = host.look(**ends)
    assert essence(over) == (kind, True)
    assert " ".join(begun.message.split()[:3]) in over.message, "it says what is over, not how well it is now"
    assert host.looks(*[ends] * 3) == []


@pytest.mark.parametrize(("kind", "begins", "ends", "unknown"), CASES)
def test_what_is_unknown_from_the_start_is_never_told(
    host: Host, kind: str, begins: Sequence[dict[str, Any]], ends: dict[str, Any] | None, unknown: dict[str, Any]
) -> None:
    assert host.looks(*[unknown] * 20) == []


@pytest.mark.parametrize(("kind", "begins", "ends", "unknown"), CASES)
def test_a_message_says_what_is_wrong_in_figures(
    host: Host, kind: str, begins: Sequence[dict[str, Any]], ends: dict[str, Any] | None, unknown: dict[str, Any]
) -> None:
    (said,) = [one for reading in begins for one in host.look(**reading, load=3.5)]
    assert said.metrics["load"] == 3.5
    expected = {
        "disk_full": "/ is 96.0 % full, 1.0 GB are left",
        "inodes_full": "/ has used 97.0 % of its inodes, 7 are left",
        "read_only": "read-only: the file system of /",
        "memory_pressure": "1.0 % of the memory is available",
        "stuck_processes": "1 process waits in the kernel, for 5 min at most: nvidia-smi (7)",
        "zombies": "150 processes have ended and nobody waits for them (zombies)",
        "port_down": "port mlx5_0/1 was active and is down (InfiniBand, polling, 400 Gb/sec (4X NDR))",
        "port_errors": "port mlx5_0/1 counted 500 symbol_error within an hour",
        "fabric_manager_down": "the fabric manager is failed: GPUs behind NVSwitches do not reach one another without it",
        "peermem_missing": "nvidia_peermem is not loaded: network cards reach the GPUs' memory by DMA-BUF or not at all",
        "clock_unsynchronized": "nobody has kept the clock right for 11 min",
    }
    assert said.message == expected[kind]


# Limits.


@pytest.mark.parametrize(
    "readings",
    [
        pytest.param([{"disks": (disk(0.95),)}], id="95 % is not over 95 %"),
        pytest.param([{"memory_available_ratio": 0.02}], id="2 % is not under 2 %"),
        pytest.param([{"processes": (sleeper(),)}] * 5, id="four minutes in the kernel"),
        pytest.param([{"processes": (sleeper(ticks=n),)} for n in range(20)], id="a process that runs in between"),
        pytest.param([{"processes": (sleeper(n),)} for n in range(20)], id="another process each time"),
        pytest.param([{"processes": (sleeper(kernel_thread=True),)}] * 20, id="a kernel thread"),
        pytest.param([{"processes": (sleeper(state="Z"),)}] * 20, id="a single zombie"),
        pytest.param([{"processes": ZOMBIES}] * 4, id="zombies at four looks"),
        pytest.param([{"processes": ZOMBIES}, {"processes": ()}] * 10, id="zombies that somebody waits for"),
        pytest.param([{"ports": (port("down"),)}] * 20, id="a port that never was active"),
        pytest.param([{"ports": (port("init"),)}, {"ports": (port(),)}], id="a port that comes up"),
        pytest.param([{"ports": (port(link_downed=200, symbol_error=60_000),)}] * 5, id="what was counted before"),
        pytest.param([{"ports": (port(symbol_error=115 * n // 60),)} for n in range(120)], id="115 errors an hour"),
        pytest.param([{"ports": (port(link_downed=9),)}, {"ports": (port(link_downed=0),)}], id="a counter that was reset"),
        pytest.param([{"fabric_manager": "inactive"}, {"fabric_manager": "active"}] * 5, id="a restart"),
        pytest.param([{"clock": UNSYNCHRONIZED}] * 10, id="a clock nobody kept for nine minutes"),
        pytest.param([{"clock": ClockReading(synchronized=True, error_s=0.9)}] * 5, id="an error under a second"),
        pytest.param([{"mounts": (RO,)}] * 5, id="a root from an image"),
        pytest.param([{"disks": ()}], id="nothing at all"),
    ],
)  # fmt: skip
def test_what_is_no_condition_is_not_told(host: Host, readings: list[dict[str, Any]]) -> None:
    assert host.looks(*readings) == []


def test_what_sways_around_a_limit_is_told_once(host: Host) -> None:
    sways = [{"disks": (disk(0.96),)}, {"disks": (disk(0.93),)}] * 10
    assert host.looks(*sways) == [("disk_full", False)]


def test_another_file_system_that_fills_up_is_told_at_once_and_is_over_when_both_are(host: Host) -> None:
    def both(root: float | None, var: float | None) -> dict[str, Any]:
        return {"disks": (disk(root), disk(var, mount="/var"))}

    assert host.looks(both(0.96, 0.5)) == [("disk_full", False)]
    (second,) = host.look(**both(0.96, 0.99))
    assert (second.message, second.metrics["count"], second.metrics["used_ratio"]) == (
        "/ is 96.0 % full, 1.0 GB are left; /var is 99.0 % full, 1.0 GB are left",
        2,
        0.99,
    )
    assert host.looks(both(0.5, 0.99), both(0.5, None)) == []
    assert host.looks(both(0.99, 0.5)) == [("disk_full", False)], "it concerns what it did not"
    assert host.looks(both(0.5, 0.5)) == [("disk_full", True)]


def test_the_agents_own_file_system_must_be_writable_and_any_other_stays_so(host: Host) -> None:
    data = Mount(point="/var/lib", read_only=True)
    assert host.looks({"mounts": (RW, data), "data_mount": "/var/lib"}) == [("read_only", False)]
    (more,) = host.look(mounts=(RO, data), data_mount="/var/lib")
    assert more.message == "read-only: the file system of /; /var/lib"
    assert host.looks({"mounts": (RW,), "data_mount": "/"}) == [("read_only", True)]


def test_a_port_says_how_long_it_has_been_down_and_one_that_is_gone_is_down(host: Host) -> None:
    host.looks({"ports": (port(), port(name="mlx5_1/1"))}, {"ports": (port("down"), port(name="mlx5_1/1"))})
    (gone,) = host.look(120.0, ports=(port("down"),))
    assert gone.message == (
        "port mlx5_0/1 was active and is down (InfiniBand, polling, 400 Gb/sec (4X NDR)), for 2 min; "
        "port mlx5_1/1 was active and is gone (InfiniBand)"
    )
    assert (gone.metrics["count"], gone.metrics["down_s"]) == (2, 120.0)
    assert host.looks({"ports": (port(None), port(None, name="mlx5_1/1"))}) == []


def test_a_port_whose_state_cannot_be_read_is_not_down(host: Host) -> None:
    other = {"name": "mlx5_1/1"}
    host.looks({"ports": (port(), port(**other))}, {"ports": (port(None), port(**other))})
    (told,) = host.look(ports=(port(None), port("down", **other)))
    assert (told.metrics["count"], told.metrics["ports"]) == (1, "mlx5_1/1")


@pytest.mark.parametrize("seen", [True, False], ids=["seen at looks", "between two looks, by its counter"])
def test_a_port_that_went_down_five_times_within_a_day_flaps(host: Host, seen: bool) -> None:
    def flap(number: int) -> list[dict[str, Any]]:
        if seen:
            return [{"ports": (port("down"),)}, {"ports": (port(),)}]
        return [{"ports": (port(link_downed=number),)}]

    host.looks({"ports": (port(link_downed=0),) if not seen else (port(),)})
    told = [host.looks(*flap(number)) for number in range(1, 6)]
    assert [("port_flapping", False) in each for each in told] == [False] * 4 + [True]
    quiet = {"ports": (port(),)}
    assert host.look(12 * HOUR, **quiet)[0].metrics["flaps"] == 5
    assert host.looks(quiet) == []
    assert [essence(one) for one in host.look(13 * HOUR, **quiet)] == [("port_flapping", True)]


def test_errors_of_a_port_are_counted_within_an_hour(host: Host) -> None:
    (told,) = [
        one
        for reading in ({"ports": (port(local_link_integrity_errors=n, symbol_error=n),)} for n in (5, 5, 6))
        for one in host.look(**reading)
    ]
    assert told.message == "port mlx5_0/1 counted 1 local_link_integrity_errors within an hour"
    assert told.metrics["local_link_integrity_errors_per_hour"] == 1
    over = host.look(1.1 * HOUR, ports=(port(local_link_integrity_errors=6, symbol_error=6),))
    assert [essence(one) for one in over] == [("port_errors", True)]


def test_a_counter_that_is_reset_takes_nothing_back(host: Host) -> None:
    counts = [{"ports": (port(symbol_error=value),)} for value in (0, 500, 0, 0)]
    assert host.looks(*counts) == [("port_errors", False)]


def test_peermem_that_was_never_loaded_is_a_note_that_is_made_once(host: Host) -> None:
    (note,) = host.look(peermem=False)
    assert note.metrics["was_loaded"] is False
    assert host.looks(*[{"peermem": False}] * 300) == []
    assert host.looks({"peermem": True}) == [("peermem_missing", True)]
    (gone,) = host.look(peermem=False)
    assert gone.metrics["was_loaded"] is True


def test_a_clock_that_its_keeper_calls_wrong_is_told_at_once(host: Host) -> None:
    (wrong,) = host.look(clock=ClockReading(synchronized=True, error_s=1.5))
    assert wrong.message == "the clock is off by 1.5 s, as whoever keeps it says"
    assert host.looks({"clock": UNSYNCHRONIZED}) == []
    assert host.looks({"clock": SYNCHRONIZED}) == [("clock_unsynchronized", True)]


def test_many_stuck_processes_are_counted_and_five_are_named(host: Host) -> None:
    many = tuple(sleeper(pid) for pid in range(10, 40))
    (told,) = [one for _ in range(6) for one in host.look(processes=many)]
    assert told.metrics["count"] == 30
    assert str(told.metrics["processes"]).count("nvidia-smi") == 5
    assert told.message.endswith("nvidia-smi (14); and 25 more")
    (told,) = [one for _ in range(6) for one in host.look(processes=(*many, sleeper(99)))]
    assert told.metrics["count"] == 31


def test_a_look_that_hangs_is_told_after_a_minute_and_when_it_comes_back(host: Host) -> None:
    def hangs(now_s: float) -> list[Observation]:
        return host.checks.hangs("the file system at /data", 0.0, now_s, T0 + timedelta(seconds=now_s))

    assert hangs(59) == []
    (told,) = hangs(65)
    assert essence(told) == ("host_look_hangs", False)
    assert "the file system at /data has taken 65 s" in told.message
    assert told.metrics["hangs_s"] == 65
    assert hangs(3000) == []
    assert len(hangs(65 + 3600)) == 1
    host.now_s = 7200
    assert host.looks({}) == [("host_look_hangs", True)]


def test_what_stands_is_told_again_to_who_may_have_forgotten(host: Host) -> None:
    full = {"disks": (disk(0.96),)}
    assert host.looks(full, full) == [("disk_full", False)]
    host.checks.tell_again()
    assert host.looks(full, full) == [("disk_full", False)]


def test_a_tally_forgets_what_is_past_and_stays_small() -> None:
    tally = Tally(DAY_S)
    for second in range(200_000):
        tally.add(1, float(second))
    assert len(tally._slots) <= 62
    assert abs(tally.total(200_000.0) - DAY_S) <= DAY_S / 60
    assert tally.total(200_000.0 + 2 * DAY_S) == 0
