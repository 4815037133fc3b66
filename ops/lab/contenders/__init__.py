"""Who is measured. `uncached` are those that ask Postgres for each answer, `cached` those that keep it.

All run on one interpreter and answer the same rows; none writes an access log, and none has a middleware. What
each does and why is in its own directory, which imports nothing of the service.
"""
