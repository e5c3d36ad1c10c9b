"""`fdbroker revoke`: end a grant, and deny its holder the object for a while."""

import argparse
import json
import os
import time
from collections.abc import Sequence
from typing import Any

from broker.admin_client import AdminClient
from broker.commands import admin
from broker.commands.common import say
from policy.durations import parse_duration
from policy.moments import moment_text
from policy.variables import literally

_RUN_POLICY = "/run/fdbroker/policy.d"

# Of a longer one the end might lie in a year that no policy can name.
_TIME_CHARACTERS = 7

_EPILOG = """\
A descriptor that was passed lives on in its holder: this version cannot take it back, and the audit says so. What can
be done is to end the grant, and with --block to deny its uid the object from now on, by a rule in
/run/fdbroker/policy.d with `until`, which ends by itself and with the next boot:

  fdbroker grants
  fdbroker revoke g81 --block 1h
"""


def main(arguments: Sequence[str]) -> int:
    """Revoke it."""
    parser = admin.parser("revoke", "End a grant of the running broker.", _EPILOG)
    parser.add_argument("grant", metavar="GRANT", help="its id, as `fdbroker grants` shows it")
    parser.add_argument(
        "--block",
        metavar="TIME",
        type=_seconds,
        help="also deny the object to the holder's uid for 30m, 1h, 2d, …",
    )
    options = parser.parse_args(arguments)

    def revoke(client: AdminClient) -> int:
        if options.block is not None and client.call("Status")["status"]["policy_path"] is not None:
            say(
                "revoke",
                f"--block writes a rule into {_RUN_POLICY}, which this broker does not read: it has --policy",
            )
            return 2
        held = [one for one in client.call("ListGrants")["grants"] if one.get("grant") == options.grant]
        answer = client.call("Revoke", grant=options.grant)
        told: dict[str, Any] = {"grant": options.grant, **answer, "fd": "lives on", "blocked": None}
        if options.block is not None:
            told["blocked"] = _block(held[0], options.block)
            client.call("Reload")
        print(json.dumps(told) if options.json else _words(told))
        return 0

    try:
        return admin.with_broker("revoke", options.admin_socket, revoke)
    except OSError as error:
        say("revoke", f"the rule that blocks cannot be written: {error}")
        return 2


def _seconds(text: str) -> int:
    seconds = parse_duration(text)
    if seconds is None or len(text) > _TIME_CHARACTERS:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: expected 30m, 1h, 2d or the like")
    return seconds


def _block(grant: dict[str, Any], seconds: int) -> str:
    """Write the rule, in a file of its own; its path. Raises OSError."""
    uid = int(grant["peer"]["uid"])
    path = os.path.join(_RUN_POLICY, f"90-block-{grant['grant']}.yaml")
    paths = [literally(one) for one in dict.fromkeys((grant["path"], grant.get("resolved") or grant["path"]))]
    until = moment_text(int(time.time()) + seconds)
    rule = {"name": "block", "deny": "all", "clients": [{"uid": str(uid)}], "paths": paths, "until": until}
    os.makedirs(_RUN_POLICY, mode=0o755, exist_ok=True)
    temporary = os.path.join(_RUN_POLICY, f".{os.path.basename(path)}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with open(fd, "w") as file:
        # JSON is YAML, and nothing in a name can end a string of it.
        file.write(f"version: 1\nrules:\n- {json.dumps(rule)}\n")
    os.rename(temporary, path)
    return path


def _words(told: dict[str, Any]) -> str:
    blocked = f"; {told['blocked']} denies it from now on" if told["blocked"] else ""
    return f"{told['grant']} ended: {told['path']}; the descriptor lives on in its holder{blocked}"
