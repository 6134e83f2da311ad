"""Slow tests of the whole, in processes of their own: the wheel in a fresh environment, and real mail clients.

They are not under ``tests/`` so that the suite there stays fast; ``python -m twisted.trial system_tests`` runs them.
"""
