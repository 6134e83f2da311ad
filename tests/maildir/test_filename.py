"""A file name contains a base name, sizes and flags, and a rewrite keeps all parts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from imapshield.maildir.filename import (
    FolderFlags,
    all_flags,
    base,
    copy_name,
    delivery_order,
    flags_of,
    format_keywords,
    may_be_compressed,
    origin,
    parse_keywords,
    unique,
    wire_size,
    with_flags,
    with_sizes,
)
from imapshield.wire.flags import SYSTEM_FLAGS, flag_list

LETTERED = (b"$Junk", b"Work", b"$MDNSent")


def folder_flags() -> FolderFlags:
    return parse_keywords(b"0 $Junk\n1 Work\n3 $MDNSent\n", b"only-in-index")


class FilenameTests(SynchronousTestCase):
    def test_base_name_begins_with_the_time(self) -> None:
        """A base name begins with the time, and contains no character with a meaning in Maildir file names."""
        end = origin("mail/host:1,x é", "9f")
        name = unique(1700000000.0000425, 42, 7, end)
        self.assertEqual(name, b"1700000000.M000042P42Q7R9f.mail\\057host\\0721\\054x \\xe9")
        self.assertEqual(base(name), name)
        self.assertNotEqual(name, unique(1700000000.0000425, 42, 8, end))

    def test_sizes_are_written_and_read(self) -> None:
        """Sizes are written into a name, and the wire size is read from a name that has one."""
        name = with_sizes(b"1.x", 20, 22)
        self.assertEqual((name, wire_size(name)), (b"1.x,S=20,W=22", 22))
        self.assertEqual(with_sizes(b"1.x", 20, None), b"1.x,S=20")
        for other in (b"1.x", b"1.x,W=", b"1.x,W=a", b"1.x,W=9999999999999999"):
            self.assertIsNone(wire_size(other))

    def test_name_says_that_a_file_may_be_compressed(self) -> None:
        """A file may be compressed if S= is not its size, or if it has the letter Z. A copy is named in the same way."""
        for name, may_be, copied in (
            (b"1.x", False, b"2.y,S=20,W=44"),
            (b"1.x,S=20,W=44:2,S", False, b"2.y,S=20,W=44"),
            (b"1.x,S=40,W=44:2,S", True, b"2.y,S=40,W=44"),
            (b"1.x,S=20:2,FSZa,x", True, b"2.y,S=20,W=44:2,Z"),
            (b"1.x:2,Z", True, b"2.y,S=20,W=44:2,Z"),
            (b"1.Z,S=a:2,,S=40", False, b"2.y,S=20,W=44"),
        ):
            self.assertIs(may_be_compressed(name, 20), may_be, name)
            self.assertEqual(copy_name(name, b"2.y", 20, 44), copied)
            self.assertIs(may_be_compressed(copied, 20), may_be, copied)
        self.assertEqual(copy_name(b"1.x,S=40:2,S", b"2.y", 20, None), b"2.y,S=40")
        self.assertEqual(with_flags(b"2.y:2,Z", [b"\\Seen", b"work"], folder_flags()), b"2.y:2,SZb")

    def test_letters_are_flags(self) -> None:
        """Letters are flags; P is $Forwarded; unknown letters are ignored."""
        for name, flags in (
            (b"x", b""),
            (b"x:2,", b""),
            (b"x:2,FRST", b"\\Answered \\Flagged \\Deleted \\Seen"),
            (b"x:2,DP", b"\\Draft $Forwarded"),
            (b"x:2,Sabcdz!", b"\\Seen $Junk $MDNSent Work"),
            (b"x:1,S", b""),
            (b"x:2,S,T", b"\\Seen"),
        ):
            self.assertEqual(flag_list(flags_of(name, folder_flags())), flags, name)

    def test_with_flags_sorts_new_letters_and_keeps_others(self) -> None:
        """New letters are sorted; unknown letters and text after a comma stay."""
        for name, flags, new_name in (
            (b"x", [b"\\Seen", b"work"], b"x:2,Sb"),
            (b"x:2,T", [], b"x:2,"),
            (b"x:2,SXz,more", [b"$forwarded"], b"x:2,PXz,more"),
            (b"x:2,", [b"only-in-index", b"unknown-keyword"], b"x:2,"),
        ):
            self.assertEqual(with_flags(name, flags, folder_flags()), new_name)

    def test_flags_without_letter_come_from_the_index(self) -> None:
        """Flags without a letter are kept from the index; all others are those of the file name."""
        flags = all_flags(b"x:2,S", b"\\Flagged only-in-index Work", folder_flags())
        self.assertEqual(flags, b"\\Seen only-in-index")

    @given(
        st.sets(st.sampled_from([*SYSTEM_FLAGS, b"$Forwarded", *LETTERED])),
        st.sampled_from([b"x", b"x:2,FTa", b"y:2,Xq,z"]),
    )
    @settings(derandomize=True, deadline=None, max_examples=100)
    def test_flags_survive_a_round_trip(self, flags: set[bytes], name: bytes) -> None:
        """The flags that are written into a name are the flags that are read from it."""
        written = with_flags(name, flags, folder_flags())
        self.assertEqual(all_flags(written, b"", folder_flags()), flag_list(flags))
        self.assertEqual(base(written), base(name))
        self.assertEqual(with_flags(written, flags, folder_flags()), written)

    def test_names_sort_by_time_of_delivery(self) -> None:
        """Names sort by seconds, microseconds and counter, as numbers; a name without a time sorts by its mtime."""
        names = [b"1.M9P1.x", b"1.M10P1.x", b"1.M10P1Q2.x", b"1.M10P1Q10.x", b"2.12_3.x"]
        self.assertEqual(sorted(set(names), key=lambda name: delivery_order(name, 5.0)), names)
        self.assertEqual(delivery_order(b"msg", 5.0)[0], 5.0)


class KeywordLetterTests(SynchronousTestCase):
    def test_keyword_gets_a_free_letter(self) -> None:
        """The 27th keyword gets no letter; a free letter is used; invalid lines are ignored."""
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
        reparsed = parse_keywords(format_keywords(words), b"extra late")
        self.assertEqual(reparsed.lettered, words.lettered)
