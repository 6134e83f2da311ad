"""The handlers: one coroutine per command, one file per family of commands."""
