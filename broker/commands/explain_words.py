"""An explanation as text for a terminal, and as JSON. Each has everything that was found, and nothing more."""

import os
from typing import Any

from broker.explaining import NOT_KNOWN, YES, Explained
from broker.textlines import printable_line
from policy import Object, Peer, Rule, Verdict, rights_words
from policy.devices import Device
from policy.explain import Explanation, Near
from policy.keeping import unkept
from policy.terms import NO_TERMS
from policy.termwords import in_words, written

# Near rules that are shown; --json has all of them.
_SHOWN_NEAR = 8


def as_text(explained: Explained, digest: str) -> str:
    """Lines of a heading and what stands under it; no name can break one."""
    rows = [
        *_object_rows(explained),
        ("peer", peer_words(explained.explanation.peer)),
        *_terms_rows(explained.explanation),
        *near_rows(explained.explanation),
        *_outside_rows(explained),
        *[("unknown", what) for what in explained.sight.unknown],
    ]
    lines = [f"{headline(explained)}    policy {digest}", *(f"{heading:8}{text}" for heading, text in rows)]
    return "\n".join(map(printable_line, lines))


def headline(explained: Explained) -> str:
    """The answer and its reason, in one line."""
    explanation, sight = explained.explanation, explained.sight
    if explained.answer == YES:
        fails = f"; opening it fails: {sight.failure}" if sight.failure else ""
        return f"ALLOWED by rule: {explanation.reason}{fails}"
    if explained.answer == NOT_KNOWN:
        return f"NOT KNOWN: by its name alone {explanation.reason}"
    if explanation.verdict.allowed:
        return f"DENIED by the broker: {sight.refusal}"
    return f"{explanation.decision.replace('denied', 'DENIED', 1)}: {explanation.reason}"


def _object_rows(explained: Explained) -> list[tuple[str, str]]:
    request, sight = explained.explanation.request, explained.sight
    if sight.object is None:
        why = sight.unseen or sight.failure or sight.refusal or "not looked for"
        return [("object", why if why.startswith(f"{request.path}: ") else f"{request.path}: {why}")]
    groups = f" = devices {', '.join(sight.groups)}" if sight.groups else ""
    rows = [("object", f"{object_words(sight.object, sight.device)}{groups}")]
    if sight.object.path != request.path:
        rows.insert(0, ("asked", request.path))
    more = [
        name for name in (*sight.object.names, *sight.same) if name not in (sight.object.path, request.path)
    ]
    return [*rows, *(("name", name) for name in dict.fromkeys(more))]


def object_words(found: Object, device: int | None) -> str:
    """Its path, its type, and of a device its number, subsystem, and what udev knows it by."""
    number = f" {os.major(device)}:{os.minor(device)}" if device is not None else ""
    facts = "" if found.device is None else device_words(found.device)
    return f"{found.path} {found.type.value if found.type else 'of unknown type'}{number}{facts}"


def device_words(device: Device) -> str:
    """A device's subsystem, vendor and product, and serial number, each after a space."""
    words = [device.subsystem or ""]
    if device.properties is None:
        words.append("(not known to udev)" if device.subsystem is not None else "")
    else:
        of = device.properties.get
        words.append(f"{of('ID_VENDOR_ID', '')}:{of('ID_MODEL_ID', '')}".strip(":"))
        words.append(of("ID_SERIAL_SHORT", "") or of("ID_SERIAL", ""))
    return "".join(f" {word}" for word in words if word)


def peer_words(peer: Peer) -> str:
    """The facts that conditions on clients look at."""
    uid = "uid not known" if peer.uid is None else f"uid {peer.uid}"
    names = "".join(f" {name}" for name in sorted(peer.user_names or ()))
    parts = [
        uid + names,
        f"kernel groups {_groups(peer.gids, peer.group_names)}",
        f"accounts {_groups(peer.account_gids, peer.account_group_names)}",
        f"socket {peer.socket}",
    ]
    return "; ".join([*parts, *_more_facts(peer), *["embedded"] * peer.embedded])


def _more_facts(peer: Peer) -> list[str]:
    """Facts that are known for a policy alone that asks for them."""
    facts = {"name": peer.account_name, "home": peer.home, "exe": peer.exe, "label": peer.label}
    owners = peer.owner_names if peer.owner_names is not None or peer.owner_uids is None else frozenset()
    known = [f"{key} {value}" for key, value in {"unit": peer.unit, **facts}.items() if value]
    if owners is None:
        return [*known, "subordinate uid of: not known"]
    named = [*sorted(owners), *map(str, sorted(peer.owner_uids or ()))]
    return [*known, f"subordinate uid of {','.join(named)}"] if named else known


def _groups(gids: frozenset[int] | None, names: frozenset[str] | None) -> str:
    if names is None and gids is None:
        return "not known"
    return ",".join([*sorted(names or ())] or [*map(str, sorted(gids or ()))]) or "none"


