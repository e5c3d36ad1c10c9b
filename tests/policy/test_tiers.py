"""What a higher tier does to a lower one: it replaces files, masks rules and redefines names. Nothing else."""

import itertools

import pytest

from policy import PolicyError, Source, counting, load, load_set

BASE, RUN, SITE = range(3)

LOWER = """\
version: 1
clients:
  lab: {user: mia}
sockets:
  gpu: {path: /run/gpu}
rules:
  - {name: disks, deny: all, paths: [/dev/sda]}
  - {name: kvm, clients: [lab], allow: use, type: char, paths: [/dev/kvm]}
"""


def site(text: str, tier: int = SITE, name: str = "90-site.yaml") -> Source:
    return Source(name, f"version: 1\n{text}\n", tier)


def base(text: str = LOWER) -> Source:
    return Source("10-base.yaml", text, BASE)


def told(*files: Source) -> list[str]:
    with pytest.raises(PolicyError) as error:
        load(files)
    return [str(problem) for problem in error.value.problems]


def rule_ids(*files: Source) -> list[str]:
    return [rule.id for rule in load(files).rules]


def test_mask_switches_off_the_rule_of_a_lower_tier_and_no_other() -> None:
    assert rule_ids(base(), site("mask: [10-base/disks]")) == ["10-base/kvm"]
    assert rule_ids(base(), site("mask: [10-base/disks]", RUN)) == ["10-base/kvm"]
    assert rule_ids(base(), site("mask: [10-base/disks, 10-base/kvm]")) == []


def test_mask_is_told_with_both_places() -> None:
    (masked,) = load_set([base(), site("mask: [10-base/disks]")]).masked
    assert (masked.id, str(masked.place), str(masked.by)) == (
        "10-base/disks",
        "10-base.yaml:7:12",
        "90-site.yaml:2:8",
    )


def test_rule_may_be_masked_by_several_files() -> None:
    masks = [site("mask: [10-base/kvm]", tier, f"{tier}.yaml") for tier in (RUN, SITE)]
    for files in itertools.permutations([base(), *masks]):
        assert rule_ids(*files) == ["10-base/disks"]
        assert [str(one.by) for one in load_set(files).masked] == ["1.yaml:2:8"]


LOWER_RULE = "expected the id of a rule of a lower tier"
ONLY = "only one of a lower tier can be masked"


@pytest.mark.parametrize(
    ("mask", "tier", "expected"),
    [
        ("10-base/disk", SITE, f"unknown rule '10-base/disk', {LOWER_RULE}; did you mean '10-base/disks'?"),
        ("10-bass/kvm", SITE, f"unknown rule '10-bass/kvm', {LOWER_RULE}; did you mean '10-base/kvm'?"),
        ("xyz/q", SITE, f"unknown rule 'xyz/q', {LOWER_RULE}"),
        ("90-site/own", SITE, f"rule '90-site/own' is one of the same tier, at 90-site.yaml:3:16: {ONLY}"),
        ("10-base/disks", BASE, f"rule '10-base/disks' is one of the same tier, at 10-base.yaml:7:12: {ONLY}"),
        ("10-base/disks", -1, f"rule '10-base/disks' is one of a higher tier, at 10-base.yaml:7:12: {ONLY}"),
    ],
)  # fmt: skip
def test_mask_of_what_is_in_no_lower_tier_is_an_error(mask: str, tier: int, expected: str) -> None:
    own = "\nrules: [{name: own, deny: all}]"
    assert told(base(), site(f"mask: [{mask}]{own}", tier)) == [f"90-site.yaml:2:8: {expected}"]


def test_mask_of_a_rule_in_a_replaced_file_is_an_error() -> None:
    replaced = Source("10-base.yaml", "", RUN)
    assert told(base(), replaced, site("mask: [10-base/disks]")) == [
        "90-site.yaml:2:8: unknown rule '10-base/disks', expected the id of a rule of a lower tier"
    ]


def test_mask_is_gone_with_the_file_that_holds_it() -> None:
    mask = site("mask: [10-base/disks]", RUN)
    assert rule_ids(base(), mask, site("", SITE)) == ["10-base/disks", "10-base/kvm"]


def test_masked_rule_need_not_know_its_clients() -> None:
    broken = base(LOWER.replace("[lab]", "[ghost]"))
    assert len(told(broken)) == 1
    assert rule_ids(broken, site("mask: [10-base/kvm]")) == ["10-base/disks"]


def test_masked_rule_is_read_all_the_same() -> None:
    broken = base(LOWER.replace("allow: use", "allow: yuse"))
    assert len(told(broken, site("mask: [10-base/kvm]"))) == 1


