"""How near one connection came to the limits, for ``imapshield advise``."""

from imapshield.edge.connection_owner import ConnectionOwner


def peaks_of_login(owner: ConnectionOwner) -> dict[str, float]:
    """Return the peaks of a login: of the time before it, and how many connections the user has with it.

    Call it when the login has been counted, and before the guard knows of it.
    """
    shares, user = owner.shared.admission.guard.shares, owner.counted.user
    return owner.guard.preauth_counts() | {
        "max_connections_per_user": shares.held_by(user),
        "preauth_seconds": owner.now() - owner.active_at,
        "backlog": owner.reporter.most_pending,
    }


def report_user_peaks(owner: ConnectionOwner) -> None:
    """Report the peaks of a user, because the connection ends or the user logs out."""
    if owner.reporter.user:
        idle = 0.0 if owner.guard.busy else owner.now() - owner.active_at
        values = {"idle_seconds": max(idle, owner.reporter.longest_idle)}
        # Otherwise a full backlog is no fault of a user, who only waits.
        if owner.limits.strict_backlog:
            values["backlog"] = owner.reporter.most_pending
        owner.reporter.report_peaks(values)
