"""Opens the log for ``--log-format json``, where twistd would write its own."""

import sys
from collections.abc import Mapping
from typing import Any

from twisted.python.logfile import LogFile

from imapshield.config import ConfigError
from imapshield.observe.json_log import JsonLogObserver


def json_log_observer(twistd: Mapping[str, Any] | None) -> JsonLogObserver | None:
    """Return the observer that twistd uses in place of its own.

    Args:
        twistd: the options of twistd; None for another program, which has its own log.

    Raises:
        ConfigError: twistd has another option for the log.
    """
    if twistd is None:
        return None
    for option in ("syslog", "logger"):
        if twistd.get(option):
            raise ConfigError(f"--log-format json: cannot be used with twistd --{option}; omit one")
    path, in_foreground = twistd.get("logfile"), twistd.get("nodaemon")
    if path == "-" or (in_foreground and not path):
        return JsonLogObserver(sys.stdout)
    try:
        return JsonLogObserver(LogFile.fromFullPath(path or "twistd.log"))
    except OSError as error:
        raise ConfigError(
            f"twistd --logfile {path}: {error.strerror}; name a file in a directory that can be written"
        ) from None
