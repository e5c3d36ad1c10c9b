"""The assembler of seccomp filters, by an interpreter of what it writes.

The interpreter decides for 64-bit ARM too, of which there need not be a machine at hand; that the running
kernel decides alike is in test_seccomp. It refuses what the kernel's verifier refuses: a jump out of the
program, an operation that it does not know, a way without an end.
"""

import struct
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sandboxed.confinement import bpf, seccomp, syscall_numbers
from sandboxed.confinement.bpf import ALLOW, Rows, differs, equals, has_any, refuse

WORD = 0xFFFFFFFF
EPERM, ENOSYS = refuse(1), refuse(38)
ARCHITECTURES = syscall_numbers.ARCHITECTURES
AUDIT_ARCH_I386, AUDIT_ARCH_ARM = 0x40000003, 0x40000028
X32 = 1 << 30


def run(program: bytes, arch: int, number: int, arguments: tuple[int, ...]) -> tuple[int, set[int]]:
    """The action, and the offsets in struct seccomp_data that were read on the way to it."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments)
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator, at, read = 0, 0, set()
    while True:
        operation, if_true, if_false, operand = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, operand)
                read.add(operand)
            case 0x54:
                accumulator &= operand
            case 0x05:
                at += operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x35:
                at += if_true if accumulator >= operand else if_false
            case 0x06:
                return operand, read
            case _:
                raise AssertionError(f"operation {operation:#x}")


def half(arguments: tuple[int, ...], at: int) -> int:
    """The half of an argument that a condition is about."""
    return arguments[at] & WORD if at < len(arguments) else arguments[at ^ bpf.upper(0)] >> 32


def verdict(
    audit_arch: int,
    reviewed: tuple[tuple[int, int], ...],
    table: Mapping[int, Rows],
    arch: int,
    number: int,
    arguments: tuple[int, ...],
) -> int:
    """What the table says, in as few words as it can be said."""
    if arch != audit_arch or not any(first <= number <= last for first, last in reviewed):
        return ENOSYS
    for conditions, action in table.get(number, ()):
        if all(((half(arguments, at) & mask) == value) is equal for at, mask, value, equal in conditions):
            return action
    return ALLOW


REVIEWED = ((0, 60), (70, 100))
values = some.sampled_from([0, 1, 2, 0xF, 0x80, 0x12345678, 0x80000000, WORD])
arguments = some.tuples(*[some.builds(lambda high, low: high << 32 | low, values, values)] * 6)
halves = some.one_of(some.integers(0, 5), some.integers(0, 5).map(bpf.upper))
conditions = some.tuples(halves, values, values, some.booleans())
rows = some.tuples(some.lists(conditions, max_size=4).map(tuple), some.sampled_from([ALLOW, EPERM, ENOSYS]))
known_numbers = some.sampled_from([n for first, last in REVIEWED for n in range(first, last + 1)])
tables = some.dictionaries(known_numbers, some.lists(rows, max_size=5).map(tuple), max_size=40)
numbers = some.one_of(some.integers(0, 102), some.integers(0, WORD))


@given(table=tables, calls=some.lists(some.tuples(numbers, arguments), min_size=1, max_size=20))
def test_program_decides_as_its_table_does(
    table: dict[int, Rows], calls: list[tuple[int, tuple[int, ...]]]
) -> None:
    program = bpf.assemble(7, REVIEWED, table)
    for number, given_arguments in calls:
        for arch in (7, 8):
            expected = verdict(7, REVIEWED, table, arch, number, given_arguments)
            assert run(program, arch, number, given_arguments)[0] == expected


def named(architecture: syscall_numbers.Architecture, **choice: bool) -> dict[int, Rows]:
    known = architecture.numbers()
    return {known[name]: rows for name, rows in seccomp.rules(**choice).items() if name in known}


# Values near those that the rules speak of, so that every row is met.
_MENTIONED = sorted(
    {
        near & WORD
        for rows in seccomp.rules(unix_sockets=True, internet=True).values()
        for conditions, _ in rows
        for _, mask, value, _ in conditions
        for near in (value, value + 1, value - 1, value ^ X32, mask, mask & -mask)
    }
)
_near = some.builds(
    lambda high, low, other: high << 32 | low | other,
    some.sampled_from([0, 1, WORD]),
    some.sampled_from(_MENTIONED),
    some.sampled_from([0, 0, *_MENTIONED]),
)


@pytest.mark.parametrize("unix_sockets", [False, True])
@pytest.mark.parametrize("internet", [False, True])
@pytest.mark.parametrize("machine", ARCHITECTURES)
@given(calls=some.lists(some.tuples(some.integers(0, 480), some.tuples(*[_near] * 6)), max_size=30))
def test_filter_decides_as_its_rules_do(
    machine: str, internet: bool, unix_sockets: bool, calls: list[tuple[int, tuple[int, ...]]]
) -> None:
    architecture = ARCHITECTURES[machine]
    choice = {"unix_sockets": unix_sockets, "internet": internet}
    table = named(architecture, **choice)
    program = seccomp.build(**choice, architecture=architecture)
    judged = [number for number, rows in table.items() if rows[0][0]]
    for drawn, given_arguments in calls:
        for number in (drawn, judged[drawn % len(judged)]):
            expected = verdict(
                architecture.audit_arch,
                architecture.reviewed,
                table,
                architecture.audit_arch,
                number,
                given_arguments,
            )
            assert run(program, architecture.audit_arch, number, given_arguments)[0] == expected


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_filter_reads_no_argument_of_a_call_without_conditions(machine: str) -> None:
    # Only then the kernel decides once, when the filter is installed, and the call costs nothing more.
    architecture = ARCHITECTURES[machine]
    choice = {"unix_sockets": False, "internet": False}
    table = named(architecture, **choice)
    program = seccomp.build(**choice, architecture=architecture)
    for number in range(500):
        rows = table.get(number, ())
        if not rows or not rows[0][0]:
            assert run(program, architecture.audit_arch, number, (0,) * 6)[1] <= {0, 4}, number


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("foreign", [0, AUDIT_ARCH_I386, AUDIT_ARCH_ARM, WORD])
def test_filter_answers_enosys_to_every_call_of_another_architecture(machine: str, foreign: int) -> None:
    program = seccomp.build(unix_sockets=True, internet=True, architecture=ARCHITECTURES[machine])
    assert {run(program, foreign, number, (0,) * 6)[0] for number in range(500)} == {ENOSYS}


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_filter_answers_enosys_to_every_number_that_was_not_reviewed(machine: str) -> None:
    architecture = ARCHITECTURES[machine]
    program = seccomp.build(unix_sockets=True, internet=True, architecture=architecture)
    known = {number for first, last in architecture.reviewed for number in range(first, last + 1)}
    strange = [*(set(range(600)) - known), 1000, 1 << 31, WORD, *(X32 | number for number in range(600))]
    assert {run(program, architecture.audit_arch, number, (0,) * 6)[0] for number in strange} == {ENOSYS}


@pytest.mark.parametrize("first_strange", [470])
@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_reviewed_numbers_end_with_linux_6_18(machine: str, first_strange: int) -> None:
    assert ARCHITECTURES[machine].reviewed[-1][1] == first_strange - 1


def test_program_jumps_far_when_half_a_tree_is_long() -> None:
    # Neighbours differ, or they would be one segment.
    table: dict[int, Rows] = {
        number: tuple(((equals(0, value + number % 2),), refuse(value)) for value in range(1, 5))
        for number in range(200)
    }
    program = bpf.assemble(7, ((0, 199),), table)
    assert len(program) > 8 * 2600
    for number in (0, 2, 48, 50, 98, 100, 198):
        assert run(program, 7, number, (3, 0, 0, 0, 0, 0))[0] == refuse(3)
        assert run(program, 7, number + 1, (3, 0, 0, 0, 0, 0))[0] == refuse(2)
        assert run(program, 7, number, (9, 0, 0, 0, 0, 0))[0] == ALLOW


def test_table_is_refused_when_the_kernel_would_refuse_its_program() -> None:
    table: dict[int, Rows] = {number: (((equals(0, number),), EPERM),) * 5 for number in range(300)}
    with pytest.raises(ValueError, match="the kernel takes 4096"):
        bpf.assemble(7, ((0, 299),), table)


def test_row_is_refused_when_no_jump_gets_over_it() -> None:
    with pytest.raises(ValueError, match="too long"):
        bpf.assemble(7, ((0, 9),), {1: (((equals(0, 1),) * 200, EPERM),)})


@pytest.mark.parametrize("number", [61, 69, 101])
def test_rule_is_refused_when_its_number_was_not_reviewed(number: int) -> None:
    with pytest.raises(ValueError, match=f"system call {number}, which was not reviewed"):
        bpf.assemble(7, REVIEWED, {number: ()})


@pytest.mark.parametrize(
    ("condition", "matching", "others"),
    [
        (equals(2, 5), [5, 1 << 32 | 5], [0, 4, 6, 1 << 31 | 5]),
        (equals(2, 5, 0xF), [5, 0x80005, 1 << 32 | 5], [4, 0xD]),
        (differs(2, 0), [1, WORD, 1 << 31], [0, 1 << 32, 1 << 63]),
        (has_any(2, 0o6000), [0o4755, 0o2000, 0o6000, 1 << 40 | 0o2000], [0o755, 0o1777, 0, 1 << 33]),
    ],
)
def test_condition_looks_at_the_low_word_alone(
    condition: bpf.Condition, matching: list[int], others: list[int]
) -> None:
    program = bpf.assemble(7, ((0, 9),), {1: (((condition,), EPERM),)})
    for value in matching:
        assert run(program, 7, 1, (0, 0, value, 0, 0, 0))[0] == EPERM, hex(value)
    for value in others:
        assert run(program, 7, 1, (0, 0, value, 0, 0, 0))[0] == ALLOW, hex(value)
