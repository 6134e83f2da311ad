"""Applies the limits of one connection to the commands that `wire.framing` puts together. It performs no I/O."""
