"""An assembler for seccomp filters: from a table of rules to classic BPF.

Rules that this module enforces:
- The architecture is looked at first. A call that another one makes (int 0x80 on x86-64) is ENOSYS.
- A number outside of what was reviewed is ENOSYS: what a newer kernel brings stays shut, and libraries fall
  back. That takes in x32, whose numbers have bit 30 set, and -1.
- A call without rules is allowed, and decided by its number alone. The kernel notices this when the filter is
  installed and never runs it for such a call again (seccomp(2), since Linux 5.11).
- Only the low 32 bits of an argument are looked at, because the kernel drops the upper ones of an int: a
  test on all 64 is passed by with bit 32 set. A pointer takes two conditions, the other one on upper().

Out of scope: comparing 64-bit values in one condition. Which calls are refused is the table's business
(sandboxed.confinement.seccomp).

A table maps a call's number to its rows. A row is some conditions and the action to take if all of them hold;
the first such row decides, and if there is none the call is allowed.

An instruction is one int here, struct sock_filter (linux/filter.h) as a little-endian 64-bit word. Code is a
list of them that ends by returning on every way through, and only jumps forward within itself: so pieces are
put together by writing one behind the other.
"""

import struct
from collections.abc import Mapping, Sequence

# linux/seccomp.h
ALLOW = 0x7FFF0000
_RET_ERRNO = 0x00050000

_WORD = 0xFFFFFFFF
_ENOSYS = 38
# kernel: BPF_MAXINSNS
_MOST_INSTRUCTIONS = 4096
# jt and jf are one byte each
_FARTHEST_JUMP = 255

# struct seccomp_data: the number, the architecture, the instruction pointer, six arguments
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

# linux/bpf_common.h
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JUMP = 0x05  # BPF_JMP | BPF_JA
_IF_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_IF_NOT_LESS = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

# What upper() adds to an argument's number.
_UPPER = 8

# Argument (0 to 5, or the upper() half of one), mask, value, and whether `argument & mask` is to be `value` or to
# differ from it.
Condition = tuple[int, int, int, bool]
Row = tuple[tuple[Condition, ...], int]
Rows = tuple[Row, ...]
_Code = list[int]


def refuse(errno: int) -> int:
    """The action that fails a call with `errno`."""
    return _RET_ERRNO | errno


def upper(argument: int) -> int:
    """The upper 32 bits of an argument, to be used like one."""
    return argument | _UPPER


def equals(argument: int, value: int, mask: int = _WORD) -> Condition:
    """The argument's low 32 bits, of them those in `mask`, are `value`."""
    return argument, mask, value, True


def differs(argument: int, value: int, mask: int = _WORD) -> Condition:
    """The opposite of equals()."""
    return argument, mask, value, False


def has_any(argument: int, bits: int) -> Condition:
    """At least one of `bits` is set in the argument's low 32 bits."""
    return differs(argument, 0, bits)


def assemble(
    audit_arch: int,
    reviewed: Sequence[tuple[int, int]],
    table: Mapping[int, Rows],
    otherwise: int = refuse(_ENOSYS),
) -> bytes:
    """The filter as an array of struct sock_filter. `reviewed` is as in syscall_numbers.Architecture.

    `otherwise` is the action for whatever was not reviewed, and for another architecture: with the calls of an
    allow-list as the only ones that were, the filter is that list.
    Raises ValueError for a rule about a number that was not reviewed, and for a table that is too large.
    """
    unknown = [_instruction(_RETURN, otherwise)]
    code = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_IF_EQUAL, audit_arch, if_true=len(unknown)),
        *unknown,
        _instruction(_LOAD, _NUMBER),
        *_search(_segments(reviewed, table, unknown)),
    ]
    if len(code) > _MOST_INSTRUCTIONS:
        raise ValueError(f"{len(code)} instructions, and the kernel takes {_MOST_INSTRUCTIONS}")
    return struct.pack(f"<{len(code)}Q", *code)


def _instruction(operation: int, operand: int, if_true: int = 0, if_false: int = 0) -> int:
    """The jumps count the instructions to skip."""
    return operation | if_true << 16 | if_false << 24 | operand << 32


def _segments(
    reviewed: Sequence[tuple[int, int]], table: Mapping[int, Rows], unknown: _Code
) -> list[tuple[int, _Code]]:
    """The numbers from 0 on, cut where another code begins: (first number, code)."""
    allowed = [_instruction(_RETURN, ALLOW)]
    starts = {0: unknown}
    for first, last in reviewed:
        starts[first] = allowed
        starts[last + 1] = unknown
    for number in sorted(table):
        if not any(first <= number <= last for first, last in reviewed):
            raise ValueError(f"a rule about the system call {number}, which was not reviewed")
        starts[number] = _decide(table[number])
        starts.setdefault(number + 1, allowed)
    segments: list[tuple[int, _Code]] = []
    for first, code in sorted(starts.items()):
        if not segments or segments[-1][1] != code:
            segments.append((first, code))
    return segments


def _search(segments: Sequence[tuple[int, _Code]]) -> _Code:
    """Find the segment that the loaded number lies in: a balanced tree, its lower half written first."""
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    below, above = _search(segments[:middle]), _search(segments[middle:])
    first_above = segments[middle][0]
    if len(below) <= _FARTHEST_JUMP:
        branch = [_instruction(_IF_NOT_LESS, first_above, if_true=len(below))]
    else:
        branch = [_instruction(_IF_NOT_LESS, first_above, if_false=1), _instruction(_JUMP, len(below))]
    return branch + below + above


def _decide(rows: Rows) -> _Code:
    code: _Code = []
    for conditions, action in rows:
        code += _row(conditions, action)
    # Behind a row without conditions this is never reached, and the kernel does not mind.
    return code if rows and not rows[-1][0] else [*code, _instruction(_RETURN, ALLOW)]


def _row(conditions: tuple[Condition, ...], action: int) -> _Code:
    """Return `action`, or go on behind the row at the first condition that does not hold."""
    code = [_instruction(_RETURN, action)]
    for argument, mask, value, equal in reversed(conditions):
        rest = len(code)
        if rest > _FARTHEST_JUMP:
            raise ValueError(f"a row of {len(conditions)} conditions is too long")
        half = 4 if argument & _UPPER else 0
        test = [_instruction(_LOAD, _FIRST_ARGUMENT + 8 * (argument & ~_UPPER) + half)]
        if mask != _WORD:
            test.append(_instruction(_AND, mask))
        skip = (0, rest) if equal else (rest, 0)
        code = [*test, _instruction(_IF_EQUAL, value, *skip), *code]
    return code
