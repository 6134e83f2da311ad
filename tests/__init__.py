"""The tests of imapshield. Property tests try the same inputs in each run, and have no time limit.

So neither chance nor a busy machine makes a commit fail that is not to blame.
"""

from contextlib import suppress

with suppress(ImportError):  # the tests without properties run without hypothesis
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "imapshield",
        derandomize=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("imapshield")
