"""The handlers of the commands: one coroutine function per command, one file per family of commands."""
