"""How much the tests of this package do: one setting, ``SESSIONDB_FAULTS=full``, for all of them."""

from __future__ import annotations

import os
import random
from typing import TypeVar

SizeT = TypeVar("SizeT")

FULL = os.environ.get("SESSIONDB_FAULTS") == "full"


def sized(small: SizeT, full: SizeT) -> SizeT:
    """Returns ``small`` in a normal run, ``full`` in a full one."""
    return full if FULL else small


def new_seed() -> int:
    """Returns the seed of this run: ``SESSIONDB_FAULTS_SEED``, else a new one. A failure's message names it."""
    given = os.environ.get("SESSIONDB_FAULTS_SEED")
    return int(given) if given else random.SystemRandom().randrange(2**32)
