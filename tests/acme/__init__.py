"""Tests of `imapshield.acme`."""