def near_rows(explanation: Explanation) -> list[tuple[str, str]]:
    """The rules that came near, in one line each."""
    rows = [("near", _near(near)) for near in explanation.near[:_SHOWN_NEAR]]
    if len(explanation.near) > _SHOWN_NEAR:
        rows.append(("near", f"and {len(explanation.near) - _SHOWN_NEAR} more, in --json"))
    rows += [
        ("but for", f"{_rule(rule)}  would give it, but for the denies") for rule in explanation.overruled
    ]
    rows += [
        ("denies", f"{_rule(rule)}  {' '.join(rights_words(rule.rights))}") for rule in explanation.denies
    ]
    if not explanation.denies:
        nearest = explanation.nearest_deny
        shown = "" if nearest is None else f"; nearest {nearest.rule.id}: {_first_miss(nearest)}"
        rows.append(("denies", f"0 match{shown}"))
    if explanation.instead is not None and explanation.instead.rule is not None:
        granted = "+".join(rights_words(explanation.instead.rights))
        terms = "".join(f", {word}" for word in in_words(explanation.instead.rule.terms))
        rows.append(("instead", f"{granted}: allowed by {explanation.instead.rule.id}{terms}"))
    return rows


def _near(near: Near) -> str:
    return f"{_rule(near.rule)}  {_first_miss(near)}"


def _first_miss(near: Near) -> str:
    miss, others = near.misses[0], near.misses[1:]
    also = f" (and {', '.join(other.condition for other in others)})" if others else ""
    return f"{miss.condition}: {miss.how}{also}"


def _rule(rule: Rule) -> str:
    return f"{rule.id}  {rule.file}:{rule.line}"


def _terms_rows(explanation: Explanation) -> list[tuple[str, str]]:
    """What the rule that gives asks for it, and what of that the broker does not do."""
    rule = explanation.verdict.rule
    if not explanation.verdict.allowed or rule is None:
        return []
    rows = [("terms", ", ".join(in_words(rule.terms)))] if rule.terms != NO_TERMS else []
    for one in unkept(rule):
        how = "accepted by the rule" if one.code in rule.accept else "not accepted: this policy is not served"
        rows.append(("unkept", f"{one.what}: {one.instead} ({one.code}, {how})"))
    return rows


def _outside_rows(explained: Explained) -> list[tuple[str, str]]:
    found = explained.sight.outside
    return [] if found is None else [("outside", found.why)]


def as_json(explained: Explained, digest: str) -> dict[str, Any]:
    """Everything, for one JSON object."""
    explanation, sight = explained.explanation, explained.sight
    request = explanation.request
    return {
        "answer": explained.answer,
        "decision": explanation.decision,
        "reason": explanation.reason,
        "policy": digest,
        "path": request.path,
        "access": rights_words(request.needed),
        "optional": rights_words(request.optional),
        "rights": rights_words(explanation.verdict.rights),
        "rule": _rule_json(explanation.verdict.rule),
        **_terms_json(explanation),
        "object": _object_json(explained),
        "peer": _peer_json(explanation.peer),
        **near_json(explanation),
        "refusal": sight.refusal or None,
        "failure": sight.failure or None,
        "unknown": [*filter(None, [sight.unseen]), *sight.unknown],
        "outside": sight.outside._asdict() if sight.outside is not None else None,
    }


def near_json(explanation: Explanation) -> dict[str, Any]:
    """The rules that came near, all of them."""
    return {
        "near": [_near_json(near) for near in explanation.near],
        "overruled": [_rule_json(rule) for rule in explanation.overruled],
        "denies": [_rule_json(rule) for rule in explanation.denies],
        "nearest_deny": _near_json(explanation.nearest_deny) if explanation.nearest_deny else None,
        "instead": _instead_json(explanation.instead),
    }


def _terms_json(explanation: Explanation) -> dict[str, Any]:
    rule = explanation.verdict.rule
    if not explanation.verdict.allowed or rule is None:
        return {"terms": None, "unkept": []}
    found = [
        {"code": one.code, "what": one.what, "instead": one.instead, "accepted": one.code in rule.accept}
        for one in unkept(rule)
    ]
    return {"terms": written(rule.terms), "unkept": found}


def _near_json(near: Near) -> dict[str, Any]:
    return {**(_rule_json(near.rule) or {}), "misses": [miss._asdict() for miss in near.misses]}


def _instead_json(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    return {"rights": rights_words(verdict.rights), "rule": _rule_json(verdict.rule)}


def _rule_json(rule: Rule | None) -> dict[str, Any] | None:
    return None if rule is None else {"id": rule.id, "file": rule.file, "line": rule.line}


def _object_json(explained: Explained) -> dict[str, Any] | None:
    found, device = explained.sight.object, explained.sight.device
    if found is None:
        return None
    return {
        "path": found.path,
        "type": found.type.value if found.type else None,
        "device": None if device is None else f"{os.major(device)}:{os.minor(device)}",
        "names": [*dict.fromkeys((*found.names, *explained.sight.same))],
        "subsystem": found.device.subsystem if found.device is not None else None,
        "udev": found.device.properties if found.device is not None else None,
        "groups": list(explained.sight.groups),
    }


def _peer_json(peer: Peer) -> dict[str, Any]:
    return {
        key: sorted(value) if isinstance(value, frozenset) else value for key, value in peer._asdict().items()
    }
