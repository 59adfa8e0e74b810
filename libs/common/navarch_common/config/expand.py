"""`${VAR}` and `${VAR:-default}` in values. Pure: the environment is passed in.

What comes out of the environment may be a secret, so no message here, nor any later one, shows more than the text as
it stands in the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?:(:-)([^{}]*))?\})?")
EXPANDED_LENGTH_MAX = 65_536


class ExpansionError(ValueError):
    """A value refers to something that is not there. The message names the variable."""


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace each `${VAR}` by the variable and each `${VAR:-default}` by it or, where unset or empty, by the default.

    `$${` stands for a plain `${`. Raises ExpansionError for a variable that is not set, and for what only begins like
    a reference.
    """
    if "${" not in text:
        return text

    def value(match: re.Match[str]) -> str:
        name, has_default, default = match.groups()
        if match.group() == "$${":
            return "${"
        if name is None:
            raise ExpansionError("`${` begins no variable; expected ${NAME} or ${NAME:-default}, or $${ for a plain ${")
        found = env.get(name)
        if has_default:
            return found or str(default)
        if found is None:
            raise ExpansionError(
                f"the environment variable {name} is not set; set it, write ${{{name}:-default}}, "
                f"or $${{{name}}} to keep the text"
            )
        return found

    expanded = _REFERENCE.sub(value, text)
    if len(expanded) > EXPANDED_LENGTH_MAX:
        raise ExpansionError(f"more than {EXPANDED_LENGTH_MAX} characters once variables are replaced")
    return expanded


def escape(text: str) -> str:
    """Write a text so that `expand` gives it back."""
    return text.replace("${", "$${")
