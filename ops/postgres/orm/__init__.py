"""Django's database backend for Postgres, with a pool that is timed and counted. Django requires a package."""
