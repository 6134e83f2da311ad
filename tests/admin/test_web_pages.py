"""The status page shows what is going on to those who have logged in, and lets them end it."""

import json
import re
from base64 import b64encode
from typing import Any

from imapshield import events
from imapshield.admin.metrics import MAX_SERIES
from imapshield.admin.monitor import MAX_DELAY, STATE_SECONDS
from imapshield.admin.web_sessions import ALL_ATTEMPTS, ATTEMPTS, CACHED_ATTEMPTS, IDLE_SECONDS
from imapshield.limits import Limits
from imapshield.observe.chart_history import SAMPLE_SECONDS
from imapshield.observe.talker_history import POINT_SECONDS
from tests.admin.web_case import Reply, WebCase

CHART = "/api/talkers?subject=address&measure=commands"
PRIVATE = ("/api/state", "/api/history?range=hour", CHART)

MAX_FAILED_PAIRS = Limits().max_failed_pairs


def basic(password: str) -> str:
    """Return the value of the header Authorization."""
    return "Basic " + b64encode(f"ops:{password}".encode()).decode()


class LoginTests(WebCase):
    def test_without_a_login_nothing_is_shown(self) -> None:
        """Without a session, the page leads to the login, and what its script asks is refused."""
        self.server.login()
        reply = self.request("GET", "/")
        self.assertEqual((reply.status, reply.headers["location"]), (303, "/login"))
        for path in PRIVATE:
            self.assertEqual(self.request("GET", path).status, 403)
        for path in ("/api/ban", "/api/unban", "/api/kick"):
            self.assertEqual(self.request("POST", path, "network=192.0.2.9").status, 403)
        self.assertEqual(self.request("GET", "/metrics").status, 401)
        self.assertEqual([*self.server.factory.shared.admission.guard.bans], [])

    def test_login_and_logout(self) -> None:
        """A login gives a new cookie that scripts and other sites cannot use; a logout ends the session."""
        self.request("GET", "/login")
        visitor = self.cookie
        reply = self.log_in()
        self.assertEqual((reply.status, reply.headers["location"]), (303, "/"))
        self.assertNotEqual(self.cookie, visitor)
        for attribute in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="):
            self.assertIn(attribute, reply.headers["set-cookie"])
        self.assertNotIn("Secure", reply.headers["set-cookie"])
        self.assertEqual(self.request("GET", "/").status, 200)
        self.assertEqual(self.request("GET", "/login").status, 303)
        cookie, token = self.cookie, self.form_token("/")
        self.assertEqual(self.request("POST", "/logout", "form_token=x").status, 403)
        self.assertEqual(self.request("POST", "/logout", f"form_token={token}").status, 303)
        self.cookie = cookie
        self.assertEqual(self.request("GET", "/api/state").status, 403)

    def test_cookie_is_secure_behind_a_proxy_with_tls(self) -> None:
        """The cookie has the attribute Secure if the browser uses TLS."""
        reply = self.log_in(x_forwarded_proto="https")
        self.assertIn("; Secure", reply.headers["set-cookie"])

    def test_session_expires(self) -> None:
        """A session that is not used ends."""
        self.log_in()
        self.clock.advance(IDLE_SECONDS - 1)
        self.assertEqual(self.request("GET", "/api/state").status, 200)
        self.clock.advance(IDLE_SECONDS + 1)
        self.assertEqual(self.request("GET", "/api/state").status, 403)

    def test_session_of_a_removed_user_ends(self) -> None:
        """Whoever may no longer log in may not go on, either, even if that is permitted again."""
        self.log_in()
        self.login.removed.add("ops")
        self.assertEqual(self.request("GET", "/api/state").status, 403)
        self.login.removed.clear()
        self.assertEqual(self.request("GET", "/api/state").status, 403)

    def test_wrong_password(self) -> None:
        """A wrong password gets the form again, with the name quoted, and no session."""
        fields = f"user=%3Cb%3E&password=x&form_token={self.form_token()}"
        reply = self.request("POST", "/login", fields)
        self.assertEqual(reply.status, 403)
        self.assertIn(b"Wrong name or password.", reply.body)
        self.assertIn(b"&lt;b&gt;", reply.body)
        self.assertEqual(self.request("GET", "/").status, 303)

    def test_passwords_that_cannot_be_checked(self) -> None:
        """If the password file cannot be read, the answer says where to look."""
        self.login.is_available = False
        self.assertEqual(self.log_in().status, 503)
        self.assertEqual(self.request("GET", "/metrics", authorization=basic("x")).status, 503)

    def test_attempts_are_limited(self) -> None:
        """After a few attempts an address must wait, even with the right password; others need not."""
        token = self.form_token()
        for _ in range(ATTEMPTS):
            self.request("POST", "/login", f"user=ops&password=x&form_token={token}")
        reply = self.log_in()
        self.assertEqual((reply.status, self.login.checks), (429, ATTEMPTS))
        self.assertEqual(self.request("GET", "/metrics", authorization=basic("x")).status, 429)
        self.assertEqual(self.log_in(peer="192.0.2.2").status, 303)
        self.cookie = ""
        self.clock.advance(int(reply.headers["retry-after"]))
        self.assertEqual(self.log_in().status, 303)

    strangers = 0

    def flood(self, attempts: int = 2 * ALL_ATTEMPTS) -> None:
        """Send wrong passwords, each from another network."""
        for _ in range(attempts):
            self.strangers += 1
            peer = f"2001:{self.strangers:x}::1"
            self.request("GET", "/metrics", peer=peer, authorization=basic("x"))

    def test_flood_of_attempts_leaves_a_share_to_known_addresses(self) -> None:
        """While strangers use up the attempts of all, Prometheus goes on, and an operator who was here can log in."""
        self.assertEqual(self.log_in().status, 303)
        self.cookie = ""
        self.flood()
        for _ in range(10):
            self.clock.advance(1)
            self.flood(1)
            reply = self.request("GET", "/metrics", authorization=basic("secret"))
            self.assertEqual(reply.status, 200)
        self.assertEqual(self.log_in().status, 303)
        self.cookie = ""
        self.assertEqual(self.log_in(peer="192.0.2.2").status, 429)

    def test_flood_of_one_network_leaves_half_to_others(self) -> None:
        """Somebody with all addresses of a network does not keep an operator away who was never here."""
        for number in range(300):
            self.clock.advance(1)
            peer = f"2001:db8:{number:x}::1"
            self.request("GET", "/metrics", peer=peer, authorization=basic("x"))
        self.assertEqual(self.log_in(peer="192.0.2.2").status, 303)

    def test_flood_lets_passwords_in_that_are_known_to_be_right(self) -> None:
        """A cached password needs no check, so it is accepted from a new address, but an address has few guesses."""
        self.flood()
        checks, self.login.cached = self.login.checks, "secret"
        self.assertEqual(self.log_in(peer="192.0.2.2").status, 303)
        self.assertEqual(self.login.checks, checks)
        self.cookie = ""
        for _ in range(ATTEMPTS):
            self.assertEqual(self.log_in("x", peer="192.0.2.3").status, 429)
        self.assertEqual(self.log_in(peer="192.0.2.3").status, 429)

    def test_guesses_of_cached_passwords_are_limited(self) -> None:
        """All addresses together have so many comparisons with what is cached, and no more."""
        self.login.cached = "secret"
        self.flood(2 * ALL_ATTEMPTS + CACHED_ATTEMPTS)
        self.assertEqual(self.log_in(peer="192.0.2.2").status, 429)

    def failures(self) -> list[events.LoginFailed]:
        """Return what was reported of failed logins."""
        return [e for e in self.server.events if isinstance(e, events.LoginFailed)]

    def test_wrong_passwords_are_reported_and_counted(self) -> None:
        """A wrong password of the page, or of /metrics, is a failed login in the log, in `why` and in the figures."""
        self.log_in("x")
        self.request("GET", "/metrics", authorization=basic("y"))
        self.assertEqual(
            self.failures(),
            [events.LoginFailed(0, "192.0.2.1", "ops", "status-page")] * 2,
        )
        self.assertEqual(self.counters.logins["failed"], 2)
        self.log_in()
        self.assertEqual(self.server.events[-1], events.PageLoggedIn(0, "192.0.2.1", "ops"))

    def test_guessers_are_banned(self) -> None:
        """Somebody who guesses passwords of the page is banned from IMAP, too; old passwords of Prometheus ban nobody."""
        attempts = MAX_FAILED_PAIRS + 3
        for attempt in range(attempts):
            self.clock.advance(60)
            self.request("GET", "/metrics", peer="192.0.2.3", authorization=basic("old"))
            self.request("GET", "/metrics", peer="192.0.2.2", authorization=basic(f"{attempt}"))
        self.assertEqual([e.user for e in self.failures() if e.repeated][:1], ["ops"])
        bans = [*self.server.factory.shared.admission.guard.bans.active(self.clock.seconds())]
        self.assertEqual([ban.reason for ban in bans], ["max_failed_pairs"])
        self.assertEqual(self.login.checks, attempts + MAX_FAILED_PAIRS)
        for peer, status in (("192.0.2.2", 403), ("192.0.2.3", 200)):
            reply = self.request("GET", "/metrics", peer=peer, authorization=basic("secret"))
            self.assertEqual(reply.status, status)
        self.cookie = ""
        reply = self.log_in(peer="192.0.2.2")
        self.assertIn(b"imapshield unban 192.0.2.2", reply.body)

    def test_other_bans_leave_the_page_to_the_operator(self) -> None:
        """An operator behind the address of a client that floods can log in, and unban it."""
        admission = self.server.factory.shared.admission
        admission.ban_by_operator("192.0.2.1", None)
        self.assertEqual(self.log_in().status, 303)

    def test_right_passwords_are_no_attempts(self) -> None:
        """Prometheus may log in as often as it likes."""
        for _ in range(3 * ATTEMPTS):
            reply = self.request("GET", "/metrics", authorization=basic("secret"))
            self.assertEqual(reply.status, 200)

    def test_forged_forms_are_refused(self) -> None:
        """A form without the token, with that of another cookie, or from another site changes nothing."""
        other = self.form_token()
        self.cookie = ""
        self.log_in()
        token = self.form_token("/")
        fields = "network=192.0.2.9"
        for attempt in (
            self.request("POST", "/api/ban", fields),
            self.request("POST", "/api/ban", fields, x_form_token=other),
            self.request(
                "POST", "/api/ban", fields, x_form_token=token, origin="http://evil.example"
            ),
            self.request("POST", "/api/ban", fields, x_form_token=token, origin="null"),
            self.request(
                "POST", "/api/ban", fields, x_form_token=token, sec_fetch_site="cross-site"
            ),
        ):
            self.assertEqual(attempt.status, 403)
        self.assertEqual([*self.server.factory.shared.admission.guard.bans], [])
        own = self.request(
            "POST", "/api/ban", fields, x_form_token=token, origin="https://page.example"
        )
        self.assertEqual(own.status, 200)

    def test_links_of_other_sites_send_no_passwords(self) -> None:
        """A link with a wrong token or password on another site does not count for who follows it."""
        for site, sends_by_itself in (("cross-site", False), ("same-site", False), ("none", True)):
            page = self.request("GET", "/login", sec_fetch_site=site).body
            self.assertEqual(b"by-link" not in page, sends_by_itself)
        link: Any = {"authorization": basic("x"), "sec_fetch_site": "cross-site"}
        self.assertEqual(self.request("GET", "/metrics", **link).status, 403)
        self.assertEqual((self.login.checks, self.failures()), (0, []))

    def test_login_form_cannot_be_forged(self) -> None:
        """Another site cannot log a browser in. A proxy that hides its name is a mistake that the page explains."""
        fields = f"user=ops&password=secret&form_token={self.form_token()}"
        reply = self.request("POST", "/login", fields, origin="https://mail.example")
        self.assertEqual((reply.status, self.login.checks), (403, 0))
        self.assertIn(b"must pass on Host", reply.body)
        host = {"origin": "https://mail.example", "x_forwarded_host": "mail.example"}
        self.assertEqual(self.log_in(**host).status, 303)
        self.cookie, self.login.checks = "", 0
        reply = self.request("POST", "/login", "user=ops&password=secret&form_token=x")
        self.assertEqual((reply.status, self.login.checks), (403, 0))


