"""The IMAP protocol as pure functions: bytes to commands, and responses to bytes (RFC 9051, RFC 3501).

`framing` puts commands together from lines and literals, `grammar` parses them into the values of `commands`, and
`encode` writes responses. Nothing here does input or output, or knows the time.
"""
