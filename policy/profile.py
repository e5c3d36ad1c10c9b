"""Sandbox profiles: what a program that `fdbroker run` confines gets besides its policy.

Enforced here:
- keys, words, paths, names and sizes are what they must be; nothing is said twice;
- devices come by the policy alone, so nothing below /dev, and a program's /proc is its own;
- what the broker sets in a program's environment is nobody else's to set;
- what makes a program load code is never passed on from whoever calls; a profile may set it to a value.

Out of scope: whether a path is there and what lies beneath it, where profiles are found and whether their
files can be trusted, and how what they say is carried out.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from . import fields, pathfields, profilefields
from .document import Section, read_sections
from .nodes import Mapping as MappingNode
from .nodes import Node, Scalar, Sequence, Unreadable
from .paths import split
from .problems import Abandoned, FileReport, PolicyError, Report, shown
from .rules import Source

NO_NETWORK = "none"
LOOPBACK = "loopback"
HOST_NETWORK = "host"


class Limits(msgspec.Struct, frozen=True):
    """What a program may use up; None says nothing."""

    memory: int | None = None
    """Bytes."""
    processes: int | None = None
    """Processes and threads at one time."""
    files: int | None = None
    """Open files of a process."""
    scratch: int | None = None
    """Bytes of the file systems in memory that are the program's own."""


class Profile(msgspec.Struct, frozen=True):
    """What a confined program gets besides its policy; the defaults say nothing."""

    description: str = ""
    """One printable line."""
    readonly: tuple[str, ...] = ()
    """Absolute paths that it finds at the same place and may read. Of two that nest, the deeper one counts."""
    writable: tuple[str, ...] = ()
    """Absolute paths that it finds at the same place and may change, as far as its user may."""
    environment: tuple[str, ...] = ()
    """Names of variables that are passed on from the caller."""
    variables: tuple[tuple[str, str], ...] = ()
    """Variables with the values that they are set to, whatever the caller has."""
    network: str | None = None
    """NO_NETWORK, LOOPBACK (one of its own) or HOST_NETWORK (the machine's)."""
    limits: Limits = Limits()


def load_profile(source: Source) -> Profile:
    """Return the profile that a file holds. Raises PolicyError with all of its problems."""
    report = Report()
    values = _values(source, FileReport(source.name, report))
    if report.problems:
        raise PolicyError(report.problems)
    return Profile(
        description=values.get("description", ""),
        readonly=_texts(values.get("ro", ())),
        writable=_texts(values.get("rw", ())),
        environment=_texts(values.get("env", ())),
        variables=tuple((name.text, value) for name, value in values.get("set", ())),
        network=values.get("net"),
        limits=Limits(**values.get("limits", {})),
    )


def _texts(nodes: tuple[Scalar, ...]) -> tuple[str, ...]:
    return tuple(node.text for node in nodes)


def _values(source: Source, report: FileReport) -> dict[str, Any]:
    """Read the top-level keys; what is told to `report` leaves a value out or makes it None."""
    values: dict[str, Any] = {}
    first: Scalar | None = None
    try:
        for section in read_sections(source.text, _TOP, report):
            first = first or section.key
            _read_section(section, values, report)
        if first is None:
            report.abandon(1, 1, "the file says nothing, expected 'version: 1' and what the program gets")
        if "version" not in values:
            report.at(first, "the file has no 'version', expected 'version: 1'")
        _refuse_repeated(values, ("ro", "rw"), report)
        _refuse_repeated(values, ("env", "set"), report)
    except Abandoned:
        pass
    return values


def _read_section(section: Section, values: dict[str, Any], report: FileReport) -> None:
    key = section.key
    field = _FIELDS.get(key.text)
    if field is not None:
        values[key.text] = field(_node(section), key.text, report)
    elif key.text in _OF_A_POLICY:
        report.at(key, f"{key.text!r} belongs to a policy, and this is a profile: give it with --policy")
    else:
        fields.unknown_key(key, _FIELDS, report)


def _node(section: Section) -> Node:
    """Return the section's value as a field takes it; a list or mapping stands where its key does."""
    place = (section.key.line, section.key.column)
    if section.kind is Sequence:
        return Sequence([node for _, node in section.entries], *place)
    if section.kind is MappingNode:
        return MappingNode([(key, node) for key, node in section.entries if key is not None], *place)
    return next(node for _, node in section.entries)


def _refuse_repeated(values: Mapping[str, Any], keys: tuple[str, str], report: FileReport) -> None:
    """Refuse what stands twice in one list, or in both: it cannot mean two things."""
    seen: dict[str, tuple[str, int]] = {}
    for key, found in values.items():
        for item in (found or ()) if key in keys else ():
            node = item if isinstance(item, Scalar) else item[0]
            if node.text in seen:
                other, line = seen[node.text]
                report.at(node, f"{shown(node.text)} stands in {other} already, on line {line}")
            seen.setdefault(node.text, (key, node.line))


def _path(node: Node, what: str, report: FileReport) -> Scalar | None:
    path = pathfields.literal_path(node, what, report)
    if path is None or not isinstance(node, Scalar):
        return None
    reason = _NEVER_BOUND.get(split(path)[0])
    if reason is not None:
        report.at(node, f"{what} has {shown(path)}: {reason}")
        return None
    return node


