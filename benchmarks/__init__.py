"""Measuring any IMAP server on loopback: speed, memory, and what a flood does to it."""
