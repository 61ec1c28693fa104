"""``sessiondb init``: make ``adk web``, ``adk api_server`` and ``adk run`` know the service."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from .database import to_database
from .output import json_option, print_json, safe_line

if TYPE_CHECKING:
    from sessiondb.cli.services_file import Kind, ServicesFile
    from sessiondb.location import Database

_EPILOG = """\b
Examples:
  sessiondb init agents
  sessiondb init agents sessions.sqlite3
  sessiondb init agents sessions.sqlite3 --example     to begin with, an agent too
  sessiondb init agents/assistant sessions.sqlite3     for `adk run agents/assistant`
  sessiondb init agents sessions.sqlite3 --memory      what the user has said before is found, too
  sessiondb init agents postgresql://user@host/db
  sessiondb init agents --json | jq -r .uri

\b
The URI for ADK:
  sessiondb:///sessions.sqlite3           below the folder in which adk is started
  sessiondb:////srv/data/sessions.sqlite3 an absolute path, which begins with the fourth slash
  sessiondb+postgresql://user@host/db     a PostgreSQL server
"""

_MAX_DEPTH = 5
"""How far below the folder `adk web` looks for agents."""


@click.command("init", epilog=_EPILOG)
@click.argument("agents_dir", type=click.Path(file_okay=False, path_type=Path))
@click.argument("file", required=False, callback=to_database)
@click.option("--example", is_flag=True, help="Write a small agent into AGENTS_DIR first; nothing is overwritten.")
@click.option("--memory", is_flag=True, help="Let FILE be ADK's memory too, which gives it a text index.")
@json_option
@click.pass_context
def command(
    context: click.Context, *, agents_dir: Path, file: Database, example: bool, memory: bool, as_json: bool
) -> None:
    """Make ADK's servers know the scheme sessiondb: (for a server sessiondb+postgresql:), and check that they do.

    AGENTS_DIR is what adk is given: the folder with your agents, or the folder of one. (`adk run` reads the latter
    only.) Its services.yaml is created if there is none. Then the service is opened as adk would open it, which creates
    FILE if it is missing, and the command to start is printed. A services.yaml that is there is never changed: if it
    lacks the entry, the lines to add are printed; add them, and run the command again. FILE is a path or URL; without
    it: $SESSIONDB_PATH, else .adk/adk.sqlite3, as the service itself. With --memory all that is done for ADK's memory, too.
    """
    from . import registration, services_file

    written = _write_example(agents_dir) if example else None
    agents = _agents_in(agents_dir.resolve())
    if not agents:
        lack = f"there is no agent in {agents_dir}" if agents_dir.is_dir() else f"{agents_dir} does not exist"
        raise click.BadParameter(
            f"{lack}: an agent is a folder in it, with an agent.py or __init__.py that defines root_agent, or with a"
            " root_agent.yaml; --example writes one",
            param_hint="AGENTS_DIR",
        )
    scheme = services_file.SCHEME if isinstance(file, Path) else services_file.SERVER_SCHEME
    kinds: tuple[Kind, ...] = ("session", "memory") if memory else ("session",)
    try:
        services = services_file.plan(agents_dir, scheme, kinds)
        services.write()
    except (services_file.ServicesFileError, OSError) as error:
        raise click.ClickException(safe_line(str(error))) from error

    uri = _uri(file)
    adk = registration.find_adk()
    password = None if isinstance(file, Path) else file.password_in_url
    notes = _notes(services, agents)
    if password is not None:
        notes.append("the password is not in the command: put it into ~/.pgpass, or into the variable PGPASSWORD")
    found = registration.check_all(adk, agents_dir.resolve(), uri, password, kinds)
    notes += found.notes
    verbs = ("web", "run") if _is_agent(agents_dir) else ("web",)
    uris = [f"--{kind}_service_uri={uri}" for kind in kinds]
    commands = [[*adk.command, verb, *uris, str(agents_dir)] for verb in verbs]
    # Where services.py registers the scheme, or ADK cannot be asked, the lines are not what is missing.
    is_needed = bool(found.problem and services.exists and services.lines and (found.is_unknown or services.other))
    change = "needed" if is_needed else "unchanged" if services.exists else "created"
    problem = found.problem
    if is_needed:
        problem = f"{services.path} {services.lack}; {found.problem}"
    if as_json:
        report: dict[str, Any] = {
            "services_file": str(services.path),
            "change": change,
            "lines": services.lines if is_needed else None,
            "place": services.place if is_needed else None,
            "agents": agents,
            "uri": uri,
            "path": str(file),
            "commands": commands,
            "example": None if written is None else str(written),
            "notes": notes,
            "problem": problem,
        }
        print_json(report)
    else:
        if written is not None:
            click.echo(safe_line(f"{written}: created; its model wants a key in GOOGLE_API_KEY"))
        click.echo(safe_line(f"{services.path}: {change}"))
        click.echo(safe_line(f"agents: {', '.join(agents)}"))
        for text in notes:
            click.echo(safe_line(f"note: {text}"))
        if is_needed:
            click.echo(safe_line(f"Put these lines into {services.path}, {services.place}:"))
            click.echo(f"\n{services.lines}\nThen run this command again, which checks the result.")
    if problem:
        raise click.ClickException(safe_line(problem))
    if not as_json:
        click.echo(f"ADK opens {safe_line(str(file))} with this package. Start it:\n")
        for words in commands:
            click.echo(f"  {safe_line(shlex.join(words))}")


def _notes(services: ServicesFile, agents: list[str]) -> list[str]:
    return [
        *(
            f"the scheme {scheme!r} in {services.path} cannot be reached: a URI's has lower-case letters, digits, + - ."
            for scheme in services.unreachable
        ),
        *(
            f"ADK cannot load the agent {agent!r}: the name of its folder may have letters, digits and _ only"
            for agent in agents
            if not re.fullmatch(r"[\w.]+", agent, re.ASCII)
        ),
    ]


def _uri(database: Database) -> str:
    from . import services_file

    if isinstance(database, Path):
        # Four slashes: the command that is printed means the same file wherever it is started.
        return f"{services_file.SCHEME}:///{quote(os.fsencode(database))}"
    # `adk` shows its arguments to all users of the machine.
    return services_file.SERVER_SCHEME + database.public_url.removeprefix("postgresql")


def _write_example(agents_dir: Path) -> Path:
    from . import example_agent

    if _is_agent(agents_dir):
        raise click.BadParameter(
            f"{agents_dir} is an agent itself; --example wants the folder above", param_hint="AGENTS_DIR"
        )
    try:
        return example_agent.write(agents_dir)
    except FileExistsError as error:
        raise click.ClickException(f"{error.filename} exists, and --example overwrites nothing") from error


def _agents_in(folder: Path) -> list[str]:
    """Lists the agents that one of ADK's servers would, by their names in ADK."""
    if _is_agent(folder):
        return [folder.name]
    found = []
    for place, names, files in os.walk(folder):
        relative = Path(place).relative_to(folder)
        depth = len(relative.parts)
        names[:] = [name for name in sorted(names) if not name.startswith((".", "__"))] if depth < _MAX_DEPTH else []
        # `adk api_server` looks one level down, and takes a plain package too.
        if depth and (_is_agent(Path(place)) or (depth == 1 and "__init__.py" in files)):
            found.append(".".join(relative.parts))
    return found


def _is_agent(folder: Path) -> bool:
    return (folder / "agent.py").is_file() or (folder / "root_agent.yaml").is_file()
