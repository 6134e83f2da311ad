"""One connection of Twisted's: bytes in through `protocol`, bytes out through `outbox`."""
