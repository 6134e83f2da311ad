"""Each code path that ends a connection is in `imapshield why`: with its limit and values, option and last commands.

The paths are found in the source, so that a new one fails these tests until it has a scenario that runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from imapshield.edge.gate import Gate
from imapshield.edge.proxy import Proxies
from imapshield.guard.networks import NetworkSet, networks_of
from tests.control.end_scenarios import HERE, OTHER, EndScenarios, Why
from tests.control.end_sites import EXEMPT, Lines, sites
from tests.edge.fake_port import FakePort

HEADER = b"PROXY TCP4 192.0.2.7 192.0.2.8 4444 143\r\n"


class EveryEndTests(EndScenarios):
    """All scenarios: those of `EndScenarios`, and the following ones."""

    # Ports and proxies

    def port(self, **limits: Any) -> FakePort:
        self.serve(**limits)
        port, shared = FakePort(self.server.factory), self.server.factory.shared
        factory = self.server.factory
        proxies = Proxies(NetworkSet.parse([OTHER]), factory.limits, self.clock, factory.observers)
        Gate.close_off(port, shared.admission, shared.fair_queue, proxies)
        return port

    def end_waiting(self) -> Why:
        """A connection that waits for its turn makes room."""
        port = self.port(max_preauth_per_address=2)
        for _ in range(3):
            port.accept(HERE)
        return Why("max_preauth_per_address", "reset")

    def end_waiting_that_has_left(self) -> Why:
        """What has left before its turn, or waits when the server stops, was no connection yet."""
        port = self.port()
        port.accept(HERE, "closed")
        self.clock.advance(0)
        guard = self.server.factory.shared.admission.guard
        guard._put_on_probation(networks_of(HERE), 1.0, self.clock.seconds())
        for _ in range(3):
            port.accept(HERE)
        port.factory.doStop()
        self.clock.advance(0)
        return self.end_backlog()

    def end_refused_by_the_factory(self) -> Why:
        port = self.port()
        self.server.factory.buildProtocol = lambda _: None  # type: ignore[assignment,return-value]
        port.accept(HERE)
        self.clock.advance(0)
        return self.end_backlog()

    def proxied(self, data: bytes, **limits: Any) -> Any:
        port = self.port(**limits)
        port.accept(OTHER)
        port.protocols[0].dataReceived(data)
        return port

    def end_bad_proxy_header(self) -> Why:
        self.proxied(b"PROXY TCP4 192.0.2.7 192.0.2.8 xx 143\r\n")
        return Why("invalid line of version 1", "reset", False, who=OTHER)

    def end_no_proxy_header(self) -> Why:
        self.proxied(HEADER[:5])
        self.clock.advance(5)
        return Why("proxy_header_seconds", "reset", who=OTHER)

    def end_share_of_a_proxy(self) -> Why:
        port = self.port(max_preauth_per_address=2)
        for _ in range(3):
            port.accept(OTHER)
        return Why("max_preauth_per_address", "reset", who=OTHER)

    def end_client_of_a_proxy_refused(self) -> Why:
        """The client of a proxy is banned, or the factory refuses it, or it leaves before its turn."""
        port = self.port()
        self.server.factory.shared.admission.ban_by_operator(HERE, None)
        port.accept(OTHER)
        port.protocols[0].dataReceived(HEADER)
        self.server.factory.shared.admission.report_refused()
        return Why("banned", "refused", False)

    def end_client_of_a_proxy_without_protocol(self) -> Why:
        port = self.port()
        self.server.factory.buildProtocol = lambda _: None  # type: ignore[assignment,return-value]
        for _ in range(2):
            port.accept(OTHER)
            port.protocols[-1].dataReceived(HEADER)
        self.clock.advance(0)
        port.accept(OTHER)
        port.protocols[-1].dataReceived(HEADER)
        port.factory.doStop()
        self.clock.advance(0)
        return self.end_backlog()

    def scenarios(self) -> dict[str, Callable[[], Why]]:
        names = [name for name in dir(self) if name.startswith("end_")]
        return {name: getattr(self, name) for name in names}

    def test_each_end_is_in_the_history(self) -> None:
        """After each scenario `why` has the cause, and for a limit its value, what was observed, and the option."""
        for name, scenario in self.scenarios().items():
            expected = scenario()
            ends = self.why(expected.who)
            found = {(each["cause"], each["action"], *each["commands"]): each for each in ends}
            wanted = (expected.cause, expected.action, *expected.commands)
            self.assertIn(wanted, found, name)
            end = found[wanted]
            if expected.has_limit:
                self.assertGreaterEqual(end["observed"], end["value"], name)
                self.assertGreater(end["value"], 0, name)
                self.assertTrue(end["setting"].startswith("--"), name)
        self.flushLoggedErrors()

    def test_each_path_in_the_source_has_a_scenario(self) -> None:
        """Each call in the source that ends a connection runs in one of the scenarios."""
        lines = Lines()
        with lines:
            for scenario in self.scenarios().values():
                expected = scenario()
                self.why(expected.who)
        missing = [
            f"{site.name}, line {site.first}"
            for site in sites()
            if site.name not in EXEMPT
            and not any((site.file, n) in lines.seen for n in range(site.first, site.last + 1))
        ]
        self.assertEqual(missing, [])
        self.assertLessEqual(EXEMPT.keys(), {site.name for site in sites()})
        self.flushLoggedErrors()
