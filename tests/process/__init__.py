"""Tests of `imapshield.process`."""
