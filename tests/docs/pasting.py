"""Pastes examples into Python's interactive shells, which take a line at a time."""

from __future__ import annotations

import ast
import code
import os
import re
import subprocess
import sys
from pathlib import Path
from types import CodeType

from typing_extensions import override

from tests.command import PACKAGE_PARENT
from tests.docs.markdown import Block


def awaits(block: Block) -> bool:
    """Whether an example awaits something outside any function, which only ``python -m asyncio`` takes."""
    try:
        compile(block.code, str(block.page), "exec", dont_inherit=True)
    except SyntaxError:
        return True
    return False


class Shell(code.InteractiveConsole):
    """Takes lines as ``python -m asyncio`` does, and runs none.

    Attributes:
        refused: The lines at which there was a syntax error.
    """

    def __init__(self) -> None:
        super().__init__()
        self.compile.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        self.refused: list[str] = []
        self._line = ""

    def paste(self, text: str) -> None:
        """Types ``text``, and Enter once more, which ends a block."""
        for self._line in [*text.splitlines(), ""]:
            self.push(self._line)

    @override
    def runcode(self, code: CodeType) -> None:
        pass

    @override
    def showsyntaxerror(self, filename: str | None = None, **_details: object) -> None:
        self.refused.append(self._line)


def paste(text: str, folder: Path) -> tuple[list[str], str]:
    """Pastes ``text`` into a ``python -m asyncio`` in a folder; returns the lines that it prints, and its errors."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "asyncio"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PACKAGE_PARENT)},
        input=text,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    # Prompts stand before what is printed.
    return re.sub(r"^(?:>>> |\.\.\. )+", "", done.stdout, flags=re.MULTILINE).splitlines(), done.stderr
