"""Benchmarks of IMAP servers; README.rst says how to run them."""
