"""One client's connection: its bytes in, its replies out, one call at a time.

Rules that this module enforces:
- every chunk that is received names its sender (SCM_CREDENTIALS), and a sender with another uid than the
  connector's ends the connection; so do fds that are sent in, a message over the limit, and what is no call;
- a call is served only when the reply before it has been read: streams merge, so an fd behind an unread
  reply would look like that reply's. It also bounds what a client that never reads can make us hold;
- nothing here waits: what cannot be received, sent or opened now is taken up again by the event loop.
"""

import contextlib
import errno
import fcntl
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any

from broker import messages
from broker.answers import Answer, invalid_parameter, not_implemented, send_failed
from broker.batch import Batch
from broker.helpers import Helpers
from broker.hotpath import record_and_pass
from broker.messages import PREFIX, InvalidCall, InvalidParameter
from broker.opener import Opener
from broker.outcome import TOO_MANY_SLOW, Outcome
from broker.plans import Plan
from broker.service import Client, Service
from broker.walk import MayBlock
from sandboxed.descriptors import close_all
from sandboxed.errors import MessageTooLong
from sandboxed.wire import NUL, MessageDecoder

_OPEN = f"{PREFIX}.Open"
_OPEN_MANY = f"{PREFIX}.OpenMany"

# Room for one ucred and nothing else: with more, the kernel would install fds that a client sent.
_UCRED = struct.Struct("iII")
_CONTROL_BYTES = socket.CMSG_SPACE(_UCRED.size)

# SIOCOUTQ of unix(7): zero when the peer has read all that was sent.
_SIOCOUTQ = 0x5411
_NOTHING = bytes(4)

