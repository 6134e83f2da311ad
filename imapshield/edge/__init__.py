"""The network side of one connection, on Twisted: turns bytes into commands on the backlog, and sends responses."""
