"""What an administrator or a caller gave that nothing can be made of: one error for all of the privileged side.

It is raised before anything has begun, with a message that is shown as it stands. Who raises it and who shows it is
not decided here; an object that cannot be opened, and a request that is denied, are no such error.
"""


class Unusable(Exception):
    """What was given cannot be used, so nothing is begun; the message says why and what to do."""
