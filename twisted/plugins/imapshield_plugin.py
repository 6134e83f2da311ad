"""The Twisted plugins of imapshield: the server for ``twistd``, and the password file for ``--auth``.

``twistd --help`` imports this file, so it imports as little as possible. Neither this directory nor its parent may
contain an ``__init__.py``: it would hide the Twisted package.
"""

from twisted.application.service import ServiceMaker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface import implementer


class ShieldServiceMaker(ServiceMaker):
    """Makes the service of ``twistd imapshield``."""

    @property
    def options(self):
        """The class of the options, of which twistd makes an instance when the command line names this service.

        That is the first moment in which it is certain that this process becomes the server. Signals that would end a
        process wait from then on until the server handles them.
        """
        from imapshield.process.signals import keep_early_signals

        keep_early_signals()
        return super().options


imapshield = ShieldServiceMaker(
    "imapshield",
    "imapshield.tap",
    "An IMAP server for Maildir that withstands floods of commands.",
    "imapshield",
)


@implementer(ICheckerFactory, IPlugin)
class PasswordFileFactory:
    """Makes the checker of a password file, for any Twisted program that has ``--auth``."""

    authType = "imapshield"
    authHelp = (
        "A file with one line user:hash for each user. The file is read again when it changes.\n"
        "`imapshield passwd PATH USER` adds a user or changes a password."
    )
    argStringFormat = "Path of the password file"
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring):
        """Return the checker of the password file at the path `argstring`."""
        if not argstring:
            raise InvalidAuthArgumentString("the path of the password file is missing")
        # strcred passes no reactor; by now the program has installed one.
        from twisted.internet import reactor

        from imapshield.cred.checkers import PasswordFile

        return PasswordFile(argstring, reactor=reactor)


passwordFileFactory = PasswordFileFactory()
