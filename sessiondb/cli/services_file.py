"""ADK's ``services.yaml``: whether it registers this package, and the lines that do. A file that exists is only read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import urlsplit

import yaml

SCHEME = "sessiondb"
SERVER_SCHEME = "sessiondb+postgresql"
"""That of a database on a server."""

Kind: TypeAlias = Literal["session", "memory"]
"""A type of service, as ADK calls it."""

CLASSES: dict[Kind, str] = {"session": "sessiondb.DatabaseSessionService", "memory": "sessiondb.MemoryService"}

_Entry: TypeAlias = tuple[str, Kind]
"""A scheme and a type."""

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
        lack: What is wrong with the file, if anything is.
    """

    path: Path
    exists: bool
    unreachable: tuple[str, ...] = ()
    lines: str = ""
    place: str = ""
    other: str | None = None
    lack: str = ""

    def write(self) -> None:
        """Creates the file if there is none; raises OSError if that fails, or if there is one by now."""
        if not self.exists:
            with self.path.open("x", encoding="utf-8") as file:
                file.write(self.lines)


class _Found(NamedTuple):
    """What a file has."""

    entries: list[dict[str, Any]]
    place: str
    """Where more entries go."""
    indentation: int | None = None
    """That of the entries in the file; None if it has none."""
    is_flow: bool = False
    """Whether they stand in brackets."""

    def lines(self, entries: Sequence[_Entry]) -> str:
        """Returns the lines that add entries to the file."""
        if self.is_flow:
            shown = (f"{{scheme: {scheme}, type: {kind}, class: {CLASSES[kind]}}}" for scheme, kind in entries)
            return ",\n".join(shown) + "\n"
        if self.indentation is None:
            return _file(entries)
        return _block(entries, self.indentation)


def plan(folder: Path, scheme: str = SCHEME, kinds: Sequence[Kind] = ("session",)) -> ServicesFile:
    """Finds what ADK lacks in ``folder`` to use this package; raises ServicesFileError if a file there is unusable.

    Args:
        folder: The folder.
        scheme: That of the database. A file that is created registers :data:`SCHEME` too.
        kinds: The types of service that are wanted. A file that is created registers all.
    """
    paths = [folder / name for name in _NAMES]
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise ServicesFileError(
                f"{path} is a symbolic link that leads nowhere; remove it, or create what it points to"
            )
    files = {path: _read(path) for path in paths if path.exists()}
    if not files:
        entries = [(name, kind) for name in dict.fromkeys((SCHEME, scheme)) for kind in CLASSES]
        return ServicesFile(folder / _NAMES[0], exists=False, lines=_file(entries))
    schemes = [str(entry.get("scheme")) for found in files.values() for entry in found.entries]
    # ADK takes the scheme from the URI as the standard library reads it: lower case, and no underscore.
    unreachable = tuple(scheme for scheme in schemes if urlsplit(f"{scheme}://").scheme != scheme)
    registered = {kind: _registered(files, scheme, kind) for kind in kinds}
    for kind, found in registered.items():
        if found is not None and found[1]["class"] != CLASSES[kind]:
            path, entry = found
            shown = " ".join(yaml.safe_dump(entry, default_flow_style=True, sort_keys=False).split())
            lines, place = files[path].lines([(scheme, kind)]), f"in place of the entry {shown}"
            lack = f"registers the scheme {scheme} for {entry['class']}"
            return ServicesFile(path, True, unreachable, lines, place, str(entry["class"]), lack)
    missing = [kind for kind, found in registered.items() if found is None]
    if missing:
        path, first = next(iter(files.items()))
        lines = first.lines([(scheme, kind) for kind in missing])
        lack = f"does not register the scheme {scheme}{'' if 'session' in missing else ' for memory'}"
        return ServicesFile(path, True, unreachable, lines, first.place, lack=lack)
    path = next(found[0] for found in registered.values() if found is not None)
    return ServicesFile(path, True, unreachable)


def _registered(files: Mapping[Path, _Found], scheme: str, kind: Kind) -> tuple[Path, dict[str, Any]] | None:
    """Returns the entry of a scheme that counts, which is the last one, and where it is."""
    entries = [(path, entry) for path, found in files.items() for entry in found.entries]
    for path, entry in reversed(entries):
        if entry.get("scheme") == scheme and entry.get("type") == kind and entry.get("class"):
            return path, entry
    return None


def _read(path: Path) -> _Found:
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
        return _Found([], "in place of the key services" if data and "services" in data else "at the end")
    written = next((value for key, value in root.value if key.value == "services"), None)
    place = "at the end of the list services"
    if isinstance(written, yaml.SequenceNode) and not written.flow_style:
        return _Found(services, place, written.start_mark.column)
    return _Found(services, place, is_flow=True)


def _file(entries: Sequence[_Entry]) -> str:
    return "services:\n" + _block(entries, 2)


def _block(entries: Sequence[_Entry], indentation: int) -> str:
    lines = (f"- scheme: {scheme}\n  type: {kind}\n  class: {CLASSES[kind]}\n" for scheme, kind in entries)
    return indent("".join(lines), " " * indentation)


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"{getattr(error, 'problem', '')} in line {mark.line + 1}, column {mark.column + 1}"
