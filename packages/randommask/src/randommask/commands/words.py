"""From a person's words to numbers, and from sentences to lines of a terminal."""

import textwrap

from scarce_common_utils.errors import UserError


def wrapped(text: str) -> str:
    """Lines of at most 80 characters; names and numbers stay whole."""
    return textwrap.fill(text, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def integers_of(flag: str, text: str | None) -> tuple[int, ...] | None:
    """Integers joined by commas; None of None.

    Raises:
        UserError: it is something else; the option is named.
    """
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(f"{flag} is {text!r}, but it takes integers joined by commas, such as 6,8,10.") from error
