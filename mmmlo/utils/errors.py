"""Errors of the user's making: the command-line tools print them as one line, and any other error with its traceback."""

__all__ = ['DataError', 'MissingFileError', 'MissingPackageError', 'MmmloError', 'SettingError', 'UnsupportedError']


class MmmloError(Exception):
    """What a user can mend. The message names the file or key, what is wrong, and what would be right."""


class SettingError(MmmloError, ValueError):
    """A key of a config, an option or an argument that has a wrong value, or does not fit the others."""


class DataError(MmmloError, ValueError):
    """Data that a run cannot use as it is."""


class MissingFileError(MmmloError, FileNotFoundError):
    """A file or folder that is named and does not exist."""


class MissingPackageError(MmmloError, ImportError):
    """A package that is needed and not installed, or not whole."""


class UnsupportedError(MmmloError, NotImplementedError):
    """A combination that is valid elsewhere and not supported here."""
