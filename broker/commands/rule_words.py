"""A rule in words, for the tables of several commands: whom it is for, and what it is about."""

from collections.abc import Callable, Sequence

from policy import FileType, Rule
from policy.clients import Client
from policy.clientwords import client_words, listed
from policy.devices import DEVICE_TYPES
from policy.devicewords import selector_words

Join = Callable[[Sequence[str]], str]
"""How several are written; `listed` shows the first ones alone."""


def clients_words(rule: Rule, join: Join = listed) -> str:
    """Whom it is for: "group lab but not group teachers"."""
    excepted = f" but not {_any_of(rule.except_clients, join)}" if rule.except_clients else ""
    return f"{_any_of(rule.clients, join) or 'everybody'}{excepted}"


def objects_words(rule: Rule, join: Join = listed) -> str:
    """What it is about: paths or addresses, types, devices, and what is excepted; "" where that is everything."""
    words = [join([pattern.text for pattern in rule.paths] or list(map(str, rule.terms.addresses)))]
    selectors = [*((rule.device,) if rule.device is not None else ()), *(rule.devices or ())]
    types = rule.types or frozenset()
    says_types = types == DEVICE_TYPES and selectors and all(one.types for one in selectors)
    if types != {FileType.FILE} and not says_types:
        words.append(join(sorted(kind.value for kind in types)))
    words.append(join([selector_words(one) for one in selectors]))
    excepted = [pattern.text for pattern in rule.except_paths]
    excepted += [selector_words(one) for one in rule.except_devices]
    words += [f"but not {join(excepted)}"] if excepted else []
    return " ".join(filter(None, words))


def _any_of(clients: Sequence[Client], join: Join) -> str:
    return join([client_words(one) for one in clients])
