"""`fdbroker run` at a real terminal: the program's own, relayed; job control; nothing lost, nothing left changed."""

import hashlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import FDBROKER, STRANGER, TREE, Broker, allow, needs_root, policy, wait_until
from terminals import Terminal, children, come_to_rest, descendants, fields, state

PYTHON = shlex.quote(sys.executable)


@pytest.fixture
def secret(place: Path) -> Path:
    """A file that only its owner may open."""
    path = place / "secret"
    path.write_text("the secret")
    path.chmod(0o600)
    return path


@pytest.fixture
def out(place: Path) -> Path:
    """A directory that everybody may write."""
    path = place / "out"
    path.mkdir()
    path.chmod(0o777)
    return path


def command_line(place: Path, broker: str) -> str:
    """`fdbroker run` as it is typed, with all but the program; `broker` is the option that says which."""
    words = [*FDBROKER, "run", "--ro", str(place / "programs"), "--rw", str(place / "out")]
    return shlex.join(words) + f" {broker} --"


def embedded(place: Path, secret: Path) -> str:
    """The option for a broker of the run's own, which gives the secret."""
    rules = place / "run.yaml"
    rules.write_text(policy(allow("secret", str(secret), clients="any")))
    return f"--policy {rules} --audit {place}/run.jsonl"


@pytest.fixture
def programs(place: Path) -> Path:
    """Where tests put programs that the sandbox shows."""
    path = place / "programs"
    path.mkdir()
    return path


@pytest.fixture
def line(place: Path, secret: Path, out: Path, programs: Path) -> str:
    """`fdbroker run --policy … --`, to be typed."""
    return command_line(place, embedded(place, secret))


@pytest.fixture
def shell(line: str) -> Iterator[Terminal]:
    """A shell in which `run` is `fdbroker run --policy … --`."""
    with Terminal(cwd=TREE) as terminal:
        set_up(terminal, line)
        yield terminal


@pytest.fixture(params=["policy", "socket"])
def any_shell(
    request: pytest.FixtureRequest,
    place: Path,
    secret: Path,
    out: Path,
    programs: Path,
    start_broker: Callable[[str], Broker],
) -> Iterator[Terminal]:
    """The same, with the broker inside and with one that listens."""
    if request.param == "policy":
        option = embedded(place, secret)
    else:
        option = f"--socket {start_broker(policy(allow('secret', str(secret)))).socket}"
    with Terminal(cwd=TREE) as terminal:
        set_up(terminal, command_line(place, option))
        yield terminal


def set_up(terminal: Terminal, line: str) -> None:
    """Make `run` a word of the shell's."""
    assert terminal.prompt() == 0
    assert terminal.run(f"alias run={shlex.quote(line)}")[0] == 0


def write_program(programs: Path, text: str) -> str:
    """A program in Python that the sandbox shows; the words that run it."""
    path = programs / f"program{len(list(programs.iterdir()))}.py"
    path.write_text(text)
    return f"{PYTHON} -I {path}"


def in_background(terminal: Terminal, line: str) -> None:
    """Enter `line &`, and wait for the prompt and for what it writes, in whichever order."""
    terminal.enter(line + " &")
    terminal.prompt()
    if b"written\r\n" not in terminal.before:
        terminal.expect(r"written\r\n")


# --- the program's terminal --------------------------------------------------------------------------------


def test_program_has_a_terminal_of_its_own_when_run_at_one(any_shell: Terminal) -> None:
    outer = any_shell.run("tty")[1]
    status, shown = any_shell.run("run sh -c 'tty; test -t 0 && test -t 1 && test -t 2 && echo all three'")
    assert (status, shown) == (0, "/dev/pts/0\r\nall three\r\n")
    # What is left of the outer one: nothing by name, nothing by fd.
    device = os.stat(outer.strip()).st_rdev
    program = (
        "import os; print([os.major(os.stat(f'/proc/self/fd/{n}').st_rdev) for n in (0, 1, 2)], "
        "os.listdir('/dev/pts'), [n for n in os.listdir('/proc/self/fd') if int(n) > 2 and "
        f"os.path.exists(f'/proc/self/fd/{{n}}') and os.stat(f'/proc/self/fd/{{n}}').st_rdev == {device}])"
    )
    status, shown = any_shell.run(f'run {PYTHON} -c "{program}"')
    assert (status, shown) == (0, "[136, 136, 136] ['0', 'ptmx'] []\r\n")


def test_programs_dev_tty_is_its_own_terminal(any_shell: Terminal) -> None:
    program = "echo one > /dev/tty; read x < /dev/tty; echo got-$x; ps -o tty= -p $$ 2>/dev/null || true"
    any_shell.enter(f"run sh -c '{program}' > /dev/null < /dev/null 2> /dev/null")
    # None of its files is a terminal: it has none, like a service.
    assert any_shell.prompt() == 0
    any_shell.enter("run sh -c 'echo one > /dev/tty; read x < /dev/tty; echo got-$x'")
    any_shell.expect(r"one\r\n")
    any_shell.type("typed\n")
    any_shell.expect(r"typed\r\ngot-typed\r\n")
    assert any_shell.prompt() == 0


def test_program_sees_the_size_of_the_terminal_at_the_start_and_when_it_changes(any_shell: Terminal) -> None:
    any_shell.resize(33, 77)
    any_shell.enter(
        "run sh -c 'trap \"stty size; exit 6\" WINCH; stty size; echo ready; while :; do sleep 0.05; done'"
    )
    any_shell.expect(r"33 77\r\nready\r\n")
    any_shell.resize(44, 88)
    any_shell.expect(r"44 88\r\n")
    assert any_shell.prompt() == 6