# Plain numbers: an operator of the socket module's enums costs a microsecond.
_SEND_FLAGS = int(socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
_CONTROL_TRUNCATED = int(socket.MSG_CTRUNC)
_SOL_SOCKET = int(socket.SOL_SOCKET)
_SCM_RIGHTS = int(socket.SCM_RIGHTS)
_IN = select.EPOLLIN

# Bytes of one read. Most calls are smaller, and a longer one takes several reads.
RECEIVE_BYTES = 8192


class State(Enum):
    """What a connection waits for."""

    CALL = auto()  # the next call, or the rest of it
    READER = auto()  # the client has not read the last reply yet
    ROOM = auto()  # the rest of a reply does not fit into the socket yet
    HELPER = auto()  # an open is under way in a process of its own
    CLOSED = auto()


_CALL = State.CALL

# What the event loop watches for in each state. Edge-triggered where the socket stays writable while we wait:
# the kernel reports every read of the peer.
WATCHED = {
    State.CALL: select.EPOLLIN,
    State.READER: select.EPOLLOUT | select.EPOLLET,
    State.ROOM: select.EPOLLOUT,
    State.HELPER: 0,
}


class Shared:
    """What all connections of a worker share."""

    def __init__(
        self, service: Service, opener: Opener, helpers: Helpers, watch_helper: Callable[[int], None]
    ) -> None:
        self.service = service
        self.opener = opener
        self.helpers = helpers
        self.watch_helper = watch_helper
        self.unread = bytearray(4)  # for ioctl()


class Connection:
    """One client, from its connection to its end."""

    __slots__ = (
        "_answered",
        "_changed",
        "_decoder",
        "_held",
        "_output",
        "_recvmsg",
        "_sender",
        "_sendmsg",
        "_shared",
        "_socket",
        "_unread",
        "client",
        "fd",
        "state",
    )

    def __init__(
        self,
        connection: socket.socket,
        client: Client,
        shared: Shared,
        changed: Callable[["Connection"], None],
        answered: bool = False,
    ) -> None:
        """Take over `connection`, non-blocking and with SO_PASSCRED. `changed` is told of each new state.

        `answered` says that another worker may have sent a reply that is still unread.
        """
        self._socket = connection
        self._recvmsg: Callable[[int, int], Any] = connection.recvmsg
        self._sendmsg = connection.sendmsg
        self._unread = shared.unread
        self._shared = shared
        self._changed = changed
        self._decoder = MessageDecoder()
        self._held: bytes | None = None  # a call that waits for its turn
        self._output = b""  # the rest of a reply
        self._answered = answered  # a reply was sent that may be unread
        self._sender: list[tuple[int, int, bytes]] = []  # the control data that was found right last
        self.client = client
        self.fd = connection.fileno()
        self.state = State.CALL

    # --- events ------------------------------------------------------------------------------------------

    def handle(self, events: int) -> None:
        """Do what `events` of the event loop make possible.

        A call that was made before, whole and alone, and whose object was decided on before, is answered
        here and now: this is the path of nearly every open, so it is one function.
        """
        if self.state is not _CALL or not events & _IN:
            return self._handle_other(events)
        try:
            data, control, flags, _ = self._recvmsg(RECEIVE_BYTES, _CONTROL_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            return self.close()
        if (control != self._sender or flags) and not self._sender_is_connector(data, control, flags):
            return None
        plan = self.client.plans.get(data)
        if plan is None or self._decoder.waiting:
            return self._received(data)
        if self._answered:
            fcntl.ioctl(self.fd, _SIOCOUTQ, self._unread)
            if self._unread != _NOTHING:
                return self._wait_for_reader(data[:-1])
        started = time.perf_counter_ns()
        if isinstance(plan, list):
            return self._open_many(plan, started)
        return self._open(plan, started)

    def _handle_other(self, events: int) -> None:
        if events & (select.EPOLLHUP | select.EPOLLERR):
            self.close()
        elif self.state is State.READER:
            # While it is behind nothing is changed: to watch anew would report the same room for ever. When
            # the kernel reports a read, it has still to subtract the last byte of it (sock_wfree()).
            fcntl.ioctl(self.fd, _SIOCOUTQ, self._unread)
            if int.from_bytes(self._unread, sys.byteorder) <= 1:
                self._go_on()
        elif self.state is State.ROOM:
            self._send_rest()

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self.state is State.CLOSED

    def close(self) -> None:
        """End the connection; whatever is under way for it is dropped when it ends."""
        if self.state is not State.CLOSED:
            # The supervisor holds it too, so closing alone would not end it.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self.leave()

    def finish(self) -> None:
        """Read no further than to the end of a message: another worker is to go on from there."""
        self._recvmsg = self._receive_one

    @property
    def is_at_boundary(self) -> bool:
        """Whether no call is half read, waits, or is half answered; a reply may still be unread."""
        return (
            self.state is State.CALL and self._held is None and not self._decoder.waiting and not self._output
        )

    def leave(self) -> None:
        """Close it in this process alone."""
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self._changed(self)
            self._socket.close()

    def _receive_one(self, size: int, control_bytes: int) -> Any:
        """recvmsg(), of not more than the first message that waits."""
        waiting = self._socket.recv(size, socket.MSG_PEEK)
        end = waiting.find(NUL) + 1
        return self._socket.recvmsg(end or size, control_bytes)

    def _enter(self, state: State) -> None:
        if self.state is not state and self.state is not State.CLOSED:
            self.state = state
            self._changed(self)

    # --- receiving ---------------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        if not data:
            return self.close()
        self._decoder.feed(data)
        return self._go_on()

    def _sender_is_connector(self, data: bytes, control: list[tuple[int, int, bytes]], flags: int) -> bool:
        """Check whose words these are; closes the connection when they are not the connector's."""
        if not data:
            self.close()
            return False
        if flags & _CONTROL_TRUNCATED:
            return self._refuse("file descriptors were sent to the broker")
        if len(control) != 1 or control[0][1] != socket.SCM_CREDENTIALS or len(control[0][2]) != _UCRED.size:
            return self._refuse("the sender's credentials are missing")
        uid = _UCRED.unpack(control[0][2])[1]
        if uid != self.client.uid:
            return self._refuse(f"uid {uid} wrote into this connection")
        self._sender = control
        return True

    def _refuse(self, reason: str) -> bool:
        self._shared.service.refuse(self.client, reason)
        self.close()
        return False

    def _go_on(self) -> None:
        """Serve what has been received, as far as the client has read the replies."""
        self._enter(State.CALL)
        if self._held is not None:
            message, self._held = self._held, None
            self._serve(message)
        while self.state is State.CALL:
            try:
                message_or_none = self._decoder.next_message()
            except MessageTooLong as error:
                self._refuse(str(error))
                return
            if message_or_none is None:
                return
            self._serve(message_or_none)

    # --- serving -----------------------------------------------------------------------------------------

    def _serve(self, message: bytes) -> None:
        started = time.perf_counter_ns()
        if self._answered:
            fcntl.ioctl(self.fd, _SIOCOUTQ, self._unread)
            if self._unread != _NOTHING:
                return self._wait_for_reader(message)
        try:
            call = messages.decode_call(message)
        except InvalidCall as error:
            self._refuse(f"no Varlink call: {error}")
            return None
        if call.oneway:
            return self._serve_oneway(call.method, call.parameters)
        if call.upgrade:
            return self._answer(not_implemented(call.method))
        service = self._shared.service
        try:
            if call.method == _OPEN:
                plan = service.plan(
                    self.client, messages.decode_parameters(call.parameters, messages.OpenParameters)
                )
                service.remember(self.client, message + NUL, plan)
                return self._open(plan, started)
            if call.method == _OPEN_MANY:
                requests = messages.decode_many(call.parameters)
                plans = [service.plan(self.client, request) for request in requests]
                service.remember(self.client, message + NUL, plans)
                return self._open_many(plans, started)
        except InvalidParameter as error:
            return self._answer(invalid_parameter(error))
        return self._answer(service.call(self.client, call.method, call.parameters))

    def _wait_for_reader(self, message: bytes) -> None:
        """The client has not read the last reply yet: serve `message` when it has."""
        self._held = message
        self._enter(State.READER)

    def _serve_oneway(self, method: str, parameters: object) -> None:
        """A call that wants no reply. An open has nowhere to put its fd, so it is refused."""
        if method in (_OPEN, _OPEN_MANY):
            self._shared.service.refuse(self.client, f"a oneway {method.rpartition('.')[2]}", "oneway")
        else:
            self._shared.service.call(self.client, method, parameters)

    def _open(self, plan: Plan, started: int) -> None:
        fd = self._shared.opener.open_known(plan)
        if fd < 0:
            return self._open_unknown(plan, started)
        service = self._shared.service
        record, reply = service.grant_known(self.client, plan, started)
        try:
            sent = record_and_pass(service.audit.fd, record, self._socket, reply, fd)
        except OSError as error:
            return self._not_sent((fd,), error)
        if sent < 0:
            return self._answer(service.answer_known(self.client, record, reply, fd))
        return self._sent(reply, sent)

    def _open_unknown(self, plan: Plan, started: int) -> None:
        try:
            outcome = self._shared.opener.open(plan)
        except MayBlock:
            if self.open_elsewhere(plan, lambda late: self.answer_late(self._decided(plan, late, started))):
                return None
            outcome = TOO_MANY_SLOW
        return self._answer(self._decided(plan, outcome, started))

    def _decided(self, plan: Plan, outcome: Outcome, started: int) -> Answer:
        return self._shared.service.answer_open(self.client, (plan, outcome.fd, outcome), started)

    def open_elsewhere(self, plan: Plan, done: Callable[[Outcome], None]) -> bool:
        """Open in a process of its own, for this one must not wait; `done` gets the outcome. False at the limit."""
        fd = self._shared.helpers.start(plan, done)
        if fd is None:
            return False
        self._enter(State.HELPER)
        self._shared.watch_helper(fd)
        return True

    def answer_late(self, answer: Answer) -> None:
        """Answer a call that had to wait, and go on with those behind it."""
        if self.state is State.CLOSED:
            close_all(answer.fds)
            return
        self._enter(State.CALL)
        self._answer(answer)
        if self.state is State.CALL:
            self._go_on()

    def _open_many(self, plans: list[Plan], started: int) -> None:
        answer = Batch(self._shared.service, self._shared.opener, self.client, plans, started).run(self)
        if answer is not None:
            self._answer(answer)

    # --- sending -----------------------------------------------------------------------------------------

    def _answer(self, answer: Answer) -> None:
        """Send a reply; its fds are closed here whatever becomes of it."""
        data, fds = answer
        try:
            if fds:
                rights = struct.pack(f"{len(fds)}i", *fds)
                sent = self._sendmsg((data,), ((_SOL_SOCKET, _SCM_RIGHTS, rights),), _SEND_FLAGS)
            else:
                sent = self._socket.send(data, _SEND_FLAGS)
        except OSError as error:
            return self._not_sent(fds, error)
        finally:
            close_all(fds)
        return self._sent(data, sent)

    def _sent(self, data: bytes, sent: int) -> None:
        self._answered = True
        if sent != len(data):
            self._output = data[sent:]
            self._enter(State.ROOM)

    def _not_sent(self, fds: Sequence[int], error: OSError) -> None:
        # An ordinary user's fds in flight are limited (RLIMIT_NOFILE): this reply is refused, not the client.
        # EAGAIN closes too: the last reply was read, so only a client that shrank its buffer gets there.
        if error.errno == errno.ETOOMANYREFS and fds:
            return self._answer(send_failed())
        return self.close()

    def _send_rest(self) -> None:
        try:
            sent = self._socket.send(self._output, _SEND_FLAGS)
        except BlockingIOError:
            return
        except OSError:
            return self.close()
        self._output = self._output[sent:]
        if not self._output:
            self._go_on()
