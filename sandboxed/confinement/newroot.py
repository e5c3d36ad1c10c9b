"""The empty root: a file system in memory, with what the plan shows of the machine, and nothing else.

Rules that this module enforces:
- Everything that is shown is a mount of its own without set-id bits and device nodes; without writing too, unless
  it was given for writing. All mounts below it are shown in the same way.
- The harmless devices are shown one by one; the terminals are those of a devpts of the program's own; /proc is
  that of its own pids, and cannot be written.
- What the program may write of its own (its directory, /tmp, /dev/shm) lies in memory, has one limit for all, and is
  gone with the last process.
- A name inside the new root is never resolved outside of it.

Called by the init of the new namespaces, which holds the privileges over them. See mount_namespaces(7).
"""

import errno
import os
import stat

from sandboxed import syscalls
from sandboxed.confinement.layout import DEVICE_LINKS, HARMLESS_DEVICES, MASKED, SYSTEM_TREES, Shown, plan
from sandboxed.confinement.mount_calls import (
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    mount,
    mount_setattr,
    move_mount,
    open_tree_clone,
    pivot_root,
    umount2,
)
from sandboxed.confinement.namespaces import HOST_NAME
from sandboxed.confinement.sandbox import HOST, SCRATCH_BYTES, Sandbox, StartError, lies_in

# A directory that every machine has, to build the new root upon. What lay there is opened before.
_BASE = "/tmp"

# Terminals that the program can make. The machine has 4,096 (kernel.pty.max), of which only its own root keeps some:
# without a limit one program would leave none for others.
_TERMINALS = 256

# Bytes and files of the root itself: names, links and a few short files.
_ROOT_OPTIONS = "mode=0755,size=4m,nr_inodes=16k"

# Files and directories that the program can make in memory: each is a kilobyte of the kernel's, whatever its size.
_SCRATCH_INODES = 256 * 1024

# How a machine refuses to mount at all, by a filter or an old kernel: no path's fault, so the layer is missing.
_REFUSED_TO_ALL = (errno.EPERM, errno.ENOSYS)

_NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"


