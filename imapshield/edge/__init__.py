"""The network side of one connection, on Twisted: from bytes to commands on the backlog, and responses to bytes."""
