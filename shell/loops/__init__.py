"""Interpreters of pure decisions: each waits, asks `core`, carries out. No "if" about what should happen next stands here."""
