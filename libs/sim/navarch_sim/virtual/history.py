"""What happened in one run: told to people when it failed, and hashed to prove that a seed is always the same."""

import asyncio
import hashlib
from typing import NamedTuple


class Moment(NamedTuple):
    at_s: float
    kind: str
    text: str


class History:
    """Everything of note, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._hash = hashlib.sha256()
        self.moments: list[Moment] = []

    def note(self, kind: str, text: str) -> None:
        at_s = self._loop.time()
        self._hash.update(f"{at_s:.6f} {kind} {text}\n".encode())
        self.moments.append(Moment(at_s, kind, text))

    @property
    def digest(self) -> str:
        """The same for two runs exactly where the same happened at the same times in the same order."""
        return self._hash.hexdigest()

    def about(self, word: str, before_s: float = float("inf")) -> list[Moment]:
        """What names `word`, up to a time."""
        return [moment for moment in self.moments if moment.at_s <= before_s and word in moment.text]

    def lines(self, moments: list[Moment] | None = None) -> list[str]:
        chosen = self.moments if moments is None else moments
        return [f"{moment.at_s:9.3f}  {moment.kind:<9} {moment.text}" for moment in chosen]
