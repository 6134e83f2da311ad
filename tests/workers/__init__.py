"""Tests of `imapshield.workers`."""
