"""The words of the policy language: rights, file types, and the words that other versions of it know.

Rules enforced here:
- `write` implies `append`: every set of rights is closed under that when it is parsed.
- A right that was not named is not there; `use` and `edit` are nothing but short forms.

Which rights an allow may list in this version is the schema's subject.
"""

from collections.abc import Iterable
from enum import Enum, IntFlag


class Rights(IntFlag):
    """What may be done with an object. The order of the members is the order in which rights are shown."""

    READ = 1
    WRITE = 2
    APPEND = 4
    CREATE = 8
    TRUNCATE = 16
    IOCTL = 32
    LIST = 64
    CONNECT = 128
    LISTEN = 256


class FileType(Enum):
    """What kind of thing a path leads to; the values are the policy's words."""

    FILE = "file"
    DIRECTORY = "directory"
    CHAR = "char"
    BLOCK = "block"
    FIFO = "fifo"
    SOCKET = "socket"


NO_RIGHTS = Rights(0)
ALL_RIGHTS = Rights((Rights.LISTEN << 1) - 1)

RIGHT_WORDS: dict[str, Rights] = {
    **{name.lower(): right for name, right in Rights.__members__.items()},
    "write": Rights.WRITE | Rights.APPEND,
    "use": Rights.READ | Rights.WRITE | Rights.APPEND | Rights.IOCTL,
    "edit": Rights.READ | Rights.WRITE | Rights.APPEND | Rights.TRUNCATE,
}

# Plain numbers for the decision: operators of IntFlag cost some ten times those of int.
_WRITE = int(Rights.WRITE)
_APPEND = int(Rights.APPEND)
_WORDS_IN_ORDER = [(name.lower(), right.value) for name, right in Rights.__members__.items()]


def with_implied(rights: int) -> int:
    """Return `rights` and what they imply: who may write may append."""
    return rights | _APPEND if rights & _WRITE else rights


def with_implying(rights: int) -> int:
    """Return `rights` and what implies one of them: who may not append may not write either."""
    return rights | _WRITE if rights & _APPEND else rights


def without_implied(rights: int) -> int:
    """Return `rights` as they are counted and shown: `append` is not named beside `write`."""
    return rights & ~_APPEND if rights & _WRITE else rights


def parse_rights(words: Iterable[str]) -> Rights:
    """Return the rights that `words` name, closed under implication.

    Raises ValueError, with a message for whoever wrote the words, on an unknown one. `all` is unknown here:
    only a deny may say it.
    """
    rights = 0
    for word in words:
        right = RIGHT_WORDS.get(word)
        if right is None:
            raise ValueError(f"unknown right {word!r}, expected one of {', '.join(RIGHT_WORDS)}")
        rights |= right.value
    return Rights(rights)


def rights_words(rights: Rights | int) -> list[str]:
    """Return the words for `rights` in canonical order, without `append` where `write` is there."""
    counted = without_implied(int(rights))
    return [word for word, right in _WORDS_IN_ORDER if counted & right]
