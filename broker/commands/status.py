"""`fdbroker status`: what a running broker serves, holds and did."""

import json
import time
from collections.abc import Sequence
from typing import Any

from broker.admin_client import AdminClient
from broker.commands import admin
from broker.textlines import printable_line

_EPILOG = """\
  fdbroker status                     the broker of this system, for people
  fdbroker status --metrics           OpenMetrics; for the textfile collector of node_exporter:
      fdbroker status --metrics > DIR/fdbroker.prom.new && mv DIR/fdbroker.prom.new DIR/fdbroker.prom
"""


def main(arguments: Sequence[str]) -> int:
    """Show it."""
    parser = admin.parser("status", "Show what the running broker serves, holds and did.", _EPILOG)
    parser.add_argument(
        "--metrics", action="store_true", help="print metrics in the text form of OpenMetrics"
    )
    options = parser.parse_args(arguments)

    def show(client: AdminClient) -> int:
        if options.metrics:
            print(client.call("Metrics")["text"], end="")
            return 0
        status = client.call("Status")["status"]
        print(json.dumps(status) if options.json else "\n".join(map(printable_line, _lines(status))))
        return 0

    return admin.with_broker("status", options.admin_socket, show)


def _lines(status: dict[str, Any]) -> list[str]:
    workers = ", ".join(f"{one['pid']} {one['does']} {one['policy']}" for one in status["workers"])
    failing = ", CANNOT BE WRITTEN" if status["audit_failing"] else ""
    rows = [
        ("broker", f"fdbroker {status['version']}, pid {status['pid']}, since {_moment(status['started'])}"),
        ("policy", f"{status['policy']}, {status['rules']} rules"),
        ("sockets", ", ".join(status["sockets"])),
        ("clients", f"{status['connections']} connected, {status['grants']} grants in force"),
        ("workers", f"{workers}; {status['restarts']} restarted"),
        ("confined", _confined(status["confinement"])),
        ("audit", f"{status['audit_records']} records{failing}"),
        ("reloads", f"{status['reloads']}{_last(status['last_reload'])}"),
    ]
    if status["drift"]:
        rows.append(("DRIFT", status["drift"]))
    return [f"{heading:9}{text}" for heading, text in rows]


def _confined(confinement: dict[str, Any] | None) -> str:
    """The worker's uid and what it kept, each with the rules that need it."""
    if confinement is None:
        return "not told yet"
    kept = [f"{name} for {', '.join(rules)}" for name, rules in (confinement["capabilities"] or {}).items()]
    without = confinement["without"]
    return "; ".join(
        [
            f"uid {confinement['uid']}",
            *(kept or ["no capability"]),
            *([f"without {', '.join(without)}"] if without else []),
        ]
    )


def _last(last: dict[str, Any] | None) -> str:
    if last is None:
        return ""
    return f"; the last asked for {_moment(last['at'])}: {'good' if last['good'] else last['error']}"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
