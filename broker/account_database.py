"""The accounts and groups of this machine: names, numbers and memberships, each looked up once.

What the database does not know, or does not answer, is None or left out here: what that means is for who asks to say.
"""

import grp
import os
import pwd
from collections.abc import Iterable

from policy import Client


class AccountDatabase:
    """Looks names up (getpwnam(3), getgrnam(3)), and keeps what was found."""

    def __init__(self) -> None:
        self._users: dict[str, int | None] = {}
        self._groups: dict[str, int | None] = {}
        self._groups_of: dict[int, frozenset[int] | None] = {}

    def missing_users(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that are no user's."""
        return sorted(name for name in names if self.uid(name) is None)

    def missing_groups(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that are no group's."""
        return sorted(name for name in names if self.gid(name) is None)

    def groups_of(self, uid: int) -> frozenset[int] | None:
        """The groups of a login of that uid; None where it has no account."""
        if uid not in self._groups_of:
            self._groups_of[uid] = groups_at_login(uid)
        return self._groups_of[uid]

    def members_of(self, gid: int) -> list[int]:
        """The uids of those whom the group's entry names."""
        try:
            names = grp.getgrgid(gid).gr_mem
        except (KeyError, OSError):
            return []
        return [uid for name in names if (uid := self.uid(name)) is not None]

    def may_be(self, client: Client, uid: int | None, gids: frozenset[int] | None) -> bool:
        """Whether somebody with that uid and these groups may be `client`; a uid of None is any member of the groups.

        Only users and groups are looked at. What is not known may be.
        """
        by_user = client.users is None or any(self._is_user(name, uid, gids) for name in client.users)
        by_uid = client.uids is None or uid is None or any(low <= uid <= high for low, high in client.uids)
        by_group = (
            client.groups is None or gids is None or any(self.gid(one) in gids for one in client.groups)
        )
        by_gid = (
            client.gids is None
            or gids is None
            or any(low <= gid <= high for low, high in client.gids for gid in gids)
        )
        return by_user and by_uid and by_group and by_gid

    def _is_user(self, name: str, uid: int | None, gids: frozenset[int] | None) -> bool:
        number = self.uid(name)
        if number is None or uid is not None:
            return number is not None and number == uid
        return not (gids or frozenset()).isdisjoint(self.groups_of(number) or ())

    def uid(self, name: str) -> int | None:
        """The uid of the user of that name; None where there is none."""
        if name not in self._users:
            try:
                self._users[name] = pwd.getpwnam(name).pw_uid
            except (KeyError, OSError):
                self._users[name] = None
        return self._users[name]

    def gid(self, name: str) -> int | None:
        """The gid of the group of that name; None where there is none."""
        if name not in self._groups:
            try:
                self._groups[name] = grp.getgrnam(name).gr_gid
            except (KeyError, OSError):
                self._groups[name] = None
        return self._groups[name]


def groups_at_login(uid: int) -> frozenset[int] | None:
    """The groups that a login of that uid has; None where it has no account."""
    try:
        account = pwd.getpwuid(uid)
        return frozenset(os.getgrouplist(account.pw_name, account.pw_gid))
    except (KeyError, OSError):
        return None
