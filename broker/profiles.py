"""Finds sandbox profiles: by name among the ready ones, or by the path of a file.

The administrator's profiles win over those that fdbroker ships, also when they have mistakes: a name must not
quietly come to mean something that the administrator replaced. `policy.profile` says what a profile holds.
"""

import os
import re
from typing import NamedTuple

import policy
from broker.limits import PROFILE_BYTES
from broker.policyfiles import UnreadablePolicy, read_file
from policy import PolicyError
from policy.problems import did_you_mean
from policy.profile import Profile, load_profile

ADMINISTRATORS = "/etc/fdbroker/profiles.d"
SHIPPED = os.path.join(os.path.dirname(policy.__file__), "profiles")

_ENDING = ".yaml"
_NAME = re.compile(r"[a-z0-9-]+")


class ReadyProfile(NamedTuple):
    """A profile that has a name."""

    name: str
    description: str
    """One line, for a list; says so when the profile cannot be used."""


def find(name_or_path: str) -> Profile:
    """The profile of that name, or the one in that file: a path holds a slash or ends in .yaml.

    Raises UnreadablePolicy, also for a name that there is not, and policy.PolicyError for what the file says.
    """
    path = place_of(name_or_path)
    if path is None:
        raise UnreadablePolicy(_no_such(name_or_path))
    return load_profile(read_file(path, PROFILE_BYTES))


def names() -> list[ReadyProfile]:
    """The profiles that have a name, sorted. Raises nothing: a list for --help must not fail."""
    return [ReadyProfile(name, _description(name)) for name in _known()]


def place_of(name_or_path: str) -> str | None:
    """The file that find() reads; None for a name that there is not. Raises UnreadablePolicy where nobody can tell."""
    if "/" in name_or_path or name_or_path.endswith(_ENDING):
        return name_or_path
    return _path_of(name_or_path) if _NAME.fullmatch(name_or_path) else None


def _path_of(name: str) -> str | None:
    """Where the profile of that name stands; None if nowhere. Raises UnreadablePolicy where nobody can tell."""
    for directory in (ADMINISTRATORS, SHIPPED):
        path = os.path.join(directory, name + _ENDING)
        try:
            # A link that leads nowhere is there: it takes the name's shipped meaning away.
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UnreadablePolicy(f"{path}: {error.strerror}") from error
        return path
    return None


def _known() -> list[str]:
    found: set[str] = set()
    for directory in (ADMINISTRATORS, SHIPPED):
        try:
            found.update(
                file.removesuffix(_ENDING) for file in os.listdir(directory) if file.endswith(_ENDING)
            )
        except OSError:
            continue
    return sorted(name for name in found if _NAME.fullmatch(name))


def _description(name: str) -> str:
    try:
        return find(name).description
    except (UnreadablePolicy, PolicyError):
        return f"(cannot be used: `fdbroker run --profile {name}` tells why)"


def _no_such(name: str) -> str:
    known = _known()
    near = did_you_mean(known, name)
    return (
        f"there is no profile {name!r}, expected one of {', '.join(known)} (more go into {ADMINISTRATORS}), "
        f"or a file as ./FILE or FILE.yaml{near}"
    )
