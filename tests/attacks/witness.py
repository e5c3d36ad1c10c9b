"""The witness: it stands outside of the sandbox, owns what attackers would like to have, and notices.

What it makes belongs to the attacker's uid or is open to everybody, so that nothing but a sandbox keeps an
attacker away from it. The attackers learn from description() where things are, and never a secret: one that
prints a secret has read it. Everything that the witness makes ends with it, also when making it failed
half-way; a machine that lacks something (IPv6, vsock, message queues) only makes the description shorter.

Out of its scope: starting the attackers (see launch.py), and what a sandbox should allow.
"""

import contextlib
import ctypes
import fcntl
import os
import platform
import secrets
import select
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

# Thirty-two hexadecimal digits follow. The attackers are told this much, to know a secret when they see one.
SECRET_PREFIX = "witness-secret-"

SECONDS = 10
VMADDR_CID_LOCAL = 1
SEGMENT_SIZE = 4096
IPC_PRIVATE, IPC_CREAT, IPC_RMID, IPC_STAT = 0, 0o1000, 0, 2
GETVAL, SETVAL = 12, 16
IPC_MODE = 0o666
SEMAPHORE_VALUE = 7
KEY_SPEC_USER_KEYRING = -4
KEYCTL_SETPERM, KEYCTL_UNLINK, KEYCTL_INVALIDATE = 5, 9, 21
KEY_OPEN_TO_THE_UID = 0x3F3F0000
MNT_DETACH = 2
SIOCINQ = 0x541B  # FIONREAD: what lies unread in a terminal

# add_key, keyctl, ioprio_get: x86-64's numbers, and those of the architectures that came later.
SYSTEM_CALLS = {"add_key": (248, 217), "keyctl": (250, 219), "ioprio_get": (252, 31)}

# The victim: a secret in a buffer of known address, one in its environment, one in an fd. It blocks every
# signal and tells each that comes, so none is lost and none ends it but those that nobody can block.
VICTIM = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
secret = ctypes.create_string_buffer(sys.stdin.buffer.read(), 4096)
os.close(0)
every = signal.valid_signals()
signal.pthread_sigmask(signal.SIG_BLOCK, every)
os.write(1, b"ready %d\\n" % ctypes.addressof(secret))
while True:
    came = signal.sigwaitinfo(every)
    os.write(1, b"signal %d from pid %d\\n" % (came.si_signo, came.si_pid))
