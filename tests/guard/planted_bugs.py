"""Bugs for the search of `benchmarks.guard_states` to find: each is one change of connection_guard.py."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from imapshield.guard import connection_guard

# fmt: off
PLANTED_BUGS: dict[str, tuple[str, str]] = {
    "one command more may be pending": ("if self.pending > limits.backlog:", "if self.pending > limits.backlog + 1:"),
    "one command less may be pending": ("if self.pending > limits.backlog:", "if self.pending >= limits.backlog:"),
    "the running command is not pending": ("+ (self._running is not None) + self._incomplete", "+ self._incomplete"),
    "an incomplete command is not pending": ("+ (self._running is not None) + self._incomplete", "+ (self._running is not None)"),
    "each line of a command counts": ("        if self._incomplete:\n            return None\n", ""),
    "a complete command stays incomplete": ("        self._incomplete = False\n        rejection", "        rejection"),
    "the reset is forgotten": ("            self._final = verdict\n", "            pass\n"),
    "a command is accepted after the reset": ("        if self._final is not None:\n            return self._final\n        excess", "        excess"),
    "bytes are accepted after the reset": ("        if self._final is not None:\n            return self._final\n        if not self.auth", "        if not self.auth"),
    "commands run after the reset": (" or self._final is not None:\n            return None", ":\n            return None"),
    "two commands run at once": ("if self._running is not None or not self._backlog", "if not self._backlog"),
    "the newest command runs first": ("self._backlog.pop(0)", "self._backlog.pop()"),
    "bytes of a command that has begun still count": ("        self._backlog_bytes -= _size(self._running)\n", ""),
    "literals do not count as bytes": ("        size += literal.size\n", "        pass\n"),
    "bytes of the backlog pause nothing": (" or self._backlog_bytes >= max_bytes", ""),
    "input resumes one command late": ("max_pending // 2 + 1, max_bytes", "max_pending // 2, max_bytes"),
    "input resumes when one command is done": ("if self._full and (flow_control", "if False and (flow_control"),
    "reading resumes only with the next line": ("        self._running = None\n        if self._full:\n            self._update_full()", "        self._running = None"),
    "reading is not paused by the login": ("self._preauth_commands = 0\n        self._update_full()", "self._preauth_commands = 0"),
    "an incomplete command is never completed": ("return self._full and not self._incomplete", "return self._full"),
    "strict_backlog pauses": ("self.authenticated and not limits.strict_backlog", "self.authenticated"),
    "strict_backlog pauses one command early": ("limits.backlog + (not flow_control)", "limits.backlog"),
    "input before login is paused": ("if not self.authenticated and not limits.reports_only(\"backlog\"):\n            self._full", "if False:\n            self._full"),
    "a report resets": ("if not self.limits.reports_only(limit):\n            self._final", "if True:\n            self._final"),
    "a report drops the command": ("excess = self._count_command()\n        if self._final is not None:\n            return self._final", "excess = self._count_command()\n        if excess is not None:\n            return excess"),
    "a report loses the rejection of a literal": ("return replace(excess, instead=result)", "return excess"),
    "the commands of a user count": ("self._preauth_commands += not self.authenticated", "self._preauth_commands += 1"),
    "UNAUTHENTICATE continues the old counts": ("self._bad_commands = self._preauth_bytes = self._preauth_commands = 0", "self._bad_commands = 0"),
    "a login forgives failed logins": ("self._bad_commands = self._preauth_bytes", "self._login_failures = self._bad_commands = self._preauth_bytes"),
    "a valid command before login forgives invalid ones": ("        if self.authenticated:\n            self._bad_commands = 0", "        self._bad_commands = 0"),
    "invalid commands of a user are never forgiven": ("        if self.authenticated:\n            self._bad_commands = 0", "        pass"),
    "the limit of a user applies to strangers": ('limit = "max_bad_commands" if self.authenticated else "preauth_bad_commands"', 'limit = "max_bad_commands"'),
    "one failed login too many": ("if count >= max_count:", "if count > max_count:"),
    "BYE is repeated": ("verdict, self._after_command = self._after_command, _ACCEPTED", "verdict = self._after_command"),
    "input stays suspended": ("            self._suspending = None\n", ""),
    "the next command ends the suspension": ("if self._running is self._suspending:", "if True:"),
    "a rejected command suspends input": ("if rejection is None and traits_of", "if traits_of"),
    "input is not suspended": ("            self._suspending = command  #", "            pass  #"),
    "a command that suspends input is packed": ("is_kept = command is self._suspending or len", "is_kept = len"),
    "a line is expected after the command": ("            self.line_expected = False\n        if", "        if"),
    "a line is expected twice": ("expected, self.line_expected = self.line_expected, False", "expected = self.line_expected"),
    "nesting is checked after login": ("if rejection is None and not self.authenticated:", "if rejection is None:"),
    "nesting starts again after a literal": ("        for text in texts:\n            for found", "        for text in texts:\n            depth = 0\n            for found"),
    "discarded literals stay open": ("            command.close()\n", "            pass\n"),
    "a discarded backlog still counts": ("            command.close()\n        self._backlog.clear()\n        self._backlog_bytes = 0", "            command.close()\n        self._backlog.clear()"),
    "the running command takes no memory after the end": ("self.memory = self._running.memory if self._running is not None else 0", "self.memory = 0"),
    "a command that is answered still takes memory": ("            self.memory -= self._running.memory\n", "            pass\n"),
    "the end of the connection hides its reset": ('self._final = self._final or Reset("closed", 0, 0)', 'self._final = Reset("closed", 0, 0)'),
    "a large literal is skipped instead of reset": ("        if event.synchronizing:\n            return too_large", "        if True:\n            return too_large"),
    "literals before login have the size of a user's": ("max_size = self.limits.preauth_literal_size", "max_size = self.limits.max_literal_size"),
    "the total of a command is not limited": ("size = event.literal_octets + event.octets + event.size\n", "size = event.octets + event.size\n"),
    "the timeout of a literal is that of a line": ('limit = "literal_seconds" if in_literal else "idle_seconds"', 'limit = "idle_seconds"'),
    "a stalled client is not noticed": ("return self._full or self.pending >= self.limits.backlog", "return self._full"),
}
# fmt: on


def guard_with(old: str, new: str) -> Any:
    """Return the class `ConnectionGuard` with one bug: `new` in place of `old` in its source."""
    source = Path(connection_guard.__file__).read_text()
    if old not in source:
        raise AssertionError(f"connection_guard.py has changed, adapt the planted bug: {old!r}")
    module = ModuleType("planted_bug")
    sys.modules[module.__name__] = module  # dataclasses look their module up
    exec(compile(source.replace(old, new, 1), "planted_bug.py", "exec"), vars(module))  # noqa: S102
    del sys.modules[module.__name__]
    return module.ConnectionGuard
