"""Errors of other people's code in one line."""


def told(error: BaseException) -> str:
    """Tell what started an error in one line.

    Args:
        error: Any error, perhaps raised from another.

    Returns:
        The type of the first cause and the first line of its text.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
