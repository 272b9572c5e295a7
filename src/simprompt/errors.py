"""The errors a user can meet. Each message is one paragraph: what was wrong, where, what to do."""


class SimpromptError(Exception):
    """Bad input or an impossible request; the command line prints it and exits with code 2."""
