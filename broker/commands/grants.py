"""`fdbroker grants`: who holds what now."""

import json
from collections.abc import Sequence
from typing import Any

from broker.admin_client import AdminClient
from broker.commands import admin
from broker.textlines import printable_line


def main(arguments: Sequence[str]) -> int:
    """List them."""
    parser = admin.parser(
        "grants", "List the grants that are in force in the running broker, the oldest first."
    )
    parser.add_argument("--uid", type=int, metavar="UID", help="only those of this uid")
    parser.add_argument(
        "--path", metavar="PATH", help="only those of this path, as asked for or as it was found"
    )
    options = parser.parse_args(arguments)

    def show(client: AdminClient) -> int:
        answer = client.call("ListGrants")
        wanted = [one for one in answer["grants"] if _is_wanted(one, options.uid, options.path)]
        if options.json:
            print(json.dumps({"grants": wanted, "forgotten": answer["forgotten"]}))
            return 0
        for grant in wanted:
            print(printable_line(_line(grant)))
        if answer["forgotten"]:
            print(f"and up to {answer['forgotten']} older ones that the broker does not remember")
        return 0

    return admin.with_broker("grants", options.admin_socket, show)


def _is_wanted(grant: dict[str, Any], uid: int | None, path: str | None) -> bool:
    peer = grant.get("peer") or {}
    return (uid is None or peer.get("uid") == uid) and (
        path is None or path in (grant.get("path"), grant.get("resolved"))
    )


def _line(grant: dict[str, Any]) -> str:
    peer = grant.get("peer") or {}
    who = f"uid {peer.get('uid')} pid {peer.get('pid')}"
    rights = "+".join(map(str, grant.get("rights") or ()))
    return f"{grant.get('grant')!s:8} {who:24} {rights:20} {grant.get('path')}  by {grant.get('rule')}"
