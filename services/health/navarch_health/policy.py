"""The health policy: ordered rules in CEL, compiled and type-checked when the file loads.

For one event the first rule that matches decides; for a node the worst of its events wins. A rule whose condition
fails at run time (a key that is not there, a value that is no boolean) does not match, and is counted. The file format
is the reference's; `action`, `after`, `within`, `mode`, `takes_work` and `clears_after` are added, all optional.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from importlib import resources
from typing import Any, Final, Literal, get_args

from cel_expr_python import cel
from msgspec import Struct

from navarch_common.config.document import Entry, Node, Scalar, Sequence, describe, parse
from navarch_common.config.document import Mapping as MappingNode
from navarch_common.config.problems import ConfigError, Mark, Report, nearest_name
from navarch_common.config.units import parse_duration
from navarch_common.model.health import Action, Episode
from navarch_health.episodes import EPISODES_PER_CODE, episodes_within

Result = Literal["healthy", "degraded", "unhealthy"]

VARIABLES: Final = ("event", "entity", "node", "gpu", "history")
"""What a condition may name. Each is a map of strings to anything."""
POLICY_BYTES_MAX: Final = 262_144
RULES_MAX: Final = 1000
CONDITION_CHARS_MAX: Final = 16_384
WITHIN_MAX: Final = timedelta(days=35)

_KEYS = frozenset(
    {"name", "description", "condition", "result", "action", "after", "within", "mode", "takes_work", "clears_after"}
)
_RANGE = re.compile(r"ERROR: <input>:(?P<line>\d+):(?P<column>\d+): (?P<message>.*)")


class PolicyError(ConfigError):
    """A policy cannot be used. Every mistake names its rule, and its line and column in the file."""


class Rule(Struct, frozen=True, kw_only=True):
    """One rule, as the file says it."""

    name: str
    condition: str
    result: Result
    description: str = ""
    action: Action = "none"
    """What is asked for when it matches. Absent: `drain_and_replace` where the result is unhealthy, else `none`."""
    after: int | None = None
    """It matches from this episode of the same entity and code on. None is the first."""
    within: timedelta | None = None
    """Counts only episodes that ended so long before the newest. None counts all."""
    shadow: bool = False
    """It is evaluated and counted, and decides nothing."""
    takes_work: bool = False
    """The fault already took the work that ran on the node: there is nothing left to drain."""
    clears_after: timedelta | None = None
    """A verdict by this rule goes after so long without a repetition. Never for an unhealthy one."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One observation, as conditions see it."""

    event: Mapping[str, Any]
    entity: Mapping[str, Any]
    node: Mapping[str, Any]
    gpu: Mapping[str, Any]
    history: Mapping[str, Any]
    episodes: tuple[Episode, ...] = ()
    """Of this entity and code, oldest first, the one that this observation belongs to included."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the policy says of one observation."""

    rule: Rule | None
    """The first that matched. None: nothing matched, which is healthy."""
    shadow: tuple[str, ...] = ()
    """Rules in shadow mode that would have decided, had they been in force."""
    errors: tuple[str, ...] = ()
    """Rules whose condition could not be evaluated."""


class Policy:
    """A checked policy. Judging is pure: the same facts, the same judgement."""

    def __init__(self, name: str, rules: tuple[Rule, ...], warnings: tuple[str, ...] = ()) -> None:
        """Raises `ValueError` where a condition does not compile: `load_policy` says it better."""
        self.name = name
        self.rules = rules
        self.warnings = warnings
        """What the file says and nobody reads, in sentences."""
        self._programs = tuple((rule, _environment().compile(rule.condition)) for rule in rules)

    def judge(self, facts: Facts) -> Judgement:
        shadow: list[str] = []
        errors: list[str] = []
        activation = _environment().Activation({name: getattr(facts, name) for name in VARIABLES})
        for rule, program in self._programs:
            value = program.eval(activation).value()
            if value is not True:
                if value is not False:
                    errors.append(rule.name)
                continue
            if not _enough(rule, facts.episodes):
                continue
            if rule.shadow:
                shadow.append(rule.name)
                continue
            return Judgement(rule, tuple(shadow), tuple(errors))
        return Judgement(None, tuple(shadow), tuple(errors))


