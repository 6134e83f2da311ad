"""The tests of imapshield. Property tests have no time limit: a busy machine must not fail them."""

from contextlib import suppress

with suppress(ImportError):  # the tests without properties run without hypothesis
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "imapshield", deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("imapshield")