def test_program_reads_what_is_typed_and_its_exit_status_is_told(any_shell: Terminal) -> None:
    before = any_shell.settings
    any_shell.enter("run sh -c 'echo ask; read x; echo got-$x; exit 5'")
    any_shell.expect(r"ask\r\n")
    any_shell.type("hello\n")
    any_shell.expect(r"^hello\r\ngot-hello\r\n")
    assert any_shell.prompt() == 5
    assert any_shell.settings == before


def test_program_reads_an_end_when_ctrl_d_is_typed(any_shell: Terminal) -> None:
    any_shell.enter("run sh -c 'echo ask; cat; echo end'")
    any_shell.expect(r"ask\r\n")
    any_shell.type("line\n")
    any_shell.expect(r"line\r\nline\r\n")
    any_shell.type("\x04")
    any_shell.expect(r"end\r\n")
    assert any_shell.prompt() == 0


@pytest.mark.parametrize(("key", "status"), [("\x03", 128 + signal.SIGINT), ("\x1c", 128 + signal.SIGQUIT)])
def test_key_ends_the_program_and_nothing_else(any_shell: Terminal, key: str, status: int) -> None:
    before = any_shell.settings
    any_shell.enter("run sh -c 'ulimit -c 0; echo ready; exec sleep 1000'")
    any_shell.expect(r"ready\r\n")
    any_shell.type(key)
    assert any_shell.prompt() == status
    assert any_shell.settings == before


def test_program_hears_a_key_once_when_it_catches_its_signal(shell: Terminal, programs: Path) -> None:
    program = write_program(
        programs,
        "import signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGUSR1})\n"
        "print('ready', flush=True)\n"
        "print(signal.sigwait({signal.SIGINT}).name, flush=True)\n"
        "input('more? ')\n"
        "print(sorted(signal.sigpending()))\n",
    )
    shell.enter(f"run {program}")
    shell.expect(r"ready\r\n")
    shell.type("\x03")
    shell.expect(r"SIGINT\r\nmore\? ")
    shell.type("\n")
    shell.expect(r"\[\]\r\n")
    assert shell.prompt() == 0


@pytest.mark.parametrize(
    ("script", "status"),
    [("exit 0", 0), ("exit 41", 41), ("kill -TERM $$", 128 + 15), ("kill -KILL $$", 128 + 9)],
)
def test_settings_are_restored_and_status_is_told_however_the_program_ends(
    any_shell: Terminal, script: str, status: int
) -> None:
    before = any_shell.settings
    assert any_shell.run(f"run sh -c 'stty raw -echo; {script}'") == (status, "")
    assert any_shell.settings == before


def test_settings_that_are_not_the_usual_ones_are_the_programs_too_and_are_restored(shell: Terminal) -> None:
    assert shell.run("stty erase ^H -ixon tostop")[0] == 0
    before = shell.settings
    _status, shown = shell.run("run stty -a")
    assert "erase = ^H" in shown
    assert "-ixon" in shown
    assert " tostop" in shown
    assert shell.settings == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_signal_to_fdbroker_ends_the_program_and_the_settings_are_restored(
    any_shell: Terminal, number: signal.Signals
) -> None:
    before = any_shell.settings
    any_shell.enter("run sh -c 'stty raw; echo ready; exec sleep 1000'")
    any_shell.expect(r"ready\n")
    os.kill(any_shell.job(), number)
    assert any_shell.prompt() == 128 + number
    assert any_shell.settings == before


def test_program_reads_single_keys_when_it_makes_its_terminal_raw(
    any_shell: Terminal, programs: Path
) -> None:
    program = write_program(
        programs,
        "import os, termios, tty\n"
        "before = termios.tcgetattr(0)\n"
        "tty.setraw(0)\n"
        "os.write(1, b'ready>')\n"
        "keys = b''\n"
        "while not keys.endswith(b'q'):\n"
        "    key = os.read(0, 1)\n"
        "    keys += key\n"
        "    os.write(1, b'<%02x>' % key[0])\n"
        "termios.tcsetattr(0, termios.TCSADRAIN, before)\n"
        "print('bye')\n",
    )
    before = any_shell.settings
    any_shell.enter(f"run {program}")
    any_shell.expect("ready>")
    for key in b"a\x03\x1a\x1c\x04\r\n\x13\x11\x7f\xff\x00":
        any_shell.type(bytes([key]))
        any_shell.expect(f"^<{key:02x}>")
    any_shell.type("q")
    any_shell.expect(r"^<71>bye\r\n")
    assert any_shell.prompt() == 0
    assert any_shell.settings == before


# --- job control -------------------------------------------------------------------------------------------


def test_job_stops_at_ctrl_z_and_goes_on_at_fg(any_shell: Terminal) -> None:
    before = any_shell.settings
    any_shell.enter("run sh -c 'echo begin; while read x; do echo $x; done; echo end; exit 4'")
    any_shell.expect(r"begin\r\n")
    for _ in range(3):
        any_shell.type("\x1a")
        any_shell.expect(r"Stopped")
        assert any_shell.prompt() == 128 + signal.SIGTSTP
        assert any_shell.settings == before
        assert "Stopped" in any_shell.run("jobs")[1]
        any_shell.bring_back()
        any_shell.type("line\n")
        any_shell.expect(r"line\r\nline\r\n")
    any_shell.type("\x04")
    any_shell.expect(r"end\r\n")
    assert any_shell.prompt() == 4
    assert any_shell.settings == before


