"""The laboratory's one error."""


class LabError(Exception):
    """A run cannot go on; the text says why, for people."""
