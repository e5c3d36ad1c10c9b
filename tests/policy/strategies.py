"""Random policies, peers, requests and objects from a world so small that they meet often."""

import json
from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

from hypothesis import strategies as st

from policy import FileType, Object, Peer, Policy, Request, Source, Verdict, load, parse_rights
from policy.devices import Device

RuleText = dict[str, Any]

OPEN_WORDS = ["read", "write", "truncate", "ioctl"]
DENY_WORDS = ["read", "write", "append", "truncate", "ioctl", "create"]
TYPES = [kind.value for kind in FileType]
DIRECTORIES = ["/dev", "/srv", "/srv/a"]
PATHS = [f"{directory}/{leaf}" for directory in DIRECTORIES for leaf in ("a", "b", "tty", "null")]
GLOBS = [
    f"{directory}/{glob}" for directory in DIRECTORIES for glob in ("*", "?", "[ab]", "t*", "[!a]", "**")
]
MOMENTS = {"1970-01-01T00:01Z": 60, "1970-01-01T01:02+01:00": 120, "1969-12-31T23:00:59-01:01": 119}
# With the values below they meet the paths above, or would if text from an account were a pattern.
VARYING = [
    "/srv/${user}",
    "/${user}/a",
    "/srv/[a-z]${user}",
    "${home}/a",
    "${home}/**",
    "${home}",
    "/srv/a/${uid}*",
]
VARYING += ["/${user}${uid}/**", "/dev/${user}", "${home}/${user}"]
ACCOUNT_NAMES = [None, "a", "srv", "b", "*", "**", "?", "[ab]", "a/b", "..", "", "tty", "[", "]", "{a}", "\\"]
HOMES = [None, "/srv/a", "/srv/*", "/srv", "/", "/dev", "", "/*/*", "/srv/a/", "/srv/../x"]
CLIENTS: list[Any] = [
    {"user": "mia"},
    {"user": ["tom", "mia"]},
    {"uid": "1000"},
    {"uid": ["5", "1000-1001"]},
    {"group": "lab"},
    {"gid": "50-60"},
    {"socket": "default"},
    {"user": "mia", "group": ["lab", "adm"]},
    {"unit": "web.service"},
    {"label": ["web_t", "db_t"]},
    {"exe": "/bin/a", "user": "mia"},
    "any",
]
# Devices that meet these selectors now and then, or are not known to.
SELECTORS: list[dict[str, Any]] = [
    {"subsystem": "tty"},
    {"subsystem": ["usb", "t*"], "device": ["1:0", "1:1"]},
    {"device": "1:*"},
    {"udev": {"BUS": "usb"}},
    {"udev": {"BUS": "usb", "SERIAL": ["A*", "B"]}, "type": "char"},
    {"udev": {"SERIAL": "A1"}, "type": ["char", "block"]},
    {"attrs": {"vendor": "0403", "product": "60*"}},
    {"attrs": {"vendor": "0403"}, "udev": {"SERIAL": "*"}},
    {"seat": "seat0"},
    {"seat": ["seat1", "seat[2-9]"], "subsystem": "tty"},
]
GROUPS = {
    "adapters": [{"udev": {"BUS": "usb"}}, {"subsystem": "tty", "type": "char"}],
    "a1": {"udev": {"SERIAL": "A1"}},
}


TERMS: list[RuleText] = [{}, {}, {"lease": "90s"}, {"lease": "2m"}, {"exclusive": True}, {"exclusive": False}]
TERMS += [{"lease": "1h", "exclusive": True}, {"lease": "2m", "exclusive": True}]


def subsets(values: Sequence[Any], least: int, most: int) -> list[list[Any]]:
    return [list(one) for size in range(least, most + 1) for one in combinations(values, size)]


# Choices from ready lists, not lists of choices: drawing is what these tests spend their time on.
paths = st.sampled_from(PATHS)
pattern_lists = st.sampled_from(subsets([*PATHS, *GLOBS, "/**", "/*/a", "/srv/*/b", "/*/*", *VARYING], 1, 2))
client_lists = st.sampled_from(subsets(CLIENTS, 1, 2))
own_device_keys = st.sampled_from(
    [{key: value for key, value in one.items() if key != "type"} for one in SELECTORS]
)
device_lists = st.sampled_from(subsets([*SELECTORS, *GROUPS], 1, 2))
optional_rights = st.sampled_from(subsets(OPEN_WORDS, 0, 4)).map(parse_rights)
wanted_rights = st.sampled_from(subsets([*OPEN_WORDS, "append"], 1, 5)).map(parse_rights)


