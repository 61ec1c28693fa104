"""The stores: one package each, reached through the protocols of :mod:`sessiondb.engine.store`."""
