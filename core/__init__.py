"""Decisions, and nothing else: expected and actual state in, one action out.

Here belongs whatever can be decided from values alone: parsing, normalising, comparing, planning, checking, rendering. Here belongs no
input or output, no clock, no randomness, no environment and no logger; time is a parameter. May import the standard library's pure
parts, `returns`, `msgspec`, `idna` and `cryptography`'s primitives. Never imports `shell`. A test walks the import graph.
"""
