"""``get_fast_api_app(session_db_kwargs=...)``: options of the service, by way of ADK's registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.engine.processes import run_forked
from tests.servers.fast_api_programs import serve_once


def served(folder: Path, options: dict[str, Any] | None) -> dict[str, Any]:
    answer = json.loads(run_forked(serve_once, folder, json.dumps(options)).splitlines()[-1])
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize("options", [None, {}])
def test_fast_api_app_without_options_keeps_the_file_as_by_default(
    tmp_path: Path, options: dict[str, Any] | None
) -> None:
    assert served(tmp_path, options) == {"status": 200, "kept": "as by default"}


def test_fast_api_app_passes_options_to_the_service(tmp_path: Path) -> None:
    answer = served(tmp_path, {"durability": "normal", "readers": 2, "on_stale": "append", "log_cache": "share"})
    assert answer["status"] == 200
    assert "open with durability='normal', readers=2:" in answer["kept"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"pool_size": 5, "echo": True, "readers": 2},
            "no option 'echo', 'pool_size'; the options of sessiondb are dur",
        ),
        ({"readers": "2"}, "readers must be a whole number, not '2'"),
        ({"durability": True}, "durability must be one of 'full', 'normal', not True"),
        ({"path": "other.sqlite3"}, "give either path or uri, not both"),
    ],
    ids=["unknown", "text for a number", "another type", "a second path"],
)
def test_fast_api_app_with_unusable_option_is_configuration_error(
    tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    """Seen failing with a TypeError for options of another service."""
    answer = served(tmp_path, options)
    assert says in answer["refused"]
    assert not answer["exists"]
