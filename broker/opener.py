"""Opens what a client asks for, where the policy allows it: the one place that turns a decision into an fd.

Rules that this module enforces, in this order:
1. the asked path must match the policy before any system call is made for it;
2. the name is walked with O_PATH, so nothing is opened to look at it (`broker.walk`);
3. the policy decides on the object that was found: its type, and every name that led to it;
4. a device node counts only on devtmpfs or devpts, and a directory is never handed out;
5. that very object is opened, not its name again, never waiting for a FIFO or a lease;
6. a device that was decided on by what sysfs and udev say of it is still that device after the open.

An object is remembered only below directories that root alone can change, and until something is mounted; never one
that was decided on by what sysfs and udev say.
Its name is then opened at once, and the fd is used only if it is the same object, of the same kind, as the
one that was decided on.
"""

import errno
import os
import time
import weakref
from collections.abc import Callable

from broker.answers import reply_tail
from broker.devicefacts import DeviceFacts, Seen
from broker.found import DEVICES, device_systems, hidden_name, never_given, object_of, other_names
from broker.hotpath import expected, open_same
from broker.limits import PATH_BYTES
from broker.outcome import Outcome, outcome_fields, refused, shown_names
from broker.plans import Plan
from broker.records import printable
from broker.walk import (
    MayBlock,
    Walked,
    Walker,
    WalkFailed,
    WalkRefused,
    encoded,
)
from policy import FileType, Object, Policy, Rights
from policy.devices import Device
from sandboxed.syscalls import RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS

_DIRECT = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_FORCED = os.O_CLOEXEC | os.O_NOCTTY


