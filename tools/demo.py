"""The demo: a program without privileges gets files and devices from a broker, and is refused others.

It starts a real broker and runs real programs, each confined by `fdbroker run`: a Python program with the
library, the shell, and a C program that knows only sendmsg and recvmsg. Exit status 1 if anything did not
behave as the policy says. As root the programs run as an unused uid; else as the user who started it.
"""

import json
import os
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

TREE = Path(__file__).resolve().parent.parent
FDBROKER = [str(TREE / ".venv" / "bin" / "fdbroker")]
START_SECONDS = 10
DYNAMIC_UIDS = "61184-65519"


class Wanted(NamedTuple):
    """Something that the programs ask for."""

    path: str
    access: tuple[str, ...]
    why: str
    allowed: bool


PROBE = """
import errno, os, stat, sys

access = {"read": os.O_RDONLY, "read,write": os.O_RDWR}
for word in sys.argv[1:]:
    path, _, rights = word.rpartition("=")
    try:
        os.close(os.open(path, access[rights] | os.O_NONBLOCK))
        print(path, "OPENED", sep="\\t")
    except OSError as error:
        print(path, errno.errorcode[error.errno], sep="\\t")
"""

CLIENT = """
import os, sys
import sandboxed

with sandboxed.connect() as client:
    for word in sys.argv[1:]:
        path, _, rights = word.rpartition("=")
        try:
            with client.open_fd(path, rights.split(",")) as fd:
                print(path, "got fd of %d:%d" % divmod(os.fstat(fd).st_rdev, 256) if os.fstat(fd).st_rdev
                      else "got fd of %d bytes" % os.fstat(fd).st_size, sep="\\t")
        except OSError as error:
            print(path, type(error).__name__, sep="\\t")
"""