class PageTests(WebCase):
    def setUp(self) -> None:
        super().setUp()
        self.log_in()
        self.token = self.form_token("/")

    def act(self, command: str, fields: str) -> Reply:
        """Send a command of the page."""
        return self.request("POST", f"/api/{command}", fields, x_form_token=self.token)

    def state(self) -> Any:
        """Return what the page shows."""
        self.clock.advance(STATE_SECONDS)
        return json.loads(self.request("GET", "/api/state").body)

    def test_state_shows_connections_talkers_and_limits(self) -> None:
        """The page has numbers, connections, talkers, triggered limits and bans."""
        self.server.login()
        flood = self.server.connect("192.0.2.7")
        flood(b"\r\n".join(b"%d NOOP" % n for n in range(20)))
        flood.lose_connection()
        self.clock.advance(1)
        state = self.state()
        self.assertGreater(state["status"]["connections"], 0)
        self.assertGreater(state["status"]["process_memory"], 1 << 20)
        self.assertIn("alice", [each["user"] for each in state["who"]])
        self.assertIn({"limit": "backlog", "action": "reset", "count": 1}, state["limits"])
        self.assertIn("100 % of resets", state["talkers"]["headlines"][-1])
        chart = json.loads(self.request("GET", CHART).body)
        self.assertIn("192.0.2.7", [row["key"] for row in chart["rows"]])

    def test_ban_unban_and_kick(self) -> None:
        """The page bans and unbans, and resets connections. Mistakes are errors in words."""
        client = self.server.login()
        reply = self.act("ban", "network=198.51.100.0/24&seconds=600")
        self.assertEqual(json.loads(reply.body)["result"]["seconds"], 600)
        self.assertEqual(self.state()["bans"][0]["network"], "198.51.100.0/24")
        self.assertEqual(self.act("unban", "network=198.51.100.0/24").status, 200)
        self.assertEqual(self.state()["bans"], [])
        self.assertEqual(json.loads(self.act("kick", "who=alice").body), {"result": 1})
        self.assertTrue(client.transport.aborted)
        for command, fields in (
            *(("kick", "who=nobody"), ("ban", "network=x"), ("ban", ""), ("kick", "")),
            *(("ban", "network=192.0.2.1&seconds=-1"), ("ban", "network=192.0.2.1&seconds=9e9")),
        ):
            reply = self.act(command, fields)
            self.assertEqual(reply.status, 400)
            self.assertTrue(json.loads(reply.body)["error"])

    def test_many_who_look_cost_as_much_as_one(self) -> None:
        """An answer is used again for a short time, but not after a change by the operator."""
        first = self.state()
        self.server.login()
        again = json.loads(self.request("GET", "/api/state").body)
        self.assertEqual(first, again)
        self.act("ban", "network=198.51.100.0/24")
        self.assertEqual(json.loads(self.request("GET", "/api/state").body)["status"]["bans"], 1)

    def test_history(self) -> None:
        """The charts get a point every ten seconds; rates are per second or per minute."""
        self.server.login()
        for _ in range(3):
            self.clock.advance(SAMPLE_SECONDS)
        points = json.loads(self.request("GET", "/api/history?range=hour").body)
        self.assertEqual(points["series"]["connections"], [0, 1, 1, 1])
        self.assertEqual(points["series"]["logins"], [0, 6, 0, 0])
        self.assertEqual(self.request("GET", "/api/history?range=year").status, 400)

    def test_chart_of_talkers(self) -> None:
        """The chart has those who have most, in amounts per second, and the sum of all others."""
        for host in range(1, 9):
            client = self.server.connect(f"192.0.2.{host}")
            for _ in range(host):
                client(b"a NOOP")
            client.lose_connection()
        for _ in range(2 * int(POINT_SECONDS)):
            self.clock.advance(1)
        chart = json.loads(self.request("GET", CHART).body)
        self.assertEqual([*chart["series"]], [f"192.0.2.{n}" for n in (8, 7, 6, 5, 4)])
        self.assertEqual(chart["series"]["192.0.2.8"], [0.8, 0.0])
        self.assertEqual((chart["others"], chart["step"], chart["time"]), ([0.6, 0.0], 10, 1e9))
        for query in ("subject=address&measure=x", "subject=connection&measure=busy", ""):
            self.assertEqual(self.request("GET", f"/api/talkers?{query}").status, 400)

    def test_page_is_protected(self) -> None:
        """Pages may not be framed, run no script and load nothing that is not their own."""
        for path in ("/", "/app.js", "/api/state", "/health", "/nowhere"):
            headers = self.request("GET", path).headers
            policy = headers["content-security-policy"]
            self.assertIn("default-src 'none'", policy)
            self.assertIn("frame-ancestors 'none'", policy)
            self.assertNotIn("unsafe", policy)
            self.assertEqual(headers["x-frame-options"], "DENY")
            self.assertEqual(headers["cache-control"], "no-store")
        page = self.request("GET", "/").body.decode()
        self.assertEqual(re.findall(r"\bstyle=|\bon\w+=|<style|https?://", page), [])
        self.assertEqual(re.findall(r"<script(?![^>]*src=)", page), [])

    def test_files_of_the_page(self) -> None:
        """Each file that a page names exists, and names no other site."""
        page = self.request("GET", "/").body.decode() + self.request("GET", "/app.js").body.decode()
        for path in {"/login.js", "/charts.js", *re.findall(r'(?:src|href)="(/[^"]+)"', page)}:
            reply = self.request("GET", path)
            self.assertEqual(reply.status, 200)
            self.assertNotIn(b"://", reply.body.replace(b"http://www.w3.org/2000/svg", b""))


