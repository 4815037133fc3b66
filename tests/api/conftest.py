"""Property tests draw the same examples every time, and no machine is too slow for them."""

from hypothesis import settings

settings.register_profile("reproducible", derandomize=True, deadline=None)
settings.load_profile("reproducible")
