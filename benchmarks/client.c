/*
 * The client that is timed, for the floor and for the broker alike.
 *
 * usage: client native PATH
 *        client VARIANT PATH SOCKET      (VARIANT: floor, open, open-blocking, open-many)
 *
 * For each line on standard input, a number of iterations, it runs one round
 * and prints one line: the nanoseconds of each iteration, from the call until
 * the passed fds are closed. `open-many` counts a whole batch as one iteration.
 *
 * A round has a connection of its own, because grants end with theirs. Before
 * the clock starts, one exchange shows that the fds really are of PATH, and
 * others warm the caches for some milliseconds. An iteration that does not bring every fd ends the
 * program with status 2: a refusal is answered sooner than an open, so it must
 * never pass for a fast one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, MOST_ITERATIONS = 100000, BUFFER_SIZE = 64 * 1024 };

/* Longer than a broker may put work off: so a round bears as much of the warm-up's as it leaves behind. */
enum { WARM_UP_NANOSECONDS = 5000000 };

/* Seconds until a round that a broker has left hanging ends by SIGALRM; a timeout of poll(2) costs time. */
enum { ROUND_DEADLINE = 60 };

enum protocol { NATIVE, SEQPACKET_PATH, VARLINK_OPEN, VARLINK_OPEN_MANY };

struct variant {
	const char *name;
	enum protocol protocol;
	bool polls; /* wait in poll(2), not in recvmsg(2): see receive_piece() */
	size_t fds; /* that each iteration must bring */
};

static const struct variant VARIANTS[] = {
	{"native", NATIVE, false, 1},
	{"floor", SEQPACKET_PATH, true, 1},
	{"open", VARLINK_OPEN, true, 1},
	{"open-blocking", VARLINK_OPEN, false, 1},
	{"open-many", VARLINK_OPEN_MANY, true, BATCH},
};

struct session {
	const struct variant *variant;
	const char *path;
	const char *socket_path; /* NULL for native */
	char request[BUFFER_SIZE];
	size_t request_length;
	int connection;
	int fds[BATCH];
	size_t fd_count;
};

static void fail(const char *what)
{
	fprintf(stderr, "client: %s\n", what);
	exit(2);
}

static void fail_errno(const char *what)
{
	fprintf(stderr, "client: %s: %s\n", what, strerror(errno));
	exit(2);
}

static const struct variant *find_variant(const char *name)
{
	for (size_t i = 0; i < sizeof(VARIANTS) / sizeof(VARIANTS[0]); i++)
		if (strcmp(VARIANTS[i].name, name) == 0)
			return &VARIANTS[i];
	fail("unknown variant");
	return NULL;
}

static void put_open_parameters(FILE *stream, const char *path)
{
	fprintf(stream, "{\"path\":\"%s\",\"access\":[\"read\",\"write\"]}", path);
}

static void put_call(FILE *stream, const char *path, const struct variant *variant)
{
	if (variant->protocol == VARLINK_OPEN) {
		fputs("{\"method\":\"org.fdbroker.Broker.Open\",\"parameters\":", stream);
		put_open_parameters(stream, path);
		fputs("}", stream);
	} else {
		fputs("{\"method\":\"org.fdbroker.Broker.OpenMany\",\"parameters\":{\"requests\":[", stream);
		for (size_t i = 0; i < variant->fds; i++) {
			if (i > 0)
				fputc(',', stream);
			put_open_parameters(stream, path);
		}
		fputs("]}}", stream);
	}
	fputc('\0', stream);
}

static void build_request(struct session *session)
{
	/* The path goes into JSON as it stands. */
	if (strpbrk(session->path, "\"\\") != NULL)
		fail("a path with quotes or backslashes is not supported");
	FILE *stream = fmemopen(session->request, sizeof(session->request), "w");
	if (stream == NULL)
		fail_errno("fmemopen");
	if (session->variant->protocol == SEQPACKET_PATH)
		fputs(session->path, stream);
	else
		put_call(stream, session->path, session->variant);
	session->request_length = (size_t)ftell(stream);
	if (fclose(stream) != 0)
		fail("the request is too long");
}

static void open_connection(struct session *session)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int type = session->variant->protocol == SEQPACKET_PATH ? SOCK_SEQPACKET : SOCK_STREAM;

	if (strlen(session->socket_path) >= sizeof(address.sun_path))
		fail("the socket's path is too long");
	strcpy(address.sun_path, session->socket_path);
	session->connection = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	if (session->connection < 0)
		fail_errno("socket");
	if (connect(session->connection, (struct sockaddr *)&address, sizeof(address)) != 0)
		fail_errno("connect");
}

static void keep_fds(struct session *session, struct msghdr *message)
{
	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
		if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
			continue;
		size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if (session->fd_count + count > session->variant->fds)
			fail("more fds came than were asked for");
		memcpy(session->fds + session->fd_count, CMSG_DATA(header), count * sizeof(int));
		session->fd_count += count;
	}
}

