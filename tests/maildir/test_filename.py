"""File names tell base, sizes and flags, and say the same after they were rewritten."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.filename import (
    all_flags,
    base,
    delivery_order,
    flags_of,
    unique,
    wire_size,
    with_flags,
    with_sizes,
)
from imapshield.maildir.keyword_letters import Keywords, format_keywords, parse_keywords
from imapshield.wire.flags import SYSTEM_FLAGS, flag_list

KEYWORDS = (b"$Junk", b"Work", b"$MDNSent")


def keywords() -> Keywords:
    return parse_keywords(b"0 $Junk\n1 Work\n3 $MDNSent\n", b"only-in-index")


class FilenameTests(SynchronousTestCase):
    def test_unique(self) -> None:
        """A name sorts by time and holds nothing that means something in a Maildir name."""
        name = unique(1700000000.0000425, 42, 7, "mail/host:1,x é", "9f")
        self.assertEqual(name, b"1700000000.M000042P42Q7R9f.mail\\057host\\0721\\054x \\xe9")
        self.assertEqual(base(name), name)
        self.assertNotEqual(name, unique(1700000000.0000425, 42, 8, "host", "9f"))

    def test_sizes(self) -> None:
        """Sizes are read from the name, where it has them."""
        name = with_sizes(b"1.x", 20, 22)
        self.assertEqual((name, wire_size(name)), (b"1.x,S=20,W=22", 22))
        self.assertEqual(with_sizes(b"1.x", 20, None), b"1.x,S=20")
        for other in (b"1.x", b"1.x,W=", b"1.x,W=a", b"1.x,W=9999999999999999"):
            self.assertIsNone(wire_size(other))

    def test_flags(self) -> None:
        """Letters are flags; P is $Forwarded; unknown letters are none."""
        for name, wanted in (
            (b"x", b""),
            (b"x:2,", b""),
            (b"x:2,FRST", b"\\Answered \\Flagged \\Deleted \\Seen"),
            (b"x:2,DP", b"\\Draft $Forwarded"),
            (b"x:2,Sabcdz!", b"\\Seen $Junk $MDNSent Work"),
            (b"x:1,S", b""),
            (b"x:2,S,T", b"\\Seen"),
        ):
            self.assertEqual(flag_list(flags_of(name, keywords())), wanted, name)

    def test_named(self) -> None:
        """New letters are sorted; unknown ones and what follows a comma stay."""
        for name, flags, wanted in (
            (b"x", [b"\\Seen", b"work"], b"x:2,Sb"),
            (b"x:2,T", [], b"x:2,"),
            (b"x:2,SXz,more", [b"$forwarded"], b"x:2,PXz,more"),
            (b"x:2,", [b"only-in-index", b"never-heard-of"], b"x:2,"),
        ):
            self.assertEqual(with_flags(name, flags, keywords()), wanted)

    def test_kept(self) -> None:
        """Flags that have no letter are kept from the index, the others are the name's to tell."""
        found = all_flags(b"x:2,S", b"\\Flagged only-in-index Work", keywords())
        self.assertEqual(found, b"\\Seen only-in-index")

    @given(
        st.sets(st.sampled_from([*SYSTEM_FLAGS, b"$Forwarded", *KEYWORDS])),
        st.sampled_from([b"x", b"x:2,FTa", b"y:2,Xq,z"]),
    )
    @settings(derandomize=True, deadline=None, max_examples=100)
    def test_round_trip(self, flags, name) -> None:
        """What is written into a name is what is read from it."""
        written = with_flags(name, flags, keywords())
        self.assertEqual(all_flags(written, b"", keywords()), flag_list(flags))
        self.assertEqual(base(written), base(name))
        self.assertEqual(with_flags(written, flags, keywords()), written)

    def test_keywords(self) -> None:
        """The 27th keyword finds no letter; a slot that is free is used; nonsense in the file is passed over."""
        words = parse_keywords(b"0 a\n2 c\n2x d\n99 e\n3 not an atom\n4 \xff\n\n1", b"extra")
        self.assertEqual(words.lettered, [b"a", b"", b"c"])
        self.assertTrue(words.add(b"B"))
        self.assertEqual(format_keywords(words), b"0 a\n1 B\n2 c\n")
        for i in range(23):
            self.assertTrue(words.add(b"k%d" % i))
        self.assertFalse(words.add(b"late"))
        self.assertEqual(words.others, [b"extra", b"late"])
        self.assertEqual(
            (words.letter(b"b"), words.letter(b"LATE"), words.spelling(b"LATE")),
            (b"b", b"", b"late"),
        )
        again = parse_keywords(format_keywords(words), b"extra late")
        self.assertEqual(again.lettered, words.lettered)

    def test_arrival(self) -> None:
        """Names sort by seconds, then microseconds and counter as numbers; a name that tells none by its mtime."""
        names = [b"1.M9P1.x", b"1.M10P1.x", b"1.M10P1Q2.x", b"1.M10P1Q10.x", b"2.12_3.x"]
        self.assertEqual(sorted(set(names), key=lambda n: delivery_order(n, 5.0)), names)
        self.assertEqual(delivery_order(b"msg", 5.0)[0], 5.0)
