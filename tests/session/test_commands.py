"""The commands of IMAP4rev1, each in the ordinary case and in the ones that clients get wrong."""

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import StoreLimitExceeded
from imapshield.events import BadCommandReceived, CommandFailed
from imapshield.session import table
from imapshield.session.states import SELECTED, State
from imapshield.testing.in_process import MAIL, NOW, Client, MemoryRealm, Server, SlowWorker
from imapshield.testing.memory_store import MemoryStore
from imapshield.wire.grammar import PARSERS


def lines(answer: bytes) -> list[bytes]:
    return answer.split(b"\r\n")[:-1]


class Table(SynchronousTestCase):
    def test_every_row_parses(self) -> None:
        """Every command of the table has a parser."""
        self.assertEqual(set(table.TABLE) - set(PARSERS), set())

    def test_states(self) -> None:
        """A command in the wrong state is BAD, says why, and changes nothing."""
        server = Server()
        for name, entry in table.TABLE.items():
            client = server.connect()
            if State.NOT_AUTHENTICATED not in entry.states:
                self.assertIn(b"a BAD Log in first", client(b"a " + name), name)
            elif State.AUTHENTICATED not in entry.states:
                user = server.login()
                self.assertIn(b"a BAD Already logged in", user(b"a " + name), name)
        user = server.login()
        for name, entry in table.TABLE.items():
            if entry.states == SELECTED:
                self.assertIn(b"a BAD Select a mailbox first", user(b"a " + name), name)
                user(b"ok NOOP")


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.server = Server()
        self.client = self.server.login()

    def filled(self, count: int = 3) -> Client:
        for _ in range(count):
            self.client.append()
        self.client(b"sel SELECT INBOX")
        return self.client

    def other(self) -> Client:
        client = self.server.login()
        client(b"sel SELECT INBOX")
        return client


class Information(Case):
    def test_capability(self) -> None:
        """CAPABILITY, the greeting and the answer to LOGIN say the same as the session can do."""
        stranger = self.server.connect()
        answer = lines(stranger(b"a CAPABILITY"))
        self.assertIn(answer[0][2:], stranger.greeting)
        self.assertIn(b"IMAP4rev1", answer[0])
        self.assertNotIn(b"STARTTLS", answer[0])
        self.assertEqual(lines(self.client(b"a CAPABILITY"))[1][:4], b"a OK")

    def test_id(self) -> None:
        """ID is answered, before login too."""
        self.assertIn(
            b'* ID ("name" "imapshield")', self.server.connect()(b'a ID ("name" "x" "version" NIL)')
        )

    def test_namespace(self) -> None:
        """NAMESPACE: one, personal, delimiter ``/``."""
        self.assertIn(b'* NAMESPACE (("" "/")) NIL NIL', self.client(b"a NAMESPACE"))

    def test_unknown(self) -> None:
        """An unknown command is BAD, and none of its bytes come back."""
        self.assertEqual(self.client(b"a FROBNICATE \x01x"), b"a BAD Unknown command\r\n")

    def test_lone_word(self) -> None:
        """A word alone is answered as a tag, and not logged: it may be a password that came too late for its mechanism."""
        client = self.server.connect()
        self.assertIn(b"a NO [CANNOT]", client(b"a AUTHENTICATE X-NONE"))
        self.assertIn(b"AGFsaWNlAHNlY3JldA== BAD", client(b"AGFsaWNlAHNlY3JldA=="))
        self.assertEqual([fact.sample for fact in self.server.events_of(BadCommandReceived)], [""])