/* One recvmsg(2) with room for the fds that are awaited; returns its number of bytes. */
static size_t receive_piece(struct session *session, char *buffer, size_t size)
{
	union {
		struct cmsghdr aligned;
		char bytes[CMSG_SPACE(BATCH * sizeof(int))];
	} control;
	struct iovec piece = {.iov_base = buffer, .iov_len = size};
	struct msghdr message = {
		.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		.msg_controllen = CMSG_LEN(session->variant->fds * sizeof(int)),
	};

	/* A sleeper in recvmsg(2) is also woken, for nothing, when the other side takes the request. */
	struct pollfd readable = {.fd = session->connection, .events = POLLIN};
	if (session->variant->polls && poll(&readable, 1, -1) < 0)
		fail_errno("poll");
	ssize_t received = recvmsg(session->connection, &message, MSG_CMSG_CLOEXEC);
	if (received < 0)
		fail_errno("recvmsg");
	if (received == 0)
		fail("the broker closed the connection");
	if (message.msg_flags & MSG_CTRUNC)
		fail("fds were lost");
	keep_fds(session, &message);
	return (size_t)received;
}

/* A SEQPACKET reply is one message; a Varlink reply ends with its NUL. */
static void receive_reply(struct session *session)
{
	static char reply[BUFFER_SIZE];
	size_t length = 0;

	do {
		if (length == sizeof(reply))
			fail("the reply is too long");
		length += receive_piece(session, reply + length, sizeof(reply) - length);
	} while (session->variant->protocol != SEQPACKET_PATH && reply[length - 1] != '\0');
	if (session->fd_count != session->variant->fds) {
		fprintf(stderr, "client: %zu of %zu fds came with: %.*s\n",
			session->fd_count, session->variant->fds, (int)length, reply);
		exit(2);
	}
}

static void acquire_fds(struct session *session)
{
	session->fd_count = 0;
	if (session->variant->protocol == NATIVE) {
		session->fds[0] = open(session->path, O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (session->fds[0] < 0)
			fail_errno(session->path);
		session->fd_count = 1;
		return;
	}
	ssize_t sent = send(session->connection, session->request, session->request_length, MSG_NOSIGNAL);
	if (sent != (ssize_t)session->request_length)
		fail_errno("send");
	receive_reply(session);
}

static void release_fds(struct session *session)
{
	for (size_t i = 0; i < session->fd_count; i++)
		close(session->fds[i]);
}

static void verify_fds(const struct session *session)
{
	struct stat expected, found;

	if (stat(session->path, &expected) != 0)
		fail_errno(session->path);
	for (size_t i = 0; i < session->fd_count; i++) {
		if (fstat(session->fds[i], &found) != 0)
			fail_errno("fstat");
		if (found.st_ino != expected.st_ino || found.st_dev != expected.st_dev)
			fail("the fd that came is of another file");
		if ((fcntl(session->fds[i], F_GETFL) & O_ACCMODE) != O_RDWR)
			fail("the fd that came is not for reading and writing");
	}
}

static uint64_t nanoseconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void warm_up(struct session *session)
{
	uint64_t end = nanoseconds_now() + WARM_UP_NANOSECONDS;

	acquire_fds(session);
	verify_fds(session);
	release_fds(session);
	while (nanoseconds_now() < end) {
		acquire_fds(session);
		release_fds(session);
	}
}

static void run_round(struct session *session, uint64_t *nanoseconds, size_t iterations)
{
	if (session->socket_path != NULL)
		open_connection(session);
	alarm(ROUND_DEADLINE);
	warm_up(session);
	for (size_t i = 0; i < iterations; i++) {
		uint64_t start = nanoseconds_now();
		acquire_fds(session);
		release_fds(session);
		nanoseconds[i] = nanoseconds_now() - start;
	}
	alarm(0);
	if (session->socket_path != NULL)
		close(session->connection);
}

static void print_round(const uint64_t *nanoseconds, size_t iterations)
{
	for (size_t i = 0; i < iterations; i++)
		printf("%s%llu", i > 0 ? " " : "", (unsigned long long)nanoseconds[i]);
	putchar('\n');
	if (fflush(stdout) != 0)
		fail_errno("standard output");
}

int main(int argc, char **argv)
{
	static struct session session;
	static uint64_t nanoseconds[MOST_ITERATIONS];
	size_t iterations;

	if (argc < 3)
		fail("usage: client VARIANT PATH [SOCKET]");
	session.variant = find_variant(argv[1]);
	session.path = argv[2];
	session.socket_path = argv[3];
	if ((session.variant->protocol == NATIVE) != (session.socket_path == NULL))
		fail("every variant but native needs a SOCKET");
	build_request(&session);
	while (scanf("%zu", &iterations) == 1) {
		if (iterations == 0 || iterations > MOST_ITERATIONS)
			fail("the number of iterations is out of range");
		run_round(&session, nanoseconds, iterations);
		print_round(nanoseconds, iterations);
	}
	return 0;
}
