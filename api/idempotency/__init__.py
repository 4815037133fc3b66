"""Idempotency-Key: a request that comes again has its effect once, and gets its answer again (docs/writing.md).

once.py      the decorator of an endpoint, the header field, and the handling of a request that has it
answers.py   the SQL that claims a key, and keeps, finds and expires an answer
models.py    the table
"""
