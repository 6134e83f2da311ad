"""`WorkerLog`: passes the log of a worker to the supervising process, whose log has the lines of all workers.

The lines about events are not among them: the supervising process gets the events, and writes the lines itself.
"""

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from imapshield.observe.json_log import plain_fields
from imapshield.workers.link import Link
from imapshield.workers.link_messages import Logged


@implementer(ILogObserver)
class WorkerLog:
    """An observer of `twisted.logger`.

    Args:
        link: that to the supervising process.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def __call__(self, event: LogEvent) -> None:
        """Send a line. What Twisted says about ports and factories is left out: each worker would say the same."""
        level = event.get("log_level") or LogLevel.info
        namespace = str(event.get("log_namespace") or "log")
        is_of_twisted = not namespace.startswith("imapshield")
        if level < (LogLevel.warn if is_of_twisted else LogLevel.info):
            return
        fields, text = plain_fields(event), formatEvent(event)
        if "traceback" in fields and "log_failure" in event:
            text = f"{text}\n{fields['traceback']}"
        send = self._link.send if level >= LogLevel.error else self._link.send_soon
        send(Logged(level.name, namespace, text, fields))
