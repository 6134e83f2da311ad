"""Messages for property tests: realistic messages, and damaged variants of them."""

from __future__ import annotations

from hypothesis import strategies as st

PLAIN = (
    b"Return-Path: <a@b.example>\r\n"
    b"Received: from x by y\r\n\twith ESMTP id 1\r\n\tfor <z@example.org>; Mon, 7 Feb 1994 21:52:25 -0800\r\n"
    b"Date: Mon, 7 Feb 1994 21:52:25 -0800 (PST)\r\n"
    b"From: Fred Foobar <foobar@Blurdybloop.example>\r\n"
    b"Subject: afternoon meeting\r\n"
    b'To: mooch@owatagu.siam.edu.example, "Doe, Jane" <jane@example.com>\r\n'
    b"Message-Id: <B27397-0100000@Blurdybloop.example>\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n"
    b"\r\n"
    b"Hello Joe, do you think we can meet at 3:30 tomorrow?\r\n"
)
ALTERNATIVE = (
    b"From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>\r\n"
    b"To: undisclosed-recipients:;\r\n"
    b"Subject: =?utf-8?b?w6k=?=\r\n =?utf-8?b?w6g=?=\r\n"
    b'Content-Type: multipart/mixed; boundary="outer"\r\n'
    b"\r\n"
    b"This is a preamble.\r\n"
    b"--outer\r\n"
    b'Content-Type: multipart/alternative; boundary="outer-inner"\r\n'
    b"\r\n"
    b"--outer-inner\r\n"
    b"Content-Type: text/plain; charset=utf-8; format=flowed;\r\n"
    b"Content-Transfer-Encoding: quoted-printable\r\n"
    b"\r\n"
    b"caf=C3=A9=\r\n au lait\r\n"
    b"--outer-inner\r\n"
    b"Content-Type: text/html; charset=iso-8859-1\r\n"
    b"\r\n"
    b"<p>caf\xe9</p>\r\n"
    b"--outer-inner--\r\n"
    b"\r\n"
    b"--outer\r\n"
    b"Content-Type: application/pdf;\r\n name*0*=utf-8''r%C3%A9sum%C3%A9;\r\n name*1=.pdf\r\n"
    b'Content-Disposition: attachment; filename="resume.pdf"\r\n'
    b"Content-Transfer-Encoding: base64\r\n"
    b"Content-ID: <1@example.org>\r\n"
    b"Content-MD5: Q2hlY2sgSW50ZWdyaXR5IQ==\r\n"
    b"Content-Language: en, de\r\n"
    b"Content-Location: http://example.org/\r\n"
    b"\r\n"
    b"SGVsbG8gd29ybGQ=\r\n"
    b"--outer--\r\n"
    b"epilogue\r\n"
)
FORWARD = (
    b"Content-Type: multipart/digest; boundary=d\r\n"
    b"\r\n"
    b"--d\r\n"
    b"\r\n" + PLAIN + b"\r\n"
    b"--d\r\n"
    b"Content-Type: message/rfc822\r\n"
    b"\r\n" + ALTERNATIVE + b"\r\n"
    b"--d--\r\n"
)
ALL = (PLAIN, ALTERNATIVE, FORWARD)

_fragments = st.sampled_from(
    (
        *(b"\r\n", b"\n", b"\r", b'"', b"(", b")", b"\\", b";", b"=", b"--", b"--d", b" ", b"\t"),
        *(b"\xff", b"\0", b"<", b">", b"@", b",", b":", b".", b"*0", b"*", b"%", b"=?"),
        *(b"\r\n\r\n", b"\r\n--outer\r\n", b"\r\n--outer-inner--\r\n"),
        b"\r\nContent-Type: message/rfc822\r\n\r\n",
        b"\r\nContent-Type: multipart/x; boundary=\r\n\r\n",
    )
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Return a realistic message in which some fragments were inserted, removed or repeated."""
    message = draw(st.sampled_from(ALL))
    for _ in range(draw(st.integers(0, 6))):
        pos = draw(st.integers(0, len(message)))
        size = draw(st.integers(0, 30))
        change = draw(st.sampled_from(("insert", "remove", "repeat")))
        if change == "insert":
            message = message[:pos] + draw(_fragments) + message[pos:]
        elif change == "remove":
            message = message[:pos] + message[pos + size :]
        else:
            message = message[:pos] + message[pos : pos + size] * 2 + message[pos + size :]
    return message


hostile = st.one_of(
    mutated(), st.binary(max_size=300), st.lists(_fragments, max_size=40).map(b"".join)
)
