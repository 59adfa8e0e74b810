"""What every cloud promises, held against the real adapters: processes of this machine, and a fake cloud's process."""

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
from msgspec import structs

from navarch_common.bus.base import BusMessage
from navarch_common.bus.jetstream import JetStreamBus
from navarch_common.clock import SystemClock
from navarch_common.config.providers import FakeProvider, LocalProvider
from navarch_common.events.messages import Heartbeat
from navarch_common.events.subjects import Subjects
from navarch_common.model.node import LaunchRequest, ProviderState
from navarch_provisioner.cloud import fake, local
from navarch_provisioner.cloud.base import (
    CloudError,
    CloudProvider,
    InvalidLaunch,
    Machine,
    NoCapacity,
    NotFound,
    ProviderContext,
    Throttled,
    UnknownOutcome,
    Upstream,
)
from navarch_provisioner.cloud.fake_wire import Weather
from navarch_provisioner.cloud.registry import adapter

CLUSTER = "lab"
PATIENCE_S = 20.0


@dataclass
class Lab:
    """One cloud under test, and the hands that break its machines."""

    cloud: CloudProvider
    directory: Path
    break_machine: Callable[[Machine], Awaitable[None]]
    env: dict[str, str] = field(default_factory=lambda: {"NAVARCH_NATS_URL": "nats://127.0.0.1:9"})
    launched: list[Machine] = field(default_factory=list)

    def request(self, node: str = "lab-n1", **changes: object) -> LaunchRequest:
        request = LaunchRequest(
            node=node, pool="lab", cluster=CLUSTER, installation="i1", generation=1, provider=self.cloud.name,
            instance_type="h100-8x", token=f"token-of-{node}", agent_env=self.env,
        )  # fmt: skip
        return msgspec.structs.replace(request, **changes)

    async def launch(self, node: str = "lab-n1", **changes: object) -> Machine:
        machine = await self.cloud.launch(self.request(node, **changes))
        self.launched.append(machine)
        return machine

    async def until(self, instance_id: str, state: ProviderState) -> Machine | None:
        """Waits until the cloud says so; a machine that it does not know any more is gone."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                machine = await self.cloud.get(instance_id)
                if (machine.state if machine else ProviderState.GONE) is state:
                    return machine
                await asyncio.sleep(0.01)


def context(directory: Path) -> ProviderContext:
    return ProviderContext(directory, SystemClock(), random.Random(1))


@asynccontextmanager
async def local_lab(directory: Path) -> AsyncIterator[Lab]:
    async def kill(machine: Machine) -> None:
        os.kill(int((directory / "instances" / machine.tags.node / "pid").read_text()), signal.SIGKILL)

    yield Lab(local.make("near", LocalProvider(), context(directory)), directory, kill)


@asynccontextmanager
async def fake_lab(directory: Path) -> AsyncIterator[Lab]:
    async def burn(machine: Machine) -> None:
        async with httpx.AsyncClient() as client:
            (
                await client.post(f"{running(directory)['url']}/v1/machines/{machine.instance_id}/fail")
            ).raise_for_status()

    config = FakeProvider(boot_time=timedelta(seconds=0.1))
    yield Lab(fake.make("far", config, context(directory)), directory, burn)


def running(directory: Path) -> dict[str, object]:
    """Where the fake cloud is."""
    found: dict[str, object] = json.loads((directory / "fake-cloud" / "far" / "runtime.json").read_bytes())
    return found


LABS = {"local": local_lab, "fake": fake_lab}


@pytest.fixture(params=sorted(LABS))
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    async with LABS[request.param](tmp_path) as made:
        try:
            yield made
        finally:
            await clear(made)


@pytest.fixture
async def far(tmp_path: Path) -> AsyncIterator[Lab]:
    async with fake_lab(tmp_path) as made:
        try:
            yield made
        finally:
            await weather(made, **structs.asdict(Weather(boot_time_s=0.1)))
            await clear(made)


async def clear(lab: Lab) -> None:
    for machine in lab.launched:
        await lab.cloud.terminate(machine.instance_id, machine.tags)
    await lab.cloud.close()


async def weather(lab: Lab, **forecast: object) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.patch(f"{running(lab.directory)['url']}/v1/weather", json=forecast)
        answer.raise_for_status()


async def happens(lab: Lab, machine: Machine, what: str) -> httpx.Response:
    """Something befalls a machine, which no call of a provider does."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"{running(lab.directory)['url']}/v1/machines/{machine.instance_id}/{what}")
        return answer.raise_for_status()


