"""The two ways in which a command ends badly without being a bug.

Both carry one line for people; `cli.main` turns them into exit codes 2 and 1.
"""


class InputError(ValueError):
    """What the user gave cannot be used. The message names the value, the rule and the choices."""


class WorkError(RuntimeError):
    """Work failed on the way. The message says what happened, what was kept and what to do next."""
