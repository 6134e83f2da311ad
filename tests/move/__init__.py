"""Tests of ``imapshield move``."""
