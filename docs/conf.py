"""Sphinx configuration: `tox -e docs` builds what is here with warnings as errors, and without a network."""

import json
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

project = "sessiondb"
author = "The sessiondb authors"
project_copyright = author
release = installed_version("sessiondb")
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
# figures: parts of pages, which include them.
exclude_patterns = ["_build", "figures"]

html_theme = "furo"
html_title = f"sessiondb {release}"

# Markdown: admonitions with :::, anchors for headings so that pages can link into each other.
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

# Reference: members in the order of the source, types beside the description of each argument.
autodoc_default_options = {"members": True, "member-order": "bysource", "show-inheritance": True}
autodoc_class_signature = "separated"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# Every name must lead somewhere, but for those whose documentation is elsewhere: finding them takes an inventory from
# the network (intersphinx), and a build must not depend on one. A name without a module is never excused.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", rf"{package}\..+")
    for package in (
        # the standard library
        "asyncio",
        "collections",
        "concurrent",
        "contextlib",
        "datetime",
        "enum",
        "os",
        "pathlib",
        "sqlite3",
        "threading",
        "types",
        "typing",
        # dependencies
        "anyio",
        "click",
        "google",
        "pydantic",
        "rich",
        "structlog",
    )
]
nitpick_ignore = [
    # The service inherits from a class for each subject; their calls are listed as its own.
    ("py:class", "sessiondb.calls.erasure.Erasure"),
    ("py:class", "sessiondb.calls.maintenance.Maintenance"),
    ("py:class", "sessiondb.calls.usage.Usage"),
    ("py:class", "sessiondb.calls.pages.Pages"),
    ("py:class", "sessiondb.calls.appends.Appends"),
    ("py:class", "sessiondb.calls.past.Past"),
    ("py:class", "sessiondb.calls.edits.Edits"),
    ("py:class", "sessiondb.calls.pruning.Pruning"),
    ("py:class", "sessiondb.calls.search.Search"),
    # Whose methods a page of sessions has too, beside those of ADK's response.
    ("py:class", "BaseModel"),
    # Type variables of signatures have no entry of their own.
    ("py:class", "sessiondb.engine.store.ResultT"),
    # A service makes its turns: the reference tells nobody how to.
    ("py:class", "sessiondb.engine.turns.Turns"),
    # What commands hand on in place of a path or URL.
    ("py:class", "Database"),
    ("py:class", "sessiondb.location.ServerLocation"),
]

# What somebody who needs this documentation types into its search box, as the index has it: in small letters, without
# endings. The search runs in the reader's browser, on that index.
SEARCHED = ("backup", "checkpoint", "cancel", "datasett", "fastapi", "fork", "revis", "stalesessionerror", "vacuum")


def says_nothing(_app: Sphinx, _what: str, name: str, member: object, skip: bool, _options: object) -> bool:
    """Leaves constructors out that are not the class's own: that of every class, of tuples, and of protocols."""
    if name == "__init__" and (member is object.__init__ or "_no_init" in getattr(member, "__name__", "")):
        return True
    return skip or name == "__new__"


def check_search(app: Sphinx, failure: Exception | None) -> None:
    """Fails a build whose search finds nothing."""
    if failure is not None or app.builder.name != "html":
        return
    site = Path(app.outdir)
    index = json.loads((site / "searchindex.js").read_text("utf-8").removeprefix("Search.setIndex(").removesuffix(")"))
    missing = [word for word in SEARCHED if word not in index["terms"]]
    if missing or "searchtools.js" not in (site / "search.html").read_text("utf-8"):
        raise SphinxError(f"the site cannot be searched; not in its index: {missing}")


def setup(app: Sphinx) -> None:
    """Has the reference say no more than it must, and the search checked after the build."""
    app.connect("autodoc-skip-member", says_nothing)
    app.connect("build-finished", check_search)
