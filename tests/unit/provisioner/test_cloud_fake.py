"""The fake provider's side of the wire: what it makes of answers, and of none."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from random import Random

import msgspec
import pytest

from navarch_common.clock import SystemClock
from navarch_common.config.providers import FakeProvider
from navarch_common.model.node import LaunchRequest
from navarch_provisioner.cloud import fake
from navarch_provisioner.cloud.base import (
    CloudError,
    CloudProvider,
    InvalidLaunch,
    NoCapacity,
    NotAuthorized,
    NotFound,
    ProviderContext,
    QuotaExceeded,
    Tags,
    Throttled,
    UnknownOutcome,
    Upstream,
)
from navarch_provisioner.cloud.fake_wire import STATUS, Forecast, Trouble, Weather

REQUEST = LaunchRequest(
    node="n1", pool="p", cluster="c", installation="i", generation=1, provider="far", instance_type="x", token="t"
)
TAGS = Tags(cluster="c", installation="i", pool="p", node="n1", generation=1, intent="t")
ID = "fake-0123456789abcdef"


@asynccontextmanager
async def answering(tmp_path: Path, answer: bytes | None) -> AsyncIterator[CloudProvider]:
    """A provider whose cloud says this to every call; None hangs up."""
    weather = b'HTTP/1.1 200 OK\r\ncontent-length: 19\r\n\r\n{"boot_time_s":2.0}'

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.read(65536):
            if b"/v1/weather" in head.partition(b"\r\n")[0]:
                writer.write(weather)
            elif answer is None:
                break
            else:
                writer.write(answer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    cloud = fake.make("far", FakeProvider(url=url), ProviderContext(tmp_path, SystemClock(), Random(1)))
    try:
        yield cloud
    finally:
        await cloud.close()
        server.close()


def http(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


NO_ANSWERS = {
    "hangs up": None,
    "no http": b"hello\r\n\r\n",
    "an error page": http(500, b"<html>"),
    "another shape": http(200, b'{"machine": 1}'),
}
CUT_SHORT = b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"instance'


@pytest.mark.parametrize("case", NO_ANSWERS)
async def test_a_launch_without_a_proper_answer_is_unknown(tmp_path: Path, case: str) -> None:
    async with answering(tmp_path, NO_ANSWERS[case]) as cloud:
        with pytest.raises(UnknownOutcome):
            await cloud.launch(REQUEST)


@pytest.mark.parametrize("case", NO_ANSWERS)
async def test_a_question_without_a_proper_answer_is_upstream_and_never_none(tmp_path: Path, case: str) -> None:
    async with answering(tmp_path, NO_ANSWERS[case]) as cloud:
        for ask in (cloud.find("t"), cloud.get(ID), cloud.list_machines("c")):
            with pytest.raises(Upstream):
                await ask


@pytest.mark.parametrize("body", [b'{"machines": [], "total": 2}', b'{"machines": [], "total": -1}'])
async def test_a_list_with_fewer_machines_than_it_says_is_upstream_and_never_empty(tmp_path: Path, body: bytes) -> None:
    async with answering(tmp_path, http(200, body)) as cloud:
        with pytest.raises(Upstream, match="broke off"):
            await cloud.list_machines("c")


async def test_a_cloud_that_does_not_answer_in_time_leaves_the_outcome_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake, "_CALL_TIMEOUT_S", 0.2)
    async with answering(tmp_path, CUT_SHORT) as cloud:
        with pytest.raises(UnknownOutcome):
            await cloud.terminate(ID, TAGS)


@pytest.mark.parametrize(
    "error",
    [
        NoCapacity("full", scope="zone", ttl=timedelta(minutes=5)),
        NoCapacity("full"),
        Throttled("slower", retry_after_s=2.5),
        QuotaExceeded("too many"),
        NotAuthorized("who?"),
        InvalidLaunch("never"),
        NotFound("where?"),
        Upstream("unwell"),
    ],
    ids=lambda error: error.code,
)
async def test_an_error_is_the_same_on_both_sides_of_the_wire(tmp_path: Path, error: CloudError) -> None:
    async with answering(tmp_path, http(STATUS[error.code], msgspec.json.encode(Trouble.of(error)))) as cloud:
        with pytest.raises(type(error)) as caught:
            await cloud.launch(REQUEST)
    assert str(caught.value) == str(error)
    for field in ("scope", "ttl", "retry_after_s"):
        assert getattr(caught.value, field, None) == getattr(error, field, None)


@pytest.mark.parametrize("instance_id", ["", "..", "n1.1", "fake-", ID + "0", f"../weather?{ID}"])
async def test_an_id_that_no_fake_cloud_gave_is_not_asked_for(tmp_path: Path, instance_id: str) -> None:
    async with answering(tmp_path, None) as cloud:
        assert await cloud.get(instance_id) is None
        await cloud.terminate(instance_id, TAGS)
        with pytest.raises(NotFound):
            await cloud.power_on(instance_id, TAGS)


def test_a_forecast_changes_what_it_names() -> None:
    weather = Weather(boot_time_s=9.0, capacity=3, failure_rate=0.1)
    assert Forecast(failure_rate=0.5).over(weather) == Weather(boot_time_s=9.0, capacity=3, failure_rate=0.5)
    assert Forecast(capacity=None).over(weather).capacity is None
    assert Forecast().over(weather) == weather


@pytest.mark.parametrize("bad", ['{"failure_rate": 1.5}', '{"capacity": -1}', '{"boot_time_s": -1}', '{"rain": 1}'])
def test_a_forecast_that_makes_no_sense_is_refused(bad: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(bad, type=Forecast)