async def test_a_launch_makes_a_machine_with_all_its_tags(lab: Lab) -> None:
    machine = await lab.launch()
    request = lab.request()
    assert (machine.tags.cluster, machine.tags.installation, machine.tags.pool) == (CLUSTER, "i1", "lab")
    assert (machine.tags.node, machine.tags.generation, machine.tags.intent) == (request.node, 1, request.token)
    assert machine.provider_id == f"navarch://{CLUSTER}/{request.node}"
    assert machine.state in {ProviderState.PENDING, ProviderState.RUNNING}
    await lab.until(machine.instance_id, ProviderState.RUNNING)


async def test_the_same_token_is_the_same_machine_however_often_and_at_once(lab: Lab) -> None:
    machines = await asyncio.gather(*(lab.launch() for _ in range(5)))
    again = await lab.launch()
    assert {machine.instance_id for machine in (*machines, again)} == {again.instance_id}
    assert [machine.instance_id for machine in await lab.cloud.list_machines(CLUSTER)] == [again.instance_id]


@pytest.mark.parametrize("change", [{"instance_type": "a100-8x"}, {"node": "lab-n2"}, {"generation": 2}], ids=str)
async def test_the_same_token_with_other_parameters_is_refused(lab: Lab, change: dict[str, object]) -> None:
    await lab.launch()
    with pytest.raises(InvalidLaunch, match="token"):
        await lab.cloud.launch(msgspec.structs.replace(lab.request(), **change))


async def test_a_machine_is_found_by_its_intent(lab: Lab) -> None:
    machine = await lab.launch()
    found = await lab.cloud.find(lab.request().token)
    assert found is not None
    assert (found.instance_id, found.tags) == (machine.instance_id, machine.tags)
    assert await lab.cloud.find("token-that-made-nothing") is None


async def test_a_list_is_complete_and_of_one_cluster(lab: Lab) -> None:
    for number in range(4):
        await lab.launch(f"lab-n{number}")
    other = await lab.launch("other-n1", cluster="other")
    assert {machine.tags.node for machine in await lab.cloud.list_machines(CLUSTER)} == {f"lab-n{n}" for n in range(4)}
    assert [machine.instance_id for machine in await lab.cloud.list_machines("other")] == [other.instance_id]
    assert list(await lab.cloud.list_machines("nobody")) == []


@pytest.mark.parametrize("change", [{"installation": "i2"}, {"node": "lab-n2"}, {"intent": "another"}], ids=str)
async def test_a_machine_with_other_tags_is_not_touched(lab: Lab, change: dict[str, str]) -> None:
    machine = await lab.launch()
    wrong = replace(machine.tags, **change)
    for act in (lab.cloud.terminate, lab.cloud.power_off, lab.cloud.power_on):
        with pytest.raises(NotFound):
            await act(machine.instance_id, wrong)
    assert await lab.until(machine.instance_id, ProviderState.RUNNING) is not None


async def test_an_adopted_machine_is_ended_although_its_intent_is_not_on_record(lab: Lab) -> None:
    machine = await lab.launch()
    await lab.cloud.terminate(machine.instance_id, replace(machine.tags, intent=""))
    await lab.until(machine.instance_id, ProviderState.GONE)


