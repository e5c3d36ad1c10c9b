"""`fdbroker reload`: let the running broker read its policy again."""

import json
from collections.abc import Sequence

from broker.admin_client import AdminClient
from broker.commands import admin


def main(arguments: Sequence[str]) -> int:
    """Reload, and tell what came of it."""
    parser = admin.parser(
        "reload",
        "Let the running broker read its policy again. It takes effect whole or not at all: with a mistake anywhere\n"
        "the policy before stays in force, and this ends with 1. Connections stay, and no request is lost.",
    )
    options = parser.parse_args(arguments)

    def reload(client: AdminClient) -> int:
        answer = client.call("Reload")
        told = f"serving by policy {answer['policy']}: {answer['rules']} rules"
        print(json.dumps(answer) if options.json else told)
        return 0

    return admin.with_broker("reload", options.admin_socket, reload)
