"""The laboratory's one error."""


class LabError(Exception):
    """A run cannot go on. The text says why, for the user."""
