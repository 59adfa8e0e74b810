import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from navarch_common.log import configure


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)


def lines(out: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_events_and_what_libraries_log_leave_as_lines_of_json() -> None:
    out = io.StringIO()
    configure("info", service="health", stream=out)
    structlog.get_logger("navarch").info("node failed", node="n1", silent_s=1.5)
    logging.getLogger("some.library").warning("trouble %d", 7)
    structlog.get_logger("navarch").debug("too fine")
    ours, theirs = lines(out)
    assert (ours["event"], ours["node"], ours["silent_s"], ours["level"]) == ("node failed", "n1", 1.5, "info")
    assert (theirs["event"], theirs["logger"], theirs["service"]) == ("trouble 7", "some.library", "health")
    assert str(ours["timestamp"]).endswith("Z")


def test_an_exception_stays_within_its_line() -> None:
    out = io.StringIO()
    configure(stream=out)
    try:
        raise ValueError("bad")
    except ValueError:
        structlog.get_logger("navarch").exception("broken", odd=object)
    (line,) = lines(out)
    assert "ValueError: bad" in str(line["exception"])


def test_on_a_terminal_people_can_read_it() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    configure(stream=out)
    structlog.get_logger("navarch").info("node failed", node="n1")
    assert "node failed" in out.getvalue()
    assert not out.getvalue().startswith("{")