class Mailboxes(Case):
    def test_create_list_delete(self) -> None:
        """What is created is listed, with its parents, until it is deleted."""
        self.assertIn(b"a OK", self.client(b"a CREATE a/b/c/"))
        listed = self.client(b'a LIST "" *')
        self.assertIn(b'* LIST (\\HasNoChildren) "/" INBOX\r\n', listed)
        self.assertIn(b'* LIST (\\HasChildren) "/" a\r\n', listed)
        self.assertIn(b'* LIST (\\HasNoChildren) "/" a/b/c\r\n', listed)
        self.assertIn(b"a OK", self.client(b"a DELETE a/b/c"))
        self.assertNotIn(b"a/b/c", self.client(b'a LIST "" *'))

    def test_list_patterns(self) -> None:
        """``%`` stops at the delimiter, ``*`` does not, and an empty pattern asks for the delimiter."""
        self.client(b"a CREATE x/y")
        self.assertNotIn(b"x/y", self.client(b'a LIST "" %'))
        self.assertIn(b"x/y", self.client(b"a LIST x/ %"))
        self.assertIn(b'* LIST (\\Noselect) "/" ""', self.client(b'a LIST "" ""'))
        self.assertIn(b"INBOX", self.client(b'a LIST "" inbox'))

    def test_refusals(self) -> None:
        """What cannot be done is NO with the code of RFC 5530."""
        for command, answer in (
            (b"CREATE INBOX", b"NO [ALREADYEXISTS]"),
            (b"DELETE INBOX", b"NO [CANNOT]"),
            (b"DELETE nowhere", b"NO [NONEXISTENT]"),
            (b"RENAME nowhere x", b"NO [NONEXISTENT]"),
            (b"SELECT nowhere", b"NO [NONEXISTENT]"),
            (b"STATUS nowhere (MESSAGES)", b"NO [NONEXISTENT]"),
            (b'CREATE "a//b"', b"NO [CANNOT]"),
        ):
            self.assertIn(b"a " + answer, self.client(b"a " + command), command)

    def test_subscriptions(self) -> None:
        """LSUB lists what is subscribed, still existing or not, and parents of that where ``%`` asks for them."""
        self.assertIn(b"a NO [NONEXISTENT]", self.client(b"a SUBSCRIBE gone/below"))
        self.client(b"a CREATE gone/below")
        self.assertIn(b"a OK", self.client(b"a SUBSCRIBE gone/below"))
        self.client(b"a DELETE gone/below")
        self.client(b"a DELETE gone")
        self.assertIn(b'* LSUB (\\Noselect) "/" gone/below', self.client(b'a LSUB "" *'))
        self.assertIn(b'* LSUB (\\Noselect) "/" gone\r\n', self.client(b'a LSUB "" %'))
        self.client(b"a UNSUBSCRIBE gone/below")
        self.assertEqual(self.client(b'a LSUB "" *'), b"a OK LSUB completed\r\n")

    def test_rename(self) -> None:
        """RENAME keeps messages, UIDs and UIDVALIDITY."""
        self.client(b"a CREATE old")
        self.client.append(mailbox=b"old")
        before = self.client(b"a STATUS old (MESSAGES UIDNEXT UIDVALIDITY)").replace(b"old", b"new")
        self.client(b"a RENAME old new")
        self.assertEqual(self.client(b"a STATUS new (MESSAGES UIDNEXT UIDVALIDITY)"), before)

    def test_names(self) -> None:
        """Names of any letters come back as modified UTF-7."""
        self.client(b"a CREATE Entw&APw-rfe")
        self.assertIn(b"Entw&APw-rfe", self.client(b'a LIST "" *'))
        self.assertIn(b"a NO [CANNOT]", self.client(b"a CREATE Entw&APw"))
        self.assertEqual(self.client(b'a LIST "" Entw&APw'), b"a OK LIST completed\r\n")

    def test_status(self) -> None:
        """STATUS counts."""
        self.client.append(flags=b"(\\Seen \\Deleted)")
        self.client.append()
        answer = self.client(b"a STATUS INBOX (MESSAGES RECENT UNSEEN DELETED UIDNEXT SIZE)")
        self.assertIn(
            b"* STATUS INBOX (MESSAGES 2 RECENT 2 UNSEEN 1 DELETED 1 UIDNEXT 3 SIZE %d)"
            % (2 * len(MAIL)),
            answer,
        )

    def test_list_status(self) -> None:
        """LIST … RETURN (STATUS …) saves a client a command per mailbox."""
        self.client.append()
        answer = self.client(b'a LIST "" * RETURN (STATUS (MESSAGES))')
        self.assertIn(b"* STATUS INBOX (MESSAGES 1)", answer)


