"""Functions that loader workers import: spawned processes find this file by the path, not the test modules."""


def numbers(examples):
    return [example.number for example in examples]


def as_text(examples):
    """The batch's number and the letters of its windows."""
    from randommask.alphabet import bases

    (number,) = {example.number for example in examples}
    return number, [bases(example.example) for example in examples]
