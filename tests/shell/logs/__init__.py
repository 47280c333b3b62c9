"""Tests of `shell.logs`."""
