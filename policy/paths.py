"""The shape of a path, the same for requests and for the patterns of a policy.

A path is absolute, names something below "/", and has no NUL, no ".", "..", no empty component and no slash
at its end; it fits the kernel's limits and is text that encodes to UTF-8. Nothing is ever cleaned up: a path
of another shape is refused before it is compared with anything, since cleaning up changes what it means where
symbolic links are involved. Control characters are legal, as they are for the kernel.
"""

from collections.abc import Sequence

# Bytes, from limits.h: PATH_MAX counts the final NUL, NAME_MAX does not.
PATH_BYTES = 4_095
COMPONENT_BYTES = 255

_NOT_A_NAME = frozenset(("", ".", ".."))


def split(path: str) -> Sequence[str]:
    """Return the components of an absolute path; none for "/" and for what is not absolute."""
    return path[1:].split("/") if path[:1] == "/" and path != "/" else ()


def shape_fault(path: str) -> str:
    """Return what is wrong with the shape of `path`, or nothing."""
    if path[:1] != "/":
        return "it is not absolute"
    if "\0" in path:
        return "a NUL is not allowed"
    components = path[1:].split("/")
    if not _NOT_A_NAME.isdisjoint(components):
        return _component_fault(components)
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "it is no text that encodes to UTF-8"
    if size > PATH_BYTES:
        return f"it is longer than {PATH_BYTES} bytes"
    if size > COMPONENT_BYTES and any(len(part.encode()) > COMPONENT_BYTES for part in components):
        return f"a component is longer than {COMPONENT_BYTES} bytes"
    return ""


def _component_fault(components: list[str]) -> str:
    if ".." in components:
        return "'..' is not allowed"
    if "." in components:
        return "'.' is not allowed"
    if components == [""]:
        return "'/' itself is not allowed"
    if "" in components[:-1]:
        return "'//' is not allowed"
    return "a '/' at the end is not allowed"
