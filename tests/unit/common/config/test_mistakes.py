"""Every mistake is told at its line and column, with what was found and what was expected."""

from textwrap import dedent

import pytest

from navarch_common.config.installed import Installed
from navarch_common.config.load import load_text
from navarch_common.config.problems import ConfigError

ALL = Installed(
    providers=frozenset({"local", "fake", "aws", "gcp", "lambda", "docker"}),
    autoscalers=frozenset({"reactive", "queue", "scheduled", "predictive", "composite"}),
    notifiers=frozenset({"noop", "webhook"}),
)


def mistakes(text: str, env: dict[str, str] | None = None, available: Installed | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(dedent(text), "navarch.yaml", env or {}, available=available or Installed())
    return [str(problem) for problem in caught.value.problems]


HEAD = """\
providers:
  here: {type: local}
pools:
  training:
    instance_type: h100-8x
    max_nodes: 10
"""
"""Six lines that load; what a test adds begins in line 7."""


IN_A_POOL = {
    "unknown key": (
        "max_node: 5",
        "7:5: pools.training.max_node: unknown key 'max_node'; did you mean 'max_nodes'?",
    ),
    "unknown key that resembles nothing": ("zzz: 5", "7:5: pools.training.zzz: unknown key 'zzz'"),
    "unknown key below": (
        "health: {auto_replce: true}",
        "7:14: pools.training.health.auto_replce: unknown key 'auto_replce'; did you mean 'auto_replace'?",
    ),
    "duplicate key": ("max_nodes: 11", "7:5: pools.training.max_nodes: duplicate key, already set in line 6"),
    "key and its alias": (
        "cooldown: 5m\n    cooldown_period: 5m",
        "8:5: pools.training.cooldown_period: the same as 'cooldown', which is already set in line 7",
    ),
    "min over max": ("min_nodes: 11", "7:5: pools.training.min_nodes: expected at most max_nodes (10), found 11"),
    "text for a number": (
        "min_nodes: many",
        "7:5: pools.training.min_nodes: expected a whole number from 0 to 1000000, found many",
    ),
    "number in quotes": (
        "min_nodes: '3'",
        "7:5: pools.training.min_nodes: expected a whole number from 0 to 1000000, found the text '3'",
    ),
    "fraction for a count": (
        "min_nodes: 1.5",
        "7:5: pools.training.min_nodes: expected a whole number from 0 to 1000000, found 1.5",
    ),
    "negative count": (
        "min_nodes: -1",
        "7:5: pools.training.min_nodes: expected a whole number from 0 to 1000000, found -1",
    ),
    "absurd count": (
        "min_nodes: 99999999999999999999999",
        "7:5: pools.training.min_nodes: expected a whole number from 0 to 1000000, found 99999999999999999999999",
    ),
    "not a number": (
        "max_price_per_hour: .nan",
        "7:5: pools.training.max_price_per_hour: expected a number from 0 to 100000, found .nan",
    ),
    "infinity": (
        "max_price_per_hour: .inf",
        "7:5: pools.training.max_price_per_hour: expected a number from 0 to 100000, found .inf",
    ),
    "infinity by exponent": (
        "max_price_per_hour: 1e999",
        "7:5: pools.training.max_price_per_hour: expected a number from 0 to 100000, found 1e999",
    ),
    "duration without unit": (
        "cooldown: 300",
        "7:5: pools.training.cooldown: expected a duration such as 90s, 5m, 1h30m or 7d, found '300' without a unit",
    ),
    "bad duration": (
        "cooldown: 5 minutes",
        "7:5: pools.training.cooldown: expected a duration such as 90s, 5m, 1h30m or 7d, found '5 minutes'",
    ),
    "negative duration": (
        "cooldown: -5m",
        "7:5: pools.training.cooldown: expected a duration such as 90s, 5m, 1h30m or 7d, found the negative '-5m'",
    ),
    "duration too long": (
        "cooldown: 3000d",
        "7:5: pools.training.cooldown: expected a duration such as 90s, 5m or 1h30m, from 0s to 366d, found 3000d",
    ),
    "bad share": (
        "max_step_up: half",
        "7:5: pools.training.max_step_up: expected a count (3), a percentage (5%) or max(1, 5%), found 'half'",
    ),
    "neither true nor false": (
        "health: {auto_replace: maybe}",
        "7:14: pools.training.health.auto_replace: expected true or false, found maybe",
    ),
    "unknown strategy": (
        "strategy: cheapest",
        "7:5: pools.training.strategy: expected one of availability, cost, priority, round-robin, found cheapest",
    ),
    "nearly a strategy": (
        "strategy: prority",
        ("7:5: pools.training.strategy: expected one of availability, cost, priority, round-robin, found prority"
        "; did you mean 'priority'?"),
    ),
    "list for a text": ("region: [a, b]", "7:5: pools.training.region: expected printable text of at most 256 characters, found a list"),
    "text for a list": ("zones: us-east-1a", "7:5: pools.training.zones: expected a list, found us-east-1a"),
    "text for a section": (
        "health: good",
        "7:5: pools.training.health: expected a mapping of keys to values, found good",
    ),
    "control character": (
        'region: "a\\nb"',
        "7:5: pools.training.region: expected printable text of at most 256 characters, found 'a\\nb'",
    ),
    "text too long": (
        "region: " + "x" * 257,
        "7:5: pools.training.region: expected at most 256 characters, found 257",
    ),
    "item of a list": (
        "zones: [ok, {}]",
        "7:17: pools.training.zones[1]: expected printable text of at most 256 characters, found a mapping",
    ),
    "unknown autoscaling type": (
        "autoscaling: {type: magic}",
        "7:19: pools.training.autoscaling.type: expected one of composite, predictive, queue, reactive, scheduled, found magic",
    ),
    "autoscaling without type": (
        "autoscaling: {scale_up_at: 80}",
        "7:5: pools.training.autoscaling.type: this key is required: one of composite, predictive, queue, reactive, scheduled",
    ),
    "strategy of a later release": (
        "autoscaling: {type: scheduled}",
        ("7:19: pools.training.autoscaling.type: autoscaling type scheduled is not available in this release; "
        "available: queue, reactive"),
    ),
    "strategy of a later release inside": (
        "autoscaling: {type: queue}\n    fallback: {type: queue}",
        "8:5: pools.training.fallback: unknown key 'fallback'",
    ),
    "thresholds the wrong way round": (
        "autoscaling: {type: reactive, scale_up_at: 20, scale_down_at: 80}",
        "7:52: pools.training.autoscaling.scale_down_at: expected less than scale_up_at, found 80 and 20",
    ),
    "key of another strategy": (
        "autoscaling: {type: queue, scale_up_at: 20}",
        "7:32: pools.training.autoscaling.scale_up_at: unknown key 'scale_up_at'",
    ),
    "unknown provider": (
        "provider: her",
        "7:5: pools.training.provider: unknown provider 'her'; configured: here; did you mean 'here'?",
    ),
    "provider and providers": (
        "provider: here\n    providers: [{name: here}]",
        "8:5: pools.training.providers: expected either provider or providers, found both",
    ),
    "provider twice": (
        "providers: [{name: here}, {name: here}]",
        "7:32: pools.training.providers[1].name: the provider here is listed twice",
    ),
    "provider entry without name": (
        "providers: [{priority: 1}]",
        "7:17: pools.training.providers[0].name: this key is required",
    ),
    "commands without a key": (
        "setup_commands: [echo]",
        "7:5: pools.training.setup_commands: they need ssh_private_key_path, here or in defaults",
    ),
    "grace over deadline": (
        "drain: {grace: 5m, deadline: 1m}",
        "7:13: pools.training.drain.grace: longer than the deadline of the same drain",
    ),
    "missing variable": (
        "region: ${REGION}",
        ("7:5: pools.training.region: the environment variable REGION is not set; set it, write ${REGION:-default}, "
        "or $${REGION} to keep the text"),
    ),
    "half a variable": (
        "region: us-${REGION",
        "7:5: pools.training.region: `${` begins no variable; expected ${NAME} or ${NAME:-default}, or $${ for a plain ${",
    ),
    "webhook of a later release": (
        "notifier: {type: webhook, webhook: {}}",
        "7:16: pools.training.notifier.type: notifier type webhook is not available in this release; available: noop",
    ),
    "setting of a later release": (
        "spot: true",
        "7:5: pools.training.spot: this setting is not available in this release; only its default loads",
    ),
    "section of a later release": ("validate: {}", "7:5: pools.training.validate: validate is not available in this release"),
    "label's name": (
        "labels: {-x: y}",
        "7:14: pools.training.labels.-x: expected a label's name: letters, digits, and inner -, _, . and /, found -x",
    ),
    "tag": ("region: !!python/object:os.system x", "7:13: tags such as 'tag:yaml.org,2002:python/object:os.system' have no place in a configuration"),
    "alias without anchor": ("region: *nowhere", "7:13: the alias *nowhere has no anchor before it"),
    "tab": ("\tregion: x", "7:5: a tab cannot indent YAML; use spaces"),
}  # fmt: skip


@pytest.mark.parametrize(("added", "expected"), IN_A_POOL.values(), ids=IN_A_POOL)
def test_a_mistake_in_a_pool_is_told_at_its_place(added: str, expected: str) -> None:
    assert mistakes(f"{HEAD}    {added}\n") == [f"navarch.yaml:{expected}"]


IN_A_FILE = {
    "empty": ("", "1:1: the file is empty; expected at least `pools:`"),
    "comment alone": ("# nothing\n", "1:1: the file is empty; expected at least `pools:`"),
    "null": ("~\n", "1:1: the file is empty; expected at least `pools:`"),
    "a list": ("- a\n", "1:1: expected keys such as `pools:`, found a list"),
    "a word": ("hello\n", "1:1: expected keys such as `pools:`, found hello"),
    "two documents": (f"{HEAD}---\na: 1\n", "7:1: expected one document, found a second one"),
    "no pools": ("cluster: a\n", "1:1: pools: expected at least one pool"),
    "pools as a list": (
        "pools:\n  - name: a\n",
        "1:1: pools: expected a mapping of keys to values, found a list",
    ),
    "bad pool id": (
        HEAD.replace("training", "Training_1"),
        ("4:3: pools.Training_1: expected an id: lower-case letters, digits and inner hyphens, at most 63 characters, "
        "found Training_1"),
    ),
    "bad provider id": (
        HEAD.replace("here", "My Cloud"),
        ("2:3: providers.My Cloud: expected an id: lower-case letters, digits and inner hyphens, at most 63 characters, "
        "found My Cloud"),
    ),
    "bad cluster": (
        f"cluster: a/b\n{HEAD}",
        "1:1: cluster: expected an id: lower-case letters, digits and inner hyphens, at most 63 characters, found a/b",
    ),
    "pool without max_nodes": (HEAD.replace("    max_nodes: 10\n", ""), "4:3: pools.training.max_nodes: this key is required"),
    "pool without anything": ("providers: {here: {type: local}}\npools:\n  a:\n", "3:3: pools.a.max_nodes: this key is required"),
    "zero max_nodes": (
        HEAD.replace("10", "0"),
        "6:5: pools.training.max_nodes: expected a whole number from 1 to 1000000, found 0",
    ),
    "no instance type": (
        HEAD.replace("    instance_type: h100-8x\n", ""),
        "4:3: pools.training.instance_type: expected an instance_type in the pool, its provider entry or defaults",
    ),
    "no provider, two configured": (
        HEAD.replace("pools:", "  there: {type: fake}\npools:"),
        "5:3: pools.training.provider: expected a provider, since not exactly one is configured (configured: here, there)",
    ),
    "no provider configured": (
        "pools:\n  a: {instance_type: x, max_nodes: 1}\n",
        "2:3: pools.a.provider: expected a provider, since not exactly one is configured (configured: none)",
    ),
    "provider type of a later release": (
        HEAD.replace("local", "aws"),
        "2:10: providers.here.type: provider type aws is not available in this release; available: fake, local",
    ),
    "unknown provider type": (
        HEAD.replace("local", "locl"),
        "2:10: providers.here.type: expected one of aws, docker, fake, gcp, lambda, local, found locl; did you mean 'local'?",
    ),
    "provider without type": (
        HEAD.replace("{type: local}", "{gpu_count: 8}"),
        "2:3: providers.here.type: this key is required: one of aws, docker, fake, gcp, lambda, local",
    ),
    "key of another provider": (
        HEAD.replace("{type: local}", "{type: local, capacity: 3}"),
        "2:23: providers.here.capacity: unknown key 'capacity'",
    ),
    "rate over one": (
        HEAD.replace("{type: local}", "{type: fake, failure_rate: 2}"),
        "2:22: providers.here.failure_rate: expected a number from 0 to 1, found 2",
    ),
    "default that is wrong": (
        f"defaults: {{cooldown: soon}}\n{HEAD}",
        "1:12: defaults.cooldown: expected a duration such as 90s, 5m, 1h30m or 7d, found 'soon'",
    ),
    "auth": (f"auth: {{tokens: []}}\n{HEAD}", "1:1: auth: auth is not available in this release"),
    "open address": (
        f"server: {{address: 0.0.0.0:50051}}\n{HEAD}",
        ("1:10: server.address: without auth only this machine may connect: expected 127.0.0.1 as host, found 0.0.0.0; "
        "--insecure (or insecure: true) opens it to everybody"),
    ),
    "port too high": (
        f'server: {{address: ":99999"}}\n{HEAD}',
        "1:10: server.address: expected HOST:PORT or :PORT with a port from 0 to 65535, found ':99999'",
    ),
    "no port": (
        f"server: {{address: localhost}}\n{HEAD}",
        "1:10: server.address: expected HOST:PORT or :PORT, found localhost",
    ),
    "one port for both": (
        f'server: {{http_address: ":50051"}}\n{HEAD}',
        "1:10: server.http_address: the same as server.address, :50051; each needs its own port",
    ),
    "interval of a busy loop": (
        f"server: {{heartbeat_interval: 1ms}}\n{HEAD}",
        "1:10: server.heartbeat_interval: expected a duration such as 90s, 5m or 1h30m, from 100ms to 1d, found 1ms",
    ),
    "timeout under interval": (
        f"server: {{heartbeat_timeout: 1s}}\n{HEAD}",
        "1:10: server.heartbeat_timeout: shorter than heartbeat_interval: every node would be suspect",
    ),
    "deadline under timeout": (
        f"server: {{silence_deadline: 10s}}\n{HEAD}",
        "1:10: server.silence_deadline: shorter than heartbeat_timeout: a node would fail before it is suspect",
    ),
    "certificate without key": (
        f"bus: {{tls: {{cert_file: a.pem}}}}\n{HEAD}",
        "1:7: bus.tls: cert_file and key_file belong together, found only one of them",
    ),
    "number of replicas": (f"bus: {{replicas: 2}}\n{HEAD}", "1:7: bus.replicas: expected one of 1, 3, 5, found 2"),
    "address of NATS": (
        f"bus: {{url: http://nats:4222}}\n{HEAD}",
        "1:7: bus.url: expected nats://host:4222 (or tls://, ws://, wss://), several with commas, found what stands here",
    ),
    "limit below nothing": (
        f"limits: {{dollars_per_hour: -5}}\n{HEAD}",
        "1:10: limits.dollars_per_hour: expected a number from 0 to 10000000, found -5",
    ),
    "unclosed bracket": ("pools: {a: {max_nodes: 1}\n", "2:1: not readable as YAML: while parsing a flow mapping, did not find expected ',' or '}'"),
    "colon too many": ("a: b: c\n", "1:5: not readable as YAML: mapping values are not allowed in this context"),
    "control character": ("pools:\n  a: \x01\n", "2:6: not readable as YAML: control characters are not allowed"),
    "mapping as key": ("{a: 1}: 2\n", "1:1: expected a name as key, found a mapping"),
    "alias in itself": ("pools: &a\n  x: *a\n", "2:6: the alias *a stands inside itself"),
    "merge of a word": (HEAD + "    <<: hello\n", "7:5: pools.training.<<: `<<` merges mappings, found something else"),
    "nested too deep": ("a: " + "[" * 40 + "]" * 40 + "\n", "1:35: nested more than 32 deep"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), IN_A_FILE.values(), ids=IN_A_FILE)
def test_a_mistake_in_a_file_is_told_at_its_place(text: str, expected: str) -> None:
    assert mistakes(text) == [f"navarch.yaml:{expected}"]


IN_A_SCHEDULE = {
    "no hour": ("{start: 9, end: 9}", "10:28: pools.training.autoscaling.schedule[0].end: no hour lies from 9 to 9; a night is two entries, 9 to 24 and 0 to 9"),
    "overnight": ("{start: 22, end: 6}", "10:29: pools.training.autoscaling.schedule[0].end: no hour lies from 22 to 6; a night is two entries, 22 to 24 and 0 to 6"),
    "end forgotten": ("{start: 22}", "10:17: pools.training.autoscaling.schedule[0].end: no hour lies from 22 to 0"),
    "hour 25": ("{start: 1, end: 25}", "10:28: pools.training.autoscaling.schedule[0].end: expected a whole number from 0 to 24, found 25"),
    "day": ("{days: [Fryday], end: 24}", "10:25: pools.training.autoscaling.schedule[0].days[0]: expected a day of the week, such as mon or monday, found Fryday"),
    "bounds": ("{end: 24, min_nodes: 3, max_nodes: 2}", "10:27: pools.training.autoscaling.schedule[0].min_nodes: expected at most max_nodes (2), found 3"),
}  # fmt: skip


@pytest.mark.parametrize(("entry", "expected"), IN_A_SCHEDULE.values(), ids=IN_A_SCHEDULE)
def test_impossible_hours_are_told_at_their_place(entry: str, expected: str) -> None:
    text = f"{HEAD}    autoscaling:\n      type: scheduled\n      schedule:\n              - {entry}\n"
    assert mistakes(text, available=ALL) == [f"navarch.yaml:{expected}"]


def test_all_mistakes_of_a_file_are_told_in_its_order() -> None:
    found = mistakes(
        """\
        server: {heartbeat_interval: often}
        providers:
          here: {type: local, gpu_cont: 3}
        pools:
          training:
            instance_type: h100-8x
            max_nodes: lots
          other: {instance_type: x, max_nodes: 2, min_nodes: 3, provider: heer}
        nodes: 3
        """
    )
    assert [line.split(": ")[0] for line in found] == [
        "navarch.yaml:1:10",
        "navarch.yaml:3:23",
        "navarch.yaml:7:5",
        "navarch.yaml:8:43",
        "navarch.yaml:8:57",
        "navarch.yaml:9:1",
    ]


def test_a_mistake_that_many_pools_inherit_is_told_once_where_it_was_written() -> None:
    pools = "".join(f"  p{n}: {{max_nodes: 1, instance_type: x}}\n" for n in range(50))
    text = f"defaults:\n  health: {{unhealthy_after: never}}\nproviders: {{a: {{type: local}}}}\npools:\n{pools}"
    assert mistakes(text) == [
        "navarch.yaml:2:12: defaults.health.unhealthy_after: expected a whole number from 0 to 1000, found never"
    ]


SECRET = "hunter2"


@pytest.mark.parametrize(
    "line",
    [
        "bus: {url: '${SECRET}'}",
        "state: {url: '${SECRET}'}",
        "cluster: ${SECRET}!",
        "gc: ${SECRET}",
        "server: {heartbeat_interval: '${SECRET}'}",
        "limits: {nodes: '${SECRET}'}",
        'server: {notifier: {webhook: {headers: {x: "${SECRET}\\n"}}}}',
    ],
)
def test_what_came_from_the_environment_is_never_shown(line: str) -> None:
    found = mistakes(f"{line}\n{HEAD}", {"SECRET": SECRET})
    assert found
    assert SECRET not in "".join(found)


@pytest.mark.parametrize(
    "line", [f"bus: {{url: 'redis://:{SECRET}@host'}}", f"state: {{url: 'nats://me:{SECRET}@host'}}"]
)
def test_a_password_that_stands_in_an_address_is_never_shown(line: str) -> None:
    found = mistakes(f"{line}\n{HEAD}")
    assert found
    assert SECRET not in "".join(found)


def test_a_real_cloud_over_an_open_bus_is_refused_unless_insecure() -> None:
    text = HEAD.replace("{type: local}", "{type: lambda}") + "bus: {url: nats://bus:4222}\n"
    assert mistakes(text, available=ALL) == [
        (
            "navarch.yaml:7:1: bus: the provider here launches real machines, and the bus lacks TLS and credentials; "
            "insecure: true allows it"
        )
    ]
    load_text(text + "insecure: true\n", "f", {}, available=ALL)
    load_text(text, "f", {}, available=ALL, insecure=True)
    load_text(text.replace("nats://", "tls://token@"), "f", {}, available=ALL)


def test_a_gcp_provider_that_is_used_needs_its_project() -> None:
    text = HEAD.replace("{type: local}", "{type: gcp}")
    assert mistakes(text, available=ALL) == [
        "navarch.yaml:2:3: providers.here.project: this key is required with type: gcp"
    ]


def test_more_mistakes_than_anybody_reads_are_cut_short() -> None:
    assert len(mistakes(HEAD + "".join(f"key{n}: 1\n" for n in range(1000)))) == 100


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("disruption: {windows: [{days: [sat]}]}", "disruption.windows"),
        ("repair: [reset_gpu]", "repair"),
        ("spill: [spot]", "spill"),
        ("max_price_per_hour: 3", "max_price_per_hour"),
        ("warm: 1", "warm"),
    ],
)
def test_a_setting_that_would_have_no_effect_yet_is_refused(line: str, path: str) -> None:
    (told,) = mistakes(f"{HEAD}    {line}\n")
    assert told.endswith(
        f" pools.training.{path}: this setting is not available in this release; only its default loads"
    )


@pytest.mark.parametrize(
    "line",
    [
        "automation: observe",
        "automation: approve",
        "limits: {nodes: 3, dollars_per_hour: 9.5, launches_per_hour: 3, replacements_per_hour: 2}",
        "surge: {max: 3}",
    ],
)
def test_a_setting_that_has_an_effect_loads(line: str) -> None:
    load_text(f"limits: {{nodes: 9, launches_per_hour: 5}}\n{HEAD}    {line}\n", "f", {})
