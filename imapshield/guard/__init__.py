"""What a client may do to us: pure policy over what `wire.framing` saw, for one connection."""
