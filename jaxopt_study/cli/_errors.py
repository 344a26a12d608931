"""Error of the command line."""


class UserError(Exception):
    """A request that cannot be met; it is printed as one line, without a traceback."""
