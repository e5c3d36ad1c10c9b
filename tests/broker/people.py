"""People and a serial adapter that no machine has, for tests of `fdbroker access`; and accounts of this machine."""

import pwd
import stat

from broker.outside import Permissions, Way
from broker.population import Somebody
from broker.survey import Seen
from policy import FileType, Object, Peer, Policy, Source, load
from policy.access import Subject
from policy.devices import Device

# The first accounts of this machine: each has root, and some of the system's.
USERS = sorted(pwd.getpwall(), key=lambda account: account.pw_uid)[:4]

NOW = 1_700_000_000
NOTHING = "version: 1\n"


def loaded(text: str) -> Policy:
    return load([Source("30-site.yaml", text)])


def person(name: str, uid: int, *groups: str) -> Somebody:
    gids = frozenset(GIDS[one] for one in groups)
    names = frozenset(groups)
    return Somebody(
        Peer(
            uid,
            frozenset([name]),
            gids,
            names,
            gids,
            names,
            True,
            account_name=name,
            unit="",
            exe="",
            label="",
        ),
        name,
    )


GIDS = {"lab": 50, "teachers": 51, "dialout": 20}
PEOPLE = [
    person("root", 0),
    person("mia", 1042, "lab"),
    person("tom", 1043, "lab", "teachers"),
    person("bob", 1044, "dialout"),
    person("eve", 1045),
]
NODE = Object("/dev/ttyUSB0", FileType.CHAR, (), False, Device((188, 0), "tty", {"ID_VENDOR_ID": "0403"}, ()))
DIRECTORIES = (
    ("/", Permissions(stat.S_IFDIR | 0o755, 0, 0)),
    ("/dev", Permissions(stat.S_IFDIR | 0o755, 0, 0)),
)


def seen(found: Object = NODE, mode: int = 0o660, refusal: str = "") -> Seen:
    way = Way(DIRECTORIES, Permissions(stat.S_IFCHR | mode, 0, 20))
    return Seen(Subject(found.path, found), (188, 0), way, refusal, frozenset([(0, 1, hash(found.path))]))


LAB = 'name: lab, clients: [{group: lab}], allow: [read, write], type: char, paths: ["/dev/ttyUSB*"]'
