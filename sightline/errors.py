"""The one exception a user's mistake raises: the command line prints its sentence and exits with code 2."""


class InputError(Exception):
    """Bad input from outside: one clear sentence with the file, the row, the value and the remedy."""
