"""`fdbroker watch`: decisions of the running broker, as they are made."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from broker.admin_client import AdminClient
from broker.commands import admin
from broker.textlines import printable_line

_COLOURS = {"allow": "32", "deny": "31", "failed": "33", "busy": "33"}


def main(arguments: Sequence[str]) -> int:
    """Watch until interrupted."""
    parser = admin.parser(
        "watch",
        "Show decisions and other events of the running broker as they happen, until interrupted.",
        "  fdbroker watch --verdict deny --uid 1042\n  fdbroker watch --json | jq .path",
    )
    parser.add_argument("--uid", type=int, metavar="UID", help="only what this uid asked for")
    parser.add_argument("--path", metavar="TEXT", help="only of paths that begin so")
    parser.add_argument("--verdict", choices=sorted(_COLOURS), help="only decisions that ended so")
    parser.add_argument("--rule", metavar="ID", help="only what this rule decided")
    options = parser.parse_args(arguments)

    def show(client: AdminClient) -> int:
        for seen in client.watch():
            record = seen["record"]
            if seen["missed"]:
                print(f"fdbroker watch: {seen['missed']} records were missed", file=sys.stderr)
            if record.get("event") != "monitor" and _is_wanted(record, options):
                print(json.dumps(record) if options.json else _line(record), flush=True)
        return 0

    try:
        return admin.with_broker("watch", options.admin_socket, show)
    except KeyboardInterrupt:
        return 0


def _is_wanted(record: dict[str, Any], options: argparse.Namespace) -> bool:
    return (
        (options.uid is None or (record.get("peer") or {}).get("uid") == options.uid)
        and (options.path is None or str(record.get("path", "")).startswith(options.path))
        and (options.verdict is None or record.get("verdict") == options.verdict)
        and (options.rule is None or record.get("rule") == options.rule)
    )


def _line(record: dict[str, Any]) -> str:
    """One record in one line; no name can break it."""
    peer = record.get("peer") or {}
    verdict = str(record.get("verdict", record.get("event", "")))
    rights = "+".join(map(str, record.get("rights") or record.get("access") or ()))
    why = record.get("rule") or record.get("reason") or record.get("error") or ""
    who = f"uid {peer['uid']}" if "uid" in peer else "broker"
    moment = str(record.get("time", ""))[11:23]
    line = printable_line(f"{moment:12} {who:12} {verdict:7} {rights:20} {record.get('path', '')}  {why}")
    if sys.stdout.isatty() and verdict in _COLOURS:
        return f"\033[{_COLOURS[verdict]}m{line}\033[0m"
    return line
