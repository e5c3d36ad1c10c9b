"""Limits of the wire: both ends keep to them. Each is a security limit, with its unit and its reason."""

# Bytes of one message without its final NUL. A call holds a path (4,095 bytes, six times that when escaped)
# and a few words; 64 such calls fit as well. What is longer is no honest call.
MESSAGE_BYTES = 64 * 1024

# Bytes of one reply that a client accepts: interface descriptions and lists of resources are longer than calls.
REPLY_BYTES = 1024 * 1024

# Requests in one OpenMany, so fds in one message. The kernel stops at 253 (SCM_MAX_FD).
BATCH_REQUESTS = 64
