"""A process that stands in line. It starts within a tenth of a second, since it imports nothing of ADK."""

from __future__ import annotations

from pathlib import Path

from sessiondb.stores.sqlite.line import Line
from tests.engine.processes import listen, say


def stand_in_line(path: str) -> None:
    """Forms a line, and does in it what it is told."""
    place = Line(Path(path))
    place.form()
    say("formed" if place.is_formed else "not formed")
    while order := listen():
        match order.split():
            case ["enter", seconds]:
                say("first" if place.enter(float(seconds)) else "not first")
            case ["leave"]:
                place.leave()
                say("left")
            case ["form"]:
                place.form()
                say("formed")
    place.close()
