"""LOGIN, AUTHENTICATE, ID, ENABLE and COMPRESS."""

from twisted.trial.unittest import SynchronousTestCase

from imapshield.errors import BadCommand
from imapshield.wire.commands.base import MemoryLiteral, Secret
from imapshield.wire.commands.login import Authenticate, Compress, Enable, Id, Login
from imapshield.wire.grammar import parse
from imapshield.wire.grammar.login import decode_base64
from tests.wire.grammar.typed_parse import parse_as


class LoginTests(SynchronousTestCase):
    def test_user_name_and_password_may_have_any_string_form(self) -> None:
        """User name and password are atoms, quoted or literals."""
        login = Login(b"SMITH", Secret(b'se"same'))
        self.assertEqual(parse([b'LOGIN SMITH "se\\"same"']), login)
        self.assertEqual(
            parse([b"LOGIN ", MemoryLiteral(b"SMITH"), b" ", MemoryLiteral(b'se"same'), b""]), login
        )
        self.assertEqual(parse([b'login "" ""']), Login(b"", Secret(b"")))
        self.assertEqual(parse([b'LOGIN a "\xc3\xa9"']), Login(b"a", Secret("é".encode())))

    def test_name_of_a_master_user_need_not_be_quoted(self) -> None:
        """A user name may have wildcards without quotes, because imaplib does not quote it."""
        self.assertEqual(parse([b"LOGIN a*b% c"]), Login(b"a*b%", Secret(b"c")))
        self.assertRaises(BadCommand, parse, [b"LOGIN a b*"])

    def test_invalid_arguments_are_refused(self) -> None:
        """Missing and extra arguments, and arguments that are not strings, are refused."""
        for line in (
            b"LOGIN",
            b"LOGIN a",
            b"LOGIN a b c",
            b"LOGIN  a b",
            b'LOGIN "a"b c',
            b"LOGIN (a b)",
            b'LOGIN "\0" x',
        ):
            self.assertRaises(BadCommand, parse, [line])

    def test_spaces_before_a_literal_are_refused(self) -> None:
        """A thousand spaces before a literal are refused (CVE-2007-1373)."""
        self.assertRaises(BadCommand, parse, [b"LOGIN" + b" " * 1008, MemoryLiteral(b"x"), b" y"])


class AuthenticateTests(SynchronousTestCase):
    def test_initial_response_is_optional(self) -> None:
        """The initial response may be absent, present or empty (RFC 4959)."""
        self.assertEqual(parse([b"AUTHENTICATE plain"]), Authenticate(b"PLAIN", None))
        self.assertEqual(parse([b"AUTHENTICATE PLAIN ="]), Authenticate(b"PLAIN", Secret(b"")))
        self.assertEqual(
            parse([b"AUTHENTICATE PLAIN dGVzdAB0ZXN0AHRlc3Q="]),
            Authenticate(b"PLAIN", Secret(b"test\0test\0test")),
        )

    def test_base64_is_strict(self) -> None:
        """Base64 is strict, in the command and in a response (CVE-2025-59028)."""
        self.assertEqual(decode_base64(b"AGEAYg=="), b"\0a\0b")
        self.assertEqual(decode_base64(b"="), b"")
        self.assertEqual(decode_base64(b""), b"")
        for octets in (
            b"A",
            b"AGE",
            b"A=GE",
            b"AGEA====",
            b"AGEA==",
            b"\xff\xff\xff\xff",
            b"A\nGE=",
            b"*",
            b"==",
            b"AGE=AGE=",
        ):
            self.assertRaises(BadCommand, decode_base64, octets)
            self.assertRaises(BadCommand, parse, [b"AUTHENTICATE PLAIN " + octets])


class EnableTests(SynchronousTestCase):
    def test_capability_names_are_upper_case_and_unique(self) -> None:
        """ENABLE has at least one capability name; the names are returned in upper case, each once."""
        self.assertEqual(
            parse([b"ENABLE condstore X-FOO CONDSTORE"]), Enable((b"CONDSTORE", b"X-FOO"))
        )
        self.assertEqual(parse([b"ENABLE UTF8=ACCEPT"]), Enable((b"UTF8=ACCEPT",)))
        for line in (b"ENABLE", b"ENABLE ", b"ENABLE (CONDSTORE)", b"ENABLE A  B"):
            self.assertRaises(BadCommand, parse, [line])


class IdTests(SynchronousTestCase):
    def test_id_parameters_are_parsed(self) -> None:
        """RFC 2971's example, NIL, an empty list, and spaces inside the parentheses are parsed."""
        self.assertEqual(
            parse([b'ID ("name" "sodr" "version" "19.34" "vendor" NIL)']),
            Id(((b"name", b"sodr"), (b"version", b"19.34"), (b"vendor", None))),
        )
        self.assertEqual(parse([b"ID NIL"]), Id(()))
        self.assertEqual(parse([b"ID ()"]), Id(()))
        self.assertEqual(parse([b'ID ( "name" "aioimaplib" )']), Id(((b"name", b"aioimaplib"),)))

    def test_invalid_id_parameters_are_refused(self) -> None:
        """A name without its value, NIL as a name, 31 fields, and parentheses without end are refused."""
        self.assertEqual(
            len(parse_as(Id, [b"ID (" + b" ".join([b'"a" NIL'] * 30) + b")"]).fields), 30
        )
        for line in (
            b"ID", b'ID ("a")', b"ID (NIL NIL)", b"ID (" + b" ".join([b'"a" NIL'] * 31) + b")",
            b"ID ((((", b"ID (" * 4000,
        ):  # fmt: skip
            self.assertRaises(BadCommand, parse, [line])


class CompressTests(SynchronousTestCase):
    def test_algorithm_is_an_atom_in_any_case(self) -> None:
        """The algorithm is an atom in any case; the session decides whether it is supported."""
        self.assertEqual(parse([b"COMPRESS deflate"]), Compress(b"DEFLATE"))
        for line in (b"COMPRESS", b"COMPRESS ", b"COMPRESS (DEFLATE)", b"COMPRESS DEFLATE 9"):
            self.assertRaises(BadCommand, parse, [line])
