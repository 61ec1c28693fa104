"""What the pages say can be pasted into an interactive shell can be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markdown import PAGES, README, ROOT, Block, blocks_of, page_id
from tests.docs.pasting import Shell, awaits, paste

QUICK_START = ROOT / "docs" / "quickstart.md"

_AWAITING = [page for page in PAGES if any(block.language == "python" and awaits(block) for block in blocks_of(page))]


@pytest.mark.parametrize("page", _AWAITING, ids=page_id)
def test_page_that_awaits_outside_a_function_says_where_that_works(page: Path) -> None:
    assert "`python -m asyncio`" in page.read_text().replace(".venv/bin/", "")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_examples_are_taken_line_by_line(page: Path) -> None:
    """A shell ends a block at an empty line, and at nothing else; what is saved as a file is not pasted."""
    for block in blocks_of(page):
        if block.language == "python" and not block.code.startswith("# "):
            shell = Shell()
            shell.paste(block.code)
            assert shell.refused == [], block.place


@pytest.mark.parametrize("text", ["with x:\n    1\n\n    2\n", "for n in x:\n    1\nprint(n)\n", "print(\n"])
def test_what_a_shell_does_not_take_is_found(text: str) -> None:
    shell = Shell()
    shell.paste(text)
    assert shell.refused or shell.push("")


@pytest.mark.parametrize("page", [README, QUICK_START], ids=page_id)
def test_first_examples_work_where_they_are_pasted(page: Path, tmp_path: Path) -> None:
    blocks = [block for block in blocks_of(page) if block.language == "python" and not _needs_a_network(block)]
    pasted = [block for block in blocks if page == QUICK_START or awaits(block)]
    assert any(awaits(block) for block in pasted)
    printed, errors = paste("\n".join(f"{block.code}\n" for block in pasted), tmp_path)
    assert "Error" not in errors, errors
    promised = re.findall(r"^ *print\(.*\)  # (.+)$", "".join(block.code for block in pasted), re.MULTILINE)
    assert promised
    remaining = iter(printed)
    for line in promised:
        assert line in remaining, (line, printed)


def _needs_a_network(block: Block) -> bool:
    return "gemini" in block.code
