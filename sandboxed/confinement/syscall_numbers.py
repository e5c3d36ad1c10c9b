"""The numbers of the system calls that the seccomp filter names, for x86-64 and for 64-bit ARM.

Rules that this module enforces:
- A call that an architecture lacks has no number there: it is absent, never 0 or -1.
- `reviewed` is what somebody looked at, up to Linux 6.18. Whatever lies outside of it is a call that came
  later, or none at all, and a filter cannot know what it does.

The numbers are the kernel's (arch/x86/entry/syscalls/syscall_64.tbl; scripts/syscall.tbl, which is
asm-generic/unistd.h) and never change. What the calls are refused for is in sandboxed.confinement.seccomp.

Out of scope: 32-bit programs and x32, whose calls the filter refuses as a whole; big-endian machines.
"""

import os
import sys

_X86_64, _AARCH64 = 0, 1

# Name: number on x86-64, number on 64-bit ARM. From 424 on all architectures share their numbers.
_NUMBERS: dict[str, tuple[int | None, int | None]] = {
    "_sysctl": (156, None),
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chmod": (90, None),
    "chown": (92, None),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "creat": (85, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "fchownat": (260, 54),
    "file_setattr": (469, 469),
    "fcntl": (72, 25),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "futimesat": (261, None),
    "get_robust_list": (274, 100),
    "init_module": (175, 105),
    "io_setup": (206, 0),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioctl": (16, 29),
    "ioperm": (173, None),
    "iopl": (172, None),
    "ioprio_set": (251, 30),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lchown": (94, None),
    "listmount": (458, 458),
    "lookup_dcookie": (212, 18),
    "lremovexattr": (198, 15),
    "lsetxattr": (189, 6),
    "migrate_pages": (256, 238),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "msgctl": (71, 187),
    "msgget": (68, 186),
    "msgrcv": (70, 188),
    "msgsnd": (69, 189),
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open": (2, None),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "open_tree_attr": (467, 467),
    "openat": (257, 56),
    "openat2": (437, 437),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "remap_file_pages": (216, 234),
    "removexattr": (197, 14),
    "removexattrat": (466, 466),
    "request_key": (249, 218),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "semctl": (66, 191),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "set_mempolicy_home_node": (450, 450),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "setrlimit": (160, 164),
    "setsockopt": (54, 208),
    "settimeofday": (164, 170),
    "setxattr": (188, 5),
    "setxattrat": (463, 463),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "shmget": (29, 194),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "statmount": (457, 457),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "sysfs": (139, None),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "utime": (132, None),
    "utimensat": (280, 88),
    "utimes": (235, None),
    "vhangup": (153, 58),
}


class Architecture:
    """One machine's numbers.

    audit_arch: AUDIT_ARCH_*, linux/audit.h, which seccomp shows as the architecture of a call.
    reviewed:   the first and the last number of each range that was looked at, both included.
    """

    def __init__(self, column: int, audit_arch: int, reviewed: tuple[tuple[int, int], ...]) -> None:
        self._column = column
        self.audit_arch = audit_arch
        self.reviewed = reviewed

    def numbers(self) -> dict[str, int]:
        """Every name that this architecture has, with its number."""
        column = self._column
        return {name: row[column] for name, row in _NUMBERS.items() if row[column] is not None}  # type: ignore[misc]


# 469 is file_setattr, the last call of Linux 6.18. The gaps are numbers that no call has: x86 took some of
# its own (335 uretprobe, 336 uprobe) as late as 6.11 and 6.18, so they count as unknown, not as harmless.
ARCHITECTURES = {
    "x86_64": Architecture(_X86_64, 0xC000003E, ((0, 336), (424, 469))),
    "aarch64": Architecture(_AARCH64, 0xC00000B7, ((0, 243), (260, 294), (424, 469))),
}


def native() -> Architecture | None:
    """This process's own architecture, None where it is neither of the two."""
    # A 32-bit interpreter on a 64-bit kernel makes 32-bit calls, whatever uname(2) says.
    return ARCHITECTURES.get(os.uname().machine) if sys.maxsize > 1 << 32 else None
