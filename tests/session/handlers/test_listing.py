"""LIST in all its forms: RFC 5258 (LIST-EXTENDED), 5819 (LIST-STATUS), 6154 (SPECIAL-USE), 3348 (CHILDREN)."""

from tests.session.session_case import SessionTestCase, lines


class ListExtendedTests(SessionTestCase):
    def setUp(self) -> None:
        """Create the mailboxes of RFC 5258 section 5, with a deleted Fruit/Peach."""
        super().setUp()
        for name in (
            b"Fruit/Apple",
            b"Fruit/Banana",
            b"Fruit/Peach",
            b"Tofu",
            b"Vegetable/Broccoli",
            b"Vegetable/Corn",
        ):
            self.client(b"c CREATE " + name)
        for name in (
            b"INBOX",
            b"Fruit/Banana",
            b"Fruit/Peach",
            b"Vegetable",
            b"Vegetable/Broccoli",
        ):
            self.client(b"s SUBSCRIBE " + name)
        self.client(b"d DELETE Fruit/Peach")

    def listed(self, command: bytes) -> list[bytes]:
        return [
            line.removeprefix(b"* LIST ")
            for line in lines(self.client(b"A01 LIST " + command))[:-1]
        ]

    def test_list_subscribed_lists_subscribed_names(self) -> None:
        r"""LIST (SUBSCRIBED) lists subscribed names, as \NonExistent if they do not exist (example 2)."""
        self.assertEqual(
            self.listed(b'(SUBSCRIBED) "" "*"'),
            [
                b'(\\HasNoChildren \\Subscribed) "/" INBOX',
                b'(\\HasNoChildren \\Subscribed) "/" Fruit/Banana',
                b'(\\NonExistent \\HasNoChildren \\Subscribed) "/" Fruit/Peach',
                b'(\\HasChildren \\Subscribed) "/" Vegetable',
                b'(\\HasNoChildren \\Subscribed) "/" Vegetable/Broccoli',
            ],
        )

    def test_return_subscribed_only_marks_names(self) -> None:
        """RETURN (SUBSCRIBED) marks subscribed names and still returns all other names (example 7)."""
        self.assertEqual(
            self.listed(b'"" "%" RETURN (SUBSCRIBED CHILDREN)'),
            [
                b'(\\HasNoChildren \\Subscribed) "/" INBOX',
                b'(\\HasChildren) "/" Fruit',
                b'(\\HasNoChildren) "/" Tofu',
                b'(\\HasChildren \\Subscribed) "/" Vegetable',
            ],
        )

    def test_recursivematch_omits_redundant_parents(self) -> None:
        """RECURSIVEMATCH omits a parent if all names that it would represent are listed themselves (RFC 5258
        section 3.5)."""
        self.assertEqual(
            self.listed(b'(SUBSCRIBED RECURSIVEMATCH) "" (Fruit Fruit/*)'),
            [
                b'(\\HasNoChildren \\Subscribed) "/" Fruit/Banana',
                b'(\\NonExistent \\HasNoChildren \\Subscribed) "/" Fruit/Peach',
            ],
        )

    def test_recursivematch_lists_parents_with_childinfo(self) -> None:
        """RECURSIVEMATCH lists the parents of subscribed names with CHILDINFO (example 8)."""
        self.assertEqual(
            self.listed(b'(SUBSCRIBED RECURSIVEMATCH) "" "%"'),
            [
                b'(\\HasNoChildren \\Subscribed) "/" INBOX',
                b'(\\HasChildren) "/" Fruit ("CHILDINFO" ("SUBSCRIBED"))',
                b'(\\HasChildren \\Subscribed) "/" Vegetable ("CHILDINFO" ("SUBSCRIBED"))',
            ],
        )
        self.client(b"c CREATE no/such/box")
        self.client(b"s SUBSCRIBE no/such/box")
        for name in (b"no/such/box", b"no/such", b"no"):
            self.client(b"d DELETE " + name)
        self.assertEqual(
            self.listed(b'(RECURSIVEMATCH SUBSCRIBED) "" "no%"'),
            [b'(\\NonExistent \\HasNoChildren) "/" no ("CHILDINFO" ("SUBSCRIBED"))'],
        )
        self.assertIn(b"BAD", self.client(b'a LIST (RECURSIVEMATCH) "" "%"'))

    def test_remote_changes_nothing(self) -> None:
        """REMOTE changes nothing, because there are no remote mailboxes. RECURSIVEMATCH with REMOTE alone is BAD."""
        self.assertEqual(self.listed(b'(REMOTE) "" "%"'), self.listed(b'"" "%" RETURN ()'))
        self.assertIn(b"BAD", self.client(b'a LIST (REMOTE RECURSIVEMATCH) "" "%"'))

    def test_several_patterns_give_one_list(self) -> None:
        """Several patterns give one list in which each name occurs once (example 10)."""
        self.assertEqual(
            self.listed(b'"" ("INBOX" "Fruit/%" "F*") RETURN (CHILDREN)'),
            [
                b'(\\HasNoChildren) "/" INBOX',
                b'(\\HasChildren) "/" Fruit',
                b'(\\HasNoChildren) "/" Fruit/Apple',
                b'(\\HasNoChildren) "/" Fruit/Banana',
            ],
        )

    def test_return_status_adds_status_responses(self) -> None:
        """RETURN (STATUS) returns a STATUS response for each mailbox that can be selected (RFC 5819)."""
        self.client(b"d DELETE Fruit")
        self.client.append()
        response = lines(
            self.client(b'A01 LIST "" ("INBOX" "Fruit") RETURN (STATUS (MESSAGES UNSEEN))')
        )
        self.assertEqual(
            response[:-1],
            [
                b'* LIST (\\HasNoChildren) "/" INBOX',
                b"* STATUS INBOX (MESSAGES 1 UNSEEN 1)",
                b'* LIST (\\NonExistent \\HasChildren) "/" Fruit',
            ],
        )

    def test_childinfo_parent_gets_no_status(self) -> None:
        """A parent that is listed only for its CHILDINFO gets no STATUS response (RFC 5819 section 3)."""
        self.assertEqual(
            self.listed(b'(SUBSCRIBED RECURSIVEMATCH) "" (INBOX Fruit) RETURN (STATUS (MESSAGES))'),
            [
                b'(\\HasNoChildren \\Subscribed) "/" INBOX',
                b"* STATUS INBOX (MESSAGES 0)",
                b'(\\HasChildren) "/" Fruit ("CHILDINFO" ("SUBSCRIBED"))',
            ],
        )

    def test_mailbox_deleted_before_status_is_nonexistent(self) -> None:
        r"""A mailbox deleted between LIST and STATUS is listed as \NonExistent (RFC 5819 section 2)."""
        account = self.server.realm.account()
        list_mailboxes = account.mailboxes

        async def delete_after_list() -> object:
            listed = list(await list_mailboxes())
            await account.delete("Tofu")
            return listed

        self.patch(account, "mailboxes", delete_after_list)
        self.assertEqual(
            self.listed(b'"" Tofu RETURN (STATUS (MESSAGES))'),
            [b'(\\NonExistent \\HasNoChildren) "/" Tofu'],
        )

    def test_empty_pattern_asks_for_the_delimiter_in_plain_list(self) -> None:
        """An empty pattern asks for the delimiter in a plain LIST only. Otherwise it matches nothing (RFC 5258 section
        3)."""
        self.assertEqual(self.listed(b'"" ""'), [b'(\\Noselect) "/" ""'])
        for command in (b'() "" ""', b'"" ("")', b'"" "" RETURN ()', b'(SUBSCRIBED) Tofu ("")'):
            self.assertEqual(self.listed(command), [], command)
        self.assertEqual(self.listed(b'Tofu ("" "%")'), [b'(\\HasNoChildren) "/" Tofu'])

    def test_list_special_use_finds_special_mailboxes(self) -> None:
        """LIST (SPECIAL-USE) finds mailboxes created with CREATE (USE) (RFC 6154)."""
        self.assertIn(b"a OK", self.client(b"a CREATE MyDrafts (USE (\\Drafts))"))
        self.assertIn(b"b NO [USEATTR]", self.client(b"b CREATE Other (USE (\\Nonsense))"))
        self.client(b"c CREATE Old/Sent (USE (\\Sent))")
        self.assertEqual(
            self.listed(b'(SPECIAL-USE) "" "*"'),
            [b'(\\HasNoChildren \\Drafts) "/" MyDrafts', b'(\\HasNoChildren \\Sent) "/" Old/Sent'],
        )
        self.assertEqual(
            self.listed(b'(SPECIAL-USE RECURSIVEMATCH) "" "O%"'),
            [b'(\\HasChildren) "/" Old ("CHILDINFO" ("SPECIAL-USE"))'],
        )
        self.assertIn(
            b'(\\HasNoChildren \\Drafts) "/" MyDrafts', self.listed(b'"" "%" RETURN (SPECIAL-USE)')
        )

    def test_plain_list_marks_a_mere_parent_as_noselect(self) -> None:
        r"""A plain LIST marks a name that exists only as a parent as \Noselect."""
        self.client(b"d DELETE Fruit")
        self.assertIn(b'(\\Noselect \\HasChildren) "/" Fruit', self.listed(b'"" "%"'))


