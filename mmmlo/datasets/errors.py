"""What a command-line tool reports in one line."""

__all__ = ['DataError']


class DataError(ValueError):
    """Data that a run cannot use as it is. The message names it and says what would be right."""