async def test_terminating_twice_is_fine_and_so_is_what_never_was(lab: Lab) -> None:
    machine = await lab.launch()
    await lab.cloud.terminate(machine.instance_id, machine.tags)
    await lab.cloud.terminate(machine.instance_id, machine.tags)
    await lab.cloud.terminate("no-such.1", machine.tags)
    await lab.until(machine.instance_id, ProviderState.GONE)
    assert list(await lab.cloud.list_machines(CLUSTER)) == []


async def test_a_token_means_its_machine_even_after_its_end(lab: Lab) -> None:
    machine = await lab.launch()
    await lab.cloud.terminate(machine.instance_id, machine.tags)
    again = await lab.cloud.launch(lab.request())
    assert (again.instance_id, again.state) == (machine.instance_id, ProviderState.GONE)


async def test_a_machine_that_died_is_gone(lab: Lab) -> None:
    machine = await lab.launch()
    await lab.until(machine.instance_id, ProviderState.RUNNING)
    await lab.break_machine(machine)
    await lab.until(machine.instance_id, ProviderState.GONE)
    assert list(await lab.cloud.list_machines(CLUSTER)) == []
    with pytest.raises(NotFound):
        await lab.cloud.power_on(machine.instance_id, machine.tags)


@pytest.mark.parametrize("instance_id", ["", "..", "../lab-n1.1", "no-such", "x" * 250])
async def test_a_machine_that_never_was_is_not_there(lab: Lab, instance_id: str) -> None:
    assert await lab.cloud.get(instance_id) is None


async def test_a_machine_that_is_off_is_not_gone_and_comes_back(lab: Lab) -> None:
    machine = await lab.launch()
    await lab.cloud.power_off(machine.instance_id, machine.tags)
    await lab.cloud.power_off(machine.instance_id, machine.tags)
    await lab.until(machine.instance_id, ProviderState.STOPPING)
    assert [found.instance_id for found in await lab.cloud.list_machines(CLUSTER)] == [machine.instance_id]
    await lab.cloud.power_on(machine.instance_id, machine.tags)
    await lab.cloud.power_on(machine.instance_id, machine.tags)
    await lab.until(machine.instance_id, ProviderState.RUNNING)


async def test_a_machine_speaks_on_the_bus_does_as_it_is_told_and_boots_anew(
    lab: Lab, nats_url: str, unique: str
) -> None:
    async with speaking(lab, nats_url, unique) as bus, bus.subscribe(Subjects(unique).heartbeat("lab-n1")) as beats:
        async with asyncio.timeout(PATIENCE_S):
            machine = await lab.launch(generation=7)
            first = await heartbeat(beats)
            assert (first.node, first.pool, first.generation, len(first.gpus)) == ("lab-n1", "lab", 7, 8)

            order = b'{"verb": "xid", "code": 79, "gpu": 3}'
            answer = await bus.request(Subjects(unique).inject("lab-n1"), order, timeout_s=5.0)
            assert b"GPU has fallen off the bus" in answer.data

            await lab.cloud.power_off(machine.instance_id, machine.tags)
            await lab.cloud.power_on(machine.instance_id, machine.tags)
            while (second := await heartbeat(beats)).boot_id == first.boot_id:
                pass
            assert (second.node, second.generation) == (first.node, first.generation)


async def heartbeat(beats: AsyncIterator[BusMessage]) -> Heartbeat:
    return msgspec.json.decode((await anext(beats)).data, type=Heartbeat)


async def test_another_adapter_over_the_same_directory_has_the_same_machines(lab: Lab) -> None:
    machine = await lab.launch()
    kind = "fake" if isinstance(lab.cloud, fake.FakeCloud) else "local"
    config = FakeProvider() if kind == "fake" else LocalProvider()
    other = adapter(kind)(lab.cloud.name, config, context(lab.directory))
    try:
        assert [found.instance_id for found in await other.list_machines(CLUSTER)] == [machine.instance_id]
        assert (await other.launch(lab.request())).instance_id == machine.instance_id
    finally:
        await other.close()
    await lab.until(machine.instance_id, ProviderState.RUNNING)


