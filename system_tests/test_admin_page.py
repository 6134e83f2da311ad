"""The status page in a real browser: it works during a flood, on a desktop and on a phone."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from system_tests.server import TIMEOUT, free_port
from system_tests.server_case import FAULTS, ServerCase

IMAPSHIELD = os.path.join(os.path.dirname(sys.executable), "imapshield")
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
    *("disable-background-networking", "disable-component-update", "disable-sync"),
)


class AdminPageTests(ServerCase):
    forbidden_log_texts = FAULTS

    def prepare(self) -> None:
        self.port_of_page = free_port()
        self.control = os.path.join(self.base, "control")
        endpoint = f"tcp:{self.port_of_page}:interface=127.0.0.1"
        self.options = (
            *("--admin", endpoint, "--control", self.control),
            *("--state", "none", "--trust", "none"),
        )

    def browser(self, width: int, height: int) -> Any:
        """Return a browser with a window of this size, which has logged in with the token."""
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for flag in (*FLAGS, f"user-data-dir={tempfile.mkdtemp(dir=self.base)}"):
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        browser = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
        self.addCleanup(browser.quit)
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        command = (IMAPSHIELD, "admin", "--control", self.control)
        browser.get(self.run_client(*command).decode().strip())
        self.wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#tiles .tile"))
        return browser

    def wait(self, browser: Any, condition: Any) -> None:
        """Wait until something is on the page."""
        WebDriverWait(browser, TIMEOUT, 0.2).until(lambda _: condition())

    def wait_for_ban(self, browser: Any, address: str, *, is_banned: bool = True) -> None:
        """Wait until the page shows the ban of an address, or no longer shows it."""
        bans = lambda: browser.find_element(By.ID, "bans").text  # noqa: E731
        self.wait(browser, lambda: (address in bans()) is is_banned)

    def flood(self) -> None:
        """Connect from three addresses and send more commands than permitted, until each is banned."""
        for host in range(2, 5):
            for _ in range(12):
                with socket.socket() as client:
                    client.settimeout(TIMEOUT)
                    client.bind((f"127.0.5.{host}", 0))
                    with contextlib.suppress(OSError):
                        client.connect(("127.0.0.1", self.port))
                        client.sendall(b"a NOOP\r\n" * 300)
                        while client.recv(65536):
                            pass

    def test_page_during_a_flood(self) -> None:
        """The page shows a flood by itself, fits on a phone, bans and unbans, and has no errors."""
        self.login()
        browsers = {name: self.browser(*size) for name, size in SIZES.items()}
        self.flood()
        for browser in browsers.values():
            self.wait_for_ban(browser, "127.0.5.2")
            drawn = lambda css: len(browser.find_elements(By.CSS_SELECTOR, css))  # noqa: B023, E731
            self.assertGreaterEqual(drawn("#charts svg polyline, #charts svg circle"), 9)
            self.wait(browser, lambda: drawn("#talkers-chart polygon") > 1)  # noqa: B023
            self.assertIn("127.0.5.2", browser.find_element(By.ID, "talkers-chart").text)
            widths = browser.execute_script(
                "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            self.assertEqual(widths[0], widths[1])
            self.assertEqual(browser.get_log("browser"), [])
        browser = browsers["phone"]
        field = browser.find_element(By.CSS_SELECTOR, "#ban input")
        field.send_keys("198.51.100.7\n")
        self.wait_for_ban(browser, "198.51.100.7")
        browser.execute_script(
            "[...document.querySelectorAll('#bans tr')].find(r => r.textContent.includes('198.51.100.7'))"
            ".querySelector('button').click()"
        )
        self.run_client(IMAPSHIELD, "ban", "198.51.100.8", "--control", self.control)
        self.wait_for_ban(browser, "198.51.100.8")
        self.wait_for_ban(browser, "198.51.100.7", is_banned=False)

    def test_pages_of_others(self) -> None:
        """A page of another port, whose requests have the cookie, can neither frame the page nor send its forms."""
        browser = self.browser(*SIZES["desktop"])
        page, form = f"http://127.0.0.1:{self.port_of_page}", 'method="post" target="answer"'
        evil = f"""<iframe src="{page}/"></iframe><iframe name="answer"></iframe>
            <form action="{page}/api/ban" {form}><input name="network" value="198.51.100.9"></form>
            <form action="{page}/logout" {form}></form>
            <script>document.title = "sent"; for (const form of document.forms) form.submit();
            fetch("{page}/api/state", {{credentials: "include"}}).then(() => document.title = "read", () => 0);
            </script>"""
        browser.get(self.serve(evil))
        self.wait(browser, lambda: "frame" in str(browser.get_log("browser")).lower())
        self.assertEqual(browser.title, "sent")
        browser.switch_to.frame(0)
        self.assertEqual(browser.find_elements(By.ID, "tiles"), [])
        browser.get(page)
        self.wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#tiles .tile"))
        browser.delete_all_cookies()
        browser.get(self.serve(f'<a href="{page}/login#wrong">link</a>'))
        browser.find_element(By.TAG_NAME, "a").click()
        field = lambda: browser.find_elements(By.NAME, "password")  # noqa: E731
        self.wait(browser, lambda: field() and field()[0].get_attribute("value") == "wrong")
        bans = self.run_client(IMAPSHIELD, "bans", "--control", self.control)
        self.assertNotIn(b"198.51.100.9", bans)
        self.assertNotIn("login failed", self.stop())

    def serve(self, text: str) -> str:
        """Return the address of a page with this text."""
        body = text.encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: Any) -> None:
                """Write nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(server.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}/"
