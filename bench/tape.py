"""Lets pytest-benchmark tabulate what was measured in turns.

pytest-benchmark times one benchmark to its end before it begins the next. Here the rounds of all services take turns,
in processes of their own; then each benchmark plays its rounds from a tape, on a clock that advances by what was
measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle


class Tape:
    """A clock that only runs while a measured duration is played."""

    def __init__(self) -> None:
        self._now = 0.0
        self._durations: Iterator[float] = cycle([1e-9])

    def load(self, durations: Sequence[float]) -> None:
        """Puts in the durations to play, in seconds."""
        self._durations = iter(durations)

    def play(self) -> None:
        """Lets the next duration pass."""
        # A duration of nothing (no CPU time at all) would be divided by.
        self._now += max(next(self._durations), 1e-9)

    def clock(self) -> float:
        """The time on the tape, in seconds."""
        return self._now


TAPE = Tape()


def clock() -> float:
    """The timer of every benchmark here."""
    return TAPE.clock()
