/*
 * The floor: the least that any broker has to do for one open.
 *
 * A SOCK_SEQPACKET listener that takes a path as a message, opens it for
 * reading and writing, passes the fd with one byte of data, and closes its own
 * copy. One connection at a time. It has no policy, no audit, no check of who
 * asks and no safe walk: it exists to be measured and must never be deployed.
 *
 * usage: floor SOCKET
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(2);
}

static int listen_at(const char *socket_path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (strlen(socket_path) >= sizeof(address.sun_path)) {
		fprintf(stderr, "floor: the socket's path is too long\n");
		exit(2);
	}
	strcpy(address.sun_path, socket_path);
	int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (listener < 0)
		fail("socket");
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) != 0)
		fail("bind");
	if (listen(listener, 8) != 0)
		fail("listen");
	return listener;
}

/* Passes `fd` with one byte; without an fd (-1) the byte goes alone. */
static void send_fd(int connection, int fd)
{
	union {
		struct cmsghdr aligned;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.bytes = {0}};
	char data = 0;
	struct iovec piece = {.iov_base = &data, .iov_len = sizeof(data)};
	struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};

	if (fd >= 0) {
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_LEN(sizeof(fd));
		struct cmsghdr *header = CMSG_FIRSTHDR(&message);
		header->cmsg_level = SOL_SOCKET;
		header->cmsg_type = SCM_RIGHTS;
		header->cmsg_len = CMSG_LEN(sizeof(fd));
		memcpy(CMSG_DATA(header), &fd, sizeof(fd));
	}
	if (sendmsg(connection, &message, MSG_NOSIGNAL) < 0)
		fail("sendmsg");
}

static void serve(int connection)
{
	char path[PATH_MAX];
	ssize_t length;

	while ((length = recv(connection, path, sizeof(path) - 1, 0)) > 0) {
		path[length] = '\0';
		int fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
		send_fd(connection, fd);
		if (fd >= 0)
			close(fd);
	}
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: floor SOCKET\n");
		return 2;
	}
	int listener = listen_at(argv[1]);
	for (;;) {
		int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (connection < 0)
			fail("accept4");
		serve(connection);
		close(connection);
	}
}
