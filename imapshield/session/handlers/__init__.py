"""The handlers of the commands: one coroutine function per command or pair of commands, one file per family."""