def test_job_goes_on_in_the_background_and_asks_for_the_terminal_when_it_reads(any_shell: Terminal) -> None:
    any_shell.enter("run sh -c 'echo begin; read x; echo one-$x; read y; echo two-$y; exit 4'")
    any_shell.expect(r"begin\r\n")
    any_shell.type("\x1a")
    any_shell.expect("Stopped")
    any_shell.prompt()
    any_shell.run("bg")
    wait_until(lambda: "Stopped" in any_shell.run("jobs")[1], "the job to stop at its reading")
    any_shell.bring_back()
    any_shell.type("a\n")
    any_shell.expect(r"one-a\r\n")
    any_shell.type("b\n")
    any_shell.expect(r"two-b\r\n")
    assert any_shell.prompt() == 4


def test_job_writes_in_the_background_and_stops_when_it_reads(any_shell: Terminal) -> None:
    before = any_shell.settings
    in_background(any_shell, "run sh -c 'echo written; read x; echo got-$x; exit 3'")
    wait_until(lambda: "Stopped" in any_shell.run("jobs")[1], "the job to stop at its reading")
    assert any_shell.settings == before
    assert "mine\r\n" in any_shell.run("echo mine")[1]  # what is typed stays the shell's
    any_shell.bring_back()
    any_shell.type("hello\n")
    any_shell.expect(r"got-hello\r\n")
    assert any_shell.prompt() == 3
    assert any_shell.settings == before


def test_job_ends_in_the_background_with_its_status(shell: Terminal) -> None:
    in_background(shell, "run sh -c 'echo written; exit 3'")
    assert shell.run("wait $!")[0] == 3


def test_job_that_was_in_the_background_takes_the_terminal_when_it_is_brought_to_the_front_running(
    shell: Terminal, out: Path
) -> None:
    shell.enter(f"run sh -c 'until test -e {out}/go; do sleep 0.05; done; read x; echo got-$x' &")
    shell.prompt()
    shell.enter("fg")
    job = shell.job()
    assert os.getpgid(job) == shell.front
    (out / "go").touch()
    shell.type("hello\n")
    shell.expect(r"got-hello\r\n")
    assert shell.prompt() == 0


def test_pipeline_stops_and_goes_on_as_one_job(shell: Terminal) -> None:
    before = shell.settings
    shell.enter("run sh -c 'echo begin; read x; echo got-$x' | sed -u s/^/piped-/")
    shell.expect(r"piped-begin\r\n")
    for _ in range(2):
        shell.type("\x1a")
        shell.expect("Stopped")
        shell.prompt()
        assert shell.settings == before
        shell.bring_back()
    shell.type("hello\n")
    shell.expect(r"piped-got-hello\r\n")
    assert shell.prompt() == 0
    assert shell.settings == before


def test_shell_inside_has_job_control_of_its_own(any_shell: Terminal) -> None:
    any_shell.enter("run env PS1='inner $?> ' bash --norc --noprofile --noediting -i")
    any_shell.expect(r"inner 0> ")
    any_shell.enter("sh -c 'echo begin; while read x; do echo $x; done; exit 9'")
    any_shell.expect(r"begin\r\n")
    any_shell.type("\x1a")
    any_shell.expect(r"Stopped.*inner 148> ")
    any_shell.enter("fg")
    any_shell.expect(r"exit 9'\r\n")
    any_shell.type("x\n")
    any_shell.expect(r"x\r\nx\r\n")
    any_shell.type("\x04")
    any_shell.expect(r"inner 9> ")
    # The shell inside itself: it stops as one that suspends itself does, and comes back.
    any_shell.enter("suspend -f")
    any_shell.expect("Stopped")
    any_shell.prompt()
    any_shell.enter("fg")
    any_shell.enter("echo again")
    any_shell.expect(r"again\r\n")
    any_shell.enter("exit 7")
    assert any_shell.prompt() == 7


def test_settings_are_restored_before_the_job_stops(line: str, place: Path) -> None:
    """bash restores them too, so this asks a parent that does not."""
    parent = place / "parent.py"
    parent.write_text(
        "import os, signal, sys, termios\n"
        "signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
        "before = termios.tcgetattr(0)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    os.setpgid(0, 0)\n"
        "    os.tcsetpgrp(0, os.getpid())\n"
        "    signal.signal(signal.SIGTTOU, signal.SIG_DFL)\n"
        "    os.execvp(sys.argv[1], sys.argv[1:])\n"
        "while True:\n"
        "    status = os.waitpid(pid, os.WUNTRACED)[1]\n"
        "    same = termios.tcgetattr(0) == before\n"
        "    os.tcsetpgrp(0, os.getpgrp())\n"
        "    print('as before' if same else termios.tcgetattr(0), status, flush=True)\n"
        "    if not os.WIFSTOPPED(status):\n"
        "        break\n"
        "    input('on? ')\n"
        "    os.tcsetpgrp(0, pid)\n"
        "    os.killpg(pid, signal.SIGCONT)\n"
    )
    with Terminal(
        [sys.executable, str(parent), *shlex.split(line), "sh", "-c", "echo begin; exec cat"], cwd=TREE
    ) as one:
        one.expect(r"begin\r\n")
        one.type("\x1a")
        one.expect(rf"as before {signal.SIGTSTP << 8 | 0x7F}\r\non\? ")
        one.type("\n")
        wait_until(lambda: one.is_raw, "the job to take the terminal again")
        one.type("\x04")
        one.expect(r"as before 0\r\n")


