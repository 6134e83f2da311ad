"""The terminals of RFC 9051's grammar as regular expressions over bytes, each below the ABNF that it implements.

Each pattern is one repeated character class or an unrolled loop, so matching takes time in proportion to the input.
"""

import re

# atom-specials   = "(" / ")" / "{" / SP / CTL / list-wildcards / quoted-specials / resp-specials
# list-wildcards  = "%" / "*"
# quoted-specials = DQUOTE / "\"
# resp-specials   = "]"
# ATOM-CHAR       = <any CHAR except atom-specials>
_ATOM_CHAR = rb"!#$&'+,\-./0-9:;<=>?@A-Z\[^_`a-z|}~"

# atom            = 1*ATOM-CHAR
ATOM = re.compile(rb"[%b]+" % _ATOM_CHAR)

# ASTRING-CHAR    = ATOM-CHAR / resp-specials
ASTRING_ATOM = re.compile(rb"[%b\]]+" % _ATOM_CHAR)

# list-char       = ATOM-CHAR / list-wildcards / resp-specials
LIST_ATOM = re.compile(rb"[%b\]%%*]+" % _ATOM_CHAR)

# flag            = "\Answered" / … / flag-keyword / flag-extension
# flag-keyword    = "$MDNSent" / … / atom
# flag-extension  = "\" atom
FLAG = re.compile(rb"\\?[%b]+" % _ATOM_CHAR)

# tag             = 1*<any ASTRING-CHAR except "+">
# At most 1000 bytes, though RFC 9051 has no limit: clients use four to ten, and every tagged response repeats the tag.
TAG = re.compile(rb"[%b\]]{1,1000}" % _ATOM_CHAR.replace(b"+", b""))

# A word of the protocol: a command name, a FETCH item before its bracket, a search key, an option.
WORD = re.compile(rb"[A-Za-z][A-Za-z0-9.\-]*")

# quoted          = DQUOTE *QUOTED-CHAR DQUOTE
# QUOTED-CHAR     = <any TEXT-CHAR except quoted-specials> / "\" quoted-specials / UTF8-2 / UTF8-3 / UTF8-4
# Any 8-bit byte matches. Whether they are valid UTF-8 is checked where they are decoded.
QUOTED = re.compile(rb'"([^"\\\r\n\0]*+(?:\\["\\][^"\\\r\n\0]*+)*)"')

# number          = 1*DIGIT
DIGITS = re.compile(rb"[0-9]+")

# The characters of a sequence-set; `sequence.SequenceSet.parse` checks the rest.
SEQUENCE = re.compile(rb"[0-9*][0-9*:,]*")

# base64          = *(4base64-char) [base64-terminal]
# "=" alone is an empty initial response (RFC 4959). `grammar.login.decode_base64` checks the length.
BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}|=")

# objectid        = 1*255(ALPHA / DIGIT / "_" / "-"), RFC 8474
OBJECTID = re.compile(rb"[A-Za-z0-9_\-]{1,255}")