def load_policy(text: str, file: str) -> Policy:
    """Reads a policy. Raises `PolicyError` with every mistake found."""
    report = Report(file)
    if len(text) > POLICY_BYTES_MAX:
        report.add("", f"{len(text)} characters, more than the {POLICY_BYTES_MAX} allowed for a policy")
        raise PolicyError(report.problems())
    try:
        root = parse(text, report)
    except ConfigError as error:
        raise PolicyError(error.problems) from None
    reader = _Reader(text, report)
    rules = reader.rules(root)
    if problems := report.problems():
        raise PolicyError(problems)
    return Policy(_title(root) or file, rules, tuple(reader.warnings))


@cache
def default_policy() -> Policy:
    """The policy in force where the configuration names none."""
    text = (resources.files("navarch_health") / "default_policy.yaml").read_text(encoding="utf-8")
    return load_policy(text, "default_policy.yaml")


def _enough(rule: Rule, episodes: tuple[Episode, ...]) -> bool:
    """Whether there were as many episodes as the rule waits for."""
    return rule.after is None or rule.after <= 1 or episodes_within(episodes, rule.within) >= rule.after


@cache
def _environment() -> Any:
    return cel.NewEnv(variables={name: cel.Type.Map(cel.Type.STRING, cel.Type.DYN) for name in VARIABLES})


def _title(root: MappingNode) -> str:
    metadata = root.get("metadata")
    if metadata is None or not isinstance(metadata.value, MappingNode):
        return ""
    name = metadata.value.get("name")
    return name.value.text[:256] if name is not None and isinstance(name.value, Scalar) else ""


