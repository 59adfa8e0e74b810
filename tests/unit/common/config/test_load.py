"""Files that load: the founding document's patterns, the reference's shapes, and what absent keys mean."""

import hashlib
from datetime import timedelta
from pathlib import Path
from textwrap import dedent

import pytest

from navarch_common.config.autoscaling import (
    CompositeAutoscaling,
    ExternalAutoscaling,
    PredictiveAutoscaling,
    QueueAutoscaling,
    ReactiveAutoscaling,
    ScheduledAutoscaling,
)
from navarch_common.config.installed import Installed, installed
from navarch_common.config.load import Loaded, load_file, load_text
from navarch_common.config.pools import PoolConfig
from navarch_common.config.problems import ConfigError
from navarch_common.config.providers import ExternalProvider, FakeProvider, provider_type
from navarch_common.config.schema import Config
from navarch_common.config.units import Share

ALL = Installed(
    providers=frozenset({"local", "fake", "aws", "gcp", "lambda", "docker", "acme"}),
    autoscalers=frozenset({"reactive", "queue", "scheduled", "predictive", "composite", "astrology"}),
    notifiers=frozenset({"noop", "webhook"}),
)


def load(text: str, env: dict[str, str] | None = None, available: Installed = ALL) -> Config:
    return load_text(dedent(text), "navarch.yaml", env or {}, available=available).config


def pool(keys: str = "", rest: str = "", env: dict[str, str] | None = None) -> PoolConfig:
    """The pool `a` with more keys, in a file with more at its end."""
    text = (
        f"providers: {{here: {{type: local}}}}\npools:\n  a:\n    instance_type: x\n    max_nodes: 10\n{keys}\n{rest}"
    )
    return load(text, env).pools["a"]


PATTERN_1 = """\
providers:
  lambda: {type: fake}
  gcp: {type: fake}
defaults: {instance_type: h100-8x}
pools:
  k8s-gpu-workers:
    providers:
      - name: lambda
        priority: 1
      - name: gcp
        priority: 2
    min_nodes: 2
    max_nodes: 50
    autoscaling:
      type: reactive
      scale_up_at: 80
    health:
      auto_replace: true
"""

PATTERN_2 = """\
providers:
  cloud: {type: fake}
pools:
  k8s-gpu-workers:
    instance_type: h100-8x
    min_nodes: 0
    max_nodes: 100
    # No autoscaling config - Kubernetes handles it
    health:
      auto_replace: true  # Keep health monitoring
"""

PATTERN_3 = """\
providers:
  cloud: {type: local}
pools:
  training:
    instance_type: h100-8x
    min_nodes: 5
    max_nodes: 100
    autoscaling:
      type: queue
      jobs_per_node: 10
"""

