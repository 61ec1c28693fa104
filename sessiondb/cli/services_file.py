"""ADK's ``services.yaml``: does it register this package, and which lines make it do so.

The file belongs to whoever wrote it. Lines are put in and nothing else changes, comments and layout included; the
result is read again before it is written, and a file in which that fails is left to a person.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent
from typing import Any, Literal
from urllib.parse import urlsplit

import yaml

SCHEME = "sessiondb"
CLASS = "sessiondb.DatabaseSessionService"

_ENTRY = {"scheme": SCHEME, "type": "session", "class": CLASS}
_BLOCK = f"- scheme: {SCHEME}\n  type: session\n  class: {CLASS}\n"
_FLOW = f"{{scheme: {SCHEME}, type: session, class: {CLASS}}}"

_NAMES = ("services.yaml", "services.yml")
"""In the order in which ADK reads them: of two registrations of a scheme the last one counts."""

Change = Literal["created", "updated", "unchanged"]


class ServicesFileError(Exception):
    """A file that cannot be read, or that a program should not change. The message says which, and why."""


class OtherClassError(ServicesFileError):
    """The scheme is registered for another class."""


@dataclass(frozen=True, slots=True)
class ServicesFile:
    """A change that is ready to be written.

    Attributes:
        path: The file.
        change: What writing does to it.
        unreachable: Schemes registered in the folder that no URI leads to.
    """

    path: Path
    change: Change
    unreachable: tuple[str, ...]
    _text: str

    def write(self) -> None:
        """Writes the file, at once and as a whole; one that needs no change is not touched.

        Raises:
            OSError: If that is not possible; the file is then as it was.
        """
        if self.change == "unchanged":
            return
        # A link stays one, and its file keeps its mode.
        target = self.path.resolve()
        if self.change == "created":
            with target.open("x", encoding="utf-8", newline="") as file:
                file.write(self._text)
            return
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as beside:
            written = Path(beside, target.name)
            written.write_text(self._text, encoding="utf-8", newline="")
            shutil.copymode(target, written)
            written.replace(target)


def plan(folder: Path, *, replace: bool = False) -> ServicesFile:
    """Finds the change after which ADK reads the registration in ``folder``.

    Args:
        folder: The folder that is given to ADK.
        replace: Put this package in place of another class that the scheme is registered for.

    Raises:
        OtherClassError: If the scheme is registered for another class, and ``replace`` is not set.
        ServicesFileError: If a file cannot be read, or not be changed safely.
    """
    documents = [_Document.read(path) for name in _NAMES if (path := folder / name).exists()]
    unreachable = tuple(
        scheme
        for document in documents
        for entry in document.entries
        if not _is_reachable(scheme := str(entry.get("scheme")))
    )
    for document in reversed(documents):
        found = document.last_registration()
        if found is None:
            continue
        other = document.entries[found]["class"]
        if other == CLASS:
            return ServicesFile(document.path, "unchanged", unreachable, document.text)
        if not replace:
            raise OtherClassError(f"{document.path} registers the scheme {SCHEME} for {other}; --force replaces that")
        return ServicesFile(document.path, "updated", unreachable, document.with_own_class(found))
    if documents:
        return ServicesFile(documents[0].path, "updated", unreachable, documents[0].with_entry())
    text = "services:\n" + indent(_BLOCK, "  ")
    return ServicesFile(folder / _NAMES[0], "created", unreachable, text)


def _is_reachable(scheme: str) -> bool:
    """ADK takes the scheme from the URI as the standard library reads it: lower case, and no underscore."""
    return urlsplit(f"{scheme}://").scheme == scheme


class _Document:
    """The text of a file, what it says, and where in the text it says so."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        try:
            self._data = yaml.safe_load(text)
            self._root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            raise ServicesFileError(f"{path} is not YAML: {_one_line(error)}") from error
        services = self._data.get("services") if isinstance(self._data, dict) else None
        if self._data is not None and not isinstance(self._data, dict):
            raise ServicesFileError(f"{path} must hold a mapping with the key services")
        if services is not None and not (isinstance(services, list) and all(isinstance(one, dict) for one in services)):
            raise ServicesFileError(f"services in {path} must be a list of mappings")
        self.entries: list[dict[str, Any]] = services or []

    @classmethod
    def read(cls, path: Path) -> _Document:
        try:
            # As bytes, so that line ends stay what they are.
            return cls(path, path.read_bytes().decode("utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ServicesFileError(f"{path} cannot be read: {error}") from error

    def last_registration(self) -> int | None:
        """Returns which entry registers the scheme for sessions, as far as ADK would take it."""
        found = [
            number
            for number, entry in enumerate(self.entries)
            if entry.get("scheme") == SCHEME and entry.get("type") == "session" and entry.get("class")
        ]
        return found[-1] if found else None

    def with_entry(self) -> str:
        """Returns the text with an entry for this package at the end of the list."""
        expected = copy.deepcopy(self._data) or {}
        expected["services"] = [*self.entries, _ENTRY]
        newline = "\r\n" if "\r\n" in self.text else "\n"
        services = _value_of(self._root, "services")
        if isinstance(services, yaml.SequenceNode) and services.flow_style:
            place = services.end_mark.index - 1
            added = f", {_FLOW}" if services.value else _FLOW
        elif isinstance(services, yaml.SequenceNode):
            place = _line_after(self.text, _last_leaf(services))
            added = indent(_BLOCK, " " * services.start_mark.column)
        elif services is not None:
            place = _line_after(self.text, services)
            added = indent(_BLOCK, "  ")
        else:
            place = len(self.text)
            added = "services:\n" + indent(_BLOCK, "  ")
        before, after = self.text[:place], self.text[place:]
        if before and added.endswith("\n") and not before.endswith("\n"):
            added = "\n" + added
        return self._checked(before + added.replace("\n", newline) + after, expected)

    def with_own_class(self, number: int) -> str:
        """Returns the text with this package's class in entry ``number``."""
        expected = copy.deepcopy(self._data)
        expected["services"][number]["class"] = CLASS
        services = _value_of(self._root, "services")
        assert isinstance(services, yaml.SequenceNode)  # noqa: S101  # as checked when it was read
        value = _value_of(services.value[number], "class")
        if value is None:
            raise self._too_unusual()
        changed = self.text[: value.start_mark.index] + CLASS + self.text[value.end_mark.index :]
        return self._checked(changed, expected)

    def _checked(self, text: str, expected: object) -> str:
        try:
            as_expected = yaml.safe_load(text) == expected
        except yaml.YAMLError:
            as_expected = False
        if not as_expected:
            raise self._too_unusual()
        return text

    def _too_unusual(self) -> ServicesFileError:
        return ServicesFileError(f"{self.path} is written in a way that is left to a person: add {_FLOW} to services")


def _value_of(node: yaml.Node | None, key: str) -> yaml.Node | None:
    """Returns the value of a key that is written in the mapping itself."""
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in reversed(node.value) if name.value == key), None)


def _last_leaf(node: yaml.Node) -> yaml.Node:
    """Returns what is written last of a list in block style; comments below it are not part of it."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style:
        last = node.value[-1]
        node = last[1] if isinstance(node, yaml.MappingNode) else last
    return node


def _line_after(text: str, node: yaml.Node) -> int:
    """Returns where the line after ``node`` begins."""
    end: int = node.end_mark.index
    if end and text[end - 1] == "\n":
        return end  # a block of text ends with its line
    return text.find("\n", end) + 1 or len(text)


def _one_line(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"{getattr(error, 'problem', '')} in line {mark.line + 1}, column {mark.column + 1}"
