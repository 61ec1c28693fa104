"""What is promised of a store on a PostgreSQL server, while servers, hosts and the network between them fail.

===========  ===========================================================================================================
clients      what hosts do: they run in processes of their own, and say what was acknowledged
load         starts hosts, listens to them, stops them
judge        judges a server by what hosts were told
patroni      three servers, of which one leads, as Patroni decides
mutants      deliberately broken builds
===========  ===========================================================================================================
"""