REFERENCE = """\
server:
  address: ":50051"
  external_address: http://control:50051
  heartbeat_interval: 30s
  heartbeat_timeout: 2m
  health_check_interval: 60s
  autoscale_interval: 30s
  health_policy: ./policy.yaml
  notifier:
    type: webhook
    webhook:
      cordon_url: https://scheduler/cordon
      uncordon_url: https://scheduler/uncordon
      drain_url: https://scheduler/drain
      drain_status_url: https://scheduler/drained
      timeout: 30s
      headers:
        Authorization: Bearer ${SCHEDULER_TOKEN}
instance_manager:
  registration_timeout: 15m
  stale_check_interval: 1m
providers:
  lambda:
    type: lambda
    api_key_env: LAMBDA_API_KEY
  gcp-us:
    type: gcp
    project: my-project
    zone: us-central1-a
  fake:
    type: fake
    gpu_count: 8
  unused:
    type: aws
    region: us-east-1
pools:
  training:
    providers:
      - name: lambda
        priority: 1
        regions: [us-west-2, us-east-1]
      - name: gcp-us
        priority: 2
        weight: 3
        instance_type: a3-highgpu-8g
    strategy: round-robin
    instance_type: h100-8x
    region: us-central1
    zones: [us-central1-a]
    ssh_keys: [ops]
    min_nodes: 2
    max_nodes: 20
    cooldown: 10m
    autoscaling:
      type: composite
      mode: max
      autoscalers:
        - type: reactive
          scale_up_at: 75
          scale_down_at: 25
        - type: queue
          jobs_per_node: 4
        - type: scheduled
          schedule:
            - days: [monday, Tue]
              start: 9
              end: 24
              min_nodes: 10
              max_nodes: 20
          fallback:
            type: predictive
            lookback_window: 20
            growth_factor: 1.5
            fallback: {type: reactive}
    health:
      unhealthy_after: 2
      auto_replace: true
    labels:
      team: ml
      tier: 1
      no: yes
    setup_commands:
      - |
        curl -fsSL http://{{ .ControlPlane }}/agent | sh -s -- --pool {{ .Pool }}
    ssh_user: root
    ip_wait_timeout: 20m
  dev:
    provider: fake
    instance_type: anything-goes
    max_nodes: 1
defaults:
  ssh_keys: [default-key]
  ssh_user: ubuntu
  ssh_private_key_path: ~/.ssh/id_ed25519
  health:
    unhealthy_after: 3
    auto_replace: false
"""


@pytest.mark.parametrize("text", [PATTERN_1, PATTERN_2, PATTERN_3], ids=["together", "kubernetes scales", "alone"])
def test_the_founding_patterns_load_with_providers_and_an_instance_type(text: str) -> None:
    config = load(text, available=Installed())
    assert next(choice.instance_type for one in config.pools.values() for choice in one.choices) == "h100-8x"


def test_the_first_pattern_says_what_it_says() -> None:
    workers = load(PATTERN_1).pools["k8s-gpu-workers"]
    assert [(choice.name, choice.priority) for choice in workers.choices] == [("lambda", 1), ("gcp", 2)]
    assert (workers.min_nodes, workers.max_nodes, workers.strategy) == (2, 50, "priority")
    assert workers.autoscaling == ReactiveAutoscaling(scale_up_at=80, scale_down_at=20)
    assert workers.health.auto_replace


def test_a_pool_without_autoscaling_has_none_and_the_only_provider() -> None:
    workers = load(PATTERN_2).pools["k8s-gpu-workers"]
    assert workers.autoscaling is None
    assert workers.provider == "cloud"


def test_every_key_of_the_reference_loads_with_its_meaning() -> None:
    config = load(REFERENCE, {"SCHEDULER_TOKEN": "t0p"})
    server, training, dev = config.server, config.pools["training"], config.pools["dev"]
    assert server.heartbeat_interval == timedelta(seconds=30)
    assert server.heartbeat_timeout == timedelta(minutes=2)
    assert server.notifier.webhook is not None
    assert server.notifier.webhook.headers == {"Authorization": "Bearer t0p"}
    assert [provider_type(one) for one in config.providers.values()] == ["lambda", "gcp", "fake", "aws"]
    first, second = training.choices
    assert (first.regions, first.instance_type, first.weight) == (("us-west-2", "us-east-1"), "h100-8x", 1)
    assert (second.regions, second.instance_type, second.weight) == (("us-central1",), "a3-highgpu-8g", 3)
    assert training.strategy == "round-robin"
    assert training.cooldown == timedelta(minutes=10)
    assert training.labels == {"team": "ml", "tier": "1", "no": "yes"}
    assert training.ssh_user == "root"
    assert training.ssh_keys == ("ops",)
    assert training.ssh_private_key_path == "~/.ssh/id_ed25519"
    assert training.setup_commands[0].startswith("curl -fsSL http://{{ .ControlPlane }}")
    assert training.registration_timeout == timedelta(minutes=15)
    assert training.health.unhealthy_after == 2
    assert dev.ssh_keys == ("default-key",)
    assert (dev.health.unhealthy_after, dev.health.auto_replace) == (3, False)
    composite = training.autoscaling
    assert isinstance(composite, CompositeAutoscaling)
    reactive, queue, scheduled = composite.autoscalers
    assert reactive == ReactiveAutoscaling(scale_up_at=75, scale_down_at=25)
    assert queue == QueueAutoscaling(jobs_per_node=4)
    assert isinstance(scheduled, ScheduledAutoscaling)
    assert scheduled.schedule[0].days == ("mon", "tue")
    assert isinstance(scheduled.fallback, PredictiveAutoscaling)
    assert scheduled.fallback.lookback_window == 20
    assert scheduled.fallback.fallback == ReactiveAutoscaling()


