"""What each worker gets of the settings of a server. Pure."""

from dataclasses import fields, replace
from typing import Any

from imapshield.config import Settings
from imapshield.limits import Limits

DIVIDED = (
    *("max_connections", "max_preauth_connections", "max_memory_bytes", "max_spool_bytes"),
    *("max_login_checks", "max_backend_connections", "max_backend_exchanges"),
)
"""The limits that are of all workers together: each worker has an equal part of them. All other limits apply in each
worker as they are: they are of one connection, of a time, or of counts that the workers share."""


LEAST = {"max_login_checks": 2, "max_backend_exchanges": 2}
"""What each worker has at least, unless less is configured. With one, a client whose login takes long would delay those
of all others."""


def divided_limits(limits: Limits, count: int) -> Limits:
    """Return the limits of each of `count` workers."""
    parts: dict[str, Any] = {name: _part(name, getattr(limits, name), count) for name in DIVIDED}
    return replace(limits, **parts)


def _part(name: str, value: int, count: int) -> int:
    return min(value, max(-(-value // count), LEAST.get(name, 1)))


def worker_settings(settings: Settings) -> Settings:
    """Return the settings of one worker: what only the supervising process does is switched off."""
    return replace(
        settings,
        control="none",
        guard_redis=None,
        state="none",
        limits=divided_limits(settings.limits, settings.workers),
        admin=None,
        admin_auth=None,
        metrics=None,
        ban_command=None,
    )


assert {*DIVIDED} <= {field.name for field in fields(Limits)}
