"""Asks and empties asgiref's Local without the error that it raises, formats and catches where it is empty.

hasattr on an empty Local takes 2 us, setting and deleting a value 2.5: a tenth of what Django costs a request.
Both would be right here, only slower; an asgiref that keeps its values elsewhere fails at once, by name.
"""

from asgiref.local import Local


def is_set(local: Local) -> bool:
    """Whether `local` may hold a value in this context."""
    return local._storage._data.get(None) is not None  # noqa: SLF001


def unset(local: Local) -> None:
    """Remove all values of `local` from this context."""
    local._storage._data.set(None)  # noqa: SLF001