class Opener:
    """Opens by one policy. `Opener.open` never waits; `open_slowly` may, and belongs in a process of its own."""

    def __init__(self, policy: Policy, clock: Callable[[], float] = time.time) -> None:
        """`clock` gives seconds since 1970. Raises OSError where /proc is not mounted."""
        self._policy = policy
        self._clock = clock
        self._walker = Walker()
        # Devices count from the broker's own /dev: the file system that its kernel fills.
        self._device_systems = device_systems()
        self._facts = DeviceFacts(policy)
        self._remembering: weakref.WeakSet[Plan] = weakref.WeakSet()
        self._was_root = os.geteuid() == 0
        self.kept_away: Callable[[], None] = lambda: None
        """Called when the policy gives an object and the kernel does not let this process open it."""

    def close(self) -> None:
        """Close what the opener holds."""
        self._walker.close()

    def fds(self) -> tuple[int, ...]:
        """The fds that the opener works with: a process that is to use it keeps them."""
        return self._walker.fds()

    def mount_changes(self) -> int:
        """An fd for an event loop: at each EPOLLPRI of it, forget_known() is due."""
        return self._walker.mount_changes()

    def slow_points(self) -> list[str]:
        """The mount points of what may block."""
        return self._walker.slow_points()

    def real(self, path: str) -> str | None:
        """`path` without links; None where there is nothing, or something that may block."""
        try:
            walked = self._walker.walk(path)
        except (MayBlock, WalkFailed, WalkRefused):
            return None
        os.close(walked.fd)
        return walked.path

    def look_at(self, node: str) -> tuple[FileType | None, Device | None]:
        """What is known of the device that is at `node`, a path without links."""
        try:
            walked = self._walker.walk(node)
        except (MayBlock, WalkFailed, WalkRefused):
            return None, None
        try:
            found = self._facts.all_of(object_of(walked, ()), walked)
            return found.type, found.device
        finally:
            os.close(walked.fd)

    def forget_known(self) -> None:
        """Decide anew on every object: a dead mount over a known name would keep open_known() waiting."""
        for plan in self._remembering:
            plan.known = None
        self._remembering.clear()

    def open_known(self, plan: Plan) -> int:
        """An fd of the object that was decided on before, or -1: then open() must decide."""
        known = plan.known
        if known is None:
            return -1
        fd = open_same(plan.path, known)
        if fd < 0:
            plan.known = None
        return fd

    def open(self, plan: Plan) -> Outcome:
        """Decide and open. Raises MayBlock when only open_slowly() can tell."""
        return self._open(plan, may_block=False)

    def open_slowly(self, plan: Plan) -> Outcome:
        """Like open(), on mounts too that may keep the caller waiting for ever."""
        return self._open(plan, may_block=True)

    def _open(self, plan: Plan, may_block: bool) -> Outcome:
        considered = self._policy.consider(plan.request, plan.peer, self._clock())
        if considered.refusal is not None:
            return refused(considered.refusal)
        try:
            walked = self._walker.walk(plan.request.path, may_block)
        except WalkRefused as refusal:
            return Outcome("deny", reason=str(refusal), by_broker=True)
        except WalkFailed as failure:
            return self._not_found(plan, failure)
        try:
            others = other_names(self._walker, considered.literals, walked, may_block)
            found = considered.named(object_of(walked, walked.names), others.same)
            return self._open_object(plan, walked, found, others.settled, hidden_name(walked, considered))
        finally:
            os.close(walked.fd)

    def _not_found(self, plan: Plan, failure: WalkFailed) -> Outcome:
        """A walk that failed: its errno is told only where every name on it is one that the policy gives."""
        verdict = self._policy.decide(plan.request, plan.peer, None, self._clock())
        if failure.links or not verdict.allowed:
            reason = f"{printable(failure.name)[:PATH_BYTES]}: {os.strerror(failure.errno)}"
            return Outcome(
                "deny", reason=reason if failure.links else verdict.reason, by_broker=failure.links > 0
            )
        if failure.errno == errno.EACCES and self._was_root:
            self.kept_away()
        return Outcome("failed", rule=verdict.rule, errno=failure.errno, reason=os.strerror(failure.errno))

    def _open_object(self, plan: Plan, walked: Walked, found: Object, settled: bool, hidden: str) -> Outcome:
        seen = self._facts.of(plan.request, plan.peer, found, walked)
        found = seen.object
        verdict = self._policy.decide(plan.request, plan.peer, found, self._clock())
        device = walked.status.st_rdev if found.type in DEVICES else None
        facts = Outcome(
            "deny",
            rule=verdict.rule,
            reason=verdict.reason,
            path=walked.path,
            device=device,
            kind=found.type,
            names=shown_names(found.names),
            link=found.last_link and device is not None,
        )
        if not verdict.allowed:
            return facts
        never = never_given(walked, found.type, self._device_systems)
        if never or hidden:
            return facts._replace(reason=never or hidden, by_broker=bool(never))
        flags = _open_flags(verdict.rights, plan.asked.flags)
        if flags & os.O_NOFOLLOW and walked.ends_in_link:
            return facts._replace(verdict="failed", errno=errno.ELOOP, reason="the last component is a link")
        try:
            fd = self._reopen(walked, flags, seen)
        except OSError as error:
            if error.errno == errno.EACCES and self._another_could(walked, flags):
                self.kept_away()
            return facts._replace(
                verdict="failed", errno=error.errno or errno.EIO, reason=error.strerror or str(error)
            )
        outcome = facts._replace(verdict="allow", fd=fd, rights=verdict.rights)
        if settled and seen.settled:
            self._remember(plan, walked, flags, outcome)
        return outcome

    def _another_could(self, walked: Walked, flags: int) -> bool:
        """Whether a process that was confined now could open it: root's can have what it takes, another's can not."""
        if self._was_root:
            return True
        mode = flags & os.O_ACCMODE
        wanted = (os.W_OK if mode != os.O_RDONLY else 0) | (os.R_OK if mode != os.O_WRONLY else 0)
        return os.access(f"/proc/self/fd/{walked.fd}", wanted, effective_ids=True)  # without asking Landlock

    def _reopen(self, walked: Walked, flags: int, seen: Seen) -> int:
        fd = _reopen(walked, flags)
        if not self._facts.is_still(seen):
            os.close(fd)
            raise OSError(errno.ESTALE, "the device is another one by now")
        return fd

    def _remember(self, plan: Plan, walked: Walked, flags: int, outcome: Outcome) -> None:
        if not walked.guarded or walked.names:
            return
        plan.path = encoded(plan.request.path)
        plan.known = expected(flags, _DIRECT, walked.status)
        plan.known_fields = plan.asked_fields + outcome_fields(outcome)
        plan.reply_tail = reply_tail(outcome)
        self._remembering.add(plan)


def _reopen(walked: Walked, flags: int) -> int:
    """Open the object behind an O_PATH fd. Raises OSError.

    O_NONBLOCK keeps a FIFO or a lease from stalling the broker; it is a flag of the open file description,
    so it is cleared again for the client.
    """
    fd = os.open(f"/proc/self/fd/{walked.fd}", (flags & ~os.O_NOFOLLOW) | os.O_NONBLOCK | _FORCED)
    try:
        before, after = walked.status, os.fstat(fd)
        if (before.st_dev, before.st_ino, before.st_rdev) != (after.st_dev, after.st_ino, after.st_rdev):
            raise OSError(errno.ESTALE, "the object changed while it was opened")
        if after.st_nlink == 0 and before.st_rdev:
            raise OSError(errno.ENODEV, "the device is gone")
        if not flags & os.O_NONBLOCK:
            os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_flags(rights: Rights, flags: int) -> int:
    """open(2) flags for the rights that were given.

    Append without write is asked for under a rule that gives write too: that its holder can clear O_APPEND gives
    it nothing that it could not have had.
    """
    if rights & Rights.WRITE:
        mode = os.O_RDWR if rights & Rights.READ else os.O_WRONLY
    elif rights & Rights.APPEND:
        mode = (os.O_RDWR if rights & Rights.READ else os.O_WRONLY) | os.O_APPEND
    else:
        mode = os.O_RDONLY
    return mode | flags