def rules(action: str) -> st.SearchStrategy[RuleText]:
    """Rules without a name: named() gives each its own."""
    is_allow = action == "allow"
    words = subsets(OPEN_WORDS if is_allow else DENY_WORDS, 1, 4)
    types = subsets(["file", "char", "block", "fifo"] if is_allow else TYPES, 1, 2)
    mandatory = {action: st.sampled_from(words)}
    optional = {
        "except_clients": client_lists,
        "except_paths": pattern_lists,
        "type": st.sampled_from(types),
        "until": st.sampled_from(list(MOMENTS)),
    }
    (mandatory if is_allow else optional).update(clients=client_lists, paths=pattern_lists)
    plain = st.fixed_dictionaries(mandatory, optional=optional)
    device_types = st.sampled_from(subsets(["char", "block"], 1, 2))
    kept = {key: value for key, value in mandatory.items() if key != "paths"}
    of_devices = st.fixed_dictionaries(
        {**kept, "devices": device_lists},
        optional={**optional, "type": device_types, "except_devices": device_lists},
    )
    with_own_keys = st.builds(
        lambda rule, own: {**rule, **own},
        st.fixed_dictionaries(
            {**kept, "paths": pattern_lists, "type": device_types},
            optional={"devices": device_lists, "except_devices": device_lists, "except_paths": pattern_lists},
        ),
        own_device_keys,
    )
    rule = st.one_of(plain, plain, plain, of_devices, with_own_keys)
    # One choice for all terms: each key of its own makes cases that meet rarer.
    return (
        st.builds(lambda rule, terms: {**rule, **terms}, rule, st.sampled_from(TERMS)) if is_allow else rule
    )


allows = rules("allow")
denies = rules("deny")
rule_lists = st.lists(st.one_of(allows, denies), max_size=4)


def named(texts: Sequence[RuleText]) -> list[RuleText]:
    return [{"name": f"r{number}", **text} for number, text in enumerate(texts)]


def source(texts: Sequence[RuleText], name: str = "10-test.yaml", declares: bool = True) -> Source:
    """A policy file with these rules, which `declares` the groups of devices too; JSON is YAML."""
    groups = GROUPS if declares else {}
    return Source(name, json.dumps({"version": "1", "devices": groups, "rules": list(texts)}))


def policy_of(texts: Sequence[RuleText]) -> Policy:
    return load([source(texts)])


