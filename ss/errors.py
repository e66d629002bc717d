"""What users did wrong, told apart from what is wrong in the software."""


class UserError(ValueError):
    """A mistake of the user: the message says what was expected, what came, and in which file."""
