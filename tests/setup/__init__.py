"""Tests of ``imapshield setup``."""
