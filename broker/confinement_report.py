"""What became of the worker's confinement, for the audit and for whoever asks; and which layers there must be.

It is the first thing that a worker says, before it has read a byte of a client's, and nothing that it says later
changes it.
"""

import json
from collections.abc import Collection
from typing import Any, NamedTuple

from sandboxed.confinement.sandbox import LANDLOCK, SECCOMP, LayerMissing
from sandboxed.syscalls import landlock_abi, seccomp_get_action_avail

__all__ = ["AS_IT_COMES", "LANDLOCK", "SECCOMP", "Confinement", "Setting", "missing_layers"]

_ERRNO_ACTION = 0x00050000  # SECCOMP_RET_ERRNO, linux/seccomp.h


class Setting(NamedTuple):
    """How the worker of a broker is to be confined.

    account: the user that it becomes as root, if there is such an account; else an unused uid of its own.
    without: the layers that the machine cannot give and that were accepted by name.
    """

    account: str | None = None
    without: frozenset[str] = frozenset()


AS_IT_COMES = Setting()


class Confinement:
    """How a worker is confined.

    uid, uid_reason: who it is, and why.
    capabilities, groups: what it kept, each with the ids of rules that need it.
    lacking: capabilities that rules need and that this broker does not have: it cannot serve what they give.
    reaches: how many trees, files and device nodes its Landlock domain names.
    without: the layers that it does without, each with the reason.
    """

    def __init__(
        self,
        uid: int,
        uid_reason: str,
        capabilities: dict[str, list[str]],
        groups: dict[int, list[str]],
        lacking: dict[str, list[str]],
        reaches: dict[str, int],
        without: dict[str, str],
    ) -> None:
        self.uid = uid
        self.uid_reason = uid_reason
        self.capabilities = capabilities
        self.groups = groups
        self.lacking = lacking
        self.reaches = reaches
        self.without = without

    def fields(self) -> dict[str, Any]:
        """Everything, for an audit record."""
        return dict(vars(self))

    def encoded(self) -> bytes:
        """As JSON."""
        return json.dumps(self.fields(), separators=(",", ":")).encode("ascii")

    @classmethod
    def decoded(cls, data: bytes) -> "Confinement":
        """What encoded() gave. Raises ValueError, TypeError."""
        fields = json.loads(data)
        fields["groups"] = {int(gid): rules for gid, rules in fields["groups"].items()}
        return cls(**fields)


def missing_layers(accepted: Collection[str]) -> list[LayerMissing]:
    """The layers that this machine cannot give to a worker, all of them accepted. Raises LayerMissing for another."""
    missing = []
    if landlock_abi() == 0:
        help = "Boot with 'landlock' among the modules of the parameter lsm= (Linux 5.13 or later)"
        missing.append(LayerMissing(LANDLOCK, "the kernel does not offer Landlock", help))
    if not seccomp_get_action_avail(_ERRNO_ACTION):
        help = "Use a kernel with CONFIG_SECCOMP_FILTER on x86-64 or arm64"
        missing.append(LayerMissing(SECCOMP, "system calls cannot be filtered", help))
    for layer in missing:
        if layer.layer not in accepted:
            raise layer
    return missing
