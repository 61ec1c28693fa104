"""The versions that ``tox -e lowest`` installs are the lower bounds in pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

HERE = Path(__file__).parent


def test_lowest_pins_equal_the_lower_bounds() -> None:
    project = tomllib.loads((HERE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    requirements = [*project["dependencies"], *(requirement for extra in extras.values() for requirement in extra)]
    lines = (HERE / "lowest.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        # A constraint of pip names no extra.
        re.sub(r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)(,<\d+)?$", r"\1==\2", requirement)
        for requirement in requirements
    ]
