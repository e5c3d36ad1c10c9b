"""What fields say of themselves, for the JSON Schema by which editors complete and check a policy file.

It stands beside what reads the value, so that the two are changed together; and it is made when it is asked for, so
that nobody else pays for it. How the parts are put together is the subject of `shapes`.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from .shapes import Shape, Shapes

Reader = TypeVar("Reader", bound=Callable[..., Any])

Describe = Callable[["Shapes"], "Shape"]

_DESCRIBE = "describe"
_MEANING = "meaning"


def described(describe: Describe) -> Callable[[Reader], Reader]:
    """Have a field, or what reads the entries of a section, say of itself what `describe` returns."""

    def keep(reader: Reader) -> Reader:
        reader.__dict__[_DESCRIBE] = describe
        return reader

    return keep


def about(meaning: str, reader: Reader) -> Reader:
    """Return what reads as `reader` does, and says what its value means where it stands: one plain sentence."""
    told = partial(reader)
    told.__dict__[_MEANING] = meaning
    return cast(Reader, told)


def description_of(reader: Callable[..., Any]) -> tuple[Callable[..., Any], Describe | None, str]:
    """Return the field that `reader` is, its description if it has one, and what it means or nothing."""
    meaning = reader.__dict__.get(_MEANING, "")
    field = reader.func if isinstance(reader, partial) else reader
    return field, field.__dict__.get(_DESCRIBE), meaning