class _Reader:
    """Turns the tree of a file into rules, noting every mistake."""

    def __init__(self, text: str, report: Report) -> None:
        self._lines = text.splitlines()
        self._report = report
        self.warnings: list[str] = []

    def rules(self, root: MappingNode) -> tuple[Rule, ...]:
        for entry in root.entries:
            if entry.key not in ("version", "metadata", "rules"):
                self._unknown("", entry, frozenset({"version", "metadata", "rules"}))
        found = root.get("rules")
        if found is None or not isinstance(found.value, Sequence) or not found.value.items:
            mark = None if found is None else found.mark
            shown = "nothing" if found is None else describe(found.value)
            self._report.add("rules", f"expected a list of at least one rule, found {shown}", mark=mark)
            return ()
        if len(found.value.items) > RULES_MAX:
            self._report.add("rules", f"{len(found.value.items)} rules, more than the {RULES_MAX} allowed")
            return ()
        rules: dict[str, Rule] = {}
        for index, item in enumerate(found.value.items):
            rule = self._rule(f"rules[{index}]", item)
            if rule is None:
                continue
            if rule.name in rules:
                self._report.add(f"rules[{index}]", f"a second rule named {rule.name!r}", mark=item.mark)
            rules[rule.name] = rule
        return tuple(rules.values())

    def _rule(self, path: str, node: Node) -> Rule | None:
        if not isinstance(node, MappingNode):
            self._report.add(
                path, f"expected a rule with name, condition and result, found {describe(node)}", mark=node.mark
            )
            return None
        name = self._text(path, node, "name", length_max=256)
        where = f"{path} ({name})" if name else path
        for entry in node.entries:
            if entry.key not in _KEYS:
                self._unknown(where, entry, _KEYS)
        condition = self._text(where, node, "condition", length_max=CONDITION_CHARS_MAX)
        if condition:
            self._compile(where, node, condition)
        result = self._choice(where, node, "result", get_args(Result), required=True)
        action = self._choice(where, node, "action", get_args(Action))
        mode = self._choice(where, node, "mode", ("enforce", "shadow"))
        after, within = self._after(where, node), self._duration(where, node, "within")
        clears_after = self._duration(where, node, "clears_after")
        if within is not None and after is None:
            self._add(where, node.get("within"), "`within` says in which time; say `after` how many episodes, too")
        if clears_after is not None and result == "unhealthy":
            self._add(where, node.get("clears_after"), "an unhealthy verdict never goes by time alone")
        takes_work = self._choice(where, node, "takes_work", ("true", "false")) == "true"
        if not name or not condition or result is None:
            return None
        return Rule(
            name=name,
            description=self._text(where, node, "description", required=False, length_max=4096),
            condition=condition,
            result=result,  # type: ignore[arg-type]
            action=action or ("drain_and_replace" if result == "unhealthy" else "none"),  # type: ignore[arg-type]
            after=after,
            within=within,
            shadow=mode == "shadow",
            takes_work=takes_work,
            clears_after=clears_after,
        )

    def _compile(self, path: str, rule: MappingNode, condition: str) -> None:
        entry = rule.get("condition")
        assert entry is not None
        try:
            returns = _environment().compile(condition).return_type()
        except RuntimeError as error:
            told = _RANGE.search(str(error))
            line, column = (int(told["line"]), int(told["column"])) if told else (1, 1)
            message = told["message"].removesuffix(" [INVALID_ARGUMENT]") if told else str(error)[:500]
            place = f"column {column}" if "\n" not in condition.strip() else f"line {line}, column {column}"
            mark = self._mark_inside(entry.value, condition, line, column)
            self._report.add(path, f"{place} of the condition: {message}", mark=mark)
            return
        if returns not in (cel.Type.BOOL, cel.Type.DYN):
            self._add(path, entry, f"column 1 of the condition: it is of type {returns.name().lower()}, expected bool")

    def _mark_inside(self, node: Node, condition: str, line: int, column: int) -> Mark:
        """Where a place of the condition stands in the file, as far as the text itself shows it."""
        wanted = condition.splitlines()[line - 1 : line]
        first = node.mark.line - 1
        for offset in (line, line - 1):
            if wanted and 0 <= first + offset < len(self._lines):
                at = self._lines[first + offset].find(wanted[0])
                if at >= 0 and wanted[0]:
                    return Mark(first + offset + 1, at + column)
        return node.mark

    def _after(self, path: str, rule: MappingNode) -> int | None:
        entry = rule.get("after")
        if entry is None:
            return None
        text = entry.value.text if isinstance(entry.value, Scalar) else ""
        if re.fullmatch(r"\d{1,4}", text) and 1 <= int(text) <= EPISODES_PER_CODE:
            return int(text)
        self._add(
            path, entry, f"`after` is a number of episodes from 1 to {EPISODES_PER_CODE}, found {describe(entry.value)}"
        )
        return None

    def _duration(self, path: str, rule: MappingNode, key: str) -> timedelta | None:
        entry = rule.get(key)
        if entry is None:
            return None
        try:
            value = parse_duration(entry.value.text if isinstance(entry.value, Scalar) else "")
        except ValueError:
            value = timedelta(0)
        if timedelta(0) < value <= WITHIN_MAX:
            return value
        self._add(
            path, entry, f"`{key}` is a duration such as 10m, over 0 and at most 35d, found {describe(entry.value)}"
        )
        return None

    def _text(self, path: str, rule: MappingNode, key: str, *, required: bool = True, length_max: int) -> str:
        entry = rule.get(key)
        if entry is None or (isinstance(entry.value, Scalar) and not entry.value.text.strip()):
            if required:
                self._report.add(path, f"`{key}` is missing", mark=rule.mark)
            return ""
        if not isinstance(entry.value, Scalar):
            self._add(path, entry, f"`{key}` is a text, found {describe(entry.value)}")
            return ""
        if len(entry.value.text) > length_max:
            self._add(
                path, entry, f"`{key}` has {len(entry.value.text)} characters, more than the {length_max} allowed"
            )
            return ""
        return entry.value.text

    def _choice(
        self, path: str, rule: MappingNode, key: str, choices: tuple[str, ...], *, required: bool = False
    ) -> str | None:
        entry = rule.get(key)
        if entry is None:
            if required:
                self._report.add(path, f"`{key}` is missing; expected one of {', '.join(choices)}", mark=rule.mark)
            return None
        text = entry.value.text if isinstance(entry.value, Scalar) else ""
        if text in choices:
            return text
        message = f"`{key}` is one of {', '.join(choices)}, found {describe(entry.value)}"
        self._report.add(path, message, mark=entry.mark, nearest=nearest_name(text, choices) if text else None)
        return None

    def _unknown(self, path: str, entry: Entry, known: frozenset[str]) -> None:
        """The reference ignores keys that it does not know. So do we, but for what looks like a slip of the pen."""
        nearest = nearest_name(entry.key, known)
        if nearest is None:
            self.warnings.append(f"line {entry.mark.line}: {path or 'the file'}: key {entry.key!r:.100} is ignored")
        else:
            self._report.add(path, f"unknown key {entry.key!r:.100}", mark=entry.mark, nearest=nearest)

    def _add(self, path: str, entry: Entry | None, message: str) -> None:
        self._report.add(path, message, mark=None if entry is None else entry.mark)


Judge = Callable[[Facts], Judgement]
"""What `verdict` needs of a policy."""
