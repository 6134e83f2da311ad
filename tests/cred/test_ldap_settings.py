"""The file of ``--auth ldap:FILE`` says where the directory is; what would be unsafe or unclear is refused."""

import os
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.cred.ldap_settings import LdapSettings, escape

BIND = {"uri": "ldaps://ldap.example.org", "bind-as": "uid={user},dc=example"}
SEARCH = {"uri": "ldap://a ldap://b:3389/", "base": "dc=example", "filter": "(&(a=b)(mail={user}))"}


class LdapSettingsTests(SynchronousTestCase):
    def test_the_name_is_what_the_pattern_compares(self) -> None:
        """Without user-attribute, the attribute before {user} has the name of the user."""
        self.assertEqual(LdapSettings.parse(BIND).user_attribute, "uid")
        self.assertEqual(LdapSettings.parse(SEARCH).user_attribute, "mail")
        self.assertEqual(LdapSettings.parse(BIND | {"user-attribute": "cn"}).user_attribute, "cn")

    def test_passwords_need_tls(self) -> None:
        """TLS begins after connecting to ldap:, from the beginning with ldaps:, and can be omitted on this machine."""
        for uri, others, expected in (
            ("ldap://a", {}, True), ("ldap://a", {"starttls": True}, True), ("ldap://localhost", {}, True),
            ("ldap://127.0.0.1:389", {"starttls": False}, False), ("ldaps://a", {}, False),
            ("ldapi:///", {}, False), ("ldapi://%2frun%2fldapi", {"starttls": False}, False),
        ):  # fmt: skip
            settings = LdapSettings.parse({**BIND, "uri": uri, **others})
            self.assertIs(settings.starttls, expected, uri)

    def test_what_is_refused(self) -> None:
        """Each mistake is one sentence that says what to write, and has no password."""
        secret = {"search-dn": "cn=x", "search-password": "geheim"}
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"urn": "x"}, "unknown setting urn; did you mean uri?"),
            ({"uri": 1}, "uri must be a text"),
            ({"uri": ""}, "uri must be a text"),
            (BIND | {"starttls": "no"}, "starttls must be true or false"),
            ({}, "write uri = "),
            (BIND | {"uri": "ldap.example.org"}, "write uri = "),
            (BIND | {"uri": "ldap://"}, "write uri = "),
            (BIND | {"uri": "ldap://a/dc=example"}, "write uri = "),
            (BIND | {"uri": "ldap://a", "starttls": False}, "ldap://a: passwords need TLS"),
            (BIND | {"uri": "ldap://a ldaps://b"}, "the same scheme"),
            (BIND | {"starttls": True}, "starttls is for ldap:// only"),
            ({"uri": "ldaps://a"}, "write bind-as = .* or base and filter"),
            (SEARCH | {"bind-as": "uid={user}"}, "bind-as needs no base"),
            (BIND | secret, "bind-as needs no base"),
            ({"uri": "ldaps://a", "base": "dc=x"}, "write bind-as"),
            (BIND | {"bind-as": "uid=alice"}, "bind-as must contain {user}"),
            (SEARCH | {"filter": "(uid=*)"}, "filter must contain {user}"),
            (SEARCH | {"search-dn": "cn=x"}, "need each other"),
            (SEARCH | {"search-password": "geheim"}, "need each other"),
            (SEARCH | {"filter": "(anr:={user})"}, "write user-attribute"),
            (BIND | {"user-attribute": "a,b"}, "write user-attribute"),
            (BIND | {"ca-file": "/nosuch"}, "ca-file /nosuch cannot be read"),
        ]
        for values, text in wrong:
            with self.assertRaises(ValueError) as raised:
                LdapSettings.parse(values)
            self.assertRegex(str(raised.exception), text)
            self.assertNotIn("geheim", str(raised.exception))

    def test_file(self) -> None:
        """A file with a password must not be readable by everybody; TOML that is invalid is named."""
        path = self.mktemp()
        for text, error in (
            ("uri", "invalid TOML"),
            ('search-password = "x"\n', "everybody can read search-password"),
        ):
            with open(path, "w", encoding="ascii") as file:
                file.write(text)
            os.chmod(path, 0o604)
            with self.assertRaisesRegex(ValueError, error):
                LdapSettings.read(path)
        with open(path, "w", encoding="ascii") as file:
            file.writelines(f'{name} = "{value}"\n' for name, value in SEARCH.items())
            file.write('search-dn = "cn=x"\nsearch-password = "y"\n')
        os.chmod(path, 0o640)
        self.assertEqual(LdapSettings.read(path).search_password, "y")


class EscapeTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """Ordinary names stay as they are; everything else becomes hexadecimal digits."""
        self.assertEqual(escape("alice.b-c_d@example.org"), "alice.b-c_d@example.org")
        self.assertEqual(escape("*)(uid=*\0"), r"\2a\29\28uid\3d\2a\00")
        self.assertEqual(escape(" #a,b+é"), r"\20\23a\2cb\2b\c3\a9")

    @given(st.text())
    def test_nothing_has_a_meaning(self, name: str) -> None:
        """An escaped name has no special character of RFC 4514 or RFC 4515, and stands for the same name."""
        escaped = escape(name)
        self.assertRegex(escaped, r"^(?:[A-Za-z0-9@._-]|\\[0-9a-f]{2})*$")
        pattern = rb"\\(..)|(.)"
        parts = re.findall(pattern, escaped.encode("ascii"), re.DOTALL)
        self.assertEqual(b"".join(bytes.fromhex(a.decode()) or b for a, b in parts), name.encode())