def test_job_takes_the_terminal_up_again_when_fdbroker_was_stopped_by_sigstop(any_shell: Terminal) -> None:
    before = any_shell.settings
    any_shell.enter("run sh -c 'echo begin; read x; echo got-$x; read y; echo got-$y'")
    any_shell.expect(r"begin\r\n")
    os.kill(any_shell.job(), signal.SIGSTOP)
    any_shell.expect("Stopped")
    any_shell.prompt()
    assert any_shell.settings == before  # bash's doing
    any_shell.enter("fg")
    wait_until(lambda: any_shell.is_raw, "the terminal to be raw again")
    any_shell.type("hello\n")
    any_shell.expect(r"\r\nhello\r\ngot-hello\r\n")  # echoed once: by the inner terminal
    any_shell.type("again\n")
    any_shell.expect(r"^again\r\ngot-again\r\n")
    assert any_shell.prompt() == 0
    assert any_shell.settings == before


def test_job_leaves_the_terminal_to_the_shell_when_it_goes_on_in_the_background_after_sigstop(
    any_shell: Terminal,
) -> None:
    before = any_shell.settings
    any_shell.enter("run sh -c 'echo begin; read x; echo got-$x'")
    any_shell.expect(r"begin\r\n")
    os.kill(any_shell.job(), signal.SIGSTOP)
    any_shell.expect("Stopped")
    any_shell.prompt()
    any_shell.run("bg")
    assert "mine\r\n" in any_shell.run("echo mine")[1]
    assert any_shell.settings == before
    wait_until(lambda: "Stopped" in any_shell.run("jobs")[1], "the job to stop at its reading")
    any_shell.bring_back()
    any_shell.type("hello\n")
    any_shell.expect(r"got-hello\r\n")
    assert any_shell.prompt() == 0
    assert any_shell.settings == before


def test_job_is_undisturbed_when_sigcont_comes_from_outside(any_shell: Terminal) -> None:
    before = any_shell.settings
    any_shell.enter("run sh -c 'echo begin; read x; echo got-$x'")
    any_shell.expect(r"begin\r\n")
    job = any_shell.job()
    wait_until(lambda: any_shell.is_raw, "the terminal to be raw")
    os.kill(job, signal.SIGCONT)
    come_to_rest(job)
    assert any_shell.is_raw
    any_shell.type("hello\n")
    any_shell.expect(r"^hello\r\ngot-hello\r\n")
    assert any_shell.prompt() == 0
    assert any_shell.settings == before


def test_stopped_job_that_is_continued_behind_the_shells_back_leaves_the_terminal_alone(
    shell: Terminal,
) -> None:
    before = shell.settings
    shell.enter("run sh -c 'echo begin; read x; echo got-$x'")
    shell.expect(r"begin\r\n")
    job = shell.job()
    shell.type("\x1a")
    shell.expect("Stopped")
    shell.prompt()
    os.kill(job, signal.SIGCONT)
    wait_until(lambda: "T" in state(job), "the job to stop again at its reading")
    assert shell.settings == before
    assert "mine\r\n" in shell.run("echo mine")[1]
    shell.bring_back()
    shell.type("hello\n")
    shell.expect(r"got-hello\r\n")
    assert shell.prompt() == 0


def test_job_stops_when_the_program_stops_itself(any_shell: Terminal) -> None:
    for name in ("STOP", "TSTP"):
        any_shell.enter(f"run sh -c 'echo before; kill -{name} $$; echo after; exit 2'")
        any_shell.expect(r"before\r\n.*Stopped")  # what it wrote is shown before it stops
        any_shell.prompt()
        any_shell.enter("fg")
        any_shell.expect(r"after\r\n")
        assert any_shell.prompt() == 2


def test_job_stops_when_fdbroker_is_sent_sigtstp(shell: Terminal) -> None:
    before = shell.settings
    shell.enter("run sh -c 'echo begin; exec cat'")
    shell.expect(r"begin\r\n")
    os.kill(shell.job(), signal.SIGTSTP)
    shell.expect("Stopped")
    shell.prompt()
    assert shell.settings == before
    shell.bring_back()
    shell.type("x\n")
    shell.expect(r"x\r\nx\r\n")
    shell.type("\x04")
    assert shell.prompt() == 0


def test_job_ends_when_its_stopped_program_is_killed(any_shell: Terminal) -> None:
    before = any_shell.settings
    any_shell.enter("run sh -c 'echo begin; exec sleep 1000'")
    any_shell.expect(r"begin\r\n")
    job = any_shell.job()
    any_shell.type("\x1a")
    any_shell.expect("Stopped")
    any_shell.prompt()
    os.kill(job, signal.SIGTERM)  # which waits, as for every stopped job
    any_shell.enter("fg")
    assert any_shell.prompt() == 128 + signal.SIGTERM
    assert any_shell.settings == before


def test_keys_are_typed_ahead_of_a_stop_and_an_end_without_hanging(shell: Terminal) -> None:
    """Stops and ends in all orders, as fast as they can be typed."""
    before = shell.settings
    for keys in ("\x1a\x03", "\x03\x1a", "\x1a\x1a", "\x1a\x04", "\x04\x1a"):
        shell.enter("run sh -c 'echo begin; exec cat'")
        shell.expect(r"begin\r\n")
        shell.type(keys)
        shell.prompt()
        # It has stopped or ended; a job that is still there can be ended.
        for _ in range(3):
            if "run" not in shell.run("jobs")[1] and not children(shell.pid):
                break
            shell.enter("kill -KILL %% 2>/dev/null; fg 2>/dev/null")
            shell.prompt()
        assert not children(shell.pid)
        assert shell.settings == before


