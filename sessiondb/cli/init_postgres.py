"""``sessiondb init-postgres``: the tables on a PostgreSQL server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .database import to_existing_database
from .output import json_option, print_json

if TYPE_CHECKING:
    from sessiondb.location import Database, ServerLocation

_EPILOG = """\b
Examples:
  sessiondb init-postgres postgresql://owner@host/db --grant app
  sessiondb init-postgres postgresql://owner@host/db --schema sessions --partitions 16
  sessiondb init-postgres postgresql://owner@host/db --print | less
"""


@click.command("init-postgres", epilog=_EPILOG)
@click.argument("url", callback=to_existing_database)
@click.option(
    "--schema", metavar="NAME", help="The schema, as in the URL; public by default. Created if it is missing."
)
@click.option(
    "--partitions",
    type=click.IntRange(0, 1024),
    default=0,
    metavar="N",
    help="Divide the tables into N parts, by app and user.",
)
@click.option("--grant", "role", metavar="ROLE", help="Let this role use the tables; a service needs no more rights.")
@click.option("--print", "only_print", is_flag=True, help="Print the SQL, without a connection to the server.")
@json_option
def command(
    *, url: Database, schema: str | None, partitions: int, role: str | None, only_print: bool, as_json: bool
) -> None:
    """Create the tables of sessiondb on the server at URL.

    A service does that itself where its role may create tables. With this command another role can: the one that owns
    the tables. Tables that are there are left as they are. What --print prints is one transaction, for
    `psql --set ON_ERROR_STOP=1`.
    """
    from sessiondb import stores

    place = _place(url, schema)
    if only_print:
        text = stores.server_script(place, partitions, role)
        if as_json:
            print_json({"schema": place.schema, "sql": text})
        else:
            click.echo(text, nl=False)
        return
    created = stores.create_on_server(place, partitions, role)
    report = {"path": str(place), "schema": place.schema, "created": created, "granted_to": role}
    if as_json:
        print_json(report)
    else:
        click.echo(f"{place}: {'created' if created else 'was there already, and is as it was'}")


def _place(database: Database, schema: str | None) -> ServerLocation:
    from sessiondb.errors import ConfigurationError
    from sessiondb.location import DEFAULT_SCHEMA, ServerLocation, resolve_location

    if not isinstance(database, ServerLocation):
        raise click.BadParameter("a file gets its tables when it is opened; give the URL of a server", param_hint="URL")
    if schema is None:
        return database
    if database.schema not in (DEFAULT_SCHEMA, schema):
        raise click.BadParameter("the URL names another schema", param_hint="--schema")
    try:
        found = resolve_location(database.url, schema=schema, transaction_pooling=database.pooled)
    except ConfigurationError as error:
        raise click.BadParameter(str(error), param_hint="--schema") from error
    assert isinstance(found, ServerLocation)  # noqa: S101  # as its URL says
    return found
