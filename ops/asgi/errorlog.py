"""Where an error response may be logged: Django does it in a thread, in case the log waits for a network."""

import logging

from django.utils.log import request_logger

# Handlers that return at once; mail, HTTP or syslog may not. FileHandler is a StreamHandler.
QUICK: tuple[type[logging.Handler], ...] = (logging.StreamHandler, logging.NullHandler)


def is_quick() -> bool:
    """Whether everything that hears of an error response returns at once."""
    logger: logging.Logger | None = request_logger
    while logger:
        if not all(isinstance(handler, QUICK) for handler in logger.handlers):
            return False
        logger = logger.parent if logger.propagate else None
    return True
