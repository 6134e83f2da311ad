"""Sessions and attempts to log in have bounds."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.admin.web_sessions import (
    ALL_ATTEMPTS,
    ATTEMPTS,
    IDLE_SECONDS,
    MAX_KNOWN_ADDRESSES,
    MAX_SECONDS,
    MAX_SESSIONS,
    LoginRate,
    WebSessions,
)

HALF = ALL_ATTEMPTS // 2


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
        """Many addresses together cannot keep the processor busy with passwords, and one network has half."""
        rate = LoginRate()
        for network, number in (("192.0.2", HALF), ("198.51.100", ALL_ATTEMPTS - HALF)):
            waits = [rate.take_check(f"{network}.{host}", 0) for host in range(number + 1)]
            self.assertEqual([wait > 0 for wait in waits], [*[False] * number, True])
        self.assertGreater(rate.take_check("203.0.113.1", 0), 0)
        self.assertEqual(rate.take_check("", waits[-1]), 0)

    def test_share_of_known_addresses(self) -> None:
        """Addresses from which somebody has logged in have a share that others cannot use up, and a rate, too."""
        rate = LoginRate()
        rate.succeeded("2001:db8::1", 0)
        for number in range(2 * ALL_ATTEMPTS):
            rate.take_check(f"{number}.0.2.1", 0)
        waits = [rate.take_check("2001:db8::2", 0) for _ in range(ALL_ATTEMPTS + 1)]
        self.assertEqual([wait > 0 for wait in waits], [*[False] * ALL_ATTEMPTS, True])

    def test_known_addresses_are_bounded(self) -> None:
        """One more address than the maximum replaces the one whose login is the longest ago."""
        rate = LoginRate()
        for number in range(MAX_KNOWN_ADDRESSES + 1):
            rate.succeeded(f"192.0.2.{number}", number)
        for number in range(2 * ALL_ATTEMPTS):
            rate.take_check(f"{number}.0.2.1", 1000)
        self.assertGreater(rate.take_check("192.0.2.0", 1000), 0)
        self.assertEqual(rate.take_check("192.0.2.1", 1000), 0)

    def test_right_password_gives_its_attempt_back(self) -> None:
        """A login takes nothing from later attempts, neither of its address nor of all."""
        rate = LoginRate()
        for number in range(3 * ALL_ATTEMPTS):
            address = f"192.0.2.{number}"
            self.assertEqual((rate.take(address, 0), rate.take_check(address, 0)), (0, 0))
            rate.give_check_back(address, 0)
            rate.succeeded(address, 0)
