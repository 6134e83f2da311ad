"""Twisted finds the plugins, and imports load only the modules that they need."""

import os
import signal
import subprocess
import sys

from twisted.application.service import IServiceMaker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString, makeChecker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

import imapshield
from imapshield.cred.checkers import PasswordFile
from imapshield.process import signals
from twisted import plugins

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class PluginTests(SynchronousTestCase):
    def test_service_maker_is_imapshield_tap(self) -> None:
        """``twistd imapshield`` uses imapshield.tap."""
        (maker,) = [p for p in getPlugins(IServiceMaker) if p.tapname == "imapshield"]
        from imapshield import tap

        for number in (signal.SIGHUP, signal.SIGUSR1):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
            signal.signal(number, signal.SIG_DFL)
        self.assertIs(maker.options, tap.Options)
        for number in (signal.SIGHUP, signal.SIGUSR1):
            os.kill(os.getpid(), number)  # does not end the process
        signals._early.clear()
        self.assertIs(maker.makeService, tap.makeService)

    def test_auth_option_finds_the_checker(self) -> None:
        """Any Twisted program with --auth can use ``--auth imapshield:FILE``."""
        (factory,) = [p for p in getPlugins(ICheckerFactory) if p.authType == "imapshield"]
        self.assertEqual(factory.credentialInterfaces, (IUsernamePassword,))
        checker = makeChecker("imapshield:/some/users")
        self.assertIsInstance(checker, PasswordFile)
        self.assertEqual(checker.path, "/some/users")
        self.assertRaises(InvalidAuthArgumentString, makeChecker, "imapshield")

    def test_twisted_folders_have_no_init_file(self) -> None:
        """twisted/ and twisted/plugins/ are not packages: an __init__.py would hide Twisted itself."""
        for folder in ("twisted", "twisted/plugins"):
            self.assertNotIn("__init__.py", os.listdir(os.path.join(ROOT, folder)))
        self.assertGreater(len(plugins.__path__), 0)


class ImportTests(SynchronousTestCase):
    def modules(self, code: str) -> set[str]:
        """Return the modules that are loaded after a new Python has run `code`."""
        process = subprocess.run(
            [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        return set(process.stdout.split())

    def test_package_does_not_import_twisted(self) -> None:
        """``import imapshield`` does not import Twisted."""
        loaded = self.modules("import imapshield; imapshield.__version__; dir(imapshield)")
        self.assertEqual(
            {m for m in loaded if m.split(".")[0] in ("twisted", "zope", "OpenSSL")}, set()
        )

    def test_plugin_imports_neither_server_nor_reactor(self) -> None:
        """The plugin, which ``twistd --help`` imports, imports neither the server nor a reactor."""
        loaded = self.modules("from twisted.plugins import imapshield_plugin")
        self.assertNotIn("twisted.internet.reactor", loaded)
        self.assertEqual({m for m in loaded if m.startswith("imapshield.")}, set())

    def test_command_does_not_import_twisted(self) -> None:
        """``imapshield passwd`` does not import Twisted."""
        self.assertNotIn("twisted", self.modules("import imapshield.cli"))

    def test_package_has_exactly_its_public_names(self) -> None:
        """The package has exactly the names of ``__all__``."""
        for name in imapshield.__all__:
            self.assertIsNotNone(getattr(imapshield, name))
        self.assertEqual(dir(imapshield), sorted(imapshield.__all__))
        self.assertRaises(AttributeError, getattr, imapshield, "nonsense")
