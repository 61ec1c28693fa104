"""Where these tests run."""

from __future__ import annotations

import os

import pytest

_ELSEWHERE = ("py312", "py313")


@pytest.fixture(autouse=True)
def _once() -> None:
    """They start servers and a browser, and what they show does not depend on the Python: one environment does."""
    if os.environ.get("TOX_ENV_NAME") in _ELSEWHERE:
        pytest.skip("the environment py311 runs ADK's commands")
