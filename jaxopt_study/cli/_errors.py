"""The error that a user of the command line sees."""


class UserError(Exception):
    """Something asked for that cannot be done; shown as one line, without a traceback."""
