"""The dialogue of a connection is shown without a password, a token, or mail."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.observe.dialogue import MAX_SHOWN, Dialogue


class DialogueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.dialogue = Dialogue()

    def client(self, *lines: bytes, expected: bool = False, user: bool = False) -> str:
        """Return what is shown of lines of which each but the first continues the command."""
        return "\n".join(
            self.dialogue.line(line, continues=n > 0, expected=expected and n > 0, user=user)
            for n, line in enumerate(lines)
        )

    def test_passwords_are_hidden(self) -> None:
        """Every form of LOGIN and AUTHENTICATE hides the password or token, and shows the user or mechanism."""
        for lines, shown in (
            ([b"a LOGIN alice s3cret"], "C: a LOGIN alice (hidden)"),
            ([b'a login "al ice" "s3cret"'], 'C: a login "al ice" (hidden)'),
            ([b"a LOGIN alice {6}", b"s3cret"], "C: a LOGIN alice (hidden)\nC: (hidden) 6 octets"),
            ([b"a LOGIN {5+}", b" s3cret"], "C: a LOGIN {5+}\nC: (hidden) 7 octets"),
            ([b'a LOGIN "x s3cret'], "C: a LOGIN (hidden)"),
            ([b"a AUTHENTICATE PLAIN s3cret"], "C: a AUTHENTICATE PLAIN (hidden)"),
        ):
            self.assertEqual(self.client(*lines), shown)
        shown = self.client(b"a AUTHENTICATE PLAIN", b"s3cret", expected=True)
        self.assertEqual(shown, "C: a AUTHENTICATE PLAIN\nC: (hidden) 6 octets")

    def test_malformed_logins_are_hidden(self) -> None:
        """Nothing is shown of which it is not certain that it is no password."""
        for line in (
            *(
                b"a LOGIN s3cret",
                b"a LOGIN  s3cret",
                b'a LOGIN alice"s3cret"',
                b"a LOGIN alice\ts3cret",
            ),
            *(
                b"LOGIN alice s3cret",
                b"LOGIN noop s3cret",
                b"a LOGN alice s3cret",
                b"s3cret",
                b"s3cret x",
            ),
            *(b"a  LOGIN alice s3cret", b"a AUTHENTICATE s3cret", b"a AUTHENTICATE PLAINs3cret"),
            *(b"AUTHENTICATE PLAIN s3cret", b"a LIST alice s3cret", b'a LOGIN "alice"s3cret'),
            *(b"a NOOP s3cret", b"a CAPABILITY s3cret", b"a STARTTLS s3cret", b"a ID s3cret"),
            *(b"a LOGOUT s3cret", b"a IDLE s3cret", b"a COMPRESS s3cret", b"a ID NILs3cret"),
            *(b"a UID LOGIN alice s3cret", b"\x80 s3cret", b"a", b""),
        ):
            self.assertNotIn("s3cret", self.client(line), line)
        self.assertNotIn("s3cret", "\n".join(self.dialogue.output(b"s3cret BAD Unknown\r\n")))

    def test_trace_that_begins_in_the_middle(self) -> None:
        """The rest of a command whose beginning was not seen is hidden."""
        self.assertEqual(self.dialogue.line(b" s3cret", continues=True), "C: (hidden) 7 octets")
        self.assertEqual(self.dialogue.line(b"s3cret", expected=True), "C: (hidden) 6 octets")

    def test_lines_after_a_login_are_shown(self) -> None:
        """When a user is logged in, commands and the lines that they wait for are shown; challenges are not."""
        self.client(b"a AUTHENTICATE PLAIN", b"s3cret", expected=True)
        self.assertEqual(
            self.dialogue.output(b"+ r=nonce\r\na OK Logged in\r\n"),
            ["S: + (hidden)", "S: a OK Logged in"],
        )
        self.assertEqual(self.client(b"b SELECT INBOX", user=True), "C: b SELECT INBOX")
        idle = self.client(b"c IDLE", b"DONE", expected=True, user=True)
        self.assertEqual(idle, "C: c IDLE\nC: DONE")
        fetch = self.client(b"d UID SEARCH SUBJECT {1}", b" ALL", user=True)
        self.assertEqual(fetch, "C: d UID SEARCH SUBJECT {1}\nC:  ALL")
        self.assertEqual(self.client(b"e NOOP"), "C: e NOOP")

    def test_line_in_idle_is_hidden(self) -> None:
        """Of a line that a command waits for, only the ends of IDLE and of SASL are shown: others may be a LOGIN."""
        for user in (True, False):
            for line in (b"f LOGIN alice s3cret", b"s3cret", b"DONE s3cret", b"done"):
                shown = self.client(b"e IDLE", line, expected=True, user=user)
                self.assertNotIn("s3cret", shown)
            self.assertIn("C: done", shown)

    def test_client_names_itself_before_login(self) -> None:
        """The arguments of ID, which say which program it is, are shown before login, also with literals."""
        shown = self.client(b'a ID ("name" {4+}', b' "version" "1")')
        self.assertEqual(shown, 'C: a ID ("name" {4+}\nC:  "version" "1")')
        self.assertEqual(self.client(b"b id nil"), "C: b id nil")
        self.assertEqual(self.client(b"c NOOP"), "C: c NOOP")
        self.assertEqual(self.client(b"d NOOP x"), "C: d NOOP (hidden)")

    def test_mail_is_not_shown(self) -> None:
        """Literals are shown by their size only, in both directions and however they are divided."""
        self.client(b"a FETCH 1 BODY[]", user=True)
        self.assertEqual(self.dialogue.literal(100), "C: (100 octets of a literal)")
        data = b"* 1 FETCH (BODY[] {8}\r\nsecret\r\n FLAGS ())\r\na OK done\r\n"
        lines = [line for n in range(len(data)) for line in self.dialogue.output(data[n : n + 1])]
        self.assertEqual(lines, ["S: * 1 FETCH (BODY[] {8}", "S:  FLAGS ())", "S: a OK done"])

    @given(st.lists(st.binary(max_size=2000)))
    def test_lines_are_bounded_and_printable(self, pieces: list[bytes]) -> None:
        """No input makes a line that is long, or that controls a terminal."""
        dialogue = Dialogue()
        for piece in pieces:
            for line in (dialogue.line(piece), *dialogue.output(piece)):
                self.assertTrue(line.isprintable())
                self.assertLessEqual(len(line), 5 * MAX_SHOWN)
