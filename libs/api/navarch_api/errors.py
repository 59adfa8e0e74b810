"""What can go wrong with a call: it was refused, it did not arrive, it took too long, or the answer made no sense."""

from navarch_api.types import Problem


class ClientError(Exception):
    """The root of the client's errors. Its text is one sentence for a person."""


class NotAName(ClientError):
    """What was given as a name cannot be one; nothing was asked."""


class Unreachable(ClientError):
    """No connection, or it broke: whether a change was made is not known unless it never connected."""


class TimedOut(ClientError):
    """No answer in time: whether a change was made is not known."""


class BadAnswer(ClientError):
    """What answered is not the API: another server, a proxy's page, a release too different."""


class ApiError(ClientError):
    """The server refused, and says why."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem

    @property
    def code(self) -> str:
        """Stable and machine-readable: `not-found`, `frozen`, `busy`, `out-of-bounds`."""
        return self.problem.code

    @property
    def status(self) -> int:
        return self.problem.status