def test_absent_keys_have_the_promised_defaults() -> None:
    config = load(PATTERN_3)
    server, training = config.server, config.pools["training"]
    assert (config.cluster, config.installation, config.gc, config.insecure) == ("default", None, "report", False)
    assert (server.address, server.http_address, config.bus.prefix) == (":50051", ":8080", "navarch")
    assert server.heartbeat_interval == timedelta(seconds=5)
    assert server.heartbeat_timeout == timedelta(seconds=15)
    assert server.silence_deadline == timedelta(minutes=5)
    assert training.cooldown == timedelta(minutes=5)
    assert training.health.auto_replace
    assert training.surge.enabled
    assert training.surge_max == training.disruption.max_unavailable == Share(1, 0.02)
    assert training.surge.timeout == timedelta(minutes=30)
    assert (training.disruption.max_per_hour, training.disruption.max_unhealthy) == (4, Share(2, 0.2))
    assert (training.scale_down.idle_after, training.scale_down.force) == (timedelta(minutes=10), False)
    assert training.registration_timeout == timedelta(minutes=10)
    assert (training.max_step_up, training.warm, training.automation) == (Share(4, 1.0), 0, "act")


def test_the_added_keys_load_at_their_defaults_as_the_contracts_write_them() -> None:
    keys = """\
    automation: act
    surge: {enabled: true, timeout: 30m}
    disruption:
      max_unavailable: max(1, 2 %)
      max_per_hour: 4
      max_unhealthy: max(2, 20 %)
      windows: []
    scale_down: {idle_after: 10m, force: false}
    registration_timeout: 10m
    repair: []
    spot: false
    spill: []
    max_step_up: max(4, 100 %)
    warm: 0
    validate:
    join:
"""
    assert pool(keys) == pool()


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("    cooldown_period: 7m", "    cooldown: 7m"),
        ("    health: {unhealthy_threshold: 5}", "    health: {unhealthy_after: 5}"),
        ("    autoscaler: {type: queue}", "    autoscaling: {type: queue}"),
        (
            "    autoscaling: {type: composite, strategies: [{type: queue}]}",
            "    autoscaling: {type: composite, autoscalers: [{type: queue}]}",
        ),
        (
            "    autoscaling: {type: reactive, scale_up_threshold: 70, scale_down_threshold: 10}",
            "    autoscaling: {type: reactive, scale_up_at: 70, scale_down_at: 10}",
        ),
        (
            "    autoscaling: {type: scheduled, schedule: [{start_hour: 1, end_hour: 2}]}\n    fallback: {type: queue}",
            "    autoscaling: {type: scheduled, schedule: [{start: 1, end: 2}], fallback: {type: queue}}",
        ),
        ("    health: {unhealthy_after: 0}", "    health: {unhealthy_after: 2}"),
        ("    strategy: ''", "    strategy: priority"),
        ("    health:", ""),
        ("    labels: ~", ""),
        ("    zones:", ""),
    ],
)
def test_other_spellings_mean_the_same(written: str, meant: str) -> None:
    assert pool(written) == pool(meant)