class ListExampleTests(SessionTestCase):
    """The examples of RFC 5258 section 5 from example 8 on. Each example has its own mailboxes."""

    def listed(self, command: bytes) -> list[bytes]:
        """Return the LIST responses to `command`, without delimiter, \\HasChildren and \\HasNoChildren."""
        response = lines(self.client(b"a LIST " + command))[:-1]
        hidden = (b"\\HasNoChildren ", b"\\HasNoChildren", b"\\HasChildren ", b"\\HasChildren")
        for word in hidden:
            response = [line.replace(word, b"") for line in response]
        return [line.removeprefix(b"* LIST ").replace(b' "/"', b"") for line in response]

    def create(self, mailboxes: bytes, subscribed: bytes) -> None:
        for name in mailboxes.split():
            self.client(b"c CREATE " + name)
        for name in subscribed.split():
            self.client(b"s SUBSCRIBE " + name)

    def test_haschildren_and_childinfo_are_independent(self) -> None:
        r"""Example 8: \HasChildren and CHILDINFO are independent of each other."""
        self.create(b"Foo Foo/Bar Foo/Baz Moo", b"Foo/Baz")
        self.assertEqual(self.listed(b'(SUBSCRIBED) "" "*"'), [b"(\\Subscribed) Foo/Baz"])
        self.assertEqual(self.listed(b'(SUBSCRIBED) "" "%"'), [])
        recursive = b'(SUBSCRIBED RECURSIVEMATCH) "" "%"'
        self.assertEqual(self.listed(recursive), [b'() Foo ("CHILDINFO" ("SUBSCRIBED"))'])
        self.client(b"s SUBSCRIBE Foo")
        self.assertEqual(
            self.listed(recursive), [b'(\\Subscribed) Foo ("CHILDINFO" ("SUBSCRIBED"))']
        )
        self.client(b"s UNSUBSCRIBE Foo/Baz")
        self.client(b"s SUBSCRIBE Moo")
        self.assertEqual(
            self.listed(recursive + b" RETURN (CHILDREN)"),
            [b"(\\Subscribed) Foo", b"(\\Subscribed) Moo"],
        )

    def test_childinfo_does_not_depend_on_the_pattern(self) -> None:
        """Example 9: CHILDINFO is returned whether or not the children match the pattern."""
        subscribed = (
            b"baz2/bar2 baz2/bar22 baz2/bar222 eps2 eps2/mamba foo2/bar1 foo2/bar2 qux2/bar2"
        )
        self.create(b"foo2 baz2 " + subscribed, subscribed)
        self.client(b"d DELETE qux2")
        self.assertEqual(
            self.listed(b'(RECURSIVEMATCH SUBSCRIBED) "" "*2"'),
            [
                b"(\\Subscribed) baz2/bar2",
                b"(\\Subscribed) baz2/bar22",
                b"(\\Subscribed) baz2/bar222",
                b'(\\Subscribed) eps2 ("CHILDINFO" ("SUBSCRIBED"))',
                b'() foo2 ("CHILDINFO" ("SUBSCRIBED"))',
                b"(\\Subscribed) foo2/bar2",
                b"(\\Subscribed) qux2/bar2",
            ],
        )

    def test_nonexistent_subscribed_inferior_gives_childinfo(self) -> None:
        r"""Example 10: a subscribed inferior that does not exist gives CHILDINFO but not \HasChildren."""
        self.create(b"foo foo/bar", b"foo/bar")
        self.client(b"d DELETE foo/bar")
        self.assertEqual(
            lines(self.client(b'a3 LIST (SUBSCRIBED RECURSIVEMATCH) "" foo RETURN (CHILDREN)'))[0],
            b'* LIST (\\HasNoChildren) "/" foo ("CHILDINFO" ("SUBSCRIBED"))',
        )
        self.assertEqual(
            self.listed(b'(SUBSCRIBED) "" "foo/*"'), [b"(\\NonExistent \\Subscribed) foo/bar"]
        )
