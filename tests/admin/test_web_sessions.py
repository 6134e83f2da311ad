"""Sessions and attempts to log in have bounds."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.admin.web_sessions import (
    ALL_ATTEMPTS,
    ATTEMPTS,
    IDLE_SECONDS,
    MAX_SECONDS,
    MAX_SESSIONS,
    LoginRate,
    WebSessions,
)


class WebSessionsTests(SynchronousTestCase):
    def test_session_ends(self) -> None:
        """A session ends when it is idle, after a maximum time, and at the logout."""
        sessions = WebSessions()
        cookie = sessions.begin("ops", 0)
        now = 0.0
        while now + IDLE_SECONDS < MAX_SECONDS:
            now += IDLE_SECONDS
            self.assertIsNotNone(sessions.find(cookie, now))
        self.assertIsNone(sessions.find(cookie, MAX_SECONDS + 1))
        cookie = sessions.begin("ops", 0)
        self.assertIsNone(sessions.find(cookie, IDLE_SECONDS + 1))
        cookie = sessions.begin("ops", 0)
        sessions.end(cookie)
        self.assertIsNone(sessions.find(cookie, 0))
        self.assertEqual(len(sessions), 0)

    def test_number_is_bounded(self) -> None:
        """One more session than the maximum ends the one that has been idle for longest."""
        sessions = WebSessions()
        cookies = [sessions.begin("ops", 0) for _ in range(MAX_SESSIONS)]
        sessions.find(cookies[0], 1)
        sessions.begin("ops", 2)
        self.assertEqual(len(sessions), MAX_SESSIONS)
        self.assertIsNotNone(sessions.find(cookies[0], 2))
        self.assertIsNone(sessions.find(cookies[1], 2))

    def test_form_token_belongs_to_a_cookie(self) -> None:
        """The token of another cookie, or of another process, is refused."""
        sessions = WebSessions()
        token = sessions.form_token("a")
        self.assertTrue(sessions.is_form_token("a", token))
        for cookie, given in (
            ("b", token),
            ("a", ""),
            ("a", "\udc80ä"),
            ("", sessions.form_token("")),
        ):
            self.assertFalse(sessions.is_form_token(cookie, given))
        self.assertFalse(WebSessions().is_form_token("a", token))


class LoginRateTests(SynchronousTestCase):
    def test_rate_of_an_address(self) -> None:
        """An IPv6 client has one rate for its /64."""
        rate = LoginRate()
        for number in range(ATTEMPTS):
            self.assertEqual(rate.take(f"2001:db8::{number}", 0), 0)
        wait = rate.take("2001:db8::9", 0)
        self.assertGreater(wait, 0)
        self.assertEqual(rate.take("2001:db8::9", wait), 0)

    def test_rate_of_all(self) -> None:
        """Many addresses together cannot keep the processor busy with passwords."""
        rate = LoginRate()
        waits = [rate.take(f"192.0.2.{number}", 0) for number in range(ALL_ATTEMPTS + 1)]
        self.assertEqual([wait > 0 for wait in waits], [*[False] * ALL_ATTEMPTS, True])
        self.assertEqual(rate.take("", waits[-1]), 0)
