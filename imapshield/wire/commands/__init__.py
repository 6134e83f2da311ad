"""What a client can ask for: one frozen value per command, built by `wire.grammar`."""
