"""The control socket: what an operator asks a running server, and tells it to do."""