# What only a cloud behind a network can do to its callers.


async def test_a_launch_whose_reply_was_lost_is_unknown_and_then_found(far: Lab) -> None:
    await far.launch("lab-n0")
    await weather(far, lost_reply_rate=1.0)
    with pytest.raises(UnknownOutcome):
        await far.launch()
    with pytest.raises(Upstream):
        await far.cloud.find(far.request().token)  # A question has no outcome to be unsure of.
    await weather(far, lost_reply_rate=0.0)
    found = await far.cloud.find(far.request().token)
    assert found is not None
    assert (await far.launch()).instance_id == found.instance_id


async def test_a_termination_whose_reply_was_lost_is_unknown_and_has_happened(far: Lab) -> None:
    machine = await far.launch()
    await weather(far, lost_reply_rate=1.0)
    with pytest.raises(UnknownOutcome):
        await far.cloud.terminate(machine.instance_id, machine.tags)
    await weather(far, lost_reply_rate=0.0)
    await far.until(machine.instance_id, ProviderState.GONE)


async def test_a_call_that_failed_did_nothing(far: Lab) -> None:
    machine = await far.launch("lab-n0")
    await weather(far, failure_rate=1.0)
    errors: set[type[CloudError]] = set()
    for number in range(30):
        with pytest.raises(CloudError) as caught:
            await far.cloud.launch(far.request(f"lab-n{number + 1}"))
        errors.add(type(caught.value))
    assert errors == {NoCapacity, Throttled, Upstream}
    await weather(far, failure_rate=0.0)
    assert [found.instance_id for found in await far.cloud.list_machines(CLUSTER)] == [machine.instance_id]


async def test_a_full_cloud_has_no_room_until_a_machine_ends(far: Lab) -> None:
    first = await far.launch("lab-n1")
    await weather(far, capacity=1)
    with pytest.raises(NoCapacity, match="1 machines"):
        await far.launch("lab-n2")
    assert (await far.launch("lab-n1")).instance_id == first.instance_id, "a launch that was made before needs no room"
    await far.cloud.terminate(first.instance_id, first.tags)
    await far.launch("lab-n2")


async def test_a_cloud_that_was_killed_comes_back_with_its_machines_and_its_weather(far: Lab) -> None:
    machines = await asyncio.gather(*(far.launch(f"lab-n{number}") for number in range(20)))
    await far.cloud.terminate(machines[0].instance_id, machines[0].tags)
    await far.cloud.power_off(machines[1].instance_id, machines[1].tags)
    await weather(far, capacity=20)
    os.kill(int(str(running(far.directory)["pid"])), signal.SIGKILL)

    found = await far.cloud.list_machines(CLUSTER)
    assert {machine.instance_id for machine in found} == {machine.instance_id for machine in machines[1:]}
    assert (await far.launch("lab-n0")).state is ProviderState.GONE
    await far.until(machines[1].instance_id, ProviderState.STOPPING)
    await far.until(machines[2].instance_id, ProviderState.RUNNING)
    await far.launch("lab-n20")
    with pytest.raises(NoCapacity):
        await far.launch("lab-n21")


async def test_a_cloud_that_is_told_to_leave_stays_while_a_machine_is_on(far: Lab) -> None:
    machine = await far.launch()
    await far.cloud.close()
    before = running(far.directory)
    far.cloud = fake.make("far", FakeProvider(), context(far.directory))
    await far.until(machine.instance_id, ProviderState.RUNNING)
    assert running(far.directory) == before, "it is the same process"

    await far.cloud.power_off(machine.instance_id, machine.tags)
    await far.cloud.close()
    async with asyncio.timeout(PATIENCE_S):
        while (far.directory / "fake-cloud" / "far" / "runtime.json").exists():
            await asyncio.sleep(0.01)

    far.cloud = fake.make("far", FakeProvider(), context(far.directory))
    await far.until(machine.instance_id, ProviderState.STOPPING)


