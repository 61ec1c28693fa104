"""Sessions on a PostgreSQL server, shared by any number of hosts. Needs the extra ``sessiondb[postgres]``."""
