"""What each command does: one coroutine per command, one file per family of commands."""