@pytest.mark.parametrize(
    ("defaults", "keys", "expected"),
    [
        ("cooldown: 1m", "", {"cooldown": timedelta(minutes=1)}),
        ("cooldown_period: 1m", "", {"cooldown": timedelta(minutes=1)}),
        ("cooldown: 1m", "    cooldown: 0s", {"cooldown": timedelta(0)}),
        ("cooldown: 1m", "    cooldown_period: 2m", {"cooldown": timedelta(minutes=2)}),
        ("cooldown: 1m", "    cooldown:", {"cooldown": timedelta(minutes=1)}),
        ("labels: {a: x, b: y}", "    labels: {b: z}", {"labels": {"a": "x", "b": "z"}}),
        ("zones: [a]", "    zones: [b]", {"zones": ("b",)}),
        ("provider: here", "    providers: [{name: here}]", {"provider": None}),
    ],
)
def test_a_pool_has_from_the_defaults_what_it_does_not_say(
    defaults: str, keys: str, expected: dict[str, object]
) -> None:
    found = pool(keys, f"defaults: {{{defaults}}}")
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("defaults", "keys", "expected"),
    [
        ("health: {auto_replace: false}", "", (2, False)),
        ("health: {auto_replace: false}", "    health: {unhealthy_after: 1}", (1, False)),
        ("health: {auto_replace: false}", "    health: {auto_replace: true}", (2, True)),
        ("health: {unhealthy_after: 7}", "    health: {unhealthy_threshold: 1}", (1, True)),
        ("unhealthy_threshold: 4, auto_replace: false", "", (4, False)),
        ("auto_replace: false, health: {unhealthy_after: 9}", "", (9, False)),
    ],
)
def test_health_is_inherited_key_by_key(defaults: str, keys: str, expected: tuple[int, bool]) -> None:
    health = pool(keys, f"defaults: {{{defaults}}}").health
    assert (health.unhealthy_after, health.auto_replace) == expected


def test_an_anchor_is_merged_and_a_pool_s_own_key_wins() -> None:
    config = load(
        """\
        providers: {here: {type: local}}
        pools:
          a: &base
            instance_type: x
            max_nodes: 3
            cooldown: 1m
          b:
            <<: *base
            max_nodes: 9
        """
    )
    assert [(one.max_nodes, one.cooldown) for one in config.pools.values()] == [
        (3, timedelta(minutes=1)),
        (9, timedelta(minutes=1)),
    ]


@pytest.mark.parametrize(
    ("keys", "env", "field", "value"),
    [
        ("    region: ${R}", {"R": "us"}, "region", "us"),
        ("    region: a-${R}-b-${R}", {"R": "us"}, "region", "a-us-b-us"),
        ("    region: ${R:-eu}", {}, "region", "eu"),
        ("    region: ${R:-eu}", {"R": ""}, "region", "eu"),
        ("    region: ${R:-eu}", {"R": "us"}, "region", "us"),
        ("    region: ${R:-eu}-${R:-}", {}, "region", "eu-"),
        ("    region: ${R:-}", {}, "region", None),
        ("    region: ${R}", {"R": ""}, "region", None),
        ("    region: $${R}", {}, "region", "${R}"),
        ("    region: $R", {}, "region", "$R"),
        ("    region: ${A}", {"A": "${B}"}, "region", "${B}"),
        ("    min_nodes: ${N}", {"N": "4"}, "min_nodes", 4),
        ("    min_nodes: '${N:-3}'", {}, "min_nodes", 3),
        ("    cooldown: ${C:-7m}", {}, "cooldown", timedelta(minutes=7)),
        ("    zones: ['${Z}']", {"Z": "z1"}, "zones", ("z1",)),
    ],
)
def test_variables_are_replaced_in_values(keys: str, env: dict[str, str], field: str, value: object) -> None:
    assert getattr(pool(keys, env=env), field) == value


