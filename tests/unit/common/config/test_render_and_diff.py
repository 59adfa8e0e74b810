"""A configuration in the file's own forms, and what differs between two."""

import msgspec
import pytest
import yaml

from navarch_common.config.diff import diff
from navarch_common.config.installed import Installed
from navarch_common.config.load import load_text
from navarch_common.config.render import plain
from navarch_common.config.schema import Config

ALL = Installed(
    providers=frozenset({"local", "fake", "aws", "gcp", "lambda", "docker", "acme"}),
    autoscalers=frozenset({"reactive", "queue", "scheduled", "predictive", "composite", "astrology"}),
    notifiers=frozenset({"noop", "webhook"}),
)

FULL = """\
cluster: blue
bus: {url: "nats://me:hunter2@bus:4222", replicas: 3}
server:
  heartbeat_interval: 2500ms
  notifier: {type: webhook, webhook: {drain_url: "https://s/d", headers: {Authorization: hunter2}}}
providers:
  here: {type: local}
  there: {type: fake, boot_time: 1m30s, capacity: 5}
  other: {type: acme, key: hunter2, list: [1, {a: b}]}
defaults: {cooldown: 1m, labels: {a: b}}
insecure: true
pools:
  one:
    instance_type: h100-8x
    providers: [{name: here, priority: 1}, {name: there, weight: 2, regions: [r]}, {name: other}]
    min_nodes: 1
    max_nodes: 5
    max_step_up: max(3, 12.5%)
    setup_commands: ["join --token hunter2 $${HOME}"]
    ssh_private_key_path: ~/.ssh/id
    autoscaling:
      type: composite
      mode: avg
      autoscalers: [{type: queue, jobs_per_node: 3}, {type: astrology, sign: leo}]
  two: {provider: here, instance_type: x, max_nodes: 2, region: "no", health: {auto_replace: false}}
"""

SMALL = """\
providers: {here: {type: local}}
pools:
  one: {instance_type: x, max_nodes: 2}
"""


def load(text: str) -> Config:
    return load_text(text, "navarch.yaml", {}, available=ALL).config


@pytest.mark.parametrize("text", [FULL, SMALL], ids=["full", "small"])
def test_what_was_rendered_with_secrets_loads_as_the_same_configuration(text: str) -> None:
    config = load(text)
    assert load(yaml.safe_dump(plain(config, secrets=True))) == config


@pytest.mark.parametrize("text", [FULL, SMALL], ids=["full", "small"])
def test_a_configuration_survives_json(text: str) -> None:
    config = load(text)
    assert msgspec.json.decode(msgspec.json.encode(config), type=Config) == config


def test_what_is_rendered_for_eyes_hides_secrets_and_keeps_the_file_s_forms() -> None:
    shown = plain(load(FULL))
    assert "hunter2" not in str(shown)
    assert shown["server"]["heartbeat_interval"] == "2s500ms"
    assert shown["pools"]["one"]["max_step_up"] == "max(3, 12.5%)"
    assert shown["providers"]["there"]["type"] == "fake"


@pytest.mark.parametrize(
    ("was", "will_be", "expected"),
    [
        ("", "", []),
        ("", "  two: {instance_type: x, max_nodes: 2}\n", ["pools.two: added"]),
        ("  two: {instance_type: x, max_nodes: 2}\n", "", ["pools.two: removed"]),
        ("", "cluster: blue\n", ["cluster: default -> blue"]),
        ("", "server: {silence_deadline: 10m}\n", ["server.silence_deadline: 5m -> 10m"]),
        (
            "",
            "server: {heartbeat_interval: 10s}\n",
            ["server.heartbeat_interval: 5s -> 10s", "server.heartbeat_timeout: 15s -> 30s"],
        ),
        ("", "defaults: {cooldown: 1m}\n", ["pools.one.cooldown: 5m -> 1m"]),
        ("", "defaults: {labels: {a: b}}\n", ["pools.one.labels.a: added"]),
        ("", "defaults: {autoscaling: {type: queue}}\n", ["pools.one.autoscaling.type: added", "pools.one.autoscaling.jobs_per_node: added"]),
        ("bus: {url: 'nats://a'}\n", "bus: {url: 'nats://b'}\n", ["bus.url: <hidden> -> <hidden>"]),
        ("", "bus: {url: 'nats://b'}\n", ["bus.url: added"]),
    ],
)  # fmt: skip
def test_a_difference_is_told_key_by_key(was: str, will_be: str, expected: list[str]) -> None:
    assert [str(change) for change in diff(load(SMALL + was), load(SMALL + will_be))] == expected


def test_a_changed_pool_tells_only_what_changed() -> None:
    changes = diff(load(FULL), load(FULL.replace("max_nodes: 5", "max_nodes: 7").replace("weight: 2", "weight: 3")))
    assert [change.path for change in changes] == ["pools.one.max_nodes", "pools.one.providers"]
    assert (changes[0].old, changes[0].new) == (5, 7)
