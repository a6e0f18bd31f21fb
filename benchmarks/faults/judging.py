"""What a fuzzed file came to, and whether that is right: a reading equal to the twin's, or a refusal in one sentence with file and line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults import twins
from scarce_common_utils.errors import UserError


class Refused:
    """A refusal in its sentence."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence


def outcome(read: Callable[[], Any]) -> Any:
    """What was read, or the refusal; any other error is the attempt's fault."""
    try:
        return read()
    except UserError as error:
        return Refused(str(error))


def sentence_of(found: Any, path: Path) -> list[str]:
    """Of a refusal: it is one line, and names the file."""
    if not isinstance(found, Refused):
        return []
    faults = ["the refusal has several lines: " + repr(found.sentence[:200])] if "\n" in found.sentence else []
    return faults + ([] if str(path) in found.sentence else ["the file is not named: " + found.sentence[:200]])


def judged(found: Any, expected: Any, path: Path, *, line: bool, word: str = "line") -> list[str]:
    """Equal to the twin's, or refused where the twin refuses, in the line that it says."""
    if not isinstance(expected, twins.Bad):
        if isinstance(found, Refused):
            return ["what is sound was refused: " + found.sentence[:200]]
        return [] if found == expected else [f"was read as {str(found)[:100]}, and the twin says {str(expected)[:100]}"]
    if not isinstance(found, Refused):
        return [f"what the twin refuses (line {expected.line}) was read as {str(found)[:100]}"]
    faults = sentence_of(found, path)
    if line and expected.line and f"{path}, {word} {expected.line}:" not in found.sentence:
        faults.append(f"the twin refuses line {expected.line}, and the sentence says: {found.sentence[:200]}")
    return faults
