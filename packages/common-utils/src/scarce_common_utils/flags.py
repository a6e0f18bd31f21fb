"""What a field of a command's dataclass says of itself: help and range of an option, or the words without a flag."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Option:
    """What the help says of a field, and the range of its values.

    Attributes:
        help: one sentence; `unit` is appended in brackets.
        at_least, at_most, above, below: bounds of a number; a value outside them is refused with the value and the bound.
        unit: such as `steps` or `images`.
        short: a second, short flag, such as `-o`.
        negatable: whether a yes-or-no option has a `--no-` form.
    """

    help: str
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    below: float | None = None
    unit: str = ""
    short: str = ""
    negatable: bool = True


@dataclasses.dataclass(frozen=True)
class Operands:
    """Marks the field that takes the words without a flag: a string or None, or a tuple of strings (any number)."""

    name: str
    help: str
