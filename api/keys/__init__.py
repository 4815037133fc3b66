"""API keys: `manage.py apikey` makes and revokes them, `scope` of api/auth.py asks for one.

minting.py   the text of a key, and the digest of it that is stored
models.py    the table
lookup.py    from the key in a request to its identity, with a worker's memory in between
"""
