"""Names, paths and messages that came from outside, made fit for one line of a terminal."""

import unicodedata

LONGEST_LINE = 400  # a path, and as much again for what is wrong with it and the remedy
LONGEST_PATH = 200
LONGEST_NAME = 80
_JOINERS = "\u200c\u200d"


def one_line(text: object) -> str:
    """A message as one line of at most 400 characters: what a terminal would obey is escaped, the middle cut out.

    The ends stay, because a message begins with the file and ends with the remedy.
    """
    return _escaped(" ".join(_cut(str(text), 2 * LONGEST_LINE).split()), LONGEST_LINE)


def shown(path: object) -> str:
    """A path as a part of a message, escaped and cut as `one_line` does, at 200 characters."""
    return _escaped(str(path), LONGEST_PATH)


def quoted(name: object) -> str:
    """A name out of a file as a part of a message: in quotes, escaped, and cut at 80 characters."""
    return f"'{_escaped(str(name), LONGEST_NAME)}'"


def is_printable(text: str) -> bool:
    """Whether a name can be told by looking at it: no line break, nothing that a terminal obeys or that turns a line.

    Other than of `str.isprintable`, the spaces of all scripts and the joiners of some may be in it.
    """
    return all(letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) == "Zs" for letter in text)


def _escaped(text: str, longest: int) -> str:
    # cut before and after: the first spares escaping 50 MB, the second undoes what escapes add
    text = _cut(text, longest)
    if text.isprintable():
        return text
    return _cut("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text), longest)


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = (longest - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
