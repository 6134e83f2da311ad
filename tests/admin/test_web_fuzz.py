"""No request makes a traceback, whatever is in it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.admin.web_case import WebCase

_WORDS = st.sampled_from(
    [
        *(b"", b"x", b"\xff", b"%ff", b"[", b"]", b"http://[", b"http://[::1", b"http://page.example"),
        *(b"//", b":", b";", b"=", b"&", b"\x00", b"\t", b"\x7f", b"9" * 5000, b"-1", b"close", b"chunked"),
        *(b"Basic ", b"Basic eDp5", b"Basic /w==", b"imapshield=", b"a=b; ", "\u2100".encode(), b"\xed\xa0\x80"),
        *(b"user=", b"&password=secret", b"network=", b"who=", b"seconds=1", b"range=", b"subject=user"),
        b"multipart/form-data; boundary=x", b"application/x-www-form-urlencoded", b"text/plain; charset=\xff",
        b"--x\r\nContent-Disposition: form-data; name*=x''y\r\n\r\n1\r\n--x--\r\n",
        b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\nContent-Disposition: form-data; name=user\r\n\r\n--x--\r\n",
    ]
)  # fmt: skip
_TEXT = st.lists(_WORDS | st.binary(max_size=4), max_size=4).map(b"".join)
_NAMES = st.sampled_from(
    b"Host Origin Sec-Fetch-Site X-Forwarded-Host X-Forwarded-Proto X-Form-Token Authorization Cookie Content-Type"
    b" Content-Length Transfer-Encoding Connection Expect Range If-Modified-Since Accept-Encoding".split()
)
_LINES = st.lists(st.tuples(_NAMES, _TEXT).map(b": ".join) | _TEXT, max_size=5)
_PATHS = st.sampled_from(
    b"/ /login /logout /metrics /health /app.js /api/state /api/history /api/talkers /api/ban /api/kick * /x".split()
)


class FuzzTests(WebCase):
    @settings(max_examples=300)
    @given(
        st.sampled_from([b"GET", b"POST", b"HEAD", b"PUT"]) | _TEXT,
        *(_PATHS | _TEXT, _TEXT, _LINES, _TEXT, st.booleans(), st.booleans()),
    )
    def test_no_request_makes_a_traceback(
        self,
        method: bytes,
        path: bytes,
        query: bytes,
        lines: list[bytes],
        body: bytes,
        has_session: bool,
        is_own_form: bool,
    ) -> None:
        """Nothing is logged for parts of requests in any order, with a session and without one."""
        self.clock.advance(60)  # gives rates time
        self.cookie = ""
        lines = [*lines]
        if has_session:
            self.log_in()
            lines.append(b"Cookie: " + self.cookie.encode())
        if is_own_form:
            lines.append(b"X-Form-Token: " + self.form_token("/").encode())
        head = b"%s %s?%s HTTP/1.1\r\n" % (method, path, query)
        if not any(line.startswith((b"Content-Length", b"Transfer-Encoding")) for line in lines):
            lines.append(b"Content-Length: %d" % len(body))
        protocol = self.connect()
        protocol.dataReceived(head + b"\r\n".join(lines) + b"\r\n\r\n" + body)
        for _ in range(10):
            self.clock.advance(0)
        self.assertFalse(protocol.transport.aborted)
        self.assertEqual(self.flushLoggedErrors(), [])
