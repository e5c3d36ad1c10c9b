"""`fdbroker replay`: what is told of recorded decisions, and what is not known of them."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support import FDBROKER, TREE, allow, policy

from broker.commands.replay import main
from broker.recorded import Reading, Recall
from broker.replaying import Group, Replayer
from policy import Source, load
from tests.broker.audits import DAY, DEFAULT, found, ran, record

POLICY = """\
version: 1
rules:
  - {name: hosts, clients: [{uid: 1000}], allow: [read], paths: [/etc/hosts]}
  - {name: lab, clients: [{gid: 50}], allow: [read, write], type: char, paths: [/dev/lab]}
  - {name: web, clients: [{unit: web.service}], allow: [read], paths: [/srv/web]}
  - {name: usb, clients: [{gid: 77}], allow: [use], udev: {ID_BUS: usb}}
  - {name: by-id, clients: [{uid: 1000}], allow: [use], type: char, paths: ["/dev/by-id/*"]}
  - {name: until, clients: [{uid: 1000}], allow: [read], paths: [/srv/until], until: 2026-11-23T12:00Z}
  - {name: secret, deny: all, paths: [/srv/secret]}
  - {name: all, clients: [{uid: 1000}], allow: [read, write], paths: ["/srv/all/**"]}
  - {name: no-write, deny: [write], paths: ["/srv/all/*"]}
