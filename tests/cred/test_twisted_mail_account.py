"""imapshield serves accounts written for the IMAP server of twisted.mail."""

from __future__ import annotations

import email
import io
import re
from email.utils import formatdate
from typing import Any, Never

from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred, succeed
from twisted.mail import imap4
from twisted.mail.interfaces import (
    IAccountIMAP,
    IMailboxIMAP,
    IMessageIMAP,
    IMessageIMAPCopier,
    IMessageIMAPFile,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from imapshield.cred.twisted_mail_account import TwistedMailAccount
from imapshield.mailbox.account_api import IAccount, IMailbox
from imapshield.testing.in_process import MAIL, Server


@implementer(IMessageIMAP)
class PlainMessage:
    """A message that can be read only as header fields and body."""

    def __init__(self, uid: int, octets: bytes, flags: list[str], date: str) -> None:
        self.uid, self.octets, self.flags, self.date = uid, octets, flags, date

    def getUID(self) -> int:
        return self.uid

    def getFlags(self) -> list[str]:
        return self.flags

    def getInternalDate(self) -> str:
        return self.date

    def getHeaders(self, negate: bool, *names: str) -> dict[str, str]:
        return {k.lower(): v for k, v in email.message_from_bytes(self.octets).items()}

    def getBodyFile(self) -> io.BytesIO:
        return io.BytesIO(self.octets.partition(b"\r\n\r\n")[2])

    def getSize(self) -> int:
        return len(self.octets)

    def isMultipart(self) -> bool:
        return False

    def getSubPart(self, part: int) -> Any:
        raise IndexError(part)


@implementer(IMessageIMAPFile)
class FileMessage(PlainMessage):
    """A message that can be read as a file, byte for byte."""

    def open(self) -> io.BytesIO:
        return io.BytesIO(self.octets.replace(b"\r\n", b"\n"))


@implementer(IMailboxIMAP)
class Mailbox:
    """A mailbox written for twisted.mail. Some of its methods return Deferreds."""

    message_class: Any = FileMessage

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.uidnext = 1
        self.listeners: list[Any] = []

    def getHierarchicalDelimiter(self) -> str:
        return "/"

    def getFlags(self) -> list[str]:
        return ["\\Seen", "\\Deleted"]

    def getUIDValidity(self) -> int:
        return 42

    def getUIDNext(self) -> int:
        return self.uidnext

    def getUID(self, message: int) -> int:
        return int(self.messages[message - 1].uid)

    def getMessageCount(self) -> int:
        return len(self.messages)

    def getRecentCount(self) -> int:
        return 0

    def getUnseenCount(self) -> int:
        return sum("\\Seen" not in m.flags for m in self.messages)

    def isWriteable(self) -> bool:
        return True

    def destroy(self) -> None:
        self.messages.clear()

    def requestStatus(self, names: Any) -> Any:
        return imap4.statusRequestHelper(self, names)

    def addListener(self, listener: Any) -> None:
        self.listeners.append(listener)

    def removeListener(self, listener: Any) -> None:
        self.listeners.remove(listener)

    def addMessage(self, message: Any, flags: Any, date: Any) -> Any:
        self.messages.append(
            self.message_class(self.uidnext, message.read(), list(flags), date or formatdate(0))
        )
        self.uidnext += 1
        for listener in list(self.listeners):
            listener.newMessages(len(self.messages), None)
        return succeed(None)

    def expunge(self) -> Any:
        expunged = [m for m in self.messages if "\\Deleted" in m.flags]
        self.messages = [m for m in self.messages if m not in expunged]
        return succeed([m.uid for m in expunged])

    def _selected(self, messages: Any, uid: bool) -> list[tuple[int, Any]]:
        messages.last = (self.uidnext - 1) if uid else len(self.messages)
        return [(i, m) for i, m in enumerate(self.messages, 1) if (m.uid if uid else i) in messages]

    def fetch(self, messages: Any, uid: bool) -> Any:
        return iter(self._selected(messages, uid))

    def store(self, messages: Any, flags: Any, mode: int, uid: bool) -> Any:
        selected = self._selected(messages, uid)
        for _, message in selected:
            others = [f for f in message.flags if f not in flags]
            message.flags = others if mode < 0 else [*others, *flags] if mode else list(flags)
        return succeed({i: m.flags for i, m in selected})


@implementer(IMessageIMAPCopier)
class CopierMailbox(Mailbox):
    """A mailbox that copies a message of another mailbox itself, and lists messages in another order."""

    def copy(self, message: Any) -> Any:
        return self.addMessage(io.BytesIO(message.octets), message.flags, message.date)

    def fetch(self, messages: Any, uid: bool) -> Any:
        return reversed(list(super().fetch(messages, uid)))


class Account(imap4.MemoryAccount):
    """The in-memory account of twisted.mail, with mailboxes of class `Mailbox`."""

    def _emptyMailbox(self, name: str, id: int) -> Mailbox:
        return Mailbox()


@implementer(IRealm)
class Realm:
    """A realm written for twisted.mail, which does not use imapshield."""

    def __init__(self) -> None:
        self.account = Account("alice")
        self.account.create("INBOX")
        self.logouts = 0

    def requestAvatar(self, avatarId: Any, mind: object, *interfaces: Any) -> Any:
        assert IAccountIMAP in interfaces
        return IAccountIMAP, self.account, self.logout

    def logout(self) -> None:
        self.logouts += 1


class TwistedMailAccountTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.realm = Realm()
        self.server = Server(realm=self.realm)
        self.client = self.server.login()

    def select_messages(self, count: int) -> None:
        for _ in range(count):
            self.client.append()
        self.client(b"s SELECT INBOX")

    def test_adapter_provides_the_account_interfaces(self) -> None:
        """The adapter provides IAccount, and its mailboxes provide IMailbox."""
        account = TwistedMailAccount(self.realm.account, "alice")
        self.assertTrue(verifyObject(IAccount, account))
        mailbox, _ = self.successResultOf(Deferred.fromCoroutine(account.open("INBOX", True)))
        self.assertTrue(verifyObject(IMailbox, mailbox))

    def test_commands_of_a_session_work(self) -> None:
        """APPEND, SELECT, FETCH, STORE, SEARCH, SORT, COPY, MOVE, STATUS and LOGOUT work in one session."""
        self.assertRegex(self.client.append(flags=b"(\\Flagged)"), rb"app OK \[APPENDUID 42 1\]")
        self.client.append()
        answer = self.client(b"a SELECT INBOX")
        for part in (b"* 2 EXISTS", b"[UIDVALIDITY 42]", b"[UIDNEXT 3]", b"a OK [READ-WRITE]"):
            self.assertIn(part, answer)
        self.assertIn(
            b"BODY[] {%d}\r\n%b)" % (len(MAIL), MAIL), self.client(b"b FETCH 1 (BODY.PEEK[])")
        )
        self.assertIn(b"RFC822.SIZE %d" % len(MAIL), self.client(b"c FETCH 2 RFC822.SIZE"))
        self.assertIn(b"* 2 FETCH (FLAGS (\\Seen))", self.client(b"d STORE 2 +FLAGS (\\Seen)"))
        self.assertIn(b"* SEARCH 1\r\n", self.client(b"e SEARCH UNSEEN SUBJECT lunch"))
        self.assertIn(b"* SORT 1 2\r\n", self.client(b"f SORT (SUBJECT) UTF-8 ALL"))
        self.client(b"g CREATE other")
        self.assertRegex(self.client(b"h COPY 1:2 other"), rb"h OK \[COPYUID 42 1:2 1:2\]")
        self.assertIn(b"* 1 EXPUNGE", self.client(b"i MOVE 1 other"))
        self.assertIn(
            b"(MESSAGES 3 UNSEEN 2 SIZE %d)" % (3 * len(MAIL)),
            self.client(b"j STATUS other (MESSAGES UNSEEN SIZE)"),
        )
        self.client(b"k LOGOUT")
        self.client.lose_connection()
        self.assertEqual(self.realm.logouts, 1)

    def test_mailbox_commands_work_with_response_codes(self) -> None:
        """LIST, RENAME, DELETE and subscriptions work, and errors have their response codes."""
        self.client(b"a CREATE x/y")
        self.client(b"b SUBSCRIBE X/Y")  # MemoryAccount converts names to capitals
        listed = self.client(b'c LIST "" * RETURN (SUBSCRIBED)')
        self.assertIn(b'* LIST (\\HasNoChildren \\Subscribed) "/" X/Y', listed)
        self.assertIn(b'* LIST (\\HasNoChildren) "/" INBOX', listed)
        self.assertIn(b"d OK", self.client(b"d RENAME x/y z"))
        self.assertIn(b"e OK", self.client(b"e DELETE z"))
        for command, code in (
            (b"SELECT z", b"NONEXISTENT"),
            (b"DELETE z", b"NONEXISTENT"),
            (b"CREATE x", b"ALREADYEXISTS"),
            (b"DELETE INBOX", b"CANNOT"),
            (b"RENAME z y", b"NONEXISTENT"),
            (b"CREATE d (USE (\\Drafts))", b"USEATTR"),
        ):
            self.assertIn(b"f NO [%b]" % code, self.client(b"f " + command), command)
        self.assertIn(b"app NO [TRYCREATE]", self.client.append(mailbox=b"nowhere"))

    def test_changes_by_another_session_are_reported(self) -> None:
        """NOOP reports what another session changed, and IDLE too if the mailbox notifies its listeners."""
        self.select_messages(3)
        other = self.server.login()
        other(b"s SELECT INBOX")
        other(b"a STORE 2 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        self.assertIn(b"* 2 EXPUNGE", self.client(b"c NOOP"))
        self.client(b"d IDLE")
        other.append()
        self.assertIn(b"* 3 EXISTS", self.client.read())
        self.client(b"DONE")
        self.client(b"e UNSELECT")
        self.assertEqual(self.realm.account.mailboxes["INBOX"].listeners, [])

    def test_client_whose_mailbox_was_deleted_gets_bye(self) -> None:
        """If the mailbox itself says that it was deleted, NOOP gets BYE instead of NO."""
        self.select_messages(1)

        def fail() -> Never:
            raise imap4.NoSuchMailbox("INBOX")

        self.realm.account.mailboxes["INBOX"].getMessageCount = fail
        self.assertTrue(self.client(b"a NOOP").startswith(b"* BYE"))

    def test_uid_expunge_spares_other_messages(self) -> None:
        """UID EXPUNGE spares the messages that it does not name, although IMailboxIMAP cannot do that."""
        self.select_messages(3)
        self.client(b"a STORE 1:2 +FLAGS.SILENT (\\Deleted)")
        self.assertIn(b"* 2 EXPUNGE\r\n", self.client(b"b UID EXPUNGE 2:3"))
        self.assertIn(b"* SEARCH 1\r\n", self.client(b"c SEARCH DELETED"))

    def test_copy_of_expunged_messages(self) -> None:
        """COPY of messages of which one no longer exists copies none; MOVE moves the others."""
        for mailbox_class in (Mailbox, CopierMailbox):
            self.patch(Account, "_emptyMailbox", lambda *_, kind=mailbox_class: kind())
            self.setUp()
            self.client(b"c CREATE other")
            self.select_messages(3)
            del self.realm.account.mailboxes["INBOX"].messages[1]
            self.assertIn(b"a NO [EXPUNGEISSUED]", self.client(b"a COPY 1:3 other"))
            self.assertEqual(self.realm.account.mailboxes["OTHER"].messages, [])
            self.assertIn(b"[COPYUID 42 1,3 1:2]", self.client(b"b UID MOVE 1:3 other"))

    def test_unknown_uids(self) -> None:
        """If another session adds a message at the same time, no UIDs are sent, because they could be wrong."""
        self.client(b"c CREATE other")
        self.select_messages(1)
        for name in ("INBOX", "OTHER"):
            mailbox = self.realm.account.mailboxes[name]
            add = mailbox.addMessage

            def add_two(message: Any, *arguments: Any, add: Any = add) -> Any:
                content = message.read()
                add(io.BytesIO(content), *arguments)
                return add(io.BytesIO(content), *arguments)

            self.patch(mailbox, "addMessage", add_two)
        self.assertIn(b"app OK APPEND completed", self.client.append())
        self.assertIn(b"a OK COPY completed", self.client(b"a COPY 1 other"))

    def test_replace_expunges_only_the_old_message(self) -> None:
        """REPLACE adds the new message and expunges only the old one."""
        self.select_messages(3)
        self.client(b"a STORE 1 +FLAGS.SILENT (\\Deleted)")
        answer = self.client.send(
            b"b REPLACE 2 INBOX (\\Draft) {%d+}\r\n%b\r\n" % (len(MAIL), MAIL)
        )
        self.assertRegex(answer, rb"(?s)APPENDUID \d+ 4\].*\* 2 EXPUNGE\r\n.*b OK")
        self.assertIn(b"* 3 FETCH (UID 4 FLAGS (\\Draft", self.client(b"c FETCH 3 (UID FLAGS)"))
        self.assertIn(b"d NO [NONEXISTENT]", self.client(b"d UID REPLACE 2 INBOX {1+}\r\nx"))

    def test_reconnecting_client_gets_all_flags_again(self) -> None:
        """A client that reconnects gets all flags and expunged UIDs again, because no MODSEQs are stored."""
        self.select_messages(3)
        self.client(b"a STORE 2 +FLAGS.SILENT (\\Deleted)")
        self.client(b"b EXPUNGE")
        modseq = int(re.findall(rb"HIGHESTMODSEQ (\d+)", self.client(b"c SELECT INBOX"))[0])
        second_client = self.server.login()
        second_client(b"d ENABLE QRESYNC")
        answer = second_client(b"e SELECT INBOX (QRESYNC (42 %d))" % (modseq - 1))
        self.assertIn(b"* VANISHED (EARLIER) 2\r\n", answer)
        self.assertIn(b"* 2 FETCH (UID 3 FLAGS", answer)

    def test_message_without_file_is_assembled(self) -> None:
        """A message that is not available as a file is assembled from its header fields and its body."""
        self.realm.account.mailboxes["INBOX"].message_class = PlainMessage
        self.select_messages(1)
        answer = self.client(
            b"a FETCH 1 (BODY.PEEK[HEADER.FIELDS (SUBJECT)] BODY.PEEK[TEXT] EMAILID SAVEDATE)"
        )
        self.assertIn(b"subject: Lunch", answer)
        self.assertIn(b"BODY[TEXT] {10}\r\nAt noon?\r\n", answer)
        self.assertIn(b"SAVEDATE NIL", answer)

    def test_large_message_is_streamed_completely(self) -> None:
        """A large message is streamed completely."""
        large = MAIL + b"x" * 400_000
        self.client.append(large)
        self.client(b"s SELECT INBOX")
        self.assertIn(
            b"BODY[] {%d}\r\n%b)" % (len(large), large), self.client(b"a FETCH 1 BODY.PEEK[]")
        )

    def test_unsupported_capabilities_are_not_advertised(self) -> None:
        """Capabilities that these accounts do not support are not advertised."""
        answer = self.client(b"a CAPABILITY")
        for name in (
            b"QUOTA",
            b"METADATA",
            b"NOTIFY",
            b"CATENATE",
            *TwistedMailAccount.unsupported_capabilities,
        ):
            self.assertNotIn(name, answer)
        self.assertIn(b"IMAP4rev2", answer)
