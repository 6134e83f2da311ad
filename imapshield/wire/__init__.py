"""Bytes ↔ values, pure: framing, grammar and encoding (RFC 9051, RFC 3501)."""
