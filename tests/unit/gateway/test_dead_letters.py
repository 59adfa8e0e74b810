"""Dead letters through the HTTP door: listed, put back once, and never anywhere but to where reports go."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from navarch_api.errors import ApiError
from navarch_common.bus.base import Delivery
from navarch_common.dead import DeadLetters
from navarch_common.events.codec import BadMessage
from support.gateway_world import GatewayWorld, gateway_world

STREAM = "NAVARCH_REPORTS"


@pytest.fixture
async def gateway() -> AsyncIterator[GatewayWorld]:
    async with gateway_world() as made:
        yield made


async def deliver(gateway: GatewayWorld, data: bytes = b"?", node: str = "n1") -> Delivery:
    """A report of `node`, as its consumer gets it."""
    bus, subjects = gateway.world.bus, gateway.world.subjects
    await bus.publish_durable(subjects.report(node, "health"), data, msg_id=f"report-{node}-{data!r}")
    async with bus.consume(STREAM, "health", subjects.reports("health")) as deliveries:
        return await anext(deliveries)


async def bury(gateway: GatewayWorld, data: bytes = b"?", node: str = "n1") -> None:
    letters = DeadLetters(gateway.deps, "health", STREAM)
    assert await letters.undecodable(await deliver(gateway, data, node), BadMessage("no 'JSON'\n\"at all\""))


async def waiting(gateway: GatewayWorld) -> list[bytes]:
    """Reports that lie in their stream."""
    found = [await gateway.world.bus.message(STREAM, sequence) for sequence in range(1, 10)]
    return [message.data for message in found if message is not None]


async def test_a_dead_letter_says_what_it_was_when_why_and_who_gave_it_up(gateway: GatewayWorld) -> None:
    await bury(gateway, b"\xffoops")
    [letter] = (await gateway.client.dead_letters()).items
    assert (letter.code, letter.error) == ("undecodable", "no 'JSON'\\n\"at all\"")
    assert (letter.subject, letter.node) == ("navarch.reports.n1.health", "n1")
    assert (letter.stream, letter.stream_sequence, letter.deliveries) == (STREAM, 1, 1)
    assert (letter.msg_id, letter.by) == ("report-n1-b'\\xffoops'".replace("\\", "\\\\"), "health copy-1")
    assert (letter.text, letter.size_bytes) == ("\ufffdoops", 5)
    assert letter.stored_at == letter.at == gateway.world.clock.now()
    assert await waiting(gateway) == []


async def test_the_servers_word_that_our_own_burial_ended_a_message_is_no_letter_of_its_own(
    gateway: GatewayWorld,
) -> None:
    await bury(gateway)
    async with gateway.world.bus.read("NAVARCH_DEAD") as messages:
        assert len([message async for message in messages]) == 2
    assert len((await gateway.client.dead_letters()).items) == 1


async def test_a_message_that_somebody_ended_without_keeping_it_is_shown_and_cannot_be_put_back(
    gateway: GatewayWorld,
) -> None:
    await (await deliver(gateway)).term()
    [letter] = (await gateway.client.dead_letters()).items
    assert (letter.code, letter.stream_sequence, letter.by) == ("terminated", 1, "consumer health")
    assert (await gateway.client.replay_dead_letters()).items == ()
    [done] = (await gateway.client.replay_dead_letters([letter.sequence])).items
    assert (done.outcome, done.detail) == ("refused", "nothing of it was kept")


async def test_a_message_that_a_server_delivers_no_more_is_shown_and_put_back_from_where_it_lies(
    gateway: GatewayWorld,
) -> None:
    bus = gateway.world.bus
    await bus.publish_durable("navarch.reports.n1.health", b"parked", msg_id="p")
    advisory = {"type": "io.nats.jetstream.advisory.v1.max_deliver", "stream": STREAM, "consumer": "health", "stream_seq": 1, "deliveries": 3}  # fmt: skip
    await bus.publish(f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{STREAM}.health", msgspec.json.encode(advisory))
    [letter] = (await gateway.client.dead_letters()).items
    assert (letter.code, letter.stream_sequence, letter.deliveries) == ("max-deliveries", 1, 3)
    [done] = (await gateway.client.replay_dead_letters()).items
    assert (done.outcome, done.stream_sequence) == ("stored", 2)
    assert await waiting(gateway) == [b"parked", b"parked"]


async def test_a_letter_is_put_back_on_its_subject_and_only_once(gateway: GatewayWorld) -> None:
    await bury(gateway, b"one")
    await bury(gateway, b"two", node="n2")
    first, second = (await gateway.client.dead_letters()).items
    [done] = (await gateway.client.replay_dead_letters([second.sequence], reason="fixed in 1.2")).items
    assert (done.outcome, done.subject, done.stream_sequence) == ("stored", "navarch.reports.n2.health", 3)
    gateway.world.advance(7200)  # the stream has forgotten the id: the mark alone knows
    [again] = (await gateway.client.replay_dead_letters([second.sequence])).items
    assert (again.outcome, again.detail) == ("repeated", "put back by operator:ada before")
    [other] = (await gateway.client.replay_dead_letters()).items
    assert (other.outcome, other.sequence) == ("stored", first.sequence)
    assert await waiting(gateway) == [b"two", b"one"]
    assert [letter.replayed_by for letter in (await gateway.client.dead_letters()).items] == ["operator:ada"] * 2
    assert [(one.action, one.result) for one in (await gateway.client.audit()).items] == [("replay", "done")] * 2
    told = await gateway.world.events("operator.action")
    assert [event.reason for event in told] == [
        f"put back 1 dead letters: {second.sequence}; fixed in 1.2", f"put back 1 dead letters: {first.sequence}",
    ]  # fmt: skip


async def test_a_reply_that_was_lost_is_unknown_and_asking_again_stores_it_once(gateway: GatewayWorld) -> None:
    await bury(gateway, b"one")
    gateway.world.buses.faults.timeout_scale = 0
    gateway.world.buses.faults.lost_replies = 1
    [done] = (await gateway.client.replay_dead_letters()).items
    assert done.outcome == "unknown"
    [done] = (await gateway.client.replay_dead_letters()).items
    assert done.outcome == "repeated"
    assert await waiting(gateway) == [b"one"]


@pytest.mark.parametrize(
    "subject",
    ["navarch.commands.n1", "navarch.events.node.failed.training.n1", "navarch.reports.N*.health", "", "other.reports.n1.health",
     "navarch.reports.n1.health.more"],
)  # fmt: skip
async def test_a_letter_that_anyone_wrote_goes_nowhere_but_to_where_reports_go(
    gateway: GatewayWorld, subject: str
) -> None:
    headers = {"Navarch-Subject": subject, "Navarch-Stream": "NAVARCH_REPORTS", "Navarch-Sequence": "nine"}
    await gateway.world.bus.publish("navarch.dead.NAVARCH_REPORTS", b"{}", headers=headers)
    [done] = (await gateway.client.replay_dead_letters()).items
    assert done.outcome == "refused"


async def test_a_letter_that_is_not_there_is_refused_and_nothing_is_put_back(gateway: GatewayWorld) -> None:
    await bury(gateway)
    with pytest.raises(ApiError, match="there is no dead letter '99'"):
        await gateway.client.replay_dead_letters([1, 99])
    assert await waiting(gateway) == []


async def test_what_is_neither_some_nor_all_is_refused(gateway: GatewayWorld) -> None:
    problem = await gateway.refused("POST", "/dead/replay", json={"sequences": [1], "all": True})
    assert problem["detail"] == "name either sequences, or all"


async def test_only_the_newest_and_the_recent_are_listed_where_asked(gateway: GatewayWorld) -> None:
    await bury(gateway, b"one")
    gateway.world.advance(3 * 86_400)
    await bury(gateway, b"two")
    newest = await gateway.client.dead_letters(limit=1)
    assert ([letter.text for letter in newest.items], newest.truncated) == (["two"], True)
    assert [letter.text for letter in (await gateway.client.dead_letters(since="2h")).items] == ["two"]
    assert [letter.text for letter in (await gateway.client.dead_letters()).items] == ["one", "two"]
