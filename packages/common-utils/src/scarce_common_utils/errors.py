"""The one error that a person, not a programmer, is meant to read."""


class UserError(ValueError):
    """A sentence for a person: what was wrong with which value, file or option, and what to do.

    Commands print it as one line on standard error and exit with code 2. Any other exception that
    leaves a command is a bug of ours.
    """