class MetricsTests(WebCase):
    def metrics(self) -> str:
        """Return the figures."""
        return self.request("GET", "/metrics", site=self.open_site).body.decode()

    def test_metrics_with_basic_authentication(self) -> None:
        """Prometheus logs in with HTTP Basic; an address of its own needs no login."""
        self.assertEqual(self.request("GET", "/metrics", authorization=basic("x")).status, 401)
        reply = self.request("GET", "/metrics", authorization=basic("secret"))
        self.assertEqual(reply.status, 200)
        self.assertIn(b"imapshield_connections", reply.body)
        self.assertIn("imapshield_connections", self.metrics())
        self.assertEqual(self.request("GET", "/", site=self.open_site).status, 404)

    def test_numbers(self) -> None:
        """The figures are those of the server."""
        client = self.server.login()
        client(b"a NOOP")
        client.protocol._runner.count_seconds(0.01)
        self.clock.advance(1)
        text = self.metrics()
        for line in (
            'imapshield_connections{login="yes"} 1.0',
            'imapshield_logins_total{result="accepted"} 1.0',
            "imapshield_commands_total 2.0",
            "imapshield_reactor_delay_seconds_count 1.0",
        ):
            self.assertIn(line + "\n", text)

    def test_series_are_bounded_under_a_flood(self) -> None:
        """A flood from a thousand addresses with every limit and reason adds no series for an address."""
        for number in range(1000):
            address = f"10.1.{number // 250}.{number % 250 + 1}"
            client = self.server.connect(address)
            client(b"x LOGIN user%d wrong" % number)
            client(b"\r\n".join(b"%d NOOP" % n for n in range(20)))
        for number in range(1000):
            for action in ("reset", "bye", "refused", "paused", "none"):
                name = f"x{number}"
                self.counters(events.LimitTriggered(1, "10.0.0.1", name, 1, 1, action))
            self.counters(events.AddressBanned(0, "10.0.0.1", "10.0.0.1/32", f"x{number}", 1, 1, 1))
            self.counters(events.ConnectionClosed(1, "10.0.0.1", f"x{number}"))
        lines = [line for line in self.metrics().splitlines() if not line.startswith("#")]
        self.assertLess(len(lines), MAX_SERIES)
        self.assertFalse([line for line in lines if "10.1." in line])


class HealthTests(WebCase):
    def test_health(self) -> None:
        """Without a login, /health says ok, or one word."""
        reply = self.request("GET", "/health")
        self.assertEqual((reply.status, reply.body), (200, b"ok\n"))
        self.clock.rightNow += MAX_DELAY + SAMPLE_SECONDS
        self.clock.advance(0)
        reply = self.request("GET", "/health", site=self.open_site)
        self.assertEqual((reply.status, reply.body), (503, b"overloaded\n"))
        for _ in range(3):
            for _ in range(20):
                self.clock.advance(SAMPLE_SECONDS / 20)
        self.assertEqual(self.request("GET", "/health").status, 200)
        self.monitor.stop()
        self.assertEqual(self.request("GET", "/health").body, b"stopping\n")
