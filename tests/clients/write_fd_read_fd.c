/*
 * A Varlink client that knows nothing but sendmsg(2) and recvmsg(2).
 *
 * It shows that the broker's replies suit the oldest kind of receiver: one
 * recvmsg(2) with a control buffer for one fd gives the data and the fd
 * together, and no fd where none was passed.
 *
 * usage: write_fd_read_fd SOCKET PATH RIGHT...
 *   SOCKET  path of an AF_UNIX stream socket, or fd:N for an inherited connection
 *
 * Prints one line of JSON:
 *   {"fd":3,"reply":"...","type":"char","rdev":"1:5","flags":"0100002"}
 * "reply" has one character (U+0000 to U+00FF) for each byte before the NUL.
 * "fd" is -1, and "type", "rdev" and "flags" are null, where no fd came.
 * Exit status: 0 an fd came, 1 none came, 2 trouble.
 *
 * Out of scope: replies in several pieces, more than one fd, reading the JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <unistd.h>

enum { GRANTED = 0, NOT_GRANTED = 1, TROUBLE = 2 };

/* Six bytes for each escaped byte of a path and the rest of the call; also the largest reply. */
enum { BUFFER_SIZE = 64 * 1024 };

static void fail(const char *what)
{
	fprintf(stderr, "write_fd_read_fd: %s\n", what);
	exit(TROUBLE);
}

static void fail_errno(const char *what)
{
	fprintf(stderr, "write_fd_read_fd: %s: %s\n", what, strerror(errno));
	exit(TROUBLE);
}

/* Writes one byte as it stands in a JSON string; with `escape_high`, ASCII only: the others as \u00XX. */
static void put_byte(FILE *stream, unsigned char byte, bool escape_high)
{
	if (byte == '"' || byte == '\\')
		fprintf(stream, "\\%c", byte);
	else if (byte < 0x20 || byte == 0x7f || (escape_high && byte >= 0x80))
		fprintf(stream, "\\u%04x", byte);
	else
		fputc(byte, stream);
}

static void put_string(FILE *stream, const char *bytes, size_t length, bool escape_high)
{
	fputc('"', stream);
	for (size_t i = 0; i < length; i++)
		put_byte(stream, (unsigned char)bytes[i], escape_high);
	fputc('"', stream);
}

/* Fills `buffer` with the call and its closing NUL; returns the number of bytes with the NUL. */
static size_t build_call(char *buffer, size_t size, const char *path, char **rights)
{
	FILE *stream = fmemopen(buffer, size, "w");
	if (stream == NULL)
		fail_errno("fmemopen");
	fputs("{\"method\":\"org.fdbroker.Broker.Open\",\"parameters\":{\"path\":", stream);
	put_string(stream, path, strlen(path), false);
	fputs(",\"access\":[", stream);
	for (size_t i = 0; rights[i] != NULL; i++) {
		if (i > 0)
			fputc(',', stream);
		put_string(stream, rights[i], strlen(rights[i]), false);
	}
	fputs("]}}", stream);
	fputc('\0', stream);
	long length = ftell(stream);
	if (fclose(stream) != 0 || length < 0)
		fail("the call is too long");
	return (size_t)length;
}

static int connect_to(const char *socket_path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(socket_path) >= sizeof(address.sun_path))
		fail("the socket's path is too long");
	strcpy(address.sun_path, socket_path);
	int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection < 0)
		fail_errno("socket");
	if (connect(connection, (struct sockaddr *)&address, sizeof(address)) != 0)
		fail_errno(socket_path);
	return connection;
}

static int inherited_fd(const char *digits)
{
	char *end;

	errno = 0;
	long number = strtol(digits, &end, 10);
	if (errno != 0 || end == digits || *end != '\0' || number < 0 || number > INT_MAX)
		fail("after fd: a number is expected");
	return (int)number;
}

static int open_connection(const char *where)
{
	if (strncmp(where, "fd:", 3) == 0)
		return inherited_fd(where + 3);
	return connect_to(where);
}

static void write_data(int socket, const void *data, size_t length)
{
	struct iovec piece = {.iov_base = (void *)data, .iov_len = length};
	struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};

	/* Without MSG_NOSIGNAL a broker that has gone would end this program before it can say so. */
	ssize_t sent = sendmsg(socket, &message, MSG_NOSIGNAL);
	if (sent < 0)
		fail_errno("sendmsg");
	if ((size_t)sent != length)
		fail("sendmsg did not take the whole call");
}

/* The fd that came with a message, or -1. */
static int passed_fd(struct msghdr *message)
{
	const struct cmsghdr *header = CMSG_FIRSTHDR(message);
	int fd;

	if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
		return -1;
	if (header->cmsg_len != CMSG_LEN(sizeof(fd)))
		return -1;
	memcpy(&fd, CMSG_DATA(header), sizeof(fd));
	return fd;
}

/* One recvmsg(2): returns its number of bytes and sets *fd to the fd that came with them, or to -1. */
static ssize_t read_fd(int socket, void *buffer, size_t size, int *fd)
{
	union {
		struct cmsghdr aligned;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec piece = {.iov_base = buffer, .iov_len = size};
	struct msghdr message = {
		.msg_iov = &piece,
		.msg_iovlen = 1,
		.msg_control = control.bytes,
		/* CMSG_SPACE's padding is room for a second fd on 64-bit machines, so it is not offered. */
		.msg_controllen = CMSG_LEN(sizeof(int)),
	};

	*fd = -1;
	ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
	if (received < 0)
		return received;
	*fd = passed_fd(&message);
	if (message.msg_flags & MSG_CTRUNC)
		fail("more was passed than one fd");
	return received;
}

static const char *type_name(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return "file";
	case S_IFDIR: return "directory";
	case S_IFCHR: return "char";
	case S_IFBLK: return "block";
	case S_IFIFO: return "fifo";
	case S_IFSOCK: return "socket";
	default: return "other";
	}
}

static void print_object(int fd)
{
	struct stat status;

	if (fd < 0) {
		fputs("\"type\":null,\"rdev\":null,\"flags\":null", stdout);
		return;
	}
	if (fstat(fd, &status) != 0)
		fail_errno("fstat");
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0)
		fail_errno("fcntl F_GETFL");
	printf("\"type\":\"%s\",\"rdev\":\"%u:%u\",\"flags\":\"%#o\"", type_name(status.st_mode),
	       major(status.st_rdev), minor(status.st_rdev), (unsigned int)flags);
}

static void print_answer(int fd, const char *reply, size_t length)
{
	printf("{\"fd\":%d,\"reply\":", fd);
	put_string(stdout, reply, length, true);
	fputc(',', stdout);
	print_object(fd);
	puts("}");
	if (fflush(stdout) != 0)
		fail_errno("standard output");
}

int main(int argc, char **argv)
{
	static char buffer[BUFFER_SIZE];
	int fd;

	if (argc < 4)
		fail("usage: write_fd_read_fd SOCKET PATH RIGHT...");
	int connection = open_connection(argv[1]);
	write_data(connection, buffer, build_call(buffer, sizeof(buffer), argv[2], argv + 3));
	ssize_t received = read_fd(connection, buffer, sizeof(buffer), &fd);
	if (received < 0)
		fail_errno("recvmsg");
	if (received == 0)
		fail("the broker closed the connection");
	const char *end = memchr(buffer, '\0', (size_t)received);
	if (end == NULL)
		fail("the first message is no whole reply");
	print_answer(fd, buffer, (size_t)(end - buffer));
	return fd >= 0 ? GRANTED : NOT_GRANTED;
}
