"""Every limit of the broker, with its unit, its default and its reason. Those of the wire: `sandboxed.limits`."""

# Connections that a worker serves at once. Each costs an fd and about a kilobyte.
CONNECTIONS = 8192

# Connections of one uid, so that one user cannot take all of them.
CONNECTIONS_PER_UID = 2048

# File descriptors of a worker that no connection may take: for a batch, a walk, helpers and its own. Where
# RLIMIT_NOFILE leaves fewer connections than the above, one uid may have half of what it leaves.
RESERVED_FDS = 160

# Connections waiting in the kernel to be accepted (listen(2)); past that a client waits in connect().
BACKLOG = 1024

# Connections accepted at one wake-up before the audit gets its turn again.
ACCEPT_BURST = 64

# Grants remembered for one connection. They are small, but a client that opens for years and never
# releases must not grow the broker. The older half is forgotten then; its fds are not affected.
GRANTS_PER_CONNECTION = 512

# Characters of a path that are kept with a grant.
SHOWN_PATH = 256

# Bytes of prepared requests that are remembered in all, of one message that may be, and what a plan takes
# besides. All are cheap to make again: at the limit all are forgotten.
PLANS_BYTES = 16 * 1024 * 1024
PLANNED_BYTES = 8192
PLAN_BYTES = 2048

# Identities whose requests are remembered.
PEERS = 1024

# Processes that make opens which may block: in all, and for one uid, so that a dead mount
# costs one user's requests only.
HELPERS = 16
HELPERS_PER_UID = 4

# Seconds until such a process is killed and the client is told ETIMEDOUT.
HELPER_SECONDS = 5.0

# Seconds after which its own alarm ends it: a little later, so that its client hears why.
HELPER_GRACE_SECONDS = 0.25

# Symbolic links on one walk; the kernel's own number (path_resolution(7)).
LINKS = 40

# Names looked up on one walk, links and all: a maze of links must not keep the worker. Each costs some 10 µs.
LOOKUPS = 256

# Bytes of a path, also of one that links led to: PATH_MAX of limits.h, with its NUL. A longer one could be opened
# component by component, and would make records without end.
PATH_BYTES = 4096

# Supplementary groups of a client that are looked at. Who has more is known by its uid alone.
GROUPS_PER_CLIENT = 8192

# Bytes that wait between worker and audit. A record is about 400: this holds what a busy broker
# decides in a tenth of a second.
AUDIT_PIPE_BYTES = 1024 * 1024

# Seconds that an open waits for room there before it is refused: nothing is passed without its record.
AUDIT_WAIT_SECONDS = 0.25

# Seconds from one write of the audit to the next while records stream in: they are written together.
AUDIT_GATHER_SECONDS = 0.002

# Seconds until a failed write of the audit is tried again.
AUDIT_RETRY_SECONDS = 0.5

# Seconds at most until it is tried again when only its reader is behind: a pipe's, or the journal.
AUDIT_ROOM_SECONDS = 0.05

# Bytes of records that wait for such a reader where the audit is best-effort; more are lost, and counted.
AUDIT_KEPT_BYTES = 256 * 1024

# Characters of an object's other names in a record: forty links could make more than a record holds.
NAMES_SHOWN = 4_096

# Groups of a client that its records show. They stand in each, and few clients have more.
GROUPS_SHOWN = 32

# Bytes of one audit record. A worker that sends more is broken or taken over.
RECORD_BYTES = 512 * 1024

# Fields of one entry of the journal; journald takes 1,024. Only a worker that is broken or taken over makes so many.
JOURNAL_FIELDS = 200

# Refusals written one by one for a uid, at once and per second after that; the rest is counted in the
# next record. A program that asks in a loop must not fill the disk.
REFUSALS_BURST = 1000
REFUSALS_PER_SECOND = 100

# Bytes of one policy file, and files of one policy directory.
POLICY_BYTES = 32 * 1024 * 1024
POLICY_FILES = 10_000

# Bytes of one profile: a thousand paths. Each is a mount, and a program starts only when all are made.
PROFILE_BYTES = 64 * 1024

# Seconds before an account name that did not resolve is looked up again.
ACCOUNT_RETRY_SECONDS = 1.0

# Seconds that a worker has to bring its connections to where another can go on. One whose client does not read, or
# does not finish its message, is closed then.
HANDOVER_SECONDS = 5.0

# Seconds until a worker that died is started again, when it did so soon after its start: doubled each time, up to the
# last, so that a policy or a disk that kills it at once does not keep a processor busy.
RESTART_SECONDS = 0.1
RESTART_MOST_SECONDS = 5.0

# Seconds after which a worker's death is the first one again.
RESTART_FORGET_SECONDS = 30.0

# Grants that one worker gives before its numbers would meet those of the next.
GRANTS_PER_GENERATION = 10**12

# Records of grants that the supervisor keeps, some 400 bytes each; of more the oldest are forgotten.
GRANT_RECORDS = 65_536

# Names that are looked at, of one policy's patterns for devices, when a worker is confined. A device behind them is
# out of its reach.
NAMES_LOOKED_AT = 20_000

# Files of one directory that the worker's Landlock domain names one by one, before it names the directory: each
# costs some 20 µs of a worker's start.
FILES_ALONE = 64

# Seconds between two workers that are started because the one before is kept from what the policy gives: each takes
# some 60 ms, and whoever may have an object that stays out of reach can ask for it for ever.
CONFINE_ANEW_SECONDS = 5.0

# Rules that are shown as those that need a capability, a group or a uid.
RULES_SHOWN = 8

# Administrators that are served at once, each by a thread of the admin process.
ADMIN_CONNECTIONS = 32

# Seconds that an administrator waits for the supervisor: a policy of very many rules takes some to read.
ADMIN_SECONDS = 60.0

# Records that wait for one who watches; of more the newest are left out, and counted.
ADMIN_RECORDS_WAITING = 4096

# Bytes of records that wait for the admin process beyond what its pipe holds.
ADMIN_PIPE_BYTES = 1024 * 1024

# Seconds until a worker's restart is tried again that came while the policy was being read.
FORK_RETRY_SECONDS = 0.02
