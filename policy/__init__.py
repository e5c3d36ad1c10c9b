"""What the administrator writes, turned into decisions: text and values in, verdicts out.

`load` reads policy files, `Policy` answers requests. Everything here is pure: no system call, no clock, no
account database. The broker finds the facts, and does what the verdict says.
"""

from .clients import DEFAULT_SOCKET, Client, Peer
from .decide import Policy
from .load import PolicySet, load, load_set
from .patterns import PathPattern, PatternError, parse_pattern
from .problems import PolicyError, Problem
from .rules import ALLOW, DENY, Consideration, Object, Request, Rule, SocketDeclaration, Source, Verdict
from .tiers import MaskedRule, Redefinition, counting
from .words import FileType, Rights, parse_rights, rights_words

__all__ = [
    "ALLOW",
    "DEFAULT_SOCKET",
    "DENY",
    "Client",
    "Consideration",
    "FileType",
    "MaskedRule",
    "Object",
    "PathPattern",
    "PatternError",
    "Peer",
    "Policy",
    "PolicyError",
    "PolicySet",
    "Problem",
    "Redefinition",
    "Request",
    "Rights",
    "Rule",
    "SocketDeclaration",
    "Source",
    "Verdict",
    "counting",
    "load",
    "load_set",
    "parse_pattern",
    "parse_rights",
    "rights_words",
]