def test_program_is_not_left_waiting_when_nobody_could_let_its_job_go_on(shell: Terminal, out: Path) -> None:
    """A group without a shell of its session cannot be stopped: the kernel gives its readers an error at once."""
    script = f"until test -e {out}/go; do sleep 0.05; done; read x; read y; echo over > {out}/over"
    shell.enter(f"( run sh -c '{script}' < /dev/tty & )")
    shell.prompt()
    (out / "go").touch()
    wait_until((out / "over").exists, "the program's end")
    assert shell.run("echo mine")[1] == "mine\r\n"


def test_ctrl_z_does_nothing_when_nobody_could_let_the_job_go_on(line: str) -> None:
    words = [*shlex.split(line), "sh", "-c", "echo begin; exec cat"]
    with Terminal(words, cwd=TREE) as one:
        one.expect(r"begin\r\n")
        one.type("\x1a")
        one.type("line\n")
        one.expect(r"line\r\n.*line\r\n")
        come_to_rest(one.pid)
        one.type("\x04")
        wait_until(lambda: state(one.pid) == "Z", "the end")


def test_job_of_a_script_without_job_control_stops_and_goes_on_with_it(
    shell: Terminal, line: str, place: Path
) -> None:
    before = shell.settings
    (place / "script").write_text(f"{line} sh -c 'echo begin; read x; echo got-$x'\necho script-$?\n")
    shell.enter(f"sh {place}/script")
    shell.expect(r"begin\r\n")
    shell.type("\x1a")
    shell.expect("Stopped")
    shell.prompt()
    assert shell.settings == before
    shell.bring_back()
    shell.type("hello\n")
    shell.expect(r"got-hello\r\nscript-0\r\n")
    assert shell.prompt() == 0
    assert shell.settings == before


# --- pipes and files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "status", "shown"),
    [
        ("echo piped | run cat", 0, "piped\r\n"),
        ("run echo piped | cat", 0, "piped\r\n"),
        ("run sh -c 'exit 9' | cat; echo ${PIPESTATUS[0]}", 0, "9\r\n"),
        ("run cat < OUT/in", 0, "from a file\r\n"),
        ("run echo to a file > OUT/file; cat OUT/file", 0, "to a file\r\n"),
        ("run sh -c 'echo one; echo two >&2; exit 3' 2> OUT/file; cat OUT/file", 0, "one\r\ntwo\r\n"),
        (
            "run sh -c 'echo one; echo two >&2' | tr a-z A-Z | cat > OUT/file; cat OUT/file",
            0,
            "two\r\nONE\r\n",
        ),
        (
            "run sh -c 'test -t 0; echo $?; test -t 1; echo $?; test -t 2; echo $?' | cat",
            0,
            "0\r\n1\r\n0\r\n",
        ),
        (
            "run sh -c 'test -t 0; echo $?; test -t 1; echo $?; test -t 2; echo $?' < OUT/in",
            0,
            "1\r\n0\r\n0\r\n",
        ),
        ("run cat < /dev/null > /dev/null 2>&1", 0, ""),
    ],
)
def test_pipe_stays_a_pipe_and_a_file_a_file(
    any_shell: Terminal, out: Path, typed: str, status: int, shown: str
) -> None:
    (out / "in").write_text("from a file\n")
    before = any_shell.settings
    assert any_shell.run(typed.replace("OUT", str(out))) == (status, shown)
    assert any_shell.settings == before


def test_keys_are_the_pagers_until_the_program_asks_for_input(any_shell: Terminal) -> None:
    """The pager here takes a key of its own from the terminal, as less does."""
    before = any_shell.settings
    pager = "sh -c 'exec 3<&0; sed -u s/^/paged-/ <&3 & read key < /dev/tty; echo key-$key; wait'"
    any_shell.enter(f"run sh -c 'echo begin; echo end' | {pager}")
    any_shell.expect(r"paged-end\r\n")
    assert not any_shell.is_raw
    any_shell.type("mine\n")
    any_shell.expect(r"key-mine\r\n")
    assert any_shell.prompt() == 0
    assert any_shell.settings == before


def test_program_gets_the_terminal_when_it_asks_for_input_in_a_pipeline(any_shell: Terminal) -> None:
    before = any_shell.settings
    any_shell.enter("run sh -c 'echo ask; read x; echo got-$x; read x; echo got-$x >&2' | cat")
    any_shell.expect(r"ask\r\n")
    any_shell.type("one\n")
    any_shell.expect(r"got-one\r\n")
    any_shell.type("two\n")
    any_shell.expect(r"got-two\r\n")
    assert any_shell.before.endswith(b"two\r\n")  # its echo
    assert any_shell.prompt() == 0
    assert any_shell.settings == before


def test_program_that_reads_a_pipe_asks_the_person_at_dev_tty(any_shell: Terminal) -> None:
    any_shell.enter("echo piped | run sh -c 'read x; echo ask; read y < /dev/tty; echo $x-$y'")
    any_shell.expect(r"ask\r\n")
    any_shell.type("typed\n")
    any_shell.expect(r"piped-typed\r\n")
    assert any_shell.prompt() == 0


@pytest.mark.parametrize(("key", "status"), [("\x03", 128 + signal.SIGINT), ("\x1c", 128 + signal.SIGQUIT)])
def test_key_ends_the_program_in_a_pipeline_too(shell: Terminal, key: str, status: int) -> None:
    shell.enter("run sh -c 'ulimit -c 0; echo ready; exec sleep 1000' | sh -c 'trap : INT QUIT; cat; cat'")
    shell.expect(r"ready\r\n")
    shell.type(key)
    shell.prompt()
    assert shell.run("run sh -c 'exit 3'")[0] == 3


