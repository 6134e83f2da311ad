import os
import subprocess
import sys

from twisted.application.service import IServiceMaker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString, makeChecker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

import imapshield
from imapshield.cred.checkers import PasswordFile
from twisted import plugins

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class PluginTests(SynchronousTestCase):
    def test_twistd_finds_it(self) -> None:
        """``twistd imapshield`` is our tap."""
        (maker,) = [p for p in getPlugins(IServiceMaker) if p.tapname == "imapshield"]
        from imapshield import tap

        self.assertIs(maker.options, tap.Options)
        self.assertIs(maker.makeService, tap.makeService)

    def test_strcred_finds_it(self) -> None:
        """Any program of Twisted's can use ``--auth imapshield:FILE``."""
        (factory,) = [p for p in getPlugins(ICheckerFactory) if p.authType == "imapshield"]
        self.assertEqual(factory.credentialInterfaces, (IUsernamePassword,))
        checker = makeChecker("imapshield:/some/users")
        self.assertIsInstance(checker, PasswordFile)
        self.assertEqual(checker.path, "/some/users")
        self.assertRaises(InvalidAuthArgumentString, makeChecker, "imapshield")

    def test_no_init(self) -> None:
        """The folders twisted/ and twisted/plugins/ are no packages of ours: an __init__.py would hide Twisted's."""
        for folder in ("twisted", "twisted/plugins"):
            self.assertNotIn("__init__.py", os.listdir(os.path.join(HERE, folder)))
        self.assertGreater(len(plugins.__path__), 0)

    def modules(self, code):
        """What is imported when `code` has run in a fresh Python."""
        done = subprocess.run(
            [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
            cwd=HERE,
        )
        return set(done.stdout.split())

    def test_import_is_light(self) -> None:
        """``import imapshield`` imports no Twisted."""
        loaded = self.modules("import imapshield; imapshield.__version__; dir(imapshield)")
        self.assertEqual(
            {m for m in loaded if m.split(".")[0] in ("twisted", "zope", "OpenSSL")}, set()
        )

    def test_plugin_is_light(self) -> None:
        """What ``twistd --help`` imports brings in neither the server nor a reactor."""
        loaded = self.modules("from twisted.plugins import imapshield_plugin")
        self.assertNotIn("twisted.internet.reactor", loaded)
        self.assertEqual({m for m in loaded if m.startswith("imapshield.")}, set())

    def test_command_is_light(self) -> None:
        """``imapshield passwd`` needs no Twisted."""
        self.assertNotIn("twisted", self.modules("import imapshield.cli"))

    def test_public_names(self) -> None:
        """The names of the README are there, and no others."""
        for name in imapshield.__all__:
            self.assertIsNotNone(getattr(imapshield, name))
        self.assertEqual(dir(imapshield), sorted(imapshield.__all__))
        self.assertRaises(AttributeError, getattr, imapshield, "nonsense")