"""


def replay(
    place: Path, lines: list[str], *options: str, text: str = POLICY
) -> subprocess.CompletedProcess[str]:
    (place / "new.yaml").write_text(text)
    (place / "audit.jsonl").write_text("".join(f"{line}\n" for line in lines))
    words = ["--policy", str(place / "new.yaml"), *options, str(place / "audit.jsonl")]
    return ran(main, *words)


def read(place: Path, *lines: str) -> Reading:
    (place / "audit.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return Reading(str(place / "audit.jsonl"))


def groups(place: Path, *lines: str) -> tuple[Group, ...]:
    rules = load([Source("new.yaml", POLICY)])
    recall = Recall(rules)
    try:
        return Replayer(rules, recall).replay(read(place, *lines)).groups
    finally:
        recall.close()


HOSTS = found("/etc/hosts")
LAB = found("/dev/lab", "char", device="9:9")
ALL = found("/srv/all/x")


@pytest.mark.parametrize(
    ("line", "change", "words"),
    [
        (record("/etc/hosts", **HOSTS), "given", "allowed by new/hosts new.yaml:3"),
        (record("/etc/hosts", "read write", **HOSTS), None, ""),
        (record("/etc/hosts", verdict="allow", **HOSTS), None, ""),
        (record("/etc/hosts", verdict="failed", errno="EIO"), "not known", "what the path leads to"),
        (record("/etc/passwd", verdict="allow", **found("/etc/passwd")), "refused", "denied by default: new/all paths"),
        (record("/etc/hosts", "use", "allow", **HOSTS), "refused", "denied by default: new/hosts lacks: write ioctl"),
        (record("/etc/hosts"), "not known", "what the path leads to"),
        (record("/etc/hosts", resolved="/etc/hosts"), "not known", "the type of the object"),
        (record("/etc/hosts", **HOSTS, names=["/x", None]), "not known", "its other names"),
        (record("/etc/hosts", rule="old/no-hosts", **HOSTS), "given", "allowed by new/hosts"),
        (record("/etc/hosts", by="broker", reason="a link leads to nothing"), None, ""),
        (record("/etc/hosts", reason="it has 2 hard links", **HOSTS), "not known", "the broker refused: it has 2"),
        (record("/etc", **found("/etc", "directory")), None, ""),
        (record("/dev/lab", peer={"gids": [50]}, **LAB), "given", "allowed by new/lab"),
        (record("/dev/lab", **LAB), None, ""),
        (record("/dev/lab", peer={"gids": None}, **LAB), "not known", "the groups"),
        (record("/srv/web", peer={"unit": "web.service"}, **found("/srv/web")), "given", "allowed by new/web"),
        (record("/srv/web", peer={"unit": ""}, **found("/srv/web")), None, ""),
        (record("/srv/web", **found("/srv/web")), "not known", "the unit"),
        (record("/dev/usb", peer={"gids": [77]}, **found("/dev/usb", "char")), "not known", "the device's properties"),
        (record("/dev/by-id/a", link=True, **found("/dev/ttyX", "char", device="9:1")), "given", "by new/by-id"),
        (record("/dev/by-id/a", **found("/srv/y", "char", device="9:1")), None, ""),
        (record("/srv/until", **found("/srv/until")), "given", "allowed by new/until"),
        (record("/srv/until", time=f"{DAY}13:00:00Z", **found("/srv/until")), None, ""),
        (record("/srv/until", time="yesterday", **found("/srv/until")), "not known", "the time"),
        (record("/etc/hosts", names=["/srv/secret"], verdict="allow", **HOSTS), "refused", "denied by new/secret"),
        (record("/srv/all/x", "read write", "allow", **ALL), "refused", "denied by new/no-write"),
        (record("/srv/all/x", "read", "allow", optional=["write"], rights=["read", "write"], **ALL),
         "other rights", "allowed read by new/all"),
        (record("/srv/all/x", "read", "allow", optional=["write"], **ALL), None, ""),
        (record("/etc/hosts", event="check"), "given", "allowed by new/hosts"),
        (record("/etc/hosts", verdict="busy", reason="audit"), None, ""),
    ],
)  # fmt: skip
def test_decision_is_told_as_it_would_be(place: Path, line: str, change: str | None, words: str) -> None:
    shown = groups(place, line)
    assert [one.change for one in shown] == ([change] if change else [])
    assert not change or words in shown[0].would


def test_like_decisions_are_one_line_with_their_count_and_times(place: Path) -> None:
    times = [f"{DAY}09:00:00Z", f"{DAY}08:00:00Z", f"{DAY}10:00:00Z"]
    answer = replay(place, [record("/etc/hosts", time=time, **HOSTS) for time in times])
    assert (answer.returncode, answer.stderr) == (1, "")
    head, line = answer.stdout.splitlines()
    assert head.startswith("3 decisions: 3 would change, 0 not known    policy ")
    assert line.startswith("GIVEN        3x  uid 1000")
    assert line.endswith(
        ": read of /etc/hosts: was denied by default; would be allowed by new/hosts new.yaml:3; "
        "2026-11-23T08:00:00Z to 2026-11-23T10:00:00Z"
    )


@pytest.mark.parametrize(
    ("lines", "options", "status"),
    [
        ([], (), 0),
        ([record("/etc/hosts", verdict="allow", **HOSTS)], (), 0),
        ([record("/etc/hosts")], (), 0),
        ([record("/etc/hosts")], ("--strict",), 1),
        ([record("/etc/hosts", **HOSTS)], (), 1),
        ([record("/etc/hosts", **HOSTS)], ("--since", "2026-11-24T00:00Z"), 0),
        ([record("/etc/hosts", **HOSTS)], ("--since", "36500d"), 1),
        ([record("/etc/hosts", **HOSTS)], ("--user", "1001"), 0),
        ([record("/etc/hosts", **HOSTS)], ("--path", "/etc/h*"), 1),
        ([record("/etc/hosts", **HOSTS)], ("--path", "/etc/x*"), 0),
        ([record("/etc/hosts", **HOSTS)], ("--since", "soon"), 2),
        ([record("/etc/hosts", **HOSTS)], ("--path", "etc"), 2),
        ([record("/etc/hosts", **HOSTS)], ("--user", "no-such-user"), 2),
    ],
)
def test_status_is_that_of_what_was_chosen(
    place: Path, lines: list[str], options: tuple[str, ...], status: int
) -> None:
    assert replay(place, lines, *options).returncode == status


BROKEN = [
    *("", "garbage", "{}", "[]", "1", '"x"', "{" * 3000, "[" * 100_000, "null", '{"event": 1}'),
    *('{"event":"open"}', '{"event":"open","peer":{}}'),
    record("/x").replace('"deny"', '"perhaps"'),
    record("/x").replace('["read"]', '["fly"]'),
    record("/x").replace('"uid": 1000', '"uid": "root"'),
    record("/x").replace('"uid": 1000', '"uid": ' + "9" * 5000),
    record("/x", resolved=5),
    record("/x", type="hole"),
    record("/x", device="a:b"),
    record("/x", names="x"),
]


@pytest.mark.parametrize("line", BROKEN[1:], ids=range(1, len(BROKEN)))
def test_line_that_is_no_record_is_passed_over_and_told(place: Path, line: str) -> None:
    reading = read(place, line, record("/etc/hosts", **HOSTS))
    assert [decision.path for decision in reading] == ["/etc/hosts"]
    assert reading.faults() == ["1 line passed over, no record: line 1"]


def test_other_events_are_no_decisions_and_what_was_not_written_is_told(place: Path) -> None:
    lines = ['{"event":"release","path":"/x"}', '{"event":"refusals-not-written","uid":1,"count":7}']
    answer = replay(place, lines)
    assert answer.returncode == 0
    assert answer.stdout.splitlines()[-1] == "7 refusals were counted in the audit and not written"


def test_standard_input_is_read_and_half_a_line_at_its_end_is_told(place: Path) -> None:
    (place / "new.yaml").write_text(POLICY)
    words = [*FDBROKER, "replay", "--policy", str(place / "new.yaml"), "-"]
    data = record("/etc/hosts", **HOSTS) + "\n" + record("/etc/hosts")[:50]
    answer = subprocess.run(words, cwd=TREE, input=data, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "1 line passed over, no record: line 2" in answer.stdout


def test_line_without_an_end_is_not_read_into_memory(place: Path) -> None:
    (place / "new.yaml").write_text(POLICY)
    with open(place / "audit", "wb") as file:
        file.truncate(3_000_000)
    answer = ran(main, "--policy", str(place / "new.yaml"), str(place / "audit"))
    assert answer.stdout.splitlines()[-1] == "1 line passed over, no record: line 1"


@pytest.mark.parametrize("audit", ["no-such-file", "."])
def test_audit_that_cannot_be_read_is_unusable(place: Path, audit: str) -> None:
    (place / "new.yaml").write_text(POLICY)
    answer = ran(main, "--policy", str(place / "new.yaml"), str(place / audit))
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "cannot be read" in answer.stderr


def test_no_name_breaks_a_line_or_reaches_the_terminal(place: Path) -> None:
    odd = "/srv/all/\x1b[2J\n\u202e\udcff"
    answer = replay(place, [record(odd, verdict="allow", **found(odd)), record("/srv/all/x\ny", **ALL)])
    assert answer.stdout.replace("\n", "").isprintable()
    assert len(answer.stdout.splitlines()) == 3


def test_names_of_accounts_are_not_known_without_accounts(place: Path) -> None:
    text = policy(allow("hosts", "/etc/hosts", clients="any"))
    line = record("/etc/hosts", peer={"uid": 0, "gids": [0]}, **HOSTS)
    assert replay(place, [line], text=text).returncode == 1
    answer = replay(place, [line], "--no-accounts", text=text)
    assert answer.returncode == 0
    assert "whether there is an account" in answer.stdout


def test_audit_of_a_broker_replays_under_its_own_policy_without_a_change(
    start_broker: Any, place: Path
) -> None:
    (place / "file").write_text("x")
    (place / "link").symlink_to("file")
    (place / "secret").write_text("x")
    os.link(place / "secret", place / "hard")
    rules = policy(
        allow("all", f"{place}/**"),
        f"name: secret, deny: all, paths: [{place}/secret]",
        allow("etc", "/etc/hosts"),
    )
    broker = start_broker(rules)
    with broker.client() as client:
        for name in ("file", "link", "secret", "hard", "nothing"):
            client.check(str(place / name), ["read"])
            try:
                os.close(int(client.open_fd(str(place / name), ["read"]).detach()))
            except OSError:
                continue
    assert broker.stop() == 0
    answer = ran(main, "--strict", "--json", "--policy", str(broker.policy), str(broker.audit))
    shown = json.loads(answer.stdout)
    assert shown["decisions"] == 10
    # A file that was not there led to nothing that could be recorded.
    assert {one["path"] for one in shown["groups"]} <= {str(place / "nothing")}
    by_path = {(one["event"], one["path"]): one for one in broker.all_records() if "path" in one}
    assert by_path["open", str(place / "hard")]["names"] == [str(place / "secret")]
    assert by_path["open", str(place / "file")]["type"] == "file"
    assert by_path["open", str(place / "link")]["names"] == [str(place / "file")]
    assert DEFAULT.startswith("no rule gives ")
