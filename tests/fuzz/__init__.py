"""Bytes from outside against every parser of them: one table of targets for pytest and for a fuzzer.

`target.py` says what a target is; `doors.py`, `verbs.py`, `output.py` and `files.py` hold them.
`corpus/` holds their examples, one a line. `test_corpus.py` runs those and what hypothesis makes of them,
`python -m tests.fuzz` a coverage-guided fuzzer, atheris, over the same table.
"""