def main() -> int:
    """Show it; 0 if all behaved."""
    with tempfile.TemporaryDirectory(prefix="fdbroker-demo-", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        terminal = os.openpty()
        try:
            return Demo(place, os.ttyname(terminal[1])).show()
        finally:
            for fd in terminal:
                os.close(fd)


class Demo:
    """One showing, in a fresh directory that every uid can read."""

    def __init__(self, place: Path, terminal: str) -> None:
        self.place = place
        self.root = os.geteuid() == 0
        self.faults: list[str] = []
        self.secret = place / "secret.txt"
        self.secret.write_text("only its owner may read this\n")
        self.secret.chmod(0o600)
        self.other = place / "other-secret.txt"
        self.other.write_text("the policy does not name this one\n")
        self.other.chmod(0o600)
        self.terminal = terminal
        self.socket = place / "broker.sock"
        self.audit = place / "audit.jsonl"
        self.policy = place / "demo.yaml"

    def show(self) -> int:
        """All parts, in order."""
        wanted = self._wanted()
        self.policy.write_text(self._policy(wanted))
        print("The policy:\n" + textwrap.indent(self.policy.read_text().rstrip(), "    ") + "\n")
        broker = self._start_broker()
        try:
            alone = self._alone(wanted)
            brokered = self._by_library(wanted)
            by_shell = self._by_shell()
            by_c = self._by_c(wanted[0])
        finally:
            broker.terminate()
            status = broker.wait(START_SECONDS)
        if status != 0:
            self.faults.append(f"the broker ended with {status}")
        records = [json.loads(line) for line in self.audit.read_text().splitlines()]
        self._table(wanted, alone, brokered, records)
        print(f"By the shell:  fdbroker open {by_shell[0]} --access read -- …   → {by_shell[1]}")
        print(f"By plain C:    sendmsg, recvmsg, one fd at most                 → {by_c}\n")
        self._show_audit(records)
        for fault in self.faults:
            print(f"WRONG: {fault}")
        if not self.faults:
            print("All as the policy says.")
        return 1 if self.faults else 0

    def _wanted(self) -> list[Wanted]:
        """What this machine has and this user may open; the policy gives some of it."""
        if self.root:
            devices = [
                ("/dev/net/tun", "make network interfaces"),
                ("/dev/kvm", "run virtual machines"),
                ("/dev/loop-control", "attach disk images"),
                ("/dev/hwrng", "read a hardware random source"),
                (self.terminal, "a terminal of somebody else"),
            ]
            denied = [("/etc/shadow", "no rule names it"), ("/dev/mem", "no rule names it")]
        else:
            # /dev/ptmx is not among them: a program in a sandbox has one of its own.
            devices = [
                (self.terminal, "a terminal of its own user"),
                ("/dev/kvm", "run virtual machines"),
                ("/dev/net/tun", "make network interfaces"),
            ]
            denied = []
        found = [
            Wanted(path, ("read",) if path == "/dev/hwrng" else ("read", "write"), why, True)
            for path, why in devices
            if _openable(path)
        ]
        found.append(Wanted(str(self.secret), ("read",), "a file of mode 0600", True))
        found.append(Wanted(str(self.secret), ("read", "write"), "the rule gives only read", False))
        found.append(Wanted(str(self.other), ("read",), "no rule names it", False))
        found += [Wanted(path, ("read",), why, False) for path, why in denied if os.path.exists(path)]
        found.append(Wanted("/dev/../dev/kvm", ("read",), "no path with ..", False))
        return found

    def _policy(self, wanted: list[Wanted]) -> str:
        uid = DYNAMIC_UIDS if self.root else str(os.geteuid())
        lines = ["version: 1", "clients:", f"  demo: {{uid: {uid}}}", "rules:"]
        for item in wanted:
            if item.allowed:
                kind = "char" if stat.S_ISCHR(os.stat(item.path).st_mode) else "file"
                name = item.path.strip("/").replace("/", "-") if kind == "char" else "secret"
                lines.append(
                    f"  - {{name: {name}, clients: [demo], allow: [{', '.join(item.access)}], "
                    f"type: {kind}, paths: [{item.path}]}}"
                )
        return "\n".join(lines) + "\n"

    def _start_broker(self) -> "subprocess.Popen[str]":
        command = [
            *FDBROKER,
            "serve",
            "--policy",
            str(self.policy),
            "--socket",
            str(self.socket),
            "--audit",
            str(self.audit),
        ]
        broker = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert broker.stderr is not None
        line = broker.stderr.readline()
        if "serving at" not in line:
            broker.kill()
            raise SystemExit(f"the broker did not start: {line}{broker.stderr.read()}")
        return broker

    def _confined(self, *command: str, show: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*FDBROKER, "run", "--socket", str(self.socket), *show, "--", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _alone(self, wanted: list[Wanted]) -> dict[str, str]:
        ran = self._confined(sys.executable, "-I", "-c", PROBE, *_words(wanted))
        return self._answers(ran, "the program alone")

    def _by_library(self, wanted: list[Wanted]) -> dict[str, str]:
        ran = self._confined(sys.executable, "-I", "-c", CLIENT, *_words(wanted))
        return self._answers(ran, "the program with the library")

    def _answers(self, ran: "subprocess.CompletedProcess[str]", what: str) -> dict[str, str]:
        if ran.returncode != 0:
            self.faults.append(f"{what} ended with {ran.returncode}: {ran.stderr.strip()}")
        return {str(place): line.partition("\t")[2] for place, line in enumerate(ran.stdout.splitlines())}

    def _by_shell(self) -> tuple[str, str]:
        path, command = (
            ("/dev/hwrng", "head -c 8 | od -An -tx1")
            if os.access("/dev/hwrng", os.R_OK)
            else (str(self.secret), "head -n 1")
        )
        ran = self._confined(*FDBROKER, "open", path, "--access", "read", "--", "sh", "-c", command)
        if ran.returncode != 0 or not ran.stdout.strip():
            self.faults.append(f"fdbroker open ended with {ran.returncode}: {ran.stderr.strip()}")
        return path, ran.stdout.strip()

    def _by_c(self, item: Wanted) -> str:
        program = self.place / "client"
        source = TREE / "tests" / "clients" / "write_fd_read_fd.c"
        subprocess.run(["cc", "-std=c11", "-O2", "-o", str(program), str(source)], check=True)
        program.chmod(0o755)
        ran = self._confined(
            "sh",
            "-c",
            'exec "$0" "fd:$FDBROKER_FD" "$@"',
            str(program),
            item.path,
            *item.access,
            show=("--ro", str(program)),
        )
        if ran.returncode != 0:
            self.faults.append(f"the C client ended with {ran.returncode}: {ran.stdout}{ran.stderr.strip()}")
            return "nothing"
        answer = json.loads(ran.stdout)
        return f"fd {answer['fd']} of {item.path}, a {answer['type']} device {answer['rdev']}"

    def _table(
        self,
        wanted: list[Wanted],
        alone: dict[str, str],
        brokered: dict[str, str],
        records: list[dict[str, object]],
    ) -> None:
        rows = [("ASKED FOR", "", "ALONE", "BROKER", "RULE")]
        opens = [record for record in records if record["event"] == "open"]
        for place, item in enumerate(wanted):
            single, answer = alone.get(str(place), "?"), brokered.get(str(place), "?")
            record = opens[place] if place < len(opens) else {}
            self._judge(item, single, answer, record)
            rule = (
                f"{record.get('rule')} ({record.get('at')})" if record.get("rule") else f"default: {item.why}"
            )
            rows.append((_short(item.path), "+".join(item.access), single, answer, rule))
        widths = [max(len(row[column]) for row in rows) for column in range(5)]
        print("A confined program, alone and with the broker:\n")
        for row in rows:
            print(
                "    "
                + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            )
        print()

    def _judge(self, item: Wanted, alone: str, answer: str, record: dict[str, object]) -> None:
        if alone == "OPENED":
            self.faults.append(f"{item.path} could be opened without the broker")
        if answer.startswith("got fd") is not item.allowed:
            self.faults.append(f"{item.path} {'+'.join(item.access)}: {answer}")
        if record.get("verdict") != ("allow" if item.allowed else "deny"):
            self.faults.append(f"{item.path}: the audit says {record.get('verdict')}")

    def _show_audit(self, records: list[dict[str, object]]) -> None:
        print(f"The audit has {len(records)} lines; the first allow and the first deny:")
        for verdict in ("allow", "deny"):
            record = next((one for one in records if one.get("verdict") == verdict), None)
            print(
                textwrap.fill(
                    json.dumps(record),
                    110,
                    initial_indent="    ",
                    subsequent_indent="      ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
            )
        print()


def _words(wanted: list[Wanted]) -> list[str]:
    return [f"{item.path}={','.join(item.access)}" for item in wanted]


def _openable(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK))
        return True
    except PermissionError:
        return False
    except OSError:
        return os.path.exists(path) and os.access(path, os.R_OK)


def _short(path: str) -> str:
    return path if not path.startswith("/tmp/fdbroker-demo-") else f"…/{os.path.basename(path)}"


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"({time.monotonic() - started:.1f} s)")
    sys.exit(status)
