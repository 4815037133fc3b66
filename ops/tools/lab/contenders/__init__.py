"""Peers of the service that answer the sample's rows.

`uncached` ask Postgres for each answer, `cached` keep it, and those of `writing` change rows. All run on one
interpreter and answer the same rows; none writes an access log, and none has a middleware. Each is described in a
directory of its own, which imports nothing of the service.
"""