class Selecting(Case):
    def test_select(self) -> None:
        """SELECT tells all that a client needs to know."""
        self.client.append(flags=b"(\\Seen)")
        self.client.append(flags=b"($Work)")
        answer = self.client(b"a SELECT INBOX")
        for part in (
            b"* 2 EXISTS",
            b"* 2 RECENT",
            b"[UNSEEN 2]",
            b"[UIDNEXT 3]",
            b"[UIDVALIDITY ",
            b"[PERMANENTFLAGS (",
            b"\\*)]",
            b"$Work",
            b"a OK [READ-WRITE]",
        ):
            self.assertIn(part, answer)

    def test_recent_once(self) -> None:
        """A message is \\Recent to the first session that selects, and to no other; EXAMINE does not count."""
        self.client.append()
        self.assertIn(b"* 1 RECENT", self.server.login()(b"a EXAMINE INBOX"))
        self.assertIn(b"* 1 RECENT", self.server.login()(b"a SELECT INBOX"))
        self.assertIn(b"* 0 RECENT", self.server.login()(b"a SELECT INBOX"))

    def test_examine(self) -> None:
        """EXAMINE changes nothing: STORE, EXPUNGE and MOVE are refused, \\Seen is not set, CLOSE removes nothing."""
        self.client.append(flags=b"(\\Deleted)")
        self.assertIn(b"a OK [READ-ONLY]", self.client(b"a EXAMINE INBOX"))
        for command in (b"STORE 1 +FLAGS (\\Seen)", b"EXPUNGE", b"UID EXPUNGE 1", b"MOVE 1 INBOX"):
            self.assertIn(b"b NO [READ-ONLY]", self.client(b"b " + command))
        self.client(b"c FETCH 1 BODY[]")
        self.client(b"d CLOSE")
        self.assertIn(b"UNSEEN 1", self.client(b"e STATUS INBOX (UNSEEN MESSAGES)"))

    def test_select_fails(self) -> None:
        """A SELECT that fails leaves nothing selected, and tells that the one before is closed."""
        for name in (b"nowhere", b"no&name"):
            self.client(b"a SELECT INBOX")
            answer = self.client(b"b SELECT " + name)
            self.assertIn(b"[CLOSED]", answer)
            self.assertIn(b"b NO", answer)
            self.assertIn(b"c BAD Select", self.client(b"c FETCH 1 FLAGS"))

    def test_close(self) -> None:
        """CLOSE removes what has \\Deleted and tells nothing; UNSELECT removes nothing."""
        client = self.filled(2)
        client(b"a STORE 1 +FLAGS.SILENT (\\Deleted)")
        client(b"b UNSELECT")
        self.assertIn(b"* 2 EXISTS", client(b"c SELECT INBOX"))
        self.assertEqual(client(b"d CLOSE"), b"d OK CLOSE completed\r\n")
        self.assertIn(b"* 1 EXISTS", client(b"e SELECT INBOX"))


