"""API keys: `manage.py apikey` makes and revokes them, `scope` of api/auth.py asks for a key.

minting.py   the text of a key, and the digest of it that is stored
models.py    the table
lookup.py    finds the identity of the key in a request, in a worker's memory or in the table
"""
