"""PostgreSQL: real servers for the tests (``server``), and what is shown on them.

==============  ========================================================================================================
server          starts, stops and kills a server; ``postgres_database`` in ``tests/conftest`` is an empty database on one
cluster         a primary and a standby: promotion, and the old primary's return
proxy           between a client and a server: cuts, holds and delays what they say to each other
watcher         stops servers whose tests are gone
==============  ========================================================================================================
"""