class Root:
    """A root under construction; `enter` makes it the one of this process and its children."""

    def __init__(self, sandbox: Sandbox) -> None:
        """Take hold of all that is to be shown. Raises StartError for what cannot be, OSError for the rest."""
        self._sandbox = sandbox
        self._uid = os.getuid() if sandbox.uid is None else sandbox.uid
        self._gid = os.getgid() if sandbox.gid is None else sandbox.gid
        mount(None, "/", None, MS_REC | MS_PRIVATE)
        self._links: list[tuple[str, str]] = []
        self._mounts: list[tuple[str, int, bool]] = []
        for item in plan(sandbox):
            self._take(item)
        for name in (*HARMLESS_DEVICES, "tty"):
            self._take_device(f"/dev/{name}")

    def _take(self, item: Shown) -> None:
        if item.system and os.path.islink(item.path):
            target = os.path.join(os.path.dirname(item.path), os.readlink(item.path))
            if lies_in(os.path.normpath(target), SYSTEM_TREES[0]):
                self._links.append((item.path, os.readlink(item.path)))
                return
        try:
            tree = open_tree_clone(item.path, follow=not item.nested)
        except OSError as error:
            if item.system and isinstance(error, FileNotFoundError):
                return
            if error.errno in _REFUSED_TO_ALL:
                raise
            raise StartError(f"{item.path} cannot be shown: {error.strerror}") from error
        if stat.S_ISLNK(os.fstat(tree).st_mode):
            raise StartError(f"{item.path} cannot be shown: it has become a link")
        attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
        mount_setattr(tree, attributes if item.writable else attributes | MOUNT_ATTR_RDONLY)
        self._mounts.append((item.path, tree, stat.S_ISDIR(os.fstat(tree).st_mode)))

    def _take_device(self, path: str) -> None:
        tree = open_tree_clone(path, recursive=False)
        if not stat.S_ISCHR(os.fstat(tree).st_mode):
            raise StartError(f"{path} is no character device")
        mount_setattr(tree, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, recursive=False)
        self._mounts.append((path, tree, False))

    def enter(self) -> None:
        """Build the root, go into it, and let go of the old one."""
        mount("tmpfs", _BASE, "tmpfs", MS_NOSUID | MS_NODEV, _ROOT_OPTIONS)
        self._base = os.open(_BASE, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        os.umask(0o022)
        for path, target in self._links:
            self._make_link(path, target)
        self._mount_scratch()
        for path, tree, is_directory in self._mounts:
            self._attach(path, tree, is_directory)
        self._mount_kernel_file_systems()
        for path, target in DEVICE_LINKS:
            self._make_link(path, target)
        self._write_accounts()
        mount_setattr(self._base, MOUNT_ATTR_RDONLY, recursive=False)
        # With one name for both, the old root comes to lie upon the new one, where it is taken away.
        os.fchdir(self._base)
        os.close(self._base)
        pivot_root(".", ".")
        umount2(".", MNT_DETACH)
        os.chdir("/")

    def _mount_scratch(self) -> None:
        """The places to write: parts of one file system, so that one limit holds for all."""
        size = self._sandbox.limits.scratch or SCRATCH_BYTES
        outside = f"{_BASE}/scratch"
        os.mkdir(outside)
        options = f"mode=0755,size={size},nr_inodes={_SCRATCH_INODES}"
        mount("tmpfs", outside, "tmpfs", MS_NOSUID | MS_NODEV, options)
        places = [("tmp", "/tmp", 0o1777), ("shm", "/dev/shm", 0o1777)]
        if self._sandbox.work is None:
            places.append(("home", self._sandbox.home, 0o700))
        given = {path for path, _, _ in self._mounts}
        for name, path, mode in places:
            if path in given:
                continue
            os.mkdir(f"{outside}/{name}")
            os.chown(f"{outside}/{name}", self._uid, self._gid)
            os.chmod(f"{outside}/{name}", mode)
            self._attach(path, open_tree_clone(f"{outside}/{name}"), True)
        umount2(outside, MNT_DETACH)
        os.rmdir(outside)

    def _mount_kernel_file_systems(self) -> None:
        os.mkdir(f"{_BASE}/proc")
        mount("proc", f"{_BASE}/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        tree = self._find("/proc")
        mount_setattr(tree, MOUNT_ATTR_RDONLY, recursive=False)
        os.close(tree)
        for path in MASKED:
            self._mask(path)
        os.mkdir(f"{_BASE}/dev/pts")
        options = f"newinstance,ptmxmode=0666,mode=0620,max={_TERMINALS}"
        mount("devpts", f"{_BASE}/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, options)

    def _mask(self, path: str) -> None:
        try:
            target = self._find(path)
        except FileNotFoundError:
            return
        tree = open_tree_clone("/dev/null", recursive=False)
        mount_setattr(tree, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | MOUNT_ATTR_RDONLY, recursive=False)
        move_mount(tree, target)
        os.close(tree)
        os.close(target)

    def _write_accounts(self) -> None:
        """Accounts for the uids that the program meets, unless the machine's own were given."""
        sandbox = self._sandbox
        shell = "/bin/sh"
        lines = {0: "root:x:0:0:root:/:/bin/sh", 65534: "nobody:x:65534:65534:nobody:/:/bin/false"}
        lines[self._uid] = f"{sandbox.user}:x:{self._uid}:{self._gid}::{sandbox.home}:{shell}"
        groups = {0: "root:x:0:", 65534: "nogroup:x:65534:", self._gid: f"{sandbox.user}:x:{self._gid}:"}
        self._write("/etc/passwd", "".join(f"{line}\n" for line in lines.values()))
        self._write("/etc/group", "".join(f"{line}\n" for line in groups.values()))
        self._write("/etc/nsswitch.conf", _NSSWITCH)
        self._write("/etc/hostname", f"{HOST_NAME}\n")
        if sandbox.network != HOST:
            self._write("/etc/hosts", f"127.0.0.1 localhost {HOST_NAME}\n::1 localhost\n")

    # --- names inside the new root -----------------------------------------------------------------------

    def _find(self, path: str) -> int:
        """An O_PATH fd of `path` in the new root. Links are resolved inside of it."""
        flags = os.O_PATH
        return syscalls.openat2(self._base, os.fsencode(path), flags, syscalls.RESOLVE_IN_ROOT)

    def _parent(self, path: str) -> int:
        """An O_PATH fd of the directory that `path` lies in, which is made if it is not there."""
        directory = os.path.dirname(path)
        try:
            return self._find(directory)
        except FileNotFoundError:
            above = self._parent(directory)
            try:
                os.mkdir(os.path.basename(directory), dir_fd=above)
            finally:
                os.close(above)
            return self._find(directory)

    def _attach(self, path: str, tree: int, is_directory: bool) -> None:
        """Mount `tree` at `path`, and close it."""
        try:
            parent = self._parent(path)
            try:
                name = os.path.basename(path)
                if is_directory:
                    _make_directory(name, parent)
                else:
                    _make_file(name, parent)
            finally:
                os.close(parent)
            target = self._find(path)
            try:
                move_mount(tree, target)
            finally:
                os.close(target)
        except OSError as error:
            if error.errno in _REFUSED_TO_ALL:
                raise
            raise StartError(f"{path} cannot be shown: {error.strerror}") from error
        finally:
            os.close(tree)

    def _make_link(self, path: str, target: str) -> None:
        parent = self._parent(path)
        try:
            os.symlink(target, os.path.basename(path), dir_fd=parent)
        finally:
            os.close(parent)

    def _write(self, path: str, text: str) -> None:
        if any(lies_in(path, shown) for shown, _, _ in self._mounts):
            return
        parent = self._parent(path)
        try:
            fd = os.open(
                os.path.basename(path),
                os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
                0o644,
                dir_fd=parent,
            )
            with open(
                fd, "w", encoding="utf-8", errors="surrogateescape"
            ) as file:  # --work may have any name
                file.write(text)
        finally:
            os.close(parent)


def _make_directory(name: str, parent: int) -> None:
    try:
        os.mkdir(name, dir_fd=parent)
    except FileExistsError:
        return


def _make_file(name: str, parent: int) -> None:
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o644, dir_fd=parent))
    except FileExistsError:
        return


def enter_new_root(sandbox: Sandbox) -> None:
    """Build the root of `sandbox` and go into it. Raises StartError, and OSError for what the kernel refuses."""
    Root(sandbox).enter()