async def test_an_address_where_nobody_listens_is_upstream_and_not_unknown(tmp_path: Path) -> None:
    cloud = fake.make("far", FakeProvider(url="http://127.0.0.1:9"), context(tmp_path))
    with pytest.raises(Upstream, match="no connection"):
        await cloud.launch(Lab(cloud, tmp_path, lambda _: asyncio.sleep(0)).request())
    await cloud.close()


async def test_an_agent_environment_that_makes_no_sense_is_refused_for_good(far: Lab) -> None:
    with pytest.raises(InvalidLaunch, match="HEARTBEAT_INTERVAL"):
        await far.launch(agent_env={**far.env, "NAVARCH_AGENT_HEARTBEAT_INTERVAL": "often"})
    assert list(await far.cloud.list_machines(CLUSTER)) == []


# What a hostile cloud does to its callers and its machines: faults 19 to 27 of docs/faults.md.


async def test_a_launch_that_never_arrived_looks_like_a_lost_reply_and_only_a_search_tells(far: Lab) -> None:
    await far.launch("lab-n0")
    await weather(far, lost_request_rate=1.0)
    with pytest.raises(UnknownOutcome):
        await far.launch()
    await weather(far, lost_request_rate=0.0)
    assert await far.cloud.find(far.request().token) is None
    await far.launch()
    assert len(await far.cloud.list_machines(CLUSTER)) == 2


