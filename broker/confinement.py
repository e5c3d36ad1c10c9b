"""Confining the worker, for ever: what it may still do when somebody has taken it over.

Layers, in the order in which they are put on:
- network: as root, an empty network namespace of its own. (Its system calls make no sockets anyway.)
- limits: processes, core dumps, locked memory and the like (`sandboxed.confinement.resources`).
- privileges: as root a uid of its own; the groups and capabilities that the policy's rules need and no others;
  no_new_privs, locked securebits, empty bounding and ambient sets; not dumpable.
- landlock: what the policy reaches, and nothing else (`broker.worker_domain`).
- seccomp: what the worker's code calls, and nothing else (`broker.worker_filter`).

Landlock or seccomp may be missing only where that was accepted by name. The root directory and the mount namespace
stay the supervisor's: the worker walks the real tree, and must see what is mounted on it (docs/architecture.md).

The worker keeps uid 0, without capabilities but those that are needed, where the policy reaches a mount whose server
decides who may do what (FUSE, NFS): it would not know the worker's own uid.

See capabilities(7), landlock(7), seccomp(2).
"""

import contextlib
import os
import resource
import stat
from typing import NamedTuple

import prctl

from broker import worker_domain, worker_filter
from broker.confinement_report import LANDLOCK, SECCOMP, Confinement, Setting
from broker.limits import CONNECTIONS, HELPERS, RESERVED_FDS
from broker.privileges_needed import CAPABILITY_NAMES, Needs, look
from broker.worker_reach import Machine, Reach
from policy import Policy
from sandboxed import syscalls
from sandboxed.confinement import identities, privileges, resources, seccomp
from sandboxed.confinement.sandbox import Limits, lies_in

# Fds that may be on their way to clients at once: a reply with a batch of 64 for every connection. Who is no root has
# no more of them in flight than its limit of open files (unix(7), ETOOMANYREFS), for all clients together.
_FDS = CONNECTIONS * 65 + RESERVED_FDS

# Processes of the worker's own uid: itself, and its helpers with those that are about to end.
_PROCESSES = 1 + 2 * HELPERS


class _Identity(NamedTuple):
    uid: int | None
    gid: int | None
    reason: str


def raise_limits() -> None:
    """As root, before the worker looks at it: room for as many fds as its connections may take."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # no CAP_SYS_RESOURCE, or fs.nr_open is lower
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, _FDS), max(hard, _FDS)))


def confine(policy: Policy, setting: Setting, machine: Machine) -> tuple[Confinement, list[object]]:
    """Confine this process, which has one thread. Returns what came of it, and what must live as long as it.

    Raises OSError, privileges.PrivilegeError and others: the process must end then.
    """
    reach = Reach(policy, machine)
    slow = machine.slow_points()
    held: list[object] = []
    identity = _identity(setting, _slow_place(reach, slow), held)
    uid = os.geteuid() if identity.uid is None else identity.uid
    gid = os.getegid() if identity.gid is None else identity.gid
    may_set_groups = bool(prctl.cap_effective.setgid)
    groups = frozenset((gid,)) if may_set_groups else frozenset((gid, *os.getgroups()))
    needs = Needs(reach, uid, groups, lambda path: None if lies_on(path, slow) else look(path))
    has = {number for number in needs.capabilities if getattr(prctl.cap_permitted, _short(number))}
    confinement = Confinement(
        uid=uid,
        uid_reason=identity.reason,
        capabilities={
            CAPABILITY_NAMES[number]: rules for number, rules in needs.capabilities.items() if number in has
        },
        groups=needs.groups if may_set_groups else {},
        lacking={
            CAPABILITY_NAMES[number]: rules
            for number, rules in needs.capabilities.items()
            if number not in has
        },
        reaches={"trees": len(reach.trees), "files": len(reach.files), "nodes": len(reach.nodes)},
        without=dict.fromkeys(sorted(setting.without), "accepted"),
    )
    _leave_network(confinement)
    _limit_resources(identity.uid is not None)
    domain = None if LANDLOCK in setting.without else worker_domain.build(reach, policy.needs_devices)
    program = None if SECCOMP in setting.without else worker_filter.build()
    privileges.reduce(identity.uid, identity.gid, needs.groups.keys() if may_set_groups else (), has)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 0)  # a change of uid may have made it so again
    if domain is not None:
        domain.restrict()
        domain.close()
    if program is not None:
        seccomp.install(program)
    return confinement, held


def lies_on(path: str, points: list[str]) -> bool:
    """Whether `path` lies on one of these mount points: it may not be touched then."""
    return any(lies_in(path, point) for point in points)


def _short(number: int) -> str:
    return CAPABILITY_NAMES[number].removeprefix("CAP_").lower()


def _slow_place(reach: Reach, points: list[str]) -> str:
    """A mount point whose server decides by itself, if the policy leads to one."""
    for point in points:
        for path in (*reach.trees, *reach.files):
            if lies_in(path, point) or lies_in(point, path):
                return point
    return ""


def _identity(setting: Setting, slow: str, held: list[object]) -> _Identity:
    if os.geteuid() != 0:
        return _Identity(None, None, "not root: its own")
    if not (prctl.cap_effective.setuid and prctl.cap_effective.setgid):
        return _Identity(None, None, "root may not change it here")
    if slow:
        return _Identity(None, None, f"the server of {slow} decides by the uid")
    if setting.account is not None:
        with contextlib.suppress(identities.IdentityError):
            found = identities.lookup(setting.account)
            if found.uid:
                return _Identity(found.uid, found.gid, f"the account {setting.account}")
    try:
        free = identities.unused_uid()
    except identities.IdentityError as error:
        return _Identity(None, None, str(error))
    held.append(free)
    return _Identity(free.uid, free.gid, "unused by anybody else")


def _leave_network(confinement: Confinement) -> None:
    if not prctl.cap_effective.sys_admin:
        confinement.without["network"] = "not privileged to make a network namespace; no sockets by seccomp"
        return
    try:
        syscalls.unshare(syscalls.CLONE_NEWNET)
    except OSError as error:
        confinement.without["network"] = f"{error.strerror}; no sockets by seccomp"


def _limit_resources(has_own_uid: bool) -> None:
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where others have the same uid, their processes count as well.
    resources.limit_resources(Limits(files=files, processes=_PROCESSES if has_own_uid else None))
    if not any(
        stat.S_ISREG(os.fstat(fd).st_mode) for fd in (1, 2)
    ):  # what it says of itself may go to a file
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
