"""The certificate that the server obtains and renews by itself, from an authority that speaks ACME (RFC 8555)."""