async def test_a_launch_that_took_longer_than_anyone_waits_is_unknown_and_makes_its_machine_later(
    far: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not finding it right after the call proves nothing; the same token finds it whenever it comes."""
    await far.launch("lab-n0")
    await weather(far, slow_s=4.0)
    monkeypatch.setattr(fake, "_CALL_TIMEOUT_S", 0.3)
    with pytest.raises(UnknownOutcome):
        await far.launch()
    monkeypatch.undo()
    await weather(far, slow_s=0.0)
    assert await far.cloud.find(far.request().token) is None, "it is still under way"
    async with asyncio.timeout(PATIENCE_S):
        while (found := await far.cloud.find(far.request().token)) is None:
            await asyncio.sleep(0.05)
    assert (await far.launch()).instance_id == found.instance_id
    assert len(await far.cloud.list_machines(CLUSTER)) == 2


async def test_a_zone_that_is_sold_out_is_named_as_such_and_the_next_one_sells(far: Lab) -> None:
    await far.launch("lab-n0")
    await weather(far, sold_out=["us-a"])
    with pytest.raises(NoCapacity) as caught:
        await far.launch(zone="us-a", region="us")
    assert caught.value.scope == "zone"
    assert await far.cloud.find(far.request().token) is None, "a refusal is proof that nothing was made"
    assert (await far.launch("lab-n2", zone="us-b", region="us")).zone == "us-b"


async def test_a_list_that_broke_off_is_an_error_and_never_machines_gone(far: Lab) -> None:
    for number in range(3):
        await far.launch(f"lab-n{number}")
    await weather(far, short_list_rate=1.0)
    for _ in range(5):
        with pytest.raises(Upstream, match="of 3 machines"):
            await far.cloud.list_machines(CLUSTER)
    await weather(far, short_list_rate=0.0)
    assert len(await far.cloud.list_machines(CLUSTER)) == 3


async def test_a_stale_list_misses_the_newborn_that_its_id_and_its_token_know(far: Lab) -> None:
    await far.launch("lab-n0")
    await weather(far, stale_list_s=300)
    machine = await far.launch()
    assert list(await far.cloud.list_machines(CLUSTER)) == []
    assert await far.cloud.find(far.request().token) is None
    assert await far.cloud.get(machine.instance_id) is not None
    assert (await far.launch()).instance_id == machine.instance_id, "asked for again it is the same machine"
    await far.cloud.terminate(machine.instance_id, machine.tags)
    await far.until(machine.instance_id, ProviderState.GONE)


async def test_a_machine_that_never_speaks_runs_until_it_is_terminated_by_its_tags(
    far: Lab, nats_url: str, unique: str
) -> None:
    await far.launch("lab-n0")
    await weather(far, boot_failure_rate=1.0)
    async with speaking(far, nats_url, unique) as bus, bus.subscribe(Subjects(unique).heartbeats) as beats:
        mute = await far.launch()
        await weather(far, boot_failure_rate=0.0)
        await far.launch("lab-n2")
        await far.until(mute.instance_id, ProviderState.RUNNING)
        async with asyncio.timeout(PATIENCE_S):
            assert {(await heartbeat(beats)).node for _ in range(5)} == {"lab-n2"}
    await far.cloud.terminate(mute.instance_id, mute.tags)
    await far.until(mute.instance_id, ProviderState.GONE)


async def test_a_machine_that_returns_after_its_end_has_its_old_tags_and_its_old_agent(
    far: Lab, nats_url: str, unique: str
) -> None:
    async with speaking(far, nats_url, unique) as bus, bus.subscribe(Subjects(unique).heartbeat("lab-n1")) as beats:
        machine = await far.launch(generation=7)
        async with asyncio.timeout(PATIENCE_S):
            first = await heartbeat(beats)
        await far.cloud.terminate(machine.instance_id, machine.tags)
        await far.until(machine.instance_id, ProviderState.GONE)
        await happens(far, machine, "return")
        assert [found.tags for found in await far.cloud.list_machines(CLUSTER)] == [machine.tags]
        async with asyncio.timeout(PATIENCE_S):
            while (again := await heartbeat(beats)).boot_id == first.boot_id:
                pass
        assert (again.node, again.generation) == ("lab-n1", 7)
    await far.cloud.terminate(machine.instance_id, machine.tags)
    await far.until(machine.instance_id, ProviderState.GONE)


async def test_a_machine_in_a_dark_zone_lives_on_unheard_and_is_heard_again_in_the_same_boot(
    far: Lab, nats_url: str, unique: str
) -> None:
    async with speaking(far, nats_url, unique) as bus, bus.subscribe(Subjects(unique).heartbeats) as beats:
        dark = await far.launch("lab-n1", zone="a")
        await far.launch("lab-n2", zone="b")
        async with asyncio.timeout(PATIENCE_S):
            while (before := await heartbeat(beats)).node != "lab-n1":
                pass
            await weather(far, dark_zones=["a"])
            for _ in range(5):  # what was on its way may still arrive
                await heartbeat(beats)
            assert {(await heartbeat(beats)).node for _ in range(10)} == {"lab-n2"}
            found = await far.cloud.get(dark.instance_id)
            assert found is not None
            assert found.state is ProviderState.RUNNING
            await weather(far, dark_zones=[])
            while (after := await heartbeat(beats)).node != "lab-n1":
                pass
        assert (after.boot_id, after.generation) == (before.boot_id, before.generation)


async def test_a_machine_that_loses_power_boots_by_itself(far: Lab, nats_url: str, unique: str) -> None:
    async with speaking(far, nats_url, unique) as bus, bus.subscribe(Subjects(unique).heartbeat("lab-n1")) as beats:
        machine = await far.launch()
        async with asyncio.timeout(PATIENCE_S):
            first = await heartbeat(beats)
            await happens(far, machine, "reboot")
            while (await heartbeat(beats)).boot_id == first.boot_id:
                pass
    assert [found.instance_id for found in await far.cloud.list_machines(CLUSTER)] == [machine.instance_id]


async def test_a_twin_has_the_same_tags_is_listed_and_ends_alone(far: Lab) -> None:
    machine = await far.launch()
    twin = (await happens(far, machine, "twin")).json()
    assert twin["instance_id"] != machine.instance_id
    listed = await far.cloud.list_machines(CLUSTER)
    assert {found.instance_id for found in listed} == {machine.instance_id, twin["instance_id"]}
    assert {found.tags for found in listed} == {machine.tags}
    await far.cloud.terminate(twin["instance_id"], machine.tags)
    assert [found.instance_id for found in await far.cloud.list_machines(CLUSTER)] == [machine.instance_id]
    os.kill(int(str(running(far.directory)["pid"])), signal.SIGKILL)
    assert [found.instance_id for found in await far.cloud.list_machines(CLUSTER)] == [machine.instance_id]


async def test_without_tokens_a_launch_that_is_repeated_makes_a_second_machine(far: Lab) -> None:
    """Which is why nobody repeats one before a search has proven that the first made nothing."""
    first = await far.launch()
    await weather(far, tokens=False)
    second = await far.launch()
    assert first.instance_id != second.instance_id
    found = await far.cloud.find(far.request().token)
    assert found is not None
    assert found.instance_id == first.instance_id


@pytest.mark.parametrize(
    ("forecast", "said"),
    [
        ({"failure_rate": 2}, "failure_rate"),
        ({"slow_s": -1}, "slow_s"),
        ({"dark_zones": "a"}, "dark_zones"),
        ({"rain": 1}, "rain"),
    ],
    ids=str,
)
async def test_a_weather_that_cannot_be_is_refused_and_names_why(
    far: Lab, forecast: dict[str, object], said: str
) -> None:
    await far.launch()
    async with httpx.AsyncClient() as client:
        answer = await client.patch(f"{running(far.directory)['url']}/v1/weather", json=forecast)
    assert answer.status_code == 422
    assert said in answer.json()["message"]


@pytest.mark.parametrize("what", ["fail", "reboot", "return", "twin"])
async def test_nothing_befalls_a_machine_that_never_was(far: Lab, what: str) -> None:
    machine = await far.launch()
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        await happens(far, replace(machine, instance_id="fake-0000000000000000"), what)


@asynccontextmanager
async def speaking(lab: Lab, nats_url: str, prefix: str) -> AsyncIterator[JetStreamBus]:
    """Agents of machines launched from now on speak on this bus, often."""
    lab.env = {
        "NAVARCH_NATS_URL": nats_url,
        "NAVARCH_AGENT_SUBJECT_PREFIX": prefix,
        "NAVARCH_AGENT_HEARTBEAT_INTERVAL": "0.1s",
    }
    bus = await JetStreamBus.connect(nats_url, name="test", rng=random.Random(1))
    try:
        await bus.ensure_streams(Subjects(prefix).streams())
        yield bus
    finally:
        await bus.close()


async def test_words_that_a_shell_would_run_reach_the_machine_as_they_are_and_run_nothing(
    lab: Lab, nats_url: str, unique: str
) -> None:
    """Fault 50: labels and the agent's environment are data on the whole way."""
    touched = lab.directory / "touched"
    words = f"; touch {touched} ; $(touch {touched}) `touch {touched}` ${{HOME}} && 'touch' \"{touched}\" | tee\n#"
    async with speaking(lab, nats_url, unique) as bus, bus.subscribe(Subjects(unique).heartbeat("lab-n1")) as beats:
        lab.env |= {"NAVARCH_NOTE": words}
        machine = await lab.launch(labels={"team": words}, instance_type="$(touch x)")
        async with asyncio.timeout(PATIENCE_S):
            await heartbeat(beats)
    assert machine.instance_type == "$(touch x)"
    assert (await lab.launch(labels={"team": words}, instance_type="$(touch x)")).instance_id == machine.instance_id
    assert not touched.exists()
    assert not list(lab.directory.rglob("x"))
