"""Errors that reach the user as one line, without a stack trace."""


class UserError(Exception):
    """An error in the config, the data or the command line. The message names the field or file and says what to do."""


class Diverged(UserError):
    """The loss or a parameter is not finite."""


class Interrupted(Exception):
    """A signal stopped the run after it saved its state; repeating the command resumes it.

    Args:
      message: what was saved, and where.
      signal_number: the signal.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number
