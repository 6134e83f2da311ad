"""RFC 9051's terminals as bytes regexes, each under the ABNF it stands for.

None of them can backtrack for longer than it matched: one class, repeated, or an unrolled loop.
"""

from __future__ import annotations

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
# At most 1000 octets, though RFC 9051 has no limit: clients need four to ten, and every answer repeats the tag.
TAG = re.compile(rb"[%b\]]{1,1000}" % _ATOM_CHAR.replace(b"+", b""))

# A word of the protocol: a command, a FETCH item before its bracket, a search key, an option.
WORD = re.compile(rb"[A-Za-z][A-Za-z0-9.\-]*")

# quoted          = DQUOTE *QUOTED-CHAR DQUOTE
# QUOTED-CHAR     = <any TEXT-CHAR except quoted-specials> / "\" quoted-specials / UTF8-2 / UTF8-3 /
# UTF8-4 Whether 8-bit octets are UTF-8 is asked where a text is made of them.
QUOTED = re.compile(rb'"([^"\\\r\n\0]*+(?:\\["\\][^"\\\r\n\0]*+)*)"')

# number          = 1*DIGIT
DIGITS = re.compile(rb"[0-9]+")

# sequence-set, as far as its characters go; `sequence` knows the rest
SEQUENCE = re.compile(rb"[0-9*][0-9*:,]*")

# base64          = *(4base64-char) [base64-terminal]; "=" alone is an empty initial response (RFC
# 4959)
BASE64 = re.compile(rb"[A-Za-z0-9+/]+={0,2}|=")

# objectid        = 1*255(ALPHA / DIGIT / "_" / "-"), RFC 8474
OBJECTID = re.compile(rb"[A-Za-z0-9_\-]{1,255}")
