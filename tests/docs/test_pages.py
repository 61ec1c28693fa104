"""Every example of README.md and docs/ runs, page by page."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.docs.markdown import PAGES, README, ROOT, Block, anchors_of, blocks_of, links_of, page_id
from tests.docs.reader import SERVER, reader

_LINKING = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_examples_of_each_page_run(
    page: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    blocks = blocks_of(page)
    assert [block for block in blocks if block.language != "text"], "a page without an example cannot be checked"
    with_server = any(block.language == "postgresql" or SERVER.search(block.code) for block in blocks)
    database = request.getfixturevalue("postgres_database") if with_server else None
    with reader(tmp_path, capsys, monkeypatch, database) as someone:
        for block in blocks:
            someone.run(block)


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "print(1 + 1)  # 3\n"),
        ("python", "for n in range(2):\n    print(n)\n# 1\n# 0\n"),
        ("python", "assert await service.get_session('my_app', 'user_123', 'nobody')\n"),
        ("sql", "SELECT * FROM adk_events WHERE session_id = 'nobody';\n"),
        ("sql", "SELECT 1\n"),
        ("sh", "sessiondb demo --no-such-option\n"),
        ("sh", "cd . && .venv/bin/sessiondb no-such-command\n"),
        ("sh", "if true\n"),
        ("console", "$ sessiondb stats sessions.sqlite3\nsessions  2\n"),
        ("console", "$ sessiondb no-such-command\n"),
        ("console", "$ rm sessions.sqlite3\n"),
        ("fortran", "stop\n"),
    ],
)
def test_page_example_that_fails_is_found(
    language: str, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with reader(tmp_path, capsys, monkeypatch) as someone:
        someone.run(
            Block(
                README,
                1,
                "python",
                "from sessiondb import DatabaseSessionService\nservice = DatabaseSessionService('sessions.sqlite3')\n",
            )
        )
        with pytest.raises((AssertionError, subprocess.CalledProcessError)):
            someone.run(Block(README, 1, language, code))


@pytest.mark.parametrize("page", _LINKING, ids=page_id)
def test_page_links_and_anchors_exist(page: Path) -> None:
    for link in links_of(page):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors_of(target), link


def test_ci_runs_the_test_command_of_the_readme() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    marker = lines.index("<!-- test-command -->")
    (command,) = [block.code for block in blocks_of(README) if block.line == marker + 2]
    assert command.splitlines() == [lines[marker + 2]]
    assert ".venv/bin/tox" in command
