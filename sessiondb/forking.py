"""What a forked child must make anew: locks that a thread of the parent may have held."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Renewable(Protocol):
    """Something with locks, or with notes on threads, that a forked child inherits from its parent."""

    def renew_in_child(self) -> None:
        """Forgets both. Called in the child, which has one thread."""


_known: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_fork(owner: Renewable) -> None:
    """Renews ``owner`` in each child that this process forks, for as long as it lives."""
    _known.add(owner)


def _in_child() -> None:
    for owner in list(_known):
        owner.renew_in_child()


os.register_at_fork(after_in_child=_in_child)