def known_or_not(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from([None, *map(frozenset, subsets(values, 0, 2))])


peers = st.builds(
    Peer,
    uid=st.sampled_from([None, 0, 5, 1000, 1001]),
    user_names=known_or_not(["mia", "tom", "root"]),
    gids=known_or_not([0, 50, 60]),
    group_names=known_or_not(["lab", "adm", "users"]),
    account_gids=known_or_not([0, 50, 60]),
    account_group_names=known_or_not(["lab", "adm", "users"]),
    has_account=st.sampled_from([None, True, False]),
    socket=st.sampled_from(["default", "gpu"]),
    embedded=st.booleans(),
    account_name=st.sampled_from(ACCOUNT_NAMES),
    home=st.sampled_from(HOMES),
    owner_names=known_or_not(["mia", "tom"]),
    owner_uids=known_or_not([5, 1000, 2000]),
    unit=st.sampled_from([None, "", "web.service", "db.service"]),
    exe=st.sampled_from([None, "/bin/a", "/bin/b"]),
    label=st.sampled_from([None, "web_t", "x_t"]),
)
devices = st.builds(
    Device,
    number=st.sampled_from([None, (1, 0), (1, 1), (2, 0)]),
    subsystem=st.sampled_from([None, "", "tty", "usb"]),
    properties=st.sampled_from(
        [
            None,
            {},
            {"BUS": "usb"},
            {"BUS": "usb", "SERIAL": "A1"},
            {"SERIAL": "B", "ID_SEAT": "seat1"},
            {"BUS": "usb", "SERIAL": "", "ID_SEAT": "seat2"},
        ]
    ),
    attributes=st.sampled_from(
        [
            None,
            (),
            ({"vendor": "0403"}, {"product": "6001"}),
            ({}, {"vendor": "0403", "product": "6001"}),
            ({"vendor": None}, {"product": "6001", "vendor": "1"}),
            ({"vendor": "0403", "product": None},),
        ]
    ),
)
times = st.sampled_from([None, 0.0, 59.5, 60.0, 119.5, 120.0, 1e9])
requests = st.builds(Request, paths, wanted_rights, optional_rights)


class Situation(NamedTuple):
    """A request of a peer, the object that its path leads to, and the time of it."""

    request: Request
    peer: Peer
    object: Object
    now: float | None = None

    def decided_by(self, policy: Policy) -> Verdict:
        return policy.decide(self.request, self.peer, self.object, self.now)

    def allowed_by(self, texts: Sequence[RuleText]) -> bool:
        return self.decided_by(policy_of(texts)).allowed


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    request = draw(requests)
    found = draw(
        st.builds(
            Object,
            path=st.sampled_from([request.path] * len(PATHS) + PATHS),
            type=st.sampled_from([FileType.FILE, FileType.FILE, FileType.CHAR, FileType.BLOCK, None]),
            names=st.sampled_from(subsets(PATHS, 0, 1)).map(tuple),
            excepted_as=st.sampled_from(subsets(PATHS, 0, 1)).map(tuple),
            last_link=st.booleans(),
            device=st.one_of(st.none(), devices),
        )
    )
    return Situation(request, draw(peers), found, draw(times))


@st.composite
def granted(draw: st.DrawFn) -> tuple[list[RuleText], Situation]:
    """Rules and a situation that they may well allow: the first rule is made for it."""
    situation = draw(situations())
    asked = situation.request.path
    kind = situation.object.type or FileType.FILE
    fitting = {
        "allow": ["use", "truncate"],
        "clients": [{"socket": "default"}, "any"],
        "paths": draw(st.sampled_from([[asked], [asked, situation.object.path], ["/**"]])),
        "type": [kind.value],
    }
    return named([fitting, *draw(rule_lists)]), situation


class TieredFile(NamedTuple):
    """A file of a set of several tiers, before it is text."""

    name: str
    tier: int
    rules: list[RuleText]
    lab: Any
    """What the client `lab` is; None: this file does not say."""
    mask: list[str]

    def source(self) -> Source:
        # The groups of devices are declared once in a set, by the file that declares the clients.
        groups = GROUPS if self.name == "00-lab.yaml" else {}
        text = {"version": "1", "mask": self.mask, "rules": self.rules, "devices": groups}
        return Source(
            self.name, json.dumps({**text, "clients": {"lab": self.lab} if self.lab else {}}), self.tier
        )

    def ids(self) -> list[str]:
        return [f"{self.name.removesuffix('.yaml')}/{rule['name']}" for rule in self.rules]


FILE_NAMES = ["10-a.yaml", "20-b.yaml", "30-c.yaml"]
LABS = [client for client in CLIENTS if client != "any"]


@st.composite
def tiered_sets(draw: st.DrawFn) -> tuple[list[TieredFile], Situation]:
    """Files of three tiers that load together, and a situation for them: some replace, mask and redefine others."""
    rules, situation = draw(granted())
    files = [TieredFile("00-lab.yaml", 0, [], draw(st.sampled_from(LABS)), [])]
    for number, rule in enumerate([*rules, *named(draw(rule_lists))]):
        clients = ["lab"] if draw(st.integers(0, 3)) == 0 else rule.get("clients", ["lab"])
        place = (draw(st.sampled_from(FILE_NAMES)), draw(st.integers(0, 2)))
        files = _with_rule(files, *place, {**rule, "name": f"r{number}", "clients": clients})
    for tier in (1, 2):
        if draw(st.booleans()):
            files.append(TieredFile(f"0{tier}-lab.yaml", tier, [], draw(st.sampled_from(LABS)), []))
    for name in draw(st.sampled_from(subsets(FILE_NAMES, 0, 1))):
        files = [file for file in files if (file.name, file.tier) != (name, 2)]
        files.append(TieredFile(name, 2, [], None, []))
    counts = [file for file in files if file.tier == max(one.tier for one in files if one.name == file.name)]
    for tier in (1, 2):
        lower = [rule for file in counts if file.tier < tier for rule in file.ids()]
        masked = draw(st.lists(st.sampled_from(lower), max_size=2)) if lower else []
        if masked:
            files.append(TieredFile(f"5{tier}-mask.yaml", tier, [], None, masked))
    return files, situation


def _with_rule(files: list[TieredFile], name: str, tier: int, rule: RuleText) -> list[TieredFile]:
    for number, file in enumerate(files):
        if (file.name, file.tier) == (name, tier):
            return [*files[:number], file._replace(rules=[*file.rules, rule]), *files[number + 1 :]]
    return [*files, TieredFile(name, tier, [rule], None, [])]
