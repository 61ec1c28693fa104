"""The language that a service and a store speak: commands, queries, and the records that answer them."""
