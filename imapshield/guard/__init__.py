"""Policy for one connection: what a client may send, judged from the framing events of `wire.framing`. Pure."""