def _variable(node: Node, what: str, report: FileReport) -> Scalar | None:
    name = profilefields.variable_name(node, f"a name in {what}", report)
    if name is None or not isinstance(node, Scalar):
        return None
    if name in _OF_THE_BROKER or name.startswith(_BROKERS_PREFIX):
        report.at(node, f"{what} has {name!r}, which fdbroker itself sets or leaves out")
        return None
    return node


def _passed_on(node: Node, what: str, report: FileReport) -> Scalar | None:
    variable = _variable(node, what, report)
    if variable is None or not (variable.text in _LOADS_CODE or variable.text.startswith(_LOADERS_PREFIX)):
        return variable
    found = f"{what} has {shown(variable.text)}, which makes a program load code of the caller's choice"
    report.at(node, f"{found}: give it a value under 'set'")
    return None


def _set(node: Node, what: str, report: FileReport) -> tuple[tuple[Scalar, str], ...] | None:
    if fields.is_empty(node) or (isinstance(node, MappingNode) and not node.entries):
        report.at(node, f"{what} is empty")
        return None
    if not isinstance(node, MappingNode):
        if not isinstance(node, Unreadable):
            report.at(node, f"{what} is {fields.kind_of(node)}, expected a mapping of names to values")
        return None
    variables = []
    for key, value_node in node.entries:
        name = _variable(key, what, report)
        value = profilefields.variable_value(value_node, f"the value of {shown(key.text)}", report)
        if name is not None and value is not None:
            variables.append((name, value))
    return tuple(variables)


def _limits(node: Node, what: str, report: FileReport) -> dict[str, int | None] | None:
    return fields.mapping(_LIMITS, node, what, report)


# First components that no path of a profile may have.
_NEVER_BOUND = {
    # A device node is what the policy decides about, with a record of each open.
    "dev": "devices are the policy's: a rule gives them",
    # The machine's shows other processes, and files of theirs to open again.
    "proc": "a program has a /proc of its own",
}

# HOME and TMPDIR are the fresh directory, the one place where a program can write without being given it.
_OF_THE_BROKER = frozenset(("HOME", "TMPDIR"))
# FDBROKER_FD and FDBROKER_SOCKET say where the broker is; others choose how our own code works.
_BROKERS_PREFIX = "FDBROKER_"

# Whatever happens to stand in these variables when somebody calls `fdbroker run` must not be loaded into the
# program that gets what the policy gives: an `env` that passes them on is a slip. A value that stands in the
# profile is the administrator's own decision, so `set` takes them. The names are those that glibc drops for
# set-uid programs (ld.so(8)) and sudo in any case (initial_badenv_table in its env.c), as far as they load
# code, and their like of other interpreters and libraries. No list is complete, and none is needed to hold a
# hostile program: what confines it holds whichever code runs.
_LOADERS_PREFIX = "LD_"
_LOADS_CODE = frozenset(
    (
        *("GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "NLSPATH"),
        *("BASH_ENV", "ENV", "SHELLOPTS", "BASHOPTS", "PS4", "PROMPT_COMMAND", "IFS", "FPATH", "ZDOTDIR"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONBREAKPOINT"),
        *("PYTHONPLATLIBDIR", "PYTHONPYCACHEPREFIX", "PYTHONWARNINGS"),
        *("PERLLIB", "PERL5LIB", "PERL5OPT", "PERL5DB", "RUBYLIB", "RUBYOPT", "GEM_HOME", "GEM_PATH"),
        *("NODE_OPTIONS", "NODE_PATH", "LUA_PATH", "LUA_CPATH", "LUA_INIT", "PHPRC", "TCLLIBPATH"),
        *("CLASSPATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"),
        *("OPENSSL_CONF", "OPENSSL_MODULES", "OPENSSL_ENGINES", "GIO_EXTRA_MODULES", "GIO_MODULE_DIR"),
        *("GTK_MODULES", "GTK_PATH", "GDK_PIXBUF_MODULE_FILE", "QT_PLUGIN_PATH", "GIT_EXEC_PATH", "LESSOPEN"),
    )
)

_LIMITS: Mapping[str, fields.Field[int]] = {
    # Less starts no program; more than any machine has is a slip of the unit.
    "memory": profilefields.size("4M", "4096G"),
    # The most that the kernel numbers: PID_MAX_LIMIT of linux/threads.h.
    "processes": fields.number(1, 4_194_304),
    # Less leaves no room for the standard ones, the broker's connection and a loader's libraries; more than
    # the kernel's default fs.nr_open (proc_sys_fs(5)) cannot be set.
    "files": fields.number(16, 1_048_576),
    # None at all would be no limit to the kernel (tmpfs(5)).
    "scratch": profilefields.size("64K", "1024G"),
}

_FIELDS: Mapping[str, Callable[[Node, str, FileReport], Any]] = {
    "version": fields.word({"1": 1}),
    "description": fields.line,
    "ro": fields.any_of(_path),
    "rw": fields.any_of(_path),
    "env": fields.any_of(_passed_on),
    "set": _set,
    "net": fields.word({word: word for word in (NO_NETWORK, LOOPBACK, HOST_NETWORK)}),
    "limits": _limits,
}
_TOP = ", ".join(_FIELDS)
_OF_A_POLICY = frozenset(("clients", "sockets", "rules"))
