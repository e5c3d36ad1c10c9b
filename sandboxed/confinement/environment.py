"""What a confined program inherits: an allow-list of variables, for others may be secrets; and the umask."""

import os
from collections.abc import Iterable, Mapping

from sandboxed.confinement.sandbox import Sandbox

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"

# What a program inherits of the caller's environment, besides LC_*. Anything else may hold a secret or an
# address (SSH_AUTH_SOCK, DBUS_SESSION_BUS_ADDRESS, tokens), or make the program load something (LD_*).
INHERITED_NAMES = frozenset({"PATH", "LANG", "TERM", "TZ", "COLUMNS", "LINES"})


def clean_environment(
    sandbox: Sandbox,
    extra: Mapping[str, str] | None = None,
    pass_names: Iterable[str] = (),
    inherited: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The environment of the program in `sandbox`: an allow-list of `inherited` (by default os.environ).

    `pass_names` are names to pass besides INHERITED_NAMES and LC_*; `extra` is set last and wins. HOME and TMPDIR
    are the program's own; names of the caller's account do not pass, since the program is somebody else.
    """
    source = os.environ if inherited is None else inherited
    wanted = INHERITED_NAMES.union(pass_names)
    environment = {name: value for name, value in source.items() if name in wanted or name.startswith("LC_")}
    environment.setdefault("PATH", DEFAULT_PATH)
    environment.update(HOME=sandbox.home, TMPDIR=sandbox.temporary)
    environment.update(extra or {})
    return environment


def current_umask() -> int:
    """This process's umask, which can only be read by setting it (umask(2))."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