def test_a_word_that_yaml_would_take_for_a_boolean_stays_a_word() -> None:
    found = pool("    region: no\n    labels: {a: on, b: 012, c: 1:30, d: 2026-01-01, e: null-ish}")
    assert found.region == "no"
    assert found.labels == {"a": "on", "b": "012", "c": "1:30", "d": "2026-01-01", "e": "null-ish"}


def test_a_declared_provider_of_a_later_release_loads_while_no_pool_uses_it() -> None:
    text = PATTERN_3.replace("pools:", "  other: {type: aws, region: r}\npools:").replace(
        "  training:\n", "  training:\n    provider: cloud\n"
    )
    assert provider_type(load(text, available=Installed()).providers["other"]) == "aws"


def test_another_distribution_s_provider_and_strategy_keep_their_own_keys() -> None:
    config = load(
        """\
        providers:
          acme: {type: acme, site: 7, deep: {on: true, list: [1.5, x, ~]}, token: "${TOKEN}"}
        pools:
          a: {instance_type: x, max_nodes: 2, autoscaling: {type: astrology, sign: leo}}
        """,
        {"TOKEN": "s3cret"},
    )
    acme = config.providers["acme"]
    assert isinstance(acme, ExternalProvider)
    assert acme.adapter == "acme"
    assert acme.settings == {"site": 7, "deep": {"on": True, "list": [1.5, "x", None]}, "token": "s3cret"}
    assert "s3cret" not in repr(config)
    assert config.pools["a"].autoscaling == ExternalAutoscaling(strategy="astrology", settings={"sign": "leo"})


def test_a_fake_provider_takes_its_knobs() -> None:
    config = load(
        """\
        providers:
          fake: {type: fake, url: "http://127.0.0.1:9999", gpu_count: 4, boot_time: 500ms, capacity: 12,
                 failure_rate: 0.25, lost_reply_rate: 0.5}
        pools: {a: {instance_type: x, max_nodes: 2}}
        """
    )
    assert config.providers["fake"] == FakeProvider(
        url="http://127.0.0.1:9999",
        gpu_count=4,
        boot_time=timedelta(milliseconds=500),
        capacity=12,
        failure_rate=0.25,
        lost_reply_rate=0.5,
    )


@pytest.mark.parametrize("address", ["127.0.0.1:1", "localhost:1", "[::1]:1", ":1", "127.9.9.9:0"])
def test_an_address_on_this_machine_needs_no_auth(address: str) -> None:
    load(f'server: {{address: "{address}"}}\n{PATTERN_3}')


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "control.example.com:1"])
def test_an_address_for_others_is_refused_unless_insecure(address: str) -> None:
    text = f'server: {{address: "{address}"}}\n{PATTERN_3}'
    with pytest.raises(ConfigError, match="without auth only this machine may connect"):
        load(text)
    load(f"insecure: true\n{text}")
    assert load_text(text, "f", {}, available=ALL, insecure=True).config.insecure


def test_text_and_hash_are_kept_without_the_variables_values() -> None:
    text = PATTERN_3 + "cluster: ${NAME}\n"
    loaded = load_text(text, "navarch.yaml", {"NAME": "blue"})
    assert isinstance(loaded, Loaded)
    assert loaded.config.cluster == "blue"
    assert loaded.text == text
    assert loaded.sha256 == hashlib.sha256(text.encode()).hexdigest()


def test_secrets_are_not_in_a_configuration_s_repr() -> None:
    text = PATTERN_3 + "bus: {url: 'nats://me:hunter2@h:1'}\nstate: {url: 'redis://:hunter2@h'}\n"
    assert "hunter2" not in repr(load_text(text, "f", {}))


def test_a_file_is_read_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "navarch.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + PATTERN_3.encode())
    assert load_file(file, {}).text == PATTERN_3


def test_what_navarch_brings_itself_is_always_installed() -> None:
    found = installed()
    assert {"local", "fake"} <= found.providers
    assert {"reactive", "queue"} <= found.autoscalers
