"""The environment of a confined program: an allow-list."""

import pytest

from sandboxed.confinement.environment import DEFAULT_PATH, clean_environment
from sandboxed.confinement.sandbox import HOME, NAMESPACES, Sandbox

PASSING = {"PATH": "/opt/bin", "LANG": "C", "LC_ALL": "C", "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
PERSONAL = {
    "USER": "me",
    "LOGNAME": "me",
    "MAIL": "/m",
    "SHELL": "/bin/zsh",
    "SSH_AUTH_SOCK": "/s",
    "TOKEN": "t",
}
LOADING = {"LD_PRELOAD": "x.so", "LD_LIBRARY_PATH": "/x", "PYTHONPATH": "/x", "BASH_ENV": "/x", "lc_all": "C"}


def test_environment_is_an_allow_list_with_extras_on_top() -> None:
    inherited = {**PASSING, **PERSONAL, **LOADING, "TZ": "UTC", "ASKED_FOR": "1"}
    environment = clean_environment(Sandbox(), {"TZ": "CET"}, ["ASKED_FOR", "MISSING"], inherited)
    assert environment == {**PASSING, "TZ": "CET", "ASKED_FOR": "1", "HOME": HOME, "TMPDIR": "/tmp"}


@pytest.mark.parametrize(
    ("sandbox", "home", "temporary"),
    [
        (Sandbox(), HOME, "/tmp"),
        (Sandbox(work="/work"), "/work", "/tmp"),
        (Sandbox(work="/work").without(NAMESPACES), "/work", "/work"),
    ],
)
def test_home_is_the_programs_own(sandbox: Sandbox, home: str, temporary: str) -> None:
    inherited = {"HOME": "/root", "TMPDIR": "/var/tmp"}
    environment = clean_environment(sandbox, None, ["HOME", "TMPDIR"], inherited)
    assert environment == {"PATH": DEFAULT_PATH, "HOME": home, "TMPDIR": temporary}


def test_extras_win_over_everything() -> None:
    extra = {"HOME": "/h", "TMPDIR": "/t", "PATH": "/p", "LD_PRELOAD": "mine"}
    assert clean_environment(Sandbox(), extra, (), {"PATH": "/q"}) == extra


def test_environment_is_the_callers_own_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_TEST", "yes")
    monkeypatch.setenv("SECRET", "no")
    environment = clean_environment(Sandbox())
    assert environment["LC_TEST"] == "yes"
    assert "SECRET" not in environment