# --- nothing is lost ---------------------------------------------------------------------------------------

# Lines of a megabyte, of which each says where it stands.
LINES = "for i in range(16384): sys.stdout.write(f'{i:062}=\\n')"


def whole(shown: bytes) -> bool:
    """Whether `shown` begins with all the lines."""
    return shown.startswith(b"".join(b"%062d=\r\n" % i for i in range(16384)))


def test_output_of_a_megabyte_is_whole(any_shell: Terminal, programs: Path) -> None:
    program = write_program(programs, f"import sys\n{LINES}\n")
    any_shell.enter(f"run {program}")
    assert any_shell.prompt() == 0
    assert whole(any_shell.before)


def test_output_is_whole_when_the_terminal_takes_it_late(shell: Terminal, programs: Path, out: Path) -> None:
    """All goes out at once at the end, and the terminal takes nothing until the program has nothing more to do."""
    program = write_program(programs, f"import sys\n{LINES}\nsys.stdout.flush()\nopen('{out}/done', 'w')\n")
    shell.enter(f"run {program}")
    come_to_rest(shell.job())
    assert not (out / "done").exists()
    assert shell.prompt() == 0
    assert whole(shell.before)


def test_last_output_is_whole_when_the_program_ends_at_once(any_shell: Terminal, programs: Path) -> None:
    """As much as the kernel holds for a terminal: it is there when the program is gone already."""
    program = write_program(
        programs, "import os\nos.write(1, b'first\\n' + b'x' * 9000 + b'\\nlast\\n')\nos._exit(3)\n"
    )
    for _ in range(5):
        status, shown = any_shell.run(f"run {program}")
        assert (status, shown) == (3, "first\r\n" + "x" * 9000 + "\r\nlast\r\n")


def test_last_output_is_whole_when_fdbroker_could_not_relay_until_the_end(
    shell: Terminal, programs: Path, out: Path
) -> None:
    program = write_program(
        programs,
        "import os, time\n"
        "os.write(1, b'ready\\n')\n"
        f"while not os.path.exists('{out}/go'): time.sleep(0.01)\n"
        "os.write(1, b'first\\n' + b'x' * 9000 + b'\\nlast\\n')\n"
        f"open('{out}/done', 'w')\n",
    )
    shell.enter(f"run {program}")
    shell.expect(r"ready\r\n")
    job = shell.job()
    os.kill(job, signal.SIGSTOP)
    shell.expect("Stopped")
    shell.prompt()
    init = wait_until(lambda: [pid for pid in children(job) if fields(pid)[5] != "-1"], "the init")[0]
    (out / "go").touch()
    wait_until((out / "done").exists, "the program's writing")
    wait_until(lambda: state(init) == "Z", "the sandbox's end")
    shell.enter("fg")
    assert shell.prompt() == 0
    shown = shell.before.replace(b"\r\r\n", b"\r\n")  # the shell had set the terminal meanwhile
    assert shown.partition(b"\r\n")[2] == b"first\r\n" + b"x" * 9000 + b"\r\nlast\r\n"


def test_pasted_input_is_whole(any_shell: Terminal, programs: Path) -> None:
    program = write_program(
        programs,
        "import hashlib, sys\nprint('ready', flush=True)\ndata = sys.stdin.buffer.read()\n"
        "print(len(data), hashlib.sha256(data).hexdigest())\n",
    )
    text = b"".join(b"%09d\n" % i for i in range(10_000))
    any_shell.enter(f"run {program}")
    any_shell.expect(r"ready\r\n")
    any_shell.type(text)
    any_shell.type("\x04")
    any_shell.expect(rf"100000 {hashlib.sha256(text).hexdigest()}\r\n")
    assert any_shell.prompt() == 0


# --- nothing spins, nothing blocks -------------------------------------------------------------------------


def test_nothing_spins_while_the_program_waits(any_shell: Terminal) -> None:
    any_shell.enter("run sh -c 'echo begin; read x'")
    any_shell.expect(r"begin\r\n")
    job = any_shell.job()
    come_to_rest(job, *descendants(job))
    any_shell.type("\n")
    assert any_shell.prompt() == 0


def test_nothing_spins_when_the_program_takes_no_input(shell: Terminal, out: Path) -> None:
    shell.enter(f"run sh -c 'stty raw; echo begin; until test -e {out}/go; do sleep 1; done'")
    shell.expect(r"begin\n")
    job = shell.job()
    shell.type("x" * 80_000)  # more than the inner terminal and the relay hold; the outer holds the rest
    come_to_rest(job)
    (out / "go").touch()
    shell.prompt()


def test_nothing_spins_when_the_program_has_closed_its_terminal(any_shell: Terminal, out: Path) -> None:
    script = f"echo begin; exec < /dev/null > /dev/null 2>&1; until test -e {out}/go; do sleep 1; done"
    any_shell.enter(f"run sh -c '{script}'")
    any_shell.expect(r"begin\r\n")
    come_to_rest(any_shell.job())
    (out / "go").touch()
    assert any_shell.prompt() == 0


