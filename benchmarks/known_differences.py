"""The known differences from Dovecot's responses: each rule explains some, and says why imapshield's are right.

The table in docs/divergences.rst has a row for each rule, which begins with its name: the name of the function
with spaces. The sentence that decides is an argument of `rule`.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from benchmarks.differences import (
    ADDRESS_FIELDS,
    Difference,
    Rule,
    decoded_field,
    encoded_words,
    fields,
    fields_anywhere,
    has_damaged_encoding,
    header_blocks,
    is_answer_for_day,
    is_valid,
    requested_field,
    search_text,
    searches_bodies,
    sent_days,
    sorts_subjects,
    text_parts,
    uses_dates,
)
from benchmarks.questions import ABSENT

# Charsets that Python supports and the C library does not.
_PYTHON_ONLY_CHARSETS = (b"ks_c_5601-1987", b"iso-8859-8-i", b"koi8_r")
_ENCODINGS = (b"7bit", b"8bit", b"binary", b"base64", b"quoted-printable")

_rules: list[Rule] = []
Explains = Callable[[Difference], bool]


def rule(reason: str) -> Callable[[Explains], Explains]:
    """Make a function a rule with its name."""

    def add(explains: Explains) -> Explains:
        _rules.append(Rule(explains.__name__.replace("_", " "), reason, explains))
        return explains

    return add


@rule("RFC 2045 section 2: not case-sensitive, so both are right")
def letter_case(difference: Difference) -> bool:
    if difference.category not in ("BODY", "BODYSTRUCTURE"):
        return False
    return _lower_case(difference.theirs) == _lower_case(difference.ours)


def _lower_case(value: object) -> object:
    if isinstance(value, list):
        return [_lower_case(inner) for inner in value]
    return value.lower() if isinstance(value, bytes) else value


@rule(
    "RFC 9051 section 6.4.5.1: a part that is neither a multipart nor a message has no parts; what does"
    " not exist is empty, as everywhere else on both servers"
)
def missing_part(difference: Difference) -> bool:
    return difference.category == ABSENT and difference.ours == b""


@rule('RFC 9051 section 9: media-message = "MESSAGE" SP ("RFC822" / "GLOBAL")')
def message_global(difference: Difference) -> bool:
    categories = ("BODY", "BODYSTRUCTURE", "sections", ABSENT, "BINARY")
    if difference.category not in categories and not searches_bodies(difference):
        return False
    types = [t.lower() for values in fields_anywhere(difference, "Content-Type") for t in values]
    return any(content_type.startswith(b"message/global") for content_type in types)


@rule('RFC 9051 section 6.4.5.1: no blank line for "a message that has no body and no blank line"')
def added_blank_line(difference: Difference) -> bool:
    if "HEADER.FIELDS" not in difference.request or not isinstance(difference.ours, bytes):
        return False
    return difference.theirs == difference.ours + b"\r\n"


@rule("RFC 2046 section 5.1.1: the boundary ends the part")
def header_continued_in_the_next_part(difference: Difference) -> bool:
    if not (isinstance(difference.theirs, bytes) and isinstance(difference.ours, bytes)):
        return False
    is_header = difference.category == "sections" and "HEADER.FIELDS" in difference.request
    return is_header and difference.theirs.startswith(difference.ours)


@rule("RFC 5322 section 3.6.8: names are printable ASCII")
def nul_in_a_field_name(difference: Difference) -> bool:
    if not re.search(rb"(?m)^[^\s:\0]+\0[^:\n]*:", header_blocks(difference.message)[0]):
        return False
    is_header = difference.category in ("ENVELOPE", "HEADER.FIELDS")
    return is_header or requested_field(difference) == "Subject"


@rule('RFC 9051 section 6.4.5: "this data item can only be requested for leaf body parts"')
def binary_of_a_multipart(difference: Difference) -> bool:
    return difference.category == "BINARY, composed"


@rule('RFC 9051 section 6.4.5: "the size to expect in response to the corresponding FETCH BINARY"')
def binary_size(difference: Difference) -> bool:
    return difference.request.startswith("BINARY.SIZE") and isinstance(difference.ours, int)


@rule(
    'RFC 2045 section 6.8: characters outside the base64 alphabet "must be ignored"; section 6.7: of'
    ' quoted-printable "a robust implementation might" keep invalid escapes'
)
def damaged_encoding(difference: Difference) -> bool:
    if difference.category == "BINARY":
        refused = difference.theirs in ("NO [PARSE", "HANGUP")
        decoded = isinstance(difference.ours, bytes)
        return refused and decoded and has_damaged_encoding(difference.message)
    return searches_bodies(difference) and has_damaged_encoding(difference.message)


@rule(
    "RFC 9051 section 6.4.5: UNKNOWN-CTE is for an encoding that a server cannot decode; BODYSTRUCTURE of"
    " both servers shows one that they know"
)
def empty_or_folded_encoding(difference: Difference) -> bool:
    if difference.category != "BINARY" or difference.theirs != "NO [UNKNOWN-CTE":
        return False
    values = [
        value
        for found in fields_anywhere(difference, "Content-Transfer-Encoding")
        for value in found
    ]
    is_odd = any(not value or b"\n" in value for value in values)
    return isinstance(difference.ours, bytes) and is_odd


@rule(
    "RFC 2045 section 4: a message without MIME-Version is not MIME; BODYSTRUCTURE of both says 7bit"
)
def encoding_without_mime_version(difference: Difference) -> bool:
    if not fields(difference, "Content-Transfer-Encoding"):
        return False
    is_mime = fields(difference, "MIME-Version") or fields(difference, "Content-Type")
    return not is_mime and (difference.category == "BINARY" or searches_bodies(difference))


@rule(
    "RFC 5322 section 3.6: the field may occur once; ENVELOPE and BODYSTRUCTURE show which one is used"
)
def repeated_field(difference: Difference) -> bool:
    if searches_bodies(difference) or difference.category == "BINARY":
        names = ("Content-Type", "Content-Transfer-Encoding")
        return any(
            len(values) > 1 for name in names for values in fields_anywhere(difference, name)
        )
    if difference.category.startswith("SEARCH HEADER"):
        return False
    is_thread = difference.category.startswith("THREAD")
    used = {"Subject", "Date"} if is_thread else {requested_field(difference).title()}
    twice = [name for name in used & {"Subject", "Date"} if len(fields(difference, name)) > 1]
    if "Date" in twice:
        return is_answer_for_day(difference, sent_days(difference)[-1])
    return bool(twice)


@rule("RFC 5256 section 2.2: the sent date is the date and time in UTC, in any century")
def date_beyond_32_bits(difference: Difference) -> bool:
    if not uses_dates(difference):
        return False
    day = next(iter(sent_days(difference)[-1:]), None)
    if day is None or 1970 <= day.year < 2106:
        return False
    return is_answer_for_day(difference, day)


@rule(
    'RFC 9051 section 6.4.4: messages "whose [RFC5322] Date: header field ... is earlier"; a message'
    " without Date is not among them"
)
def missing_date(difference: Difference) -> bool:
    if not difference.category.startswith("SEARCH SENT") or sent_days(difference):
        return False
    return is_answer_for_day(difference, None)


@rule(
    'RFC 5256 section 2.2: INTERNALDATE if it "cannot be parsed"; how tolerant the parser is is left open'
)
def invalid_date(difference: Difference) -> bool:
    return uses_dates(difference) and None in sent_days(difference)


@rule(
    'RFC 5256 section 2.1 (1): "Convert all tabs and continuations to space. Convert all multiple'
    ' spaces to a single space"'
)
def spaces_at_folds(difference: Difference) -> bool:
    if not sorts_subjects(difference):
        return False
    subjects = [re.sub(rb"[\r\n]", b"", value) for value in fields(difference, "Subject")]
    return any(re.search(rb"[ \t]{2}|\t", subject) for subject in subjects)


@rule(
    "RFC 5256 section 2.1 (3): *WSP is spaces and tabs; other characters that look like spaces are collated later"
)
def no_break_space(difference: Difference) -> bool:
    if not sorts_subjects(difference):
        return False
    subjects = map(decoded_field, fields(difference, "Subject"))
    return any(re.search(r"[^\S \t\r\n]", subject) for subject in subjects)


@rule(
    "RFC 5051 has no title case for the German sharp s; RFC 9051 section 6.4.4 requires ASCII only, and a"
    " user who types ss must find it"
)
def sharp_s(difference: Difference) -> bool:
    if not difference.category.startswith("SEARCH") or difference.ours is not True:
        return False
    if "s" not in search_text(difference).lower():
        return False
    if searches_bodies(difference):
        texts = [decoded_field(header_blocks(difference.message)[0])]
        for charset, data in text_parts(difference.message):
            if charset and is_valid(data, charset):
                texts.append(data.decode(charset.decode()))
    else:
        texts = [decoded_field(value) for value in fields(difference, requested_field(difference))]
    return any("ß" in text for text in texts)


@rule("RFC 2231 section 5: encoded words may have a language")
def encoded_word_with_a_language(difference: Difference) -> bool:
    return any(word.language for word in encoded_words(difference))


@rule("RFC 2047 section 6.2 leaves open how a client shows what it cannot display")
def unknown_or_wrong_charset(difference: Difference) -> bool:
    texts = [(word.charset, word.data()) for word in encoded_words(difference)]
    if searches_bodies(difference):
        texts += [(charset, data) for charset, data in text_parts(difference.message) if charset]
    return any(
        charset.lower() in _PYTHON_ONLY_CHARSETS or not is_valid(data, charset)
        for charset, data in texts
    )


@rule(
    "RFC 6532 and RFC 2046 section 4.1.2: bytes above 127 without a charset are UTF-8; others are undefined"
)
def undeclared_charset(difference: Difference) -> bool:
    if searches_bodies(difference):
        texts = [data for charset, data in text_parts(difference.message) if not charset]
        texts.append(header_blocks(difference.message)[0])
    elif difference.category.startswith(("SEARCH", "SORT", "THREAD")):
        texts = fields(difference, requested_field(difference))
    else:
        return False
    return not all(is_valid(data, b"utf-8") for data in texts)


@rule(
    'RFC 9051 section 6.4.4: "contain the specified string in the envelope structure\'s FROM field"'
)
def address_in_envelope_form(difference: Difference) -> bool:
    name = requested_field(difference)
    if name not in ADDRESS_FIELDS or not difference.category.startswith("SEARCH"):
        return False
    is_empty = not any(fields(difference, name)) and difference.ours is False
    return is_empty or bool(re.search(r"""["',:;<>()\\]""", search_text(difference)))


@rule(
    "RFC 2045 section 6.4: such a part is application/octet-stream; RFC 9051 section 6.4.4: BODY allows"
    " flexible matching"
)
def text_in_an_unknown_encoding(difference: Difference) -> bool:
    return searches_bodies(difference) and any(
        encoding.lower() not in _ENCODINGS
        for values in fields_anywhere(difference, "Content-Transfer-Encoding")
        for encoding in values
    )


@rule("RFC 2045 section 5.2: plain text where the Content-Type field is syntactically invalid")
def type_without_subtype(difference: Difference) -> bool:
    return searches_bodies(difference) and any(
        re.match(rb"(?i)text\s*(?:;|\Z)", content_type)
        for values in fields_anywhere(difference, "Content-Type")
        for content_type in values
    )


@rule('RFC 9051 section 6.4.4: "Messages that do not match the specified search key"')
def not_with_a_list(difference: Difference) -> bool:
    missing = difference.theirs is False and difference.ours is True
    return missing and "NOT (SEEN " in difference.request


RULES = tuple(_rules)
