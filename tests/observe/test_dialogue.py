"""The dialogue of a connection is shown without a password, a token, or mail."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.observe.dialogue import MAX_SHOWN, Dialogue


class DialogueTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.dialogue = Dialogue()

    def client(self, *lines: bytes) -> str:
        return "\n".join(self.dialogue.line(line) for line in lines)

    def test_passwords_are_hidden(self) -> None:
        """Every form of LOGIN and AUTHENTICATE hides the password or token, and shows the user or mechanism."""
        for lines, shown in (
            ([b"a LOGIN alice s3cret"], "C: a LOGIN alice (hidden)"),
            ([b'a login "al ice" "s3cret"'], 'C: a login "al ice" (hidden)'),
            ([b"a LOGIN alice {6}", b"s3cret"], "C: a LOGIN alice (hidden)\nC: (hidden) 6 octets"),
            ([b"a LOGIN {5+}", b" s3cret"], "C: a LOGIN {5+}\nC: (hidden) 7 octets"),
            ([b'a LOGIN "x s3cret'], "C: a LOGIN  (hidden)"),
            ([b"a AUTHENTICATE PLAIN s3cret"], "C: a AUTHENTICATE PLAIN (hidden)"),
            ([b"a AUTHENTICATE PLAIN", b"s3cret"], "C: a AUTHENTICATE PLAIN\nC: (hidden) 6 octets"),
        ):
            self.dialogue = Dialogue()
            self.assertEqual(self.client(*lines), shown)

    def test_lines_after_a_login_are_shown(self) -> None:
        """When a login is answered, the next commands are shown."""
        self.client(b"a AUTHENTICATE PLAIN", b"s3cret")
        self.assertEqual(
            self.dialogue.output(b"+ \r\na OK Logged in\r\n"), ["S: + ", "S: a OK Logged in"]
        )
        self.assertEqual(self.client(b"b SELECT INBOX"), "C: b SELECT INBOX")

    def test_mail_is_not_shown(self) -> None:
        """Literals are shown by their size only, in both directions and however they are divided."""
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