def test_broker_answers_while_the_terminal_takes_nothing(
    shell: Terminal, place: Path, secret: Path, programs: Path, out: Path
) -> None:
    program = write_program(
        programs,
        "import os, sys, time\n"
        f"sys.path.insert(0, {str(TREE)!r})\n"
        "import sandboxed\n"
        "client = sandboxed.connect()\n"
        "if os.fork() == 0:\n"
        f"    {LINES}\n"
        "    sys.stdout.flush()\n"
        "    os._exit(0)\n"
        f"while not os.path.exists('{out}/go'): time.sleep(0.01)\n"
        f"content = client.open({str(secret)!r}).read()\n"
        f"open('{out}/answer', 'w').write(content)\n"
        "os.wait()\n",
    )
    shell.enter(f"run {program}")
    job = shell.job()
    come_to_rest(job)
    (out / "go").touch()
    wait_until(lambda: (out / "answer").exists() and (out / "answer").read_text(), "the broker's answer")
    wait_until(lambda: '"verdict":"allow"' in (place / "run.jsonl").read_text(), "the supervisor's record")
    come_to_rest(job)
    assert shell.prompt() == 0
    assert whole(shell.before)


# --- the terminal vanishes ---------------------------------------------------------------------------------


def test_program_is_hung_up_when_the_terminal_vanishes(any_shell: Terminal, out: Path) -> None:
    script = f'trap "echo hup > {out}/hup; exit" HUP; echo begin; while :; do sleep 0.05; done'
    any_shell.enter(f"run sh -c '{script}'")
    any_shell.expect(r"begin\r\n")
    job = any_shell.job()
    below = descendants(job)
    any_shell.hang_up()
    wait_until((out / "hup").exists, "the program to hear of it")
    for pid in (job, *below):
        wait_until(lambda pid=pid: state(pid) == "Z", f"the end of {pid}")


@pytest.mark.parametrize("front", ["", "< /dev/null"])
def test_nothing_spins_and_the_program_reads_an_end_when_the_terminal_vanishes_and_it_stays(
    any_shell: Terminal, out: Path, programs: Path, front: str
) -> None:
    program = write_program(
        programs,
        "import os, signal, time\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "print('begin', flush=True)\n"
        "try: data = os.read(0, 100)\n"
        "except OSError as error: data = b'%d,' % error.errno\n"
        f"while not os.path.exists('{out}/go'): time.sleep(0.05)\n"
        "try: print('into the void', flush=True)\n"
        "except OSError as error: data += b'%d' % error.errno\n"
        f"open('{out}/rest', 'wb').write(data + b'.')\n"
        f"while os.path.exists('{out}/go'): time.sleep(1)\n"
        "os._exit(0)\n",
    )
    any_shell.enter(f"run {program} {front}")
    any_shell.expect(r"begin\r\n")
    job = any_shell.job()
    any_shell.hang_up()
    (out / "go").touch()
    wait_until(lambda: (out / "rest").exists() and (out / "rest").read_text(), "the program to go on")
    assert (out / "rest").read_text() in ("5,5.", "5.", ".")  # EIO or an end, as at a terminal that vanishes
    come_to_rest(job)
    (out / "go").unlink()
    wait_until(lambda: state(job) == "Z", "the end")


# --- what the program cannot do ----------------------------------------------------------------------------


def test_program_cannot_type_into_the_outer_terminal(any_shell: Terminal, programs: Path) -> None:
    program = write_program(
        programs,
        "import fcntl, termios\n"
        "for fd in (0, 1, 2):\n"
        "    for key in b'echo pushed\\n':\n"
        "        try: fcntl.ioctl(fd, termios.TIOCSTI, bytes([key]))\n"
        "        except OSError as error: print(error.errno); break\n",
    )
    any_shell.enter(f"run {program}")
    any_shell.prompt()
    assert any_shell.run("echo mine") == (0, "mine\r\n")


@pytest.mark.parametrize("ignored", ["HUP", "HUP INT TERM TTIN TTOU"])
def test_process_left_over_does_not_read_what_is_typed_after_the_run(
    any_shell: Terminal, out: Path, ignored: str
) -> None:
    left = f'trap \\"\\" {ignored}; echo here > {out}/here; while read x; do echo $x >> {out}/stolen; done'
    any_shell.enter(
        f"run sh -c 'setsid sh -c \"{left}\" < /dev/tty & until test -e {out}/here; do sleep 0.05; done'"
    )
    assert any_shell.prompt() == 0
    any_shell.enter("read -s password; echo ${#password}")
    any_shell.type("secret\n")
    any_shell.expect(r"6\r\n")
    assert any_shell.prompt() == 0
    assert not (out / "stolen").exists()


def test_program_has_the_callers_signal_mask_and_no_ignored_signals(any_shell: Terminal) -> None:
    def signals(shown: str) -> list[str]:
        return [line for line in shown.splitlines() if line.startswith(("SigBlk", "SigIgn"))]

    plain = any_shell.run("grep Sig /proc/self/status")[1]
    confined = any_shell.run("run grep Sig /proc/self/status")[1]
    assert signals(confined) == signals(plain)


def test_shells_side_of_the_terminal_is_never_made_not_to_block(any_shell: Terminal) -> None:
    def flags() -> str:
        return Path(f"/proc/{any_shell.pid}/fdinfo/0").read_text().split("flags:")[1].split()[0]

    before = flags()
    any_shell.enter("run sh -c 'echo begin; read x'")
    any_shell.expect(r"begin\r\n")
    assert flags() == before
    any_shell.type("\n")
    any_shell.prompt()
    assert flags() == before


# --- other ways to have a terminal -------------------------------------------------------------------------


