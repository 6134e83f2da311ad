"""What ``twistd`` and ``--auth`` find: the server and its checker of password files.

``twistd --help`` imports this file, so it imports as little as it can. Neither this folder nor the one above may ever
hold an ``__init__.py``: it would hide Twisted's own.
"""

from twisted.application.service import ServiceMaker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.plugin import IPlugin
from zope.interface import implementer

imapshield = ServiceMaker(
    "imapshield",
    "imapshield.tap",
    "An IMAP server for Maildir that cannot be knocked over by a flood of commands.",
    "imapshield",
)


@implementer(ICheckerFactory, IPlugin)
class PasswordFileFactory:
    """Makes the checker of hashed passwords for any program of Twisted's that has ``--auth``."""

    authType = "imapshield"
    authHelp = (
        "A file of hashed passwords, user:hash a line, read again when it changes.\n"
        "`imapshield passwd PATH USER` adds a user or sets a password."
    )
    argStringFormat = "The path of the file"
    credentialInterfaces = (IUsernamePassword,)

    def generateChecker(self, argstring):
        """Make the checker of the file `argstring`."""
        if not argstring:
            raise InvalidAuthArgumentString("the path of a password file is missing")
        # strcred hands over no reactor; by now the program has chosen one.
        from twisted.internet import reactor

        from imapshield.cred.checkers import PasswordFile

        return PasswordFile(argstring, reactor=reactor)


passwordFileFactory = PasswordFileFactory()
