"""Whatever comes to mind, fed to all that takes text from outside, and to the daemon.

`python -m tests.fuzz` and `python -m tests.fuzz.daemon`. What was found is kept in `found/`, one file an input, named after its parser;
`tests/test_fuzz.py` feeds all of them again.
"""