def test_file_of_a_higher_tier_replaces_the_one_of_its_name() -> None:
    other = Source("10-base.yaml", "version: 1\nrules: [{name: other, deny: all}]\n", SITE)
    for files in ([base(), other], [other, base()]):
        assert rule_ids(*files) == ["10-base/other"]
        assert counting(files) == ([other], [(base(), other)])


@pytest.mark.parametrize("text", ["", b"", "# nothing\n"])
def test_empty_file_masks_the_file_of_its_name(text: str | bytes) -> None:
    assert rule_ids(base(), Source("10-base.yaml", text, SITE)) == []


def test_replaced_file_is_not_read() -> None:
    assert rule_ids(base("version: [\0"), Source("10-base.yaml", "", RUN)) == []


def test_highest_of_three_files_of_one_name_counts() -> None:
    files = [
        Source("a.yaml", f"version: 1\nrules: [{{name: r{tier}, deny: all}}]\n", tier) for tier in range(3)
    ]
    for ordered in itertools.permutations(files):
        assert rule_ids(*ordered) == ["a/r2"]
        assert [(one.tier, by.tier) for one, by in counting(ordered)[1]] == [(0, 2), (1, 2)]


def test_client_means_what_the_highest_tier_says() -> None:
    for files in itertools.permutations(
        [base(), site("clients: {lab: {user: tom}}", RUN, "r.yaml"), site("clients: {lab: {user: eve}}")]
    ):
        found = load_set(files)
        (client,) = found.policy.rules[1].clients
        assert client.users == frozenset(["eve"])
        assert [(one.what, one.name, str(one.place), str(one.by)) for one in found.redefined] == [
            ("client", "lab", "10-base.yaml:3:3", "r.yaml:2:11"),
            ("client", "lab", "r.yaml:2:11", "90-site.yaml:2:11"),
        ]


def test_socket_is_the_one_of_the_highest_tier_and_its_old_path_is_free() -> None:
    text = "sockets: {gpu: {path: /run/other}, new: {path: /run/gpu}}"
    policy = load([base(), site(text)])
    assert {name: one.path for name, one in policy.sockets.items()} == {
        "gpu": "/run/other",
        "new": "/run/gpu",
    }


def test_sockets_of_two_tiers_cannot_share_a_path() -> None:
    assert told(base(), site("sockets: {new: {path: /run/gpu}}")) == [
        "90-site.yaml:2:11: socket 'new' has the path of socket 'gpu'"
    ]


def test_redefined_client_need_not_know_its_sockets() -> None:
    broken = base(LOWER.replace("user: mia", "socket: ghost"))
    assert len(told(broken)) == 1
    assert len(rule_ids(broken, site("clients: {lab: {user: tom}}"))) == 2


@pytest.mark.parametrize("section", ["clients: {lab: {user: tom}}", "sockets: {gpu: {path: /run/x}}"])
@pytest.mark.parametrize("tier", [BASE, RUN])
def test_name_declared_twice_in_one_tier_is_an_error_whatever_a_higher_one_says(
    section: str, tier: int
) -> None:
    twice = [site(section, tier, "20-a.yaml"), site(section, tier, "20-b.yaml"), site(section)]
    problems = told(base(), *twice)
    assert problems[-1].startswith("20-b.yaml:2:")
    assert " is declared twice, first at " in problems[-1]


def test_digest_tells_tiers_apart_and_not_their_numbers() -> None:
    other = Source("b.yaml", "version: 1\n")
    sets = [
        [base(), other],
        [base(), other._replace(tier=1)],
        [base()._replace(tier=1), other],
    ]
    digests = [load(files).digest for files in sets]
    assert len(set(digests)) == 3
    assert load([base(), other._replace(tier=2)]).digest == digests[1]
    assert load([base()._replace(tier=2)]).digest == load([base()]).digest


def test_digest_is_that_of_the_files_that_count() -> None:
    higher = Source("10-base.yaml", "version: 1\n", SITE)
    assert load([base(), higher]).digest == load([higher]).digest


def test_mask_in_a_set_of_the_lowest_tier_alone_may_be_for_what_is_not_in_it() -> None:
    """As when one file is checked that masks what a package brings."""
    text = "version: 1\nmask: [10-base/disks]\nrules: [{name: r, deny: all}]\n"
    assert [rule.name for rule in load([Source("30-site.yaml", text)]).rules] == ["r"]
    with pytest.raises(PolicyError, match="unknown rule '10-base/disks'"):
        load([Source("30-site.yaml", text, 2)])