"""

libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p


class Message(ctypes.Structure):
    """What msgsnd(2) takes."""

    _fields_ = [("type", ctypes.c_long), ("text", ctypes.c_char * 128)]


def checked(result: int | None, call: str) -> int:
    """The result of a C library call. Raises OSError where it is -1."""
    if result is None or result in (-1, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), f"{call}: {os.strerror(ctypes.get_errno())}")
    return result


def system_call(name: str, *arguments: Any) -> int:
    """One system call that the C library has no function for. Raises OSError, NotImplementedError."""
    if platform.machine() not in ("x86_64", "aarch64", "riscv64"):
        raise NotImplementedError(f"the number of {name} is not known for {platform.machine()}")
    number = SYSTEM_CALLS[name][platform.machine() != "x86_64"]
    widened = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return checked(libc.syscall(ctypes.c_long(number), *widened), name)


def secret() -> str:
    """A new secret."""
    return SECRET_PREFIX + secrets.token_hex(16)


def command_line(pid: int) -> list[str]:
    """The arguments of a process; none where it can't be read."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def pids() -> list[int]:
    """Every process that can be seen."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


class Witness:
    """Owns what is worth attacking, and tells afterwards what it noticed. A context manager.

    `place` is a directory that every uid can search. `uid` is the attacker's; another than one's own needs
    root. Raises OSError where the machine refuses what every machine should have.
    """

    def __init__(self, place: Path, uid: int | None = None) -> None:
        self.uid = os.getuid() if uid is None else uid
        self.directory = place / "witness"
        self.inner = self.directory / "inner"
        self.home = self.directory / "home"
        self.name = secrets.token_hex(6)  # in every machine-wide name, so that two can run at a time
        self.secrets: dict[str, str] = {}
        self._described: dict[str, str | int] = {}
        self._noticed: list[str] = []
        self._looks: list[Callable[[], None]] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Witness":
        try:
            self._make()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def description(self) -> dict[str, str | int]:
        """What attackers are told: flat and JSON-able, without a secret. The caller may add to its copy."""
        return dict(self._described)

    def environment(self) -> dict[str, str]:
        """Variables that belong to the outside: whoever starts the sandbox has them, the attacker should not."""
        return {
            "HOME": str(self.home),
            "SSH_AUTH_SOCK": str(self._described["stream_socket"]),
            "DBUS_SESSION_BUS_ADDRESS": f"unix:path={self._described['stream_socket']}",
            "XDG_RUNTIME_DIR": str(self.inner),
            "AWS_SECRET_ACCESS_KEY": self.secrets["variable"],
        }

    def saw(self) -> list[str]:
        """Everything that it noticed since it began, in the order of the looks; each thing once."""
        for look in self._looks:
            look()
        return list(self._noticed)

    def _notice(self, what: str) -> None:
        if what not in self._noticed:
            self._noticed.append(what)

    def _secret(self, where: str) -> str:
        self.secrets[where] = secret()
        return self.secrets[where]

    def _make(self) -> None:
        self._described |= {"secret_prefix": SECRET_PREFIX, "uid": self.uid}
        self._secret("variable")
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._make_files()
        self._make_pathname_sockets()
        self._make_abstract_sockets()
        self._make_network()
        self._make_system_v()
        self._make_message_queue()
        self._make_key()
        self._make_mount()
        self._make_terminal()
        self._make_victim()
        self._watch_hostname()
        self._watch_left_over()
        self._watch_files()  # last: what the witness itself makes is no news

    def _given(self, path: Path, mode: int) -> Path:
        """`path`, with that mode, in the attacker's hands."""
        os.chown(path, self.uid, -1)
        path.chmod(mode)
        return path

    def _make_files(self) -> None:
        for directory, mode in ((self.directory, 0o755), (self.inner, 0o700), (self.home, 0o700)):
            directory.mkdir()
            self._given(directory, mode)
        for name, directory, mode in (
            ("private_file", self.directory, 0o600),
            ("secret_file", self.directory, 0o644),
            ("inner_secret", self.inner, 0o644),
            ("home_secret", self.home, 0o600),
        ):
            path = directory / name
            path.write_text(self._secret(name) + "\n")
            self._described[name] = str(self._given(path, mode))
        for name, directory, mode in (
            ("writable_file", self.directory, 0o666),
            ("movable_file", self.directory, 0o666),
            ("inner_writable", self.inner, 0o666),
            ("policy_file", self.directory, 0o644),
        ):
            path = directory / name
            path.write_text("the witness wrote this\n")
            self._described[name] = str(self._given(path, mode))
        home = self.home.stat()
        self._described |= {
            "directory": str(self.directory),
            "inner_directory": str(self.inner),
            "home_device": home.st_dev,
            "home_inode": home.st_ino,
        }
        # Two fds that a careless starter passes on: a file to read only, and a directory.
        self.read_only_fd = os.open(self.inner / "inner_writable", os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, self.read_only_fd)
        self.directory_fd = os.open(self.inner, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._stack.callback(os.close, self.directory_fd)

    def _state_of_files(self) -> dict[str, tuple[Any, ...]]:
        """Name, and what an attacker may change, of everything in the directory and the ones below it."""
        state: dict[str, tuple[Any, ...]] = {}
        for parent, directories, names in os.walk(self.directory):
            if os.path.ismount(parent):
                directories.clear()
                continue
            for name in directories + names:
                path = os.path.join(parent, name)
                status = os.lstat(path)
                content: bytes = b""
                attributes: list[str] = []
                if stat.S_ISREG(status.st_mode):
                    with contextlib.suppress(OSError):
                        content = Path(path).read_bytes()
                        attributes = os.listxattr(path)
                times = 0 if stat.S_ISDIR(status.st_mode) else status.st_mtime_ns
                links = 0 if stat.S_ISDIR(status.st_mode) else status.st_nlink
                state[os.path.relpath(path, self.directory)] = (
                    content, oct(status.st_mode), status.st_uid, times, links, attributes,
                )  # fmt: skip
        return state

    def _watch_files(self) -> None:
        before = self._state_of_files()
        facets = ("content", "mode", "owner", "times", "links", "attributes")

        def look() -> None:
            now = self._state_of_files()
            for name in sorted(now.keys() - before.keys()):
                self._notice(f"a new file: {name}")
            for name in sorted(before.keys() - now.keys()):
                self._notice(f"a file is gone: {name}")
            for name in sorted(before.keys() & now.keys()):
                for facet, old, new in zip(facets, before[name], now[name], strict=True):
                    if old != new:
                        self._notice(f"{name} changed: {facet}")

        self._looks.append(look)

    def _socket(self, family: int, kind: int) -> socket.socket:
        made = self._stack.enter_context(socket.socket(family, kind))
        made.setblocking(False)
        return made

    def _watch_stream(self, listener: socket.socket, what: str) -> None:
        listener.listen(64)

        def look() -> None:
            with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
                while True:
                    listener.accept()[0].close()
                    self._notice(f"a connection came to the {what}")

        self._looks.append(look)

    def _watch_datagrams(self, receiver: socket.socket, what: str) -> None:
        def look() -> None:
            with contextlib.suppress(BlockingIOError):
                while True:
                    receiver.recv(4096)
                    self._notice(f"a datagram came to the {what}")

        self._looks.append(look)

    def _make_pathname_sockets(self) -> None:
        for name, kind in (("stream", socket.SOCK_STREAM), ("datagram", socket.SOCK_DGRAM)):
            path = self.directory / name
            made = self._socket(socket.AF_UNIX, kind)
            made.bind(str(path))
            path.chmod(0o777)
            self._described[f"{name}_socket"] = str(path)
            watch = self._watch_stream if kind == socket.SOCK_STREAM else self._watch_datagrams
            watch(made, f"pathname {name} socket")

    def _make_abstract_sockets(self) -> None:
        for name, kind in (("stream", socket.SOCK_STREAM), ("datagram", socket.SOCK_DGRAM)):
            made = self._socket(socket.AF_UNIX, kind)
            address = f"witness-{self.name}-{name}"
            made.bind("\0" + address)
            self._described[f"abstract_{name}"] = address
            watch = self._watch_stream if kind == socket.SOCK_STREAM else self._watch_datagrams
            watch(made, f"abstract {name} socket")

    def _make_network(self) -> None:
        for name, family, address in (("4", socket.AF_INET, "127.0.0.1"), ("6", socket.AF_INET6, "::1")):
            for word, kind in (("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)):
                try:
                    made = self._socket(family, kind)
                    made.bind((address, 0))
                except OSError:
                    if family == socket.AF_INET:
                        raise
                    continue  # a machine without IPv6
                self._described[f"{word}{name}"] = made.getsockname()[1]
                watch = self._watch_stream if kind == socket.SOCK_STREAM else self._watch_datagrams
                watch(made, f"{word.upper()} socket of {address}")
        with contextlib.suppress(OSError):  # few machines have vsock, and fewer its loopback
            made = self._socket(socket.AF_VSOCK, socket.SOCK_STREAM)
            made.bind((VMADDR_CID_LOCAL, socket.VMADDR_PORT_ANY))
            self._described["vsock"] = made.getsockname()[1]
            self._watch_stream(made, "vsock socket")

    def _make_system_v(self) -> None:
        try:
            segment = checked(libc.shmget(IPC_PRIVATE, SEGMENT_SIZE, IPC_CREAT | IPC_MODE), "shmget")
        except OSError:
            return  # a kernel without System V's IPC
        self._stack.callback(libc.shmctl, segment, IPC_RMID, None)
        address = checked(libc.shmat(segment, None, 0), "shmat")
        self._stack.callback(libc.shmdt, ctypes.c_void_p(address))
        ctypes.memmove(address, self._secret("segment").encode(), len(self.secrets["segment"]))
        content = ctypes.string_at(address, SEGMENT_SIZE)

        queue = checked(libc.msgget(IPC_PRIVATE, IPC_CREAT | IPC_MODE), "msgget")
        self._stack.callback(libc.msgctl, queue, IPC_RMID, None)
        message = Message(1, self._secret("message").encode())
        checked(libc.msgsnd(queue, ctypes.byref(message), len(self.secrets["message"]), 0), "msgsnd")

        semaphore = checked(libc.semget(IPC_PRIVATE, 1, IPC_CREAT | IPC_MODE), "semget")
        self._stack.callback(libc.semctl, semaphore, 0, IPC_RMID)
        checked(libc.semctl(semaphore, 0, SETVAL, SEMAPHORE_VALUE), "semctl")
        self._described |= {"segment": segment, "message_queue": queue, "semaphore": semaphore}

        def look() -> None:
            if ctypes.string_at(address, SEGMENT_SIZE) != content:
                self._notice("the shared memory was written")
            if libc.semctl(semaphore, 0, GETVAL) != SEMAPHORE_VALUE:
                self._notice("the semaphore changed")
            waiting = Message()
            size = libc.msgrcv(queue, ctypes.byref(waiting), 128, 0, 0o4000)
            if size < 0:
                self._notice("the message was taken from the queue")
            else:
                libc.msgsnd(queue, ctypes.byref(waiting), size, 0)

        self._looks.append(look)

    def _make_message_queue(self) -> None:
        try:
            library = libc if hasattr(libc, "mq_open") else ctypes.CDLL("librt.so.1", use_errno=True)
        except OSError:
            return
        name = f"witness-{self.name}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NONBLOCK
        queue = library.mq_open(f"/{name}".encode(), flags, ctypes.c_uint(0o666), None)
        if queue < 0:
            return  # not built in, or the uid's share of the memory is used up
        self._stack.callback(library.mq_unlink, f"/{name}".encode())
        self._stack.callback(os.close, queue)
        os.fchmod(queue, 0o666)
        text = self._secret("posix_message").encode()
        checked(library.mq_send(queue, text, ctypes.c_size_t(len(text)), 0), "mq_send")
        self._described["posix_queue"] = name

        def look() -> None:
            poll = select.poll()
            poll.register(queue, select.POLLIN)
            if not poll.poll(0):
                self._notice("the message was taken from the POSIX queue")

        self._looks.append(look)

    def _as_the_uid(self, function: Callable[[], int]) -> int:
        """What `function` returns in a child that has the attacker's uid. Raises OSError with its errno."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            answer = b"0 0"
            try:
                if self.uid != os.geteuid():
                    os.setgroups([])
                    os.setresgid(self.uid, self.uid, self.uid)
                    os.setresuid(self.uid, self.uid, self.uid)
                answer = b"1 %d" % function()
            except OSError as error:
                answer = b"0 %d" % (error.errno or 0)
            finally:
                os.write(writer, answer)
                os._exit(0)
        os.close(writer)
        try:
            worked, number = (int(word) for word in os.read(reader, 64).split())
        finally:
            os.close(reader)
            os.waitpid(pid, 0)
        if not worked:
            raise OSError(number, os.strerror(number))
        return number

    def _make_key(self) -> None:
        payload, title = self._secret("key").encode(), f"witness-{self.name}"

        def add() -> int:
            keyring = KEY_SPEC_USER_KEYRING
            key = system_call("add_key", b"user", title.encode(), payload, len(payload), keyring)
            system_call("keyctl", KEYCTL_SETPERM, key, KEY_OPEN_TO_THE_UID, 0, 0)
            return key

        try:
            key = self._as_the_uid(add)
        except (OSError, NotImplementedError):
            return  # a container that refuses keys, say
        self._stack.callback(self._remove_key, key)
        self._described |= {"key": key, "key_title": title}

    def _remove_key(self, key: int) -> None:
        def remove() -> int:
            system_call("keyctl", KEYCTL_UNLINK, key, KEY_SPEC_USER_KEYRING, 0, 0)
            with contextlib.suppress(OSError):
                system_call("keyctl", KEYCTL_INVALIDATE, key, 0, 0, 0)
            return 0

        with contextlib.suppress(OSError):  # an attacker may have been faster
            self._as_the_uid(remove)

    def _make_mount(self) -> None:
        """A mounted file system with a secret: where root runs the witness, and may mount."""
        place = self.directory / "mounted"
        if os.geteuid() != 0:
            return
        place.mkdir()
        if libc.mount(b"witness", str(place).encode(), b"tmpfs", 0, b"size=64k,mode=755") != 0:
            place.rmdir()
            return
        self._stack.callback(libc.umount2, str(place).encode(), MNT_DETACH)
        (place / "mounted_secret").write_text(self._secret("mounted_secret") + "\n")
        (place / "mounted_secret").chmod(0o644)
        self._described["mounted_secret"] = str(place / "mounted_secret")

        def look() -> None:
            if not os.path.ismount(place):
                self._notice("the file system was unmounted")

        self._looks.append(look)

    def _make_terminal(self) -> None:
        """A terminal, `terminal`, for whoever starts the sandbox; `master` is its other end."""
        self.master, self.terminal = os.openpty()
        self._stack.callback(os.close, self.master)
        self._stack.callback(os.close, self.terminal)
        os.set_blocking(self.master, False)
        os.fchown(self.terminal, self.uid, -1)
        name = os.ttyname(self.terminal)
        for fd in os.openpty():  # a terminal of somebody else's
            self._stack.callback(os.close, fd)
        os.fchown(fd, self.uid, -1)
        settings = termios.tcgetattr(self.terminal)
        self._described |= {"terminal": name, "terminals_device": os.fstat(self.terminal).st_dev}

        def look() -> None:
            if termios.tcgetattr(self.terminal) != settings:
                self._notice("the terminal's settings changed")
                termios.tcsetattr(self.terminal, termios.TCSANOW, settings)
            # Without its line discipline's rules, what lies there unread shows also before a line's end.
            raw = termios.tcgetattr(self.terminal)
            raw[3] &= ~termios.ICANON
            termios.tcsetattr(self.terminal, termios.TCSANOW, raw)
            waiting = fcntl.ioctl(self.terminal, SIOCINQ, b"\0" * 4)
            termios.tcsetattr(self.terminal, termios.TCSANOW, settings)
            if struct.unpack("i", waiting)[0]:
                self._notice("somebody typed at the terminal")
                termios.tcflush(self.terminal, termios.TCIFLUSH)

        self._looks.append(look)

    def _start_victim(self, name: str, memory: int) -> tuple[subprocess.Popen[bytes], int]:
        """A victim, and the address of its secret."""
        identity: dict[str, Any] = {}
        if self.uid != os.geteuid():
            identity = {"user": self.uid, "group": self.uid, "extra_groups": []}
        victim = subprocess.Popen(
            [os.path.realpath(sys.executable), "-I", "-S", "-c", VICTIM, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=self.inner,
            env={"VICTIM_SECRET": self._secret("victim_environment")},
            pass_fds=[memory],
            start_new_session=True,
            **identity,
        )
        self._stack.callback(self._end_victim, victim)
        assert victim.stdin is not None and victim.stdout is not None
        victim.stdin.write(self._secret("victim_memory").encode())
        victim.stdin.close()
        said = victim.stdout.readline().split()
        if said[:1] != [b"ready"]:
            raise OSError(f"the victim did not start: is {sys.executable} open to uid {self.uid}?")
        return victim, int(said[1])

    def _end_victim(self, victim: subprocess.Popen[bytes]) -> None:
        victim.kill()
        victim.wait()
        if victim.stdout is not None:
            victim.stdout.close()

    def _make_victim(self) -> None:
        """A victim, and a bystander of the same uid, at whom attackers do nothing but knock."""
        memory = os.memfd_create("witness")
        self._stack.callback(os.close, memory)
        os.write(memory, self._secret("victim_fd").encode())
        name = f"victim-{self.name}"
        self._start_victim(f"bystander-{self.name}", memory)
        self.victim, address = self._start_victim(name, memory)
        self._described |= {
            "victim": self.victim.pid,
            "victim_name": name,
            "victim_address": address,
            "victim_fd": memory,
        }
        self._watch_victim(address)

    def _state_of_victim(self, address: int) -> dict[str, Any]:
        pid = self.victim.pid
        state: dict[str, Any] = {
            "limits": Path(f"/proc/{pid}/limits").read_text(),  # prlimit(2) asks even root for a capability
            "nice value": os.getpriority(os.PRIO_PROCESS, pid),
            "affinity": os.sched_getaffinity(pid),
            "scheduling": os.sched_getscheduler(pid),
            "oom score": Path(f"/proc/{pid}/oom_score_adj").read_text(),
        }
        with contextlib.suppress(OSError, NotImplementedError):
            state["I/O priority"] = system_call("ioprio_get", 1, pid)
        # Where another uid owns the victim, and the witness has no ptrace capability, its memory stays unread.
        with contextlib.suppress(OSError), open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            memory.seek(address)
            state["memory"] = memory.read(4096)
        return state

    def _watch_victim(self, address: int) -> None:
        before = self._state_of_victim(address)
        assert self.victim.stdout is not None
        said = self.victim.stdout.fileno()
        os.set_blocking(said, False)

        def look() -> None:
            options = os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT
            ended = os.waitid(os.P_PID, self.victim.pid, options)
            if ended is not None:
                stopped = ended.si_code == os.CLD_STOPPED
                self._notice("the victim was stopped" if stopped else "the victim died")
                return
            with contextlib.suppress(BlockingIOError):
                for line in os.read(said, 65536).decode().splitlines():
                    number = int(line.split()[1])
                    if number in signal.valid_signals():
                        self._notice(f"the victim had the signal {signal.strsignal(number) or number}")
            now = self._state_of_victim(address)
            for name, value in before.items():
                if now.get(name) != value:
                    self._notice(f"the victim changed: {name}")

        self._looks.append(look)

    def _watch_hostname(self) -> None:
        before = socket.gethostname()
        self._described["hostname"] = before

        def look() -> None:
            if socket.gethostname() != before:
                self._notice("the hostname changed")
                with contextlib.suppress(OSError):
                    socket.sethostname(before)

        self._looks.append(look)
        self._stack.callback(look)  # also where nobody asked what it saw

    def _watch_left_over(self) -> None:
        """Processes that have the mark among their arguments: they are ended with the witness."""
        mark = f"left-over-{self.name}"
        self._described["left_over"] = mark

        def look() -> None:
            left = [pid for pid in pids() if mark in command_line(pid)]
            if left:
                self._notice("a process outlived its attacker")
            if any(self._holds_the_terminal(pid) for pid in left):
                self._notice("a process that outlived its attacker holds the terminal")
            end()

        def end() -> None:
            deadline = time.monotonic() + SECONDS
            while time.monotonic() < deadline:
                left = [pid for pid in pids() if mark in command_line(pid)]
                if not left:
                    return
                for pid in left:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)

        self._looks.insert(0, look)  # the first: what is typed at the terminal is for the witness to read
        self._stack.callback(end)

    def _holds_the_terminal(self, pid: int) -> bool:
        """Whether an fd of the process is the witness's terminal."""
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") == self._described["terminal"]:
                    return True
        return False
