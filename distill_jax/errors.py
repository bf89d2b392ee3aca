"""Errors that are shown as one line, without a stack trace."""


class UserError(Exception):
    """A mistake of the user's, in the config, the data or the command line. The message names the field or file and says what to do."""


class Interrupted(Exception):
    """The run was asked to stop by a signal. It has saved itself; the same command resumes it.

    Args:
      message: what was saved and where.
      signal_number: the signal.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number
