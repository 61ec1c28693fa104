"""Let tox find the interpreters that pyenv holds.

pyenv's shims answer only for the versions it has been told to activate, so `python3.13` may be installed and on the
PATH, and still not start. tox asks here first where interpreters are.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tox.plugin import impl

if TYPE_CHECKING:
    from tox.config.sets import ConfigSet
    from tox.session.state import State


@impl
def tox_add_core_config(core_conf: ConfigSet, state: State) -> None:
    """Search what `--discover` names, then the Python that tox runs on, then pyenv's."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = sorted(str(python) for python in root.glob("versions/3.*/bin/python"))
    state.conf.options.discover = [*state.conf.options.discover, sys.executable, *found]
