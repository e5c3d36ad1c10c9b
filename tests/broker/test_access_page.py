"""What `fdbroker access` shows, in words and as a page: hostile names, paper, phones and eyes."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest
from support import policy

from broker.commands import access_page
from broker.commands.access_words import Report, as_json, as_text
from broker.population import Somebody
from broker.reaching import Around, Reaching, Shown
from broker.survey import ABSENT, Unseen
from policy import Rights
from policy.devices import Device
from tests.broker.people import LAB, NODE, NOW, PEOPLE, loaded, person, seen

HOSTILE = "<script>alert(1)</script>"
QUOTES = "\"'><img src=x onerror=alert(1)>"


def hostile_report(user: str | None = None) -> Report:
    """Names that would be markup, in each place where a name can stand."""
    people = [*PEOPLE, person(HOSTILE, 1050, "lab"), person(QUOTES, 1051)]
    rules = loaded(
        policy(
            LAB.replace("paths: [", f"paths: [{json.dumps('/dev/' + HOSTILE.replace('/', '_'))}, "),
            f"name: label, clients: [{{label: {json.dumps(HOSTILE)}}}], allow: read, type: char, paths: ['/dev/*']",
            "name: no, deny: all, clients: [{user: tom}]",
        )
    )
    marked = Somebody(PEOPLE[0].peer._replace(label=HOSTILE), None, rules.rules[1].clients[0], HOSTILE)
    hostile = NODE._replace(
        path="/dev/" + HOSTILE.replace("/", "_"),
        device=Device((188, 1), QUOTES, {"ID_SERIAL_SHORT": HOSTILE, "ID_VENDOR_ID": QUOTES}, ()),
    )
    reaching = Reaching(rules, [*people, marked], NOW)
    sheets = reaching.sheets([seen(), seen(hostile), seen(NODE._replace(path="/dev/x"), refusal=HOSTILE)])
    absent = Unseen(f"/{HOSTILE}\x1b[2J", QUOTES, ABSENT)
    return Report("7f3a", HOSTILE, NOW, QUOTES, user, tuple(sheets), 3, (absent,), (HOSTILE,), (QUOTES,))


class Page(HTMLParser):
    """What a browser would see of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "input", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} closes something else"

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)

    def close(self) -> None:
        super().close()
        assert self._open == []

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.mark.parametrize("user", [None, HOSTILE])
def test_page_escapes_every_name(user: str | None) -> None:
    page = Page(access_page.as_page(hostile_report(user)))
    assert [len(page.of(tag)) for tag in ("script", "style", "img")] == [1, 1, 0]
    text = "".join("".join(texts) for tag, texts in page.texts.items() if tag not in ("script", "style"))
    assert HOSTILE in text and QUOTES in text
    assert "\x1b" not in text and "\\x1b[2J" in text
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


@pytest.mark.parametrize("user", [None, "mia"])
def test_page_needs_nothing_else(user: str | None) -> None:
    page = Page(access_page.as_page(hostile_report(user)))
    assert not {"link", "img", "iframe", "object", "base", "a"} & {tag for tag, _ in page.tags}
    assert not [
        name for _, attributes in page.tags for name in attributes if name in ("src", "href", "style")
    ]
    style = page.texts["style"][0]
    assert "url(" not in style and "@import" not in style
    allowed = next(one["content"] or "" for one in page.of("meta") if one.get("http-equiv"))
    for tag in ("script", "style"):
        digest = hashlib.sha256(page.texts[tag][0].encode()).digest()
        assert f"{tag}-src 'sha256-{base64.b64encode(digest).decode()}'" in allowed
    assert allowed.startswith("default-src 'none';")


@pytest.mark.parametrize("user", [None, "mia"])
def test_page_can_be_read_without_eyes_and_on_a_narrow_screen(user: str | None) -> None:
    page = Page(access_page.as_page(hostile_report(user)))
    assert page.of("html") == [{"lang": "en"}]
    assert {one["scope"] for one in page.of("th")} == {"col", "row"}
    # A row that is a card has no heading above its cells: each has its own.
    assert all(one["data-head"] and one["role"] == "cell" for one in page.of("td"))
    assert all(one["role"] == "table" and one["aria-label"] for one in page.of("table"))
    assert [one["for"] for one in page.of("label")] == [one["id"] for one in page.of("input")]
    assert "width=device-width" in str(page.of("meta"))


def luminance(color: str) -> float:
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("place", [0, 1], ids=["light", "dark"])
def test_colors_of_the_page_have_enough_contrast(place: int) -> None:
    # WCAG 2.2, 1.4.3: 4.5 to 1.
    blocks = re.findall(r":root \{([^}]*)\}", access_page._STYLE)
    colors = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", blocks[place]))
    for ink, ground in (
        *(("ink", "paper"), ("soft", "paper"), ("ink", "band"), ("soft", "band"), ("link", "paper")),
        *(("give", "give-band"), ("deny", "deny-band")),
    ):
        light, dark = sorted((luminance(colors[ink]), luminance(colors[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, ground)


def test_page_and_text_and_json_tell_the_same() -> None:
    report = hostile_report()
    page, text, told = access_page.as_page(report), as_text(report), json.dumps(as_json(report))
    for word in ("ttyUSB0", "30-site/lab", "30-site/no", "group lab", "7f3a", "2023-11-14T22:13:20Z"):
        assert word in page and word in text and word in told, word
    assert len(json.loads(told)["sheets"]) == 2
    assert all(line.isprintable() for line in text.splitlines())


def test_many_objects_and_names_are_counted_and_not_all_shown() -> None:
    crowd = [person(f"u{number}", 2000 + number, "lab") for number in range(200)]
    objects = tuple(Shown(seen(NODE._replace(path=f"/dev/ttyUSB{number}"))) for number in range(30))
    sheet = Reaching(loaded(policy(LAB)), [*PEOPLE, *crowd], NOW).sheet(seen())._replace(objects=objects)
    report = Report("7f3a", "host", NOW, "", None, (sheet,), 0, (), (), ())
    page, text = access_page.as_page(report), as_text(report)
    assert "and 18 more</summary>" in page and "and 142 more" in page
    assert "and 22 more, all in --json" in text and "group lab (202)" in text


def test_around_rows_are_told_in_words() -> None:
    report = hostile_report()
    assert "AROUND THE BROKER (node 0660 root:" in as_text(report)
    assert Around(("root",), Rights.READ | Rights.WRITE, "root") in report.sheets[0].around
