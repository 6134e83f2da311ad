"""What `ShieldedIMAP4Server` inherits from Twisted's IMAP4Server, attribute by attribute.

When Twisted adds an attribute, `test_every_attribute_is_listed` fails until the attribute is added to one of the lists.
"""

import re

from twisted.mail.imap4 import IMAP4Server
from twisted.trial.unittest import SynchronousTestCase

from imapshield.edge.protocol import ShieldedIMAP4Server

OVERRIDDEN = [
    "account",  # a slot, as "state": the dictionary of an instance would take 800 bytes
    "authenticateLogin",
    "callLater",
    "connectionLost",
    "connectionMade",
    "dataReceived",
    "lineLengthExceeded",
    "lineReceived",
    "listCapabilities",
    "rawDataReceived",
    "sendServerGreeting",
    "state",
    "timeoutConnection",
]

USED = [
    "MAX_LENGTH",
    "_buffer",
    "_busyReceiving",
    "_onLogout",
    "account",
    "canStartTLS",
    "capabilities",
    "challengers",
    "clearLineBuffer",
    "connected",
    "delimiter",
    "factory",
    "line_mode",
    "logPrefix",
    "makeConnection",
    "pauseProducing",
    "paused",
    "portal",
    "resetTimeout",
    "resumeProducing",
    "setLineMode",
    "setRawMode",
    "setTimeout",
    "startedTLS",
    "state",
    "stopProducing",
    "tags",
    "timeOut",
    "transport",
    "_TimeoutMixin__timedOut",
    "_TimeoutMixin__timeoutCall",
]

NEVER_REACHED = re.compile(
    r"""
    (arg|opt|parse|search|spew|do|unauth|auth|select|logout)_\w+  # the parser, and the methods that it dispatches to
    | _IMAP4Server__\w+ | _(cb|eb)[A-Z]\w+ | _(list|select)Work   # the callbacks of its commands
    | send(Bad|Negative|Positive|Untagged)Response | sendContinuationRequest | sendLine | _respond
    | IDENT | POSTAUTH_TIMEOUT | atomre | authenticate | blocked | checkpoint | dispatchCommand | lookupCommand | mbox
    | parseState | spewMessage | flagsChanged | modeChanged | newMessages
    | _(fileLiteral|stringLiteral|literalStringLimit|pendingLiteral|requiresLastMessageInfo|searchFilter|setupChallenge
      |singleSearchStep|unblock)
    """,
    re.VERBOSE,
)


class InheritanceTests(SynchronousTestCase):
    def base_attributes(self) -> set[str]:
        return {name for name in dir(IMAP4Server) if not name.startswith("__")}

    def test_every_attribute_is_listed(self) -> None:
        """Every attribute of the base class is overridden, used, or known never to be reached."""
        listed = {*OVERRIDDEN, *USED}
        self.assertEqual(
            [n for n in sorted(self.base_attributes() - listed) if not NEVER_REACHED.fullmatch(n)],
            [],
        )
        self.assertEqual([name for name in sorted(listed) if NEVER_REACHED.fullmatch(name)], [])
        self.assertEqual(sorted(listed - self.base_attributes()), [])

    def test_listed_overrides_are_the_actual_overrides(self) -> None:
        """The attributes listed as overridden are overridden, and no others."""
        own = {name for name in vars(ShieldedIMAP4Server) if not name.startswith("__")}
        self.assertEqual(sorted(own & self.base_attributes()), sorted(OVERRIDDEN))