def test_terminal_that_is_nobodys_controlling_one_is_relayed(shell: Terminal) -> None:
    before = shell.settings
    line = shell.run("alias run")[1].strip().removeprefix("alias run='").removesuffix("'")
    shell.enter(f"setsid -w {line} sh -c 'tty; read x; echo got-$x; exit 3'")
    shell.expect(r"/dev/pts/0\r\n")
    shell.type("hello\n")
    shell.expect(r"^hello\r\ngot-hello\r\n")
    assert shell.prompt() == 3
    assert shell.settings == before


def test_program_has_no_terminal_when_there_is_none(line: str) -> None:
    ran = subprocess.run(
        [*shlex.split(line), "sh", "-c", "tty; cat < /dev/tty"],
        cwd=TREE,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )
    assert ran.stdout == "not a tty\n"
    assert "No such device or address" in ran.stderr


def test_embedded_program_has_a_terminal_of_its_own(place: Path, secret: Path) -> None:
    embedded(place, secret)
    program = place / "split.py"
    program.write_text(
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(TREE)!r})\n"
        "from broker.embed import embed\n"
        f"client = embed({str(place / 'run.yaml')!r})\n"
        "print(os.ttyname(0), os.get_terminal_size(), signal.pthread_sigmask(signal.SIG_BLOCK, []))\n"
        f"print(client.open({str(secret)!r}).read())\n"
        "print('got-' + input('ask '))\n"
        "sys.exit(5)\n"
    )
    with Terminal(cwd=TREE) as shell:
        shell.prompt()
        before = shell.settings
        shell.enter(f"{PYTHON} {program}")
        shell.expect(r"/dev/pts/0 os.terminal_size\(columns=80, lines=24\) set\(\)\r\nthe secret\r\nask ")
        shell.type("\x1a")
        shell.expect("Stopped")
        shell.prompt()
        assert shell.settings == before
        shell.bring_back()
        shell.type("hello\n")
        shell.expect(r"got-hello\r\n")
        assert shell.prompt() == 5
        assert shell.settings == before


@needs_root
@pytest.mark.parametrize("how", ["", "setsid -w "])
def test_terminal_of_somebody_elses_is_relayed_and_its_mode_is_left_alone(
    place: Path, out: Path, how: str
) -> None:
    """After su: the terminal's file cannot be opened, and with setsid (su -c) not even as /dev/tty."""
    os.chown(place, STRANGER, STRANGER)
    rules = place / "user.yaml"
    rules.write_text(policy(allow("hosts", "/etc/hosts", clients="any")))
    os.chown(rules, STRANGER, STRANGER)
    become = f"setpriv --reuid {STRANGER} --regid {STRANGER} --clear-groups {how}"
    run = f"{become}{shlex.join(FDBROKER)} run --policy {rules} --rw {out} --"
    with Terminal(cwd=TREE) as shell:
        shell.prompt()
        shell.run("export TMPDIR=/tmp HOME=/")
        before = shell.settings
        flags = Path(f"/proc/{shell.pid}/fdinfo/0").read_text()
        shell.enter(f"{run} sh -c 'tty; read x; echo got-$x; exit 3'")
        shell.expect(r"/dev/pts/0\r\n")
        assert Path(f"/proc/{shell.pid}/fdinfo/0").read_text() == flags
        come_to_rest(*descendants(shell.pid))
        shell.type("hello\n")
        shell.expect(r"^hello\r\ngot-hello\r\n")
        assert shell.prompt() == 3
        assert Path(f"/proc/{shell.pid}/fdinfo/0").read_text() == flags
        assert shell.settings == before
        # A terminal that takes nothing: the supervisor must still hear signals.
        shell.enter(f"{run} sh -c 'trap \"echo usr > {out}/usr\" USR1; yes & while :; do wait; done'")
        shell.expect(r"y\r\ny\r\n")
        job = children(shell.pid)[0]
        if how:
            job = (children(job) or [job])[0]
        come_to_rest(job)
        os.kill(job, signal.SIGUSR1)
        wait_until((out / "usr").exists, "the program to hear a signal")
        os.kill(job, signal.SIGTERM)
        shell.prompt()
        assert shell.settings == before


def test_audit_on_the_terminal_does_not_stop_the_broker_when_the_terminal_takes_nothing(
    place: Path, secret: Path, out: Path, programs: Path
) -> None:
    line = command_line(place, embedded(place, secret).replace(f"{place}/run.jsonl", "-"))
    program = write_program(
        programs,
        "import os, sys, time\n"
        f"sys.path.insert(0, {str(TREE)!r})\n"
        "import sandboxed\n"
        "client = sandboxed.connect()\n"
        "if os.fork() == 0:\n"
        "    while True: os.write(1, b'y\\n')\n"
        f"while not os.path.exists('{out}/go'): time.sleep(0.01)\n"
        f"for _ in range(2000): client.open({str(secret)!r}).close()\n"
        f"open('{out}/answer', 'w')\n"
        "time.sleep(1000)\n",
    )
    with Terminal(cwd=TREE) as shell:
        set_up(shell, line)
        shell.enter(f"run {program}")
        shell.expect(r"y\r\ny\r\n")
        job = shell.job()
        come_to_rest(job)
        (out / "go").touch()
        wait_until((out / "answer").exists, "the broker's answers")
        program = next(pid for pid in descendants(job) if children(pid))
        program = next(pid for pid in descendants(program) if fields(pid)[1] == str(program))
        os.kill(job, signal.SIGTERM)
        wait_until(lambda: state(program) == "Z", "the signal to reach the program")
        assert shell.prompt() == 128 + signal.SIGTERM
