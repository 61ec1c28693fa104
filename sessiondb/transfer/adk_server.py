"""The tables of ADK's ``DatabaseSessionService`` on a PostgreSQL server: reading them untouched."""

from __future__ import annotations

from contextlib import ExitStack

from sessiondb.location import ServerLocation
from sessiondb.stores.postgres.foreign import ForeignSchema
from sessiondb.transfer.adk_tables import AdkTables, Statements


class AdkServer(ForeignSchema, AdkTables):
    """A schema with the tables of ADK's service, read in one snapshot; a context manager."""

    # ADK reads what was made of JSON by the driver; as text a number stays what it is.
    statements = Statements(
        table_exists="SELECT 1 WHERE to_regclass(%s) IS NOT NULL",
        columns_of_events="SELECT attname FROM pg_attribute WHERE attrelid = to_regclass('events') AND attnum > 0",
        sessions=(
            "SELECT app_name, user_id, id, create_time, update_time, state::text FROM sessions"
            ' ORDER BY app_name COLLATE "C", user_id COLLATE "C", id COLLATE "C"'
        ),
        # A table on a server has no order of its own: this is the one in which ADK reads it.
        events=(
            "SELECT id, invocation_id, timestamp, event_data::text FROM events"
            " WHERE app_name = %s AND user_id = %s AND session_id = %s ORDER BY timestamp, id"
        ),
        user_states=(
            'SELECT app_name, user_id, state::text FROM user_states ORDER BY app_name COLLATE "C", user_id COLLATE "C"'
        ),
        app_states='SELECT app_name, NULL, state::text FROM app_states ORDER BY app_name COLLATE "C"',
    )

    def __init__(self, location: ServerLocation) -> None:
        """Connects, and finds out which schema of ADK's it is.

        Raises:
            UnsupportedDatabaseError: If it is none of those that are known.
            StorageError: If it cannot be read.
        """
        super().__init__(location)
        with ExitStack() as undo:
            undo.callback(self.close)
            self.layout = self.find_layout(str(location))
            undo.pop_all()
