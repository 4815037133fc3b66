"""Idempotency-Key: a request that comes again has its effect once, and its answer again (docs/writing.md).

once.py      the decorator of an endpoint, the header field, and the way of a request with it
answers.py   the SQL: a key is claimed, an answer is kept, found again, expired
models.py    the table
"""