class Fetching(Case):
    def test_items(self) -> None:
        """Items come in the order they were asked for, UID first in UID FETCH."""
        client = self.filled(1)
        answer = client(b"a UID FETCH 1 (FLAGS RFC822.SIZE INTERNALDATE)")
        self.assertTrue(
            answer.startswith(
                b'* 1 FETCH (UID 1 FLAGS (\\Recent) RFC822.SIZE %d INTERNALDATE "14-Nov-2023'
                % len(MAIL)
            ),
            answer,
        )

    def test_seen(self) -> None:
        """BODY[] sets \\Seen and tells so, in the same response; BODY.PEEK[] does not."""
        client = self.filled(1)
        self.assertNotIn(b"Seen", client(b"a FETCH 1 BODY.PEEK[]"))
        body = b"BODY[] {%d}\r\n%b)\r\n" % (len(MAIL), MAIL)
        self.assertEqual(
            client(b"a FETCH 1 BODY[]"),
            b"* 1 FETCH (FLAGS (\\Recent \\Seen) " + body + b"a OK FETCH completed\r\n",
        )
        self.assertEqual(
            client(b"b UID FETCH 1 BODY[]"),
            b"* 1 FETCH (UID 1 " + body + b"b OK FETCH completed\r\n",
        )

    def test_fields_that_cannot_be(self) -> None:
        """What can be no field's name is none of the fields, and is named in the answer as it was asked for."""
        client = self.filled(1)
        answer = client(b'a FETCH 1 BODY.PEEK[HEADER.FIELDS ("X Y%" "" subject)]')
        self.assertIn(
            b'BODY[HEADER.FIELDS ("X Y%" "" subject)] {18}\r\nSubject: Lunch\r\n\r\n)', answer
        )
        self.assertIn(b"* SEARCH\r\n", client(b'b SEARCH HEADER "Subject:" ""'))

    def test_partial(self) -> None:
        """A partial is cut out, labelled by its start; past the end it is empty."""
        client = self.filled(1)
        self.assertIn(b"BODY[]<3> {4}\r\n" + MAIL[3:7], client(b"a FETCH 1 BODY.PEEK[]<3.4>"))
        self.assertIn(b"BODY[]<9999> {0}\r\n", client(b"a FETCH 1 BODY.PEEK[]<9999.4>"))

    def test_missing_part(self) -> None:
        """A part that is not there is NIL, and the connection lives on."""
        client = self.filled(1)
        self.assertIn(b"BODY[7] NIL", client(b"a FETCH 1 BODY.PEEK[7]"))

    def test_large(self) -> None:
        """A body too large to hold is streamed, byte for byte, between its neighbours."""
        big = MAIL + bytes(range(1, 256)) * 4000
        self.client.append()
        self.client.append(big)
        self.client.append()
        self.client(b"s SELECT INBOX")
        answer = self.client(b"a FETCH 1:3 (UID BODY.PEEK[])")
        self.assertEqual(
            answer,
            b"".join(
                b"* %d FETCH (UID %d BODY[] {%d}\r\n%b)\r\n" % (i, i, len(m), m)
                for i, m in ((1, MAIL), (2, big), (3, MAIL))
            )
            + b"a OK FETCH completed\r\n",
        )

    def test_all_flags(self) -> None:
        """A large mailbox is answered in pieces, whole and in order."""
        client = self.filled(2500)
        answer = lines(client(b"a FETCH 1:* (FLAGS)"))
        self.assertEqual(len(answer), 2501)
        self.assertEqual([int(line.split()[1]) for line in answer[:-1]], list(range(1, 2501)))

    def test_scattered(self) -> None:
        """Scattered sets are answered in the mailbox's order."""
        client = self.filled(10)
        answer = lines(client(b"a UID FETCH 9,1:3,7 (UID)"))
        self.assertEqual(
            [re.findall(rb"\d+", line) for line in answer[:-1]],
            [[b"%d" % n] * 2 for n in (1, 2, 3, 7, 9)],
        )

    def test_gone(self) -> None:
        """A message that another session expunged is left out, with NO [EXPUNGEISSUED], and told when it may be."""
        client = self.filled(3)
        other = self.other()
        other(b"a STORE 2 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        answer = client(b"a FETCH 1:3 (UID ENVELOPE)")
        self.assertIn(b"a NO [EXPUNGEISSUED]", answer)
        self.assertIn(b"* 3 FETCH (UID 3", answer)
        self.assertNotIn(b"* 2 EXPUNGE", answer)
        self.assertIn(b"* 2 EXPUNGE", client(b"b NOOP"))
        self.assertIn(b"* 2 FETCH (UID 3", client(b"c FETCH 2 UID"))

    def test_uid_gone(self) -> None:
        """By its UID, what is not there (any more) is no error (RFC 9051 section 6.4.9)."""
        client = self.filled(3)
        other = self.other()
        other(b"a STORE 2 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        answer = lines(client(b"a UID FETCH 2:9 (ENVELOPE)"))
        self.assertRegex(answer[0], rb"^\* 3 FETCH \(UID 3 ")
        self.assertRegex(answer[-1], rb"^a OK \[EXPUNGEISSUED\]")

    def test_search_gone(self) -> None:
        """SEARCH leaves it out too, and says so (RFC 5530, EXPUNGEISSUED)."""
        client = self.filled(3)
        other = self.other()
        other(b"a STORE 2 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        for command, found in (
            (b"SEARCH ALL", b"* SEARCH 1 3"),
            (b"SORT (ARRIVAL) UTF-8 ALL", b"* SORT 1 3"),
            (b"THREAD REFERENCES UTF-8 ALL", b"* THREAD ((1)(3))"),
        ):
            answer = lines(client(b"c " + command))
            self.assertEqual(answer[0], found)
            self.assertRegex(answer[-1], rb"^c OK \[EXPUNGEISSUED\]")

    def test_client_gone(self) -> None:
        """When the client goes while its command waits for the store, that is no error of ours."""
        worker = SlowWorker()
        server = Server(realm=MemoryRealm(worker=worker))
        for command in (b"FETCH 1 ENVELOPE", b"THREAD REFERENCES UTF-8 ALL", b"SEARCH BODY x"):
            client = server.login()
            for line in (b"a APPEND INBOX {3+}\r\na: ", b"s SELECT INBOX", b"c " + command):
                client(line)
                if not line.startswith(b"c"):
                    worker.step()
                    client.read()
            client.lose_connection()
            worker.step()
        self.assertEqual(server.events_of(CommandFailed), [])

    def test_beyond(self) -> None:
        """A number beyond the last message is BAD; a UID that is not there is simply not there."""
        client = self.filled(1)
        self.assertIn(b"a BAD", client(b"a FETCH 2 FLAGS"))
        self.assertEqual(client(b"a UID FETCH 2 FLAGS"), b"a OK FETCH completed\r\n")


class Changing(Case):
    def test_store(self) -> None:
        """STORE adds, removes and replaces, and tells the result unless it is .SILENT."""
        client = self.filled(1)
        self.assertIn(
            b"* 1 FETCH (FLAGS (\\Recent \\Flagged \\Seen",
            client(b"a STORE 1 +FLAGS (\\Seen \\Flagged $x)"),
        )
        self.assertIn(
            b"* 1 FETCH (FLAGS (\\Recent \\Seen $x))", client(b"a STORE 1 -FLAGS (\\Flagged)")
        )
        self.assertEqual(client(b"a STORE 1 FLAGS.SILENT (\\Draft)"), b"a OK STORE completed\r\n")
        self.assertIn(b"* 1 FETCH (UID 1 FLAGS (\\Recent \\Draft))", client(b"a UID FETCH 1 FLAGS"))

    def test_keywords_announced(self) -> None:
        """A keyword that is new to the mailbox is announced before it is shown."""
        client = self.filled(1)
        answer = client(b"a STORE 1 +FLAGS ($New)")
        self.assertLess(answer.index(b"* FLAGS ("), answer.index(b"* 1 FETCH"))

    def test_keywords_announced_to_others(self) -> None:
        """Another session hears of the keyword too before FETCH shows it."""
        client = self.filled(1)
        other = self.other()
        client(b"a STORE 1 +FLAGS ($New)")
        answer = other(b"a FETCH 1 FLAGS")
        self.assertLess(answer.index(b"* FLAGS ("), answer.index(b"* 1 FETCH"))

    def test_too_many_keywords(self) -> None:
        r"""A keyword too many is NO [LIMIT], and PERMANENTFLAGS has no \* any more (RFC 9051 section 7.1)."""

        class Full(MemoryStore):
            def store_flags(self, *_: Any) -> Any:
                raise StoreLimitExceeded

        client = Server(realm=MemoryRealm(store=lambda: Full(lambda: NOW))).login()
        client.append(flags=b"($x)")
        client(b"s SELECT INBOX")
        self.assertEqual(
            lines(client(b"a STORE 1 +FLAGS ($y)")),
            [
                b"* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft $x)] No more keywords",
                b"a NO [LIMIT] Limit exceeded",
            ],
        )

    def test_others_hear(self) -> None:
        """Another session hears of changed flags, once."""
        client = self.filled(1)
        other = self.other()
        client(b"a STORE 1 +FLAGS.SILENT (\\Seen)")
        self.assertIn(b"* 1 FETCH (FLAGS (\\Seen))", other(b"a NOOP"))
        self.assertEqual(other(b"a NOOP"), b"a OK NOOP completed\r\n")

    def test_silent_is_not_deaf(self) -> None:
        """After a .SILENT store that hit upon another's change, the client is told what it could not know."""
        client = self.filled(1)
        other = self.other()
        other(b"a STORE 1 +FLAGS (\\Flagged)")
        answer = client(b"a STORE 1 +FLAGS.SILENT (\\Seen)")
        self.assertIn(b"\\Flagged \\Seen", answer)

    def test_copy(self) -> None:
        """COPY keeps flags and dates and tells the new UIDs; to nowhere it says TRYCREATE."""
        client = self.filled(2)
        client(b"a STORE 1 +FLAGS (\\Flagged)")
        self.assertIn(b"b NO [TRYCREATE]", client(b"b COPY 1:2 there"))
        client(b"c CREATE there")
        self.assertRegex(client(b"d COPY 1:2 there"), rb"d OK \[COPYUID \d+ 1:2 1:2\]")
        client(b"e SELECT there")
        self.assertIn(b"\\Flagged", client(b"f FETCH 1 FLAGS"))

    def test_copy_of_the_gone(self) -> None:
        """What another session has just removed makes COPY a NO that copies nothing, but not UID COPY, nor MOVE."""
        client = self.filled(3)
        client(b"a CREATE there")
        other = self.other()
        other(b"a STORE 2 +FLAGS.SILENT (\\Deleted)")
        other(b"b EXPUNGE")
        self.assertIn(b"b NO [EXPUNGEISSUED]", client(b"b COPY 1:3 there"))
        self.assertRegex(client(b"c UID COPY 1:3 there"), rb"COPYUID \d+ 1,3 1:2\]")
        other(b"d UID STORE 1 +FLAGS.SILENT (\\Deleted)")
        other(b"e EXPUNGE")
        self.assertRegex(client(b"f UID MOVE 1,3 there"), rb"COPYUID \d+ 3 3\]")

    def test_copy_to_itself(self) -> None:
        """A copy into the selected mailbox is told as new mail."""
        client = self.filled(1)
        self.assertIn(b"* 2 EXISTS", client(b"a COPY 1 INBOX"))

    def test_move(self) -> None:
        """MOVE tells where messages went before it tells that they went (RFC 6851)."""
        client = self.filled(3)
        client(b"a CREATE there")
        answer = client(b"b MOVE 1,3 there")
        self.assertRegex(
            answer,
            rb"\* OK \[COPYUID \d+ 1,3 1:2\] Messages moved\r\n\* 3 EXPUNGE\r\n\* 1 EXPUNGE\r\n",
        )
        self.assertRegex(answer, rb"b OK \[HIGHESTMODSEQ \d+\] MOVE completed\r\n\Z")

    def test_expunge(self) -> None:
        """EXPUNGE removes what has \\Deleted, UID EXPUNGE only of those it names; UIDs are never used again."""
        client = self.filled(4)
        client(b"a STORE 2:4 +FLAGS.SILENT (\\Deleted)")
        self.assertEqual(lines(client(b"b UID EXPUNGE 4"))[0], b"* 4 EXPUNGE")
        self.assertEqual(lines(client(b"c EXPUNGE"))[:2], [b"* 3 EXPUNGE", b"* 2 EXPUNGE"])
        self.assertIn(b"[APPENDUID", client.append())
        self.assertIn(b"* 2 FETCH (UID 5", client(b"d FETCH 2 UID"))


class Appending(Case):
    def test_append(self) -> None:
        """APPEND, with and without flags and date, waiting for ``+`` or not."""
        size = len(MAIL)
        self.assertEqual(self.client(b"a APPEND INBOX {%d}" % size), b"+ Go ahead\r\n")
        self.assertRegex(self.client(MAIL), rb"a OK \[APPENDUID \d+ 1\] APPEND completed")
        answer = self.client.send(
            b'b APPEND inbox (\\Seen) " 1-Feb-2003 04:05:06 +0100" {%d+}\r\n%b\r\n' % (size, MAIL)
        )
        self.assertIn(b" 2]", answer)
        self.client(b"c SELECT INBOX")
        self.assertIn(b'"01-Feb-2003 03:05:06 +0000"', self.client(b"d FETCH 2 INTERNALDATE"))

    def test_to_nowhere(self) -> None:
        """An APPEND to a mailbox that is not there says TRYCREATE."""
        self.assertIn(b"app NO [TRYCREATE]", self.client.append(mailbox=b"nowhere"))

    def test_told(self) -> None:
        """The selected mailbox says at once that it has grown."""
        client = self.filled(1)
        answer = client.append()
        self.assertLess(answer.index(b"* 2 EXISTS"), answer.index(b"app OK"))

    def test_waits_its_turn(self) -> None:
        """``+`` comes after the answers to the commands before."""
        answer = self.client.send(b"a NOOP\r\nb APPEND INBOX {5}\r\n")
        self.assertEqual(answer, b"a OK NOOP completed\r\n+ Go ahead\r\n")

    def test_several(self) -> None:
        """MULTIAPPEND stores all of its messages."""
        answer = self.client.send(b"a APPEND INBOX {1+}\r\nx (\\Seen) {2+}\r\nyz\r\n")
        self.assertRegex(answer, rb"a OK \[APPENDUID \d+ 1:2\]")


class Searching(Case):
    def test_search(self) -> None:
        """SEARCH answers numbers, UID SEARCH UIDs, and always a line."""
        client = self.filled(3)
        client(b"a STORE 1 +FLAGS (\\Deleted)")
        client(b"b EXPUNGE")
        self.assertIn(b"* SEARCH 1 2\r\n", client(b"c SEARCH ALL"))
        self.assertIn(b"* SEARCH 2 3\r\n", client(b"d UID SEARCH UNSEEN"))
        self.assertIn(b"* SEARCH\r\n", client(b"e SEARCH SEEN"))

    def test_literal(self) -> None:
        """A search text may be a literal, and is then asked for."""
        client = self.filled(1)
        self.assertEqual(client(b"a SEARCH SUBJECT {5}"), b"+ Go ahead\r\n")
        self.assertIn(b"* SEARCH 1\r\n", client(b"lunch"))

    def test_charset(self) -> None:
        """An unknown charset is NO [BADCHARSET]."""
        client = self.filled(1)
        self.assertIn(b"a NO [BADCHARSET", client(b"a SEARCH CHARSET x-unknown ALL"))

    def test_extended(self) -> None:
        """RETURN answers with ESEARCH and the command's tag."""
        client = self.filled(3)
        self.assertIn(
            b'* ESEARCH (TAG "a") UID MIN 1 MAX 3 ALL 1:3 COUNT 3',
            client(b"a UID SEARCH RETURN (MIN MAX ALL COUNT) ALL"),
        )


class Watching(Case):
    def test_noop(self) -> None:
        """NOOP tells what others did."""
        client = self.filled(2)
        other = self.other()
        other(b"a STORE 1 +FLAGS (\\Deleted)")
        other(b"b EXPUNGE")
        self.server.login().append()
        answer = client(b"c NOOP")
        self.assertIn(b"* 1 EXPUNGE\r\n* 2 EXISTS\r\n", answer)

    def test_idle(self) -> None:
        """IDLE tells at once, and ends with DONE."""
        client = self.filled(1)
        self.assertEqual(client(b"a IDLE"), b"+ idling\r\n")
        other = self.other()
        other.append()
        self.assertIn(b"* 2 EXISTS", client.read())
        other(b"a STORE 1 +FLAGS (\\Deleted)")
        self.assertIn(b"* 1 FETCH", client.read())
        other(b"b EXPUNGE")
        self.assertIn(b"* 1 EXPUNGE", client.read())
        self.assertEqual(client(b"DONE"), b"a OK Idle completed\r\n")
        other.append()
        self.assertEqual(client.read(), b"")

    def test_idle_other_line(self) -> None:
        """Any other line ends it with BAD, and is not run."""
        client = self.filled(1)
        client(b"a IDLE")
        self.assertEqual(client(b"b LOGOUT"), b"a BAD Expected DONE to end IDLE\r\n")
        self.assertEqual(client(b"c NOOP"), b"c OK NOOP completed\r\n")

    def test_idle_pipelined(self) -> None:
        """What is sent behind IDLE in one packet is its DONE, and then commands again."""
        client = self.filled(1)
        self.assertEqual(
            client.send(b"a IDLE\r\nDONE\r\nb NOOP\r\n"),
            b"+ idling\r\na OK Idle completed\r\nb OK NOOP completed\r\n",
        )

    def test_deleted_mailbox(self) -> None:
        """A selected mailbox that another session deletes is NO [NONEXISTENT], and can be closed."""
        self.client(b"a CREATE x")
        self.client(b"b SELECT x")
        self.server.login()(b"c DELETE x")
        self.assertIn(b"d NO [NONEXISTENT]", self.client(b"d NOOP"))
        self.assertIn(b"d OK", self.client(b"d CLOSE"))
        self.assertIn(b"e OK", self.client(b"e SELECT INBOX"))
