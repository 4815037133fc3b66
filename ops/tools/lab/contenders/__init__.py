"""Peers of the service that answer the sample's rows.

Those of `uncached` ask Postgres for each answer, those of `cached` keep answers, those of `writing` change rows, and
those of `exporting` answer many rows. All but nginx run on the same interpreter, and all answer the same rows. None
writes an access log, and none has a middleware but that of fastapi-cache's SDK. Each peer has its code in a folder
here, which imports nothing of the service.
"""
