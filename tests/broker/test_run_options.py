"""The command line of `fdbroker run`: what is read without argparse reads as argparse would have it."""

import contextlib
import io
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.commands.run_options import Options, parse, scan
from broker.commands.run_parser import parser
from broker.unusable import Unusable

OPTIONS = [
    "--policy",
    "--socket",
    "--audit",
    "--user",
    "--work",
    "--net",
    "--profile",
    "--ro",
    "--rw",
    "--env",
]
OTHERS = ["--weak", "--dry-run", "--json", "--help", "-h", "--pol", "--no-such", "--policy=a", "--net=host"]
VALUES = ["a", "/a b", "", "-", "--", "-1", "-x", "none", "host", "landlock", "A=b", "0", "true"]

words = st.sampled_from(OPTIONS * 2 + OTHERS + VALUES * 2)
pairs = st.tuples(st.sampled_from([*OPTIONS, "--weak"]), st.sampled_from(VALUES)).map(list)
lines = st.lists(st.one_of(words.map(lambda word: [word]), pairs)).map(lambda parts: list(chain(*parts)))


def by_argparse(arguments: list[str]) -> dict[str, object] | None:
    """What the parser makes of them; None where it ends the program."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            options = parser().parse_args(arguments, Options())
    except SystemExit:
        return None
    if options.command[:1] == ["--"]:
        del options.command[0]
    return vars(options)


@given(lines)
def test_scan_reads_a_line_as_argparse_does_or_leaves_it(arguments: list[str]) -> None:
    options = scan(arguments)
    if options is not None:
        assert vars(options) == by_argparse(arguments)


def test_every_option_with_a_value_is_read_without_argparse() -> None:
    arguments = [
        word for action in parser()._actions if action.nargs is None for word in action.option_strings
    ]
    assert sorted(arguments) == sorted([*OPTIONS, "--weak"])
    for word in arguments:
        assert scan([word, {"--net": "host", "--weak": "landlock"}.get(word, "a"), "--", "true"]) is not None


@pytest.mark.parametrize(
    "arguments",
    [["--pol", "a", "true"], ["--policy=a", "true"], ["--policy", "a", "--json", "--dry-run", "true"]],
)
def test_what_scan_leaves_is_parsed(arguments: list[str]) -> None:
    assert scan(arguments) is None
    assert (parse(arguments).policy or "a", parse(arguments).command) == ("a", ["true"])


def test_line_without_a_command_is_unusable() -> None:
    with pytest.raises(Unusable):
        parse(["--policy", "a"])
