"""FASTA line by line: the records of a file's bytes, or the line that cannot be."""

CODES = dict(zip("ACGTURYSWKMBDHVN", "ACGTTNNNNNNNNNNN", strict=True))


def records(raw):
    """([(name, letters)], None), or (None, line from 1 that is refused; 0 where the file is empty)."""
    names, found, name = set(), [], None
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(raw.split(b"\n"), 1):
        if name is None and not line.strip(b" \t\r"):
            continue
        start = line.lstrip(b" \t\r") if name is None else line
        if start.startswith(b">"):
            words = start[1:].split(None, 1)
            if not words or b"\r" in start.rstrip(b" \t\r\x0b\x0c") or words[0] in names:
                return None, number
            name = words[0]
            names.add(name)
            found.append([name.decode("utf-8", "replace"), ""])
            continue
        if name is None:
            return None, number
        for letter in line.translate(None, b" \t\r").decode("latin-1"):
            if letter.upper() not in CODES or not letter.isascii():
                return None, number
            found[-1][1] += CODES[letter.upper()]
    if name is None:
        return None, 0
    return [(name, letters) for name, letters in found if letters], None
