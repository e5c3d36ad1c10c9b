"""Takes system calls away for real: a seccomp filter refuses them, as containers' filters do.

    python -I tests/refusing.py unshare,landlock_create_ruleset COMMAND…

runs COMMAND so. Each call fails with the errno that a machine without it would give.
"""

import os
import sys
from collections.abc import Iterable
from errno import EAGAIN, EIO, ENOSYS, EPERM

if __name__ == "__main__":  # -I keeps the tree from sys.path
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from sandboxed import syscalls
from sandboxed.confinement import bpf, syscall_numbers

_PR_SET_NO_NEW_PRIVS = 38
_EVERY_NUMBER = ((0, 0x7FFFFFFF),)

# What the filter of the sandbox does not name: number on x86-64, number on 64-bit ARM.
_MORE_NUMBERS = {
    "capset": (126, 91),
    "execve": (59, 221),
    "landlock_add_rule": (445, 445),
    "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446),
    "pidfd_open": (434, 434),
    "seccomp": (317, 277),
    "setpgid": (109, 154),
    "setresgid": (119, 149),
    "setresuid": (117, 147),
    "setrlimit": (160, 164),
    "setsid": (112, 157),
}

# Others are refused with EPERM.
_ERRNO = {"landlock_create_ruleset": ENOSYS, "seccomp": ENOSYS, "clone": EAGAIN, "execve": EIO}


def refuse_calls(names: Iterable[str]) -> None:
    """Refuse these system calls to this process and to all that come of it, for ever."""
    native = syscall_numbers.native()
    assert native is not None, "no system call numbers of this machine are known"
    column = 0 if native.audit_arch == syscall_numbers.ARCHITECTURES["x86_64"].audit_arch else 1
    numbers = native.numbers() | {name: both[column] for name, both in _MORE_NUMBERS.items()}
    table = {numbers[name]: (((), bpf.refuse(_ERRNO.get(name, EPERM))),) for name in names}
    syscalls.prctl(_PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp_set_filter(bpf.assemble(native.audit_arch, _EVERY_NUMBER, table), 0)


if __name__ == "__main__":
    refuse_calls(sys.argv[1].split(","))
    os.execvp(sys.argv[2], sys.argv[2:])
