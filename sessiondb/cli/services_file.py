"""ADK's ``services.yaml``: whether it registers this package, and the lines that do. A file that exists is only read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any
from urllib.parse import urlsplit

import yaml

SCHEME = "sessiondb"
SERVER_SCHEME = "sessiondb+postgresql"
"""That of a database on a server."""

CLASS = "sessiondb.DatabaseSessionService"

_NAMES = ("services.yaml", "services.yml")
"""In the order in which ADK reads them: of two registrations of a scheme the last one counts."""


class ServicesFileError(Exception):
    """A file that cannot be read, or that ADK cannot use. The message says which, and why."""


@dataclass(frozen=True, slots=True)
class ServicesFile:
    """The file in a folder that registers this package, or should.

    Attributes:
        path: The file.
        exists: Whether there is one.
        unreachable: Schemes registered in the folder that no URI leads to.
        lines: What the file lacks; empty if it registers this package.
        place: Where in the file they go.
        other: The class that the file registers the scheme for, if that is not this package's.
    """

    path: Path
    exists: bool
    unreachable: tuple[str, ...] = ()
    lines: str = ""
    place: str = ""
    other: str | None = None

    def write(self) -> None:
        """Creates the file if there is none; raises OSError if that fails, or if there is one by now."""
        if not self.exists:
            with self.path.open("x", encoding="utf-8") as file:
                file.write(self.lines)


def plan(folder: Path, scheme: str = SCHEME) -> ServicesFile:
    """Finds what ADK lacks in ``folder`` to use this package; raises ServicesFileError if a file there is unusable.

    Args:
        folder: The folder.
        scheme: That of the database. A file that is created registers :data:`SCHEME` too.
    """
    paths = [folder / name for name in _NAMES]
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise ServicesFileError(
                f"{path} is a symbolic link that leads nowhere; remove it, or create what it points to"
            )
    files = {path: _read(path, scheme) for path in paths if path.exists()}
    if not files:
        return ServicesFile(folder / _NAMES[0], exists=False, lines=_file(*dict.fromkeys((SCHEME, scheme))))
    entries = [(path, entry) for path, (found, *_) in files.items() for entry in found]
    schemes = [str(entry.get("scheme")) for _, entry in entries]
    # ADK takes the scheme from the URI as the standard library reads it: lower case, and no underscore.
    unreachable = tuple(scheme for scheme in schemes if urlsplit(f"{scheme}://").scheme != scheme)
    for path, entry in reversed(entries):
        if entry.get("scheme") == scheme and entry.get("type") == "session" and (registered := entry.get("class")):
            if registered == CLASS:
                return ServicesFile(path, True, unreachable)
            shown = " ".join(yaml.safe_dump(entry, default_flow_style=True, sort_keys=False).split())
            place = f"in place of the entry {shown}"
            return ServicesFile(path, True, unreachable, files[path][1], place, str(registered))
    path, (_, lines, place) = next(iter(files.items()))
    return ServicesFile(path, True, unreachable, lines, place)


def _read(path: Path, scheme: str) -> tuple[list[dict[str, Any]], str, str]:
    """Returns the entries of a file, the lines that would add one for this package, and where they go."""
    if not path.is_file():
        # Opening a pipe would wait for somebody who writes to it.
        raise ServicesFileError(f"{path} is not a regular file")
    try:
        text = path.read_text(encoding="utf-8")
        data, root = yaml.safe_load(text), yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ServicesFileError(f"{path} is not YAML: {_one_line(error)}") from error
    except RecursionError:
        raise ServicesFileError(f"{path} is nested too deep to be read") from None
    except (OSError, ValueError) as error:
        raise ServicesFileError(f"{path} cannot be read: {error}") from error
    if data is not None and not isinstance(data, dict):
        raise ServicesFileError(f"{path} must hold a mapping with the key services")
    services = data.get("services") if data else None
    if services is not None and not (isinstance(services, list) and all(isinstance(one, dict) for one in services)):
        raise ServicesFileError(f"services in {path} must be a list of mappings")
    if root is None or not services:
        return [], _file(scheme), "in place of the key services" if data and "services" in data else "at the end"
    written = next((value for key, value in root.value if key.value == "services"), None)
    if isinstance(written, yaml.SequenceNode) and not written.flow_style:
        return services, indent(_entry(scheme), " " * written.start_mark.column), "at the end of the list services"
    return services, f"{{scheme: {scheme}, type: session, class: {CLASS}}}\n", "at the end of the list services"


def _entry(scheme: str) -> str:
    return f"- scheme: {scheme}\n  type: session\n  class: {CLASS}\n"


def _file(*schemes: str) -> str:
    return "services:\n" + indent("".join(map(_entry, schemes)), "  ")


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"{getattr(error, 'problem', '')} in line {mark.line + 1}, column {mark.column + 1}"
