"""The figures that a run of these tests yields, shown as a table at its end."""

from __future__ import annotations

from collections.abc import Callable

Figures = Callable[..., None]
"""``figures("power cuts", cuts=20_000, lost=0)`` adds a line; sums of the same subject and name are added up."""

TABLE: dict[str, dict[str, int | float | str]] = {}


def record(subject: str, /, **values: float | str) -> None:
    """Adds figures under a subject."""
    line = TABLE.setdefault(subject, {})
    for name, value in values.items():
        known = line.get(name)
        if isinstance(known, int | float) and isinstance(value, int | float):
            line[name] = known + value
        else:
            line[name] = value


def lines() -> list[str]:
    """Returns the table, one line a subject."""
    width = max(map(len, TABLE), default=0)
    return [
        f"{subject.ljust(width)}  "
        + ", ".join(
            f"{name.replace('_', ' ')} {value:,}" if isinstance(value, int) else f"{name.replace('_', ' ')} {value}"
            for name, value in values.items()
        )
        for subject, values in TABLE.items()
    ]
