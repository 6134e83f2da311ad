"""Slow tests of the whole server: the wheel in a fresh environment, and real mail clients against a server process.

They are not in ``tests/``, so that the suite there stays fast. ``python -m twisted.trial system_tests`` runs them.
"""
