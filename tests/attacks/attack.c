/*
 * The attackers once more, in C: by system calls that no interpreter stands before, and where there is no
 * Python. attack.py says what an attack is, and which rules it keeps; the names are the same.
 *
 *   attack [--careful] [--only NAME]... KEY=VALUE...    KEY=VALUE: the witness's description
 *   attack --list
 *
 * One JSON line an attack. Three are here alone: the calls of other ABIs, and the many processes.
 * It can be linked statically.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/if_alg.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* Numbers that older headers lack; they are the same on every architecture. */
enum {
	PIDFD_SEND_SIGNAL = 424, IO_URING_SETUP = 425, OPEN_TREE = 428, MOVE_MOUNT = 429, FSOPEN = 430,
	FSPICK = 433, PIDFD_OPEN = 434, CLONE3 = 435, PIDFD_GETFD = 438, MOUNT_SETATTR = 442, FCHMODAT2 = 452,
};

enum { SECONDS = 5, MANY_PROCESSES = 5000, ALLOWED_PROCESSES = 4096, ALLOWED_FDS = 4096 };
enum { NAMESPACE_OF_TIME = 0x80, BIT_32_SHIFT = 32, MPTCP = 262 };

static char **description;
static int description_size;
static bool careful;
static pid_t runner, parent_pid;
static char work[PATH_MAX];
static int inherited[4096], inherited_count;
static const char *own_program;

/* What the attack's child tells. */
static char detail[2048];

static void say(const char *format, va_list arguments)
{
	vsnprintf(detail, sizeof detail, format, arguments);
}

/* The attack succeeded; this is its proof. */
__attribute__((format(printf, 1, 2))) static bool proven(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
	return true;
}

/* It was tried, or could not be, and there is no proof. */
__attribute__((format(printf, 1, 2))) static bool unproven(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	say(format, arguments);
	va_end(arguments);
	return false;
}

/* The system refused; errno says how. */
static bool refused(const char *call)
{
	return unproven("%s: %s", call, strerror(errno));
}

/* The usual end: whether the call returned success. */
static bool returned(long result, const char *call)
{
	return result >= 0 ? proven("%s returned %ld", call, result) : refused(call);
}

static const char *told(const char *key)
{
	size_t size = strlen(key);
	for (int i = 0; i < description_size; i++)
		if (strncmp(description[i], key, size) == 0 && description[i][size] == '=')
			return description[i] + size + 1;
	return NULL;
}

#define NEED(name, key) \
	const char *name = told(key); \
	if (!name) \
		return unproven("not tried: the witness has no %s", key)

static long number(const char *text)
{
	return strtol(text, NULL, 10);
}

static bool secret_in(const void *data, size_t size)
{
	NEED(prefix, "secret_prefix");
	const char *end = (const char *)data + size;
	const char *found = data;
	size_t length = strlen(prefix);
	while ((found = memmem(found, (size_t)(end - found), prefix, length))) {
		size_t digits = 0;
		while (found + length + digits < end && digits < 32 && isxdigit((unsigned char)found[length + digits]))
			digits++;
		if (digits == 32)
			return proven("%.*s", (int)length + 32, found);
		found += length;
	}
	return unproven("no secret in the %zu bytes read", size);
}

static int opened(const char *path, int flags)
{
	return open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static bool can_open(const char *path, int flags)
{
	int fd = opened(path, flags);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

/* The first bytes of a file; -1 where it can't be read. */
static ssize_t contents(const char *path, char *data, size_t size)
{
	int fd = opened(path, O_RDONLY);
	if (fd < 0)
		return -1;
	ssize_t got = read(fd, data, size);
	int error = errno;
	close(fd);
	errno = error;
	return got;
}

static bool secret_of_file(const char *path)
{
	static char data[1 << 18];
	ssize_t size = contents(path, data, sizeof data);
	return size < 0 ? refused("read") : secret_in(data, (size_t)size);
}

static bool secret_of_told(const char *key)
{
	NEED(path, key);
	return secret_of_file(path);
}

static const char *own_path(const char *name)
{
	static char path[PATH_MAX + 64];
	snprintf(path, sizeof path, "%s/%s", work, name);
	return path;
}

static const char *beside(const char *name)
{
	static char path[PATH_MAX + 64];
	snprintf(path, sizeof path, "%s/%s", told("directory") ? told("directory") : "/nonexistent", name);
	return path;
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

/* The errno that a child failed with when it ran this, or 0. */
static int in_child(long (*run)(long), long argument)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit(run(argument) < 0 ? errno : 0);
	int status = 0;
	if (pid < 0 || waitpid(pid, &status, 0) < 0)
		return errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

static bool child_worked(int error, const char *call)
{
	errno = error;
	return error ? refused(call) : proven("%s returned success", call);
}

/* The kernel let us through: the call fails for its senseless arguments alone. */
static bool passed_the_check(long result, const char *call)
{
	if (result < 0 && (errno == EPERM || errno == EACCES || errno == ENOSYS))
		return refused(call);
	return proven("%s was permitted: %s", call, result < 0 ? strerror(errno) : "success");
}

/* Sockets */

static socklen_t unix_address(struct sockaddr_un *address, const char *name, bool abstract)
{
	memset(address, 0, sizeof *address);
	address->sun_family = AF_UNIX;
	snprintf(address->sun_path + abstract, sizeof address->sun_path - abstract, "%s", name);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name));
	return size + 1;
}

static bool unix_connect(const char *key, bool abstract)
{
	NEED(name, key);
	struct sockaddr_un address;
	socklen_t size = unix_address(&address, name, abstract);
	int client = socket(AF_UNIX, SOCK_STREAM, 0);
	if (client < 0)
		return refused("socket");
	return returned(connect(client, (struct sockaddr *)&address, size), "connect");
}

static bool unix_send(const char *key, bool abstract, bool pair)
{
	NEED(name, key);
	struct sockaddr_un address;
	socklen_t size = unix_address(&address, name, abstract);
	int ends[2];
	if (pair ? socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) < 0 : (ends[0] = socket(AF_UNIX, SOCK_DGRAM, 0)) < 0)
		return refused(pair ? "socketpair" : "socket");
	return returned(sendto(ends[0], "attack", 6, 0, (struct sockaddr *)&address, size), "sendto");
}

static bool unix_stream(void) { return unix_connect("stream_socket", false); }
static bool unix_datagram(void) { return unix_send("datagram_socket", false, false); }
static bool unix_datagram_pair(void) { return unix_send("datagram_socket", false, true); }
static bool abstract_stream(void) { return unix_connect("abstract_stream", true); }
static bool abstract_datagram(void) { return unix_send("abstract_datagram", true, false); }
static bool abstract_datagram_pair(void) { return unix_send("abstract_datagram", true, true); }

static pid_t victim(void);

static bool unix_stream_by_proc_root(void)
{
	NEED(directory, "directory");
	NEED(path, "stream_socket");
	pid_t pids[] = {1, parent_pid, victim()};
	for (size_t i = 0; i < sizeof pids / sizeof *pids; i++) {
		char place[PATH_MAX];
		snprintf(place, sizeof place, "/proc/%d/root%s", pids[i], directory);
		struct sockaddr_un address;
		socklen_t size = unix_address(&address, base_name(path), false);
		int client = socket(AF_UNIX, SOCK_STREAM, 0);
		if (chdir(place) == 0 && connect(client, (struct sockaddr *)&address, size) == 0)
			return proven("connected by the root of process %d", pids[i]);
	}
	return refused("chdir or connect");
}

static socklen_t loopback(struct sockaddr_storage *address, int family, const char *port)
{
	memset(address, 0, sizeof *address);
	if (family == AF_INET) {
		struct sockaddr_in *four = (struct sockaddr_in *)address;
		four->sin_family = AF_INET;
		four->sin_port = htons((uint16_t)number(port));
		four->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		return sizeof *four;
	}
	struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;
	six->sin6_family = AF_INET6;
	six->sin6_port = htons((uint16_t)number(port));
	six->sin6_addr = in6addr_loopback;
	return sizeof *six;
}

static bool connected(int family, const char *key, int protocol)
{
	NEED(port, key);
	struct sockaddr_storage address;
	socklen_t size = loopback(&address, family, port);
	int client = socket(family, SOCK_STREAM, protocol);
	if (client < 0)
		return refused("socket");
	return returned(connect(client, (struct sockaddr *)&address, size), "connect");
}

/* Where nobody listens, the second datagram meets the first one's refusal. */
static bool sent(int family, const char *key)
{
	NEED(port, key);
	struct sockaddr_storage address;
	socklen_t size = loopback(&address, family, port);
	int client = socket(family, SOCK_DGRAM, 0);
	if (client < 0)
		return refused("socket");
	if (connect(client, (struct sockaddr *)&address, size) < 0 || send(client, "attack", 6, 0) < 0)
		return refused("connect or send");
	return returned(send(client, "attack", 6, 0), "send");
}

static bool tcp4(void) { return connected(AF_INET, "tcp4", 0); }
static bool tcp6(void) { return connected(AF_INET6, "tcp6", 0); }
static bool mptcp(void) { return connected(AF_INET, "tcp4", MPTCP); }
static bool udp4(void) { return sent(AF_INET, "udp4"); }
static bool udp6(void) { return sent(AF_INET6, "udp6"); }

static bool tcp_fast_open(void)
{
	NEED(port, "tcp4");
	struct sockaddr_storage address;
	socklen_t size = loopback(&address, AF_INET, port);
	int client = socket(AF_INET, SOCK_STREAM, 0);
	if (client < 0)
		return refused("socket");
	return returned(sendto(client, "attack", 6, MSG_FASTOPEN, (struct sockaddr *)&address, size), "sendto");
}

static bool raw_socket(void) { return returned(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), "socket"); }
static bool packet_socket(void) { return returned(socket(AF_PACKET, SOCK_RAW, 0), "socket"); }
static bool ping_socket(void) { return returned(socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), "socket"); }
static bool vsock_socket(void) { return returned(socket(AF_VSOCK, SOCK_STREAM, 0), "socket"); }
static bool netlink_audit(void) { return returned(socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT), "socket"); }

static bool vsock_connect(void)
{
	NEED(port, "vsock");
	struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = 1, .svm_port = (unsigned)number(port)};
	int client = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (client < 0)
		return refused("socket");
	return returned(connect(client, (struct sockaddr *)&address, sizeof address), "connect");
}

static bool alg_socket(void)
{
	struct sockaddr_alg address = {.salg_family = AF_ALG, .salg_type = "hash", .salg_name = "sha256"};
	int client = socket(AF_ALG, SOCK_SEQPACKET, 0);
	if (client < 0)
		return refused("socket");
	return returned(bind(client, (struct sockaddr *)&address, sizeof address), "bind");
}

/* Harmful: where nothing stops it, the kernel loads a module for each family that it has. */
static bool other_families(void)
{
	static const int kinds[][3] = {
		{15, 3, 2}, {21, 5, 0}, {29, 3, 1}, {30, 5, 0}, {31, 5, 0}, {41, 2, 0}, {42, 2, 0}, {43, 1, 0}, {44, 3, 0},
	};
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (socket(kinds[i][0], kinds[i][1], kinds[i][2]) >= 0)
			return proven("a socket of family %d", kinds[i][0]);
	return refused("socket");
}

/* Whether `wanted` says yes to one of the dump's messages. */
static bool netlink_dump(int protocol, int kind, const void *body, size_t size,
			 bool (*wanted)(const struct nlmsghdr *))
{
	struct {
		struct nlmsghdr head;
		char body[64];
	} request = {.head = {.nlmsg_len = (uint32_t)NLMSG_LENGTH(size), .nlmsg_type = (uint16_t)kind,
			      .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP, .nlmsg_seq = 1}};
	memcpy(request.body, body, size);
	int client = socket(AF_NETLINK, SOCK_RAW, protocol);
	if (client < 0)
		return refused("socket");
	if (send(client, &request, request.head.nlmsg_len, 0) < 0)
		return refused("send");
	static char data[1 << 16];
	for (;;) {
		ssize_t got = recv(client, data, sizeof data, 0);
		if (got <= 0)
			return refused("recv");
		const struct nlmsghdr *message = (const struct nlmsghdr *)data;
		for (int left = (int)got; NLMSG_OK(message, left); message = NLMSG_NEXT(message, left)) {
			if (message->nlmsg_type == NLMSG_ERROR) {
				errno = -((const struct nlmsgerr *)NLMSG_DATA(message))->error;
				return refused("netlink");
			}
			if (message->nlmsg_type == NLMSG_DONE)
				return unproven("the dump has nothing of the outside");
			if (wanted(message))
				return true;
		}
	}
}

static bool is_foreign_interface(const struct nlmsghdr *message)
{
	const struct ifinfomsg *interface = NLMSG_DATA(message);
	char name[IF_NAMESIZE] = "?";
	if (!(interface->ifi_flags & IFF_UP) || interface->ifi_flags & IFF_LOOPBACK)
		return false;
	return proven("the interface %s is up", if_indextoname((unsigned)interface->ifi_index, name));
}

static bool netlink_interfaces(void)
{
	struct ifinfomsg body = {0};
	return netlink_dump(NETLINK_ROUTE, RTM_GETLINK, &body, sizeof body, is_foreign_interface);
}

static bool is_the_listener(const struct nlmsghdr *message)
{
	const unsigned char *body = NLMSG_DATA(message);
	if ((body[4] << 8 | body[5]) != number(told("tcp4")))
		return false;
	return proven("the witness's listening socket is listed");
}

static bool netlink_sockets(void)
{
	NEED(port, "tcp4");
	(void)port;
	unsigned char body[56] = {AF_INET, IPPROTO_TCP, 0, 0, 0xff, 0xff, 0xff, 0xff};
	return netlink_dump(NETLINK_SOCK_DIAG, 20, body, sizeof body, is_the_listener);
}

static bool netlink_uevent(void)
{
	struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
	int client = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_KOBJECT_UEVENT);
	if (client < 0)
		return refused("socket");
	return returned(bind(client, (struct sockaddr *)&address, sizeof address), "bind");
}

/* Keys, and System V's and POSIX's messages */

static bool key_read(void)
{
	NEED(key, "key");
	char data[4096];
	long size = syscall(SYS_keyctl, 11L, number(key), data, sizeof data, 0L);
	return size < 0 ? refused("keyctl") : secret_in(data, (size_t)size);
}

static bool key_search(void)
{
	NEED(title, "key_title");
	return returned(syscall(SYS_keyctl, 10L, -4L, "user", title, 0L), "keyctl");
}

static bool key_request(void)
{
	NEED(title, "key_title");
	return returned(syscall(SYS_request_key, "user", title, NULL, 0L), "request_key");
}

static bool key_add(void)
{
	syscall(SYS_keyctl, 1L, NULL); /* a session keyring that ends with us */
	return returned(syscall(SYS_add_key, "user", "attack", "x", 1L, -3L), "add_key");
}

/* Whether a file of the kernel's names what belongs to the witness. */
static bool listed(const char *path, const char *key)
{
	NEED(name, key);
	static char data[1 << 18];
	size_t size = 0;
	int fd = opened(path, O_RDONLY);
	if (fd < 0)
		return refused("open");
	for (ssize_t got; size < sizeof data && (got = read(fd, data + size, sizeof data - size)) > 0;)
		size += (size_t)got;
	return memmem(data, size, name, strlen(name)) ? proven("listed") : unproven("not listed");
}

static bool keys_listed(void) { return listed("/proc/keys", "key_title"); }
static bool sockets_listed(void) { return listed("/proc/net/unix", "abstract_stream"); }

static bool segment_read(void)
{
	NEED(segment, "segment");
	void *data = shmat((int)number(segment), NULL, SHM_RDONLY);
	return data == (void *)-1 ? refused("shmat") : secret_in(data, 128);
}

static bool segment_write(void)
{
	NEED(segment, "segment");
	char *data = shmat((int)number(segment), NULL, 0);
	if (data == (void *)-1)
		return refused("shmat");
	memset(data + 1024, 'A', 16);
	return proven("written");
}

static bool message_queue(void)
{
	NEED(queue, "message_queue");
	struct {
		long type;
		char text[128];
	} message = {0};
	if (msgrcv((int)number(queue), &message, sizeof message.text, 0, IPC_NOWAIT) < 0)
		return refused("msgrcv");
	return secret_in(message.text, sizeof message.text);
}

static bool semaphore(void)
{
	NEED(set, "semaphore");
	struct sembuf raise = {.sem_num = 0, .sem_op = 1, .sem_flg = IPC_NOWAIT};
	return returned(semop((int)number(set), &raise, 1), "semop");
}

static bool posix_queue(void)
{
	NEED(name, "posix_queue");
	char data[8192];
	long queue = syscall(SYS_mq_open, name, O_RDWR | O_NONBLOCK, 0L, NULL);
	if (queue < 0)
		return refused("mq_open");
	long size = syscall(SYS_mq_timedreceive, queue, data, sizeof data, NULL, NULL);
	return size < 0 ? refused("mq_timedreceive") : secret_in(data, (size_t)size);
}

/* Processes */

static bool has_argument(pid_t pid, const char *wanted)
{
	char path[64], data[1 << 14];
	snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
	ssize_t size = contents(path, data, sizeof data - 1);
	if (size <= 0)
		return false;
	data[size] = 0;
	for (char *word = data; word < data + size; word += strlen(word) + 1)
		if (strcmp(word, wanted) == 0)
			return true;
	return false;
}

/* Whether the caller named it as the sandbox's own. */
static bool inside(pid_t pid)
{
	const char *list = told("inside_pids");
	while (list && *list) {
		if (strtol(list, NULL, 10) == pid)
			return true;
		list = strchr(list, ':');
		list = list ? list + 1 : NULL;
	}
	return false;
}

/* Whether it belongs to the attack itself: all that has its session. */
static bool family(pid_t pid)
{
	if (pid == runner || pid == getpid())
		return true;
	return pid != parent_pid && getsid(pid) == getsid(0);
}

static pid_t victim_if_seen(void)
{
	const char *name = told("victim_name"), *outside = told("victim");
	if (!name || !outside)
		return 0;
	if (has_argument((pid_t)number(outside), name))
		return (pid_t)number(outside);
	DIR *all = opendir("/proc");
	pid_t found = 0;
	for (struct dirent *entry; all && !found && (entry = readdir(all));)
		if (isdigit((unsigned char)*entry->d_name) && has_argument((pid_t)number(entry->d_name), name))
			found = (pid_t)number(entry->d_name);
	if (all)
		closedir(all);
	return found;
}

/* The victim; where it can't be seen, the number that it has outside. 0: that is another process here. */
static pid_t victim(void)
{
	pid_t found = victim_if_seen();
	if (!found && told("victim"))
		found = (pid_t)number(told("victim"));
	return found && !inside(found) && !family(found) ? found : 0;
}

static unsigned long address_in(pid_t pid)
{
	char path[64], data[64] = "";
	if (pid == victim() && told("victim_address"))
		return strtoul(told("victim_address"), NULL, 10);
	snprintf(path, sizeof path, "/proc/%d/maps", pid);
	if (contents(path, data, sizeof data - 1) > 0)
		return strtoul(data, NULL, 16);
	return (unsigned long)detail;
}

/* An operation tries one thing on one process. `really`: it is the victim, so change it. */

static bool op_ptrace(pid_t pid, bool really)
{
	if (syscall(SYS_ptrace, really ? 16L : 0x4206L, (long)pid, 0L, 0L) < 0) /* attach; seize */
		return refused("ptrace");
	if (really) {
		waitpid(pid, NULL, __WALL);
		syscall(SYS_ptrace, 17L, (long)pid, 0L, 0L);
	}
	return proven("traced"); /* what is seized gets free when we end */
}

static bool op_vm_read(pid_t pid, bool really)
{
	char data[64] = "";
	struct iovec ours = {data, sizeof data}, theirs = {(void *)address_in(pid), sizeof data};
	if (process_vm_readv(pid, &ours, 1, &theirs, 1, 0) < 0)
		return errno == EFAULT ? proven("permitted, though nothing is there") : refused("process_vm_readv");
	return really ? secret_in(data, sizeof data) : proven("read");
}

static bool op_vm_write(pid_t pid, bool really)
{
	char data[] = "attacked";
	struct iovec ours = {data, 8}, theirs = {(void *)(address_in(pid) + 512), 8};
	if (!really)
		return unproven("not tried: the victim is not to be seen");
	return returned(process_vm_writev(pid, &ours, 1, &theirs, 1, 0), "process_vm_writev");
}

static bool op_pidfd_getfd(pid_t pid, bool really)
{
	char data[128];
	long process = syscall(PIDFD_OPEN, (long)pid, 0L);
	if (process < 0)
		return refused("pidfd_open");
	for (long fd = really ? number(told("victim_fd")) : 0; fd < 64; fd++) {
		long got = syscall(PIDFD_GETFD, process, fd, 0L);
		if (got < 0 && errno != EBADF)
			return refused("pidfd_getfd");
		if (got >= 0 && !really)
			return proven("its fd %ld", fd);
		if (got >= 0)
			return secret_in(data, (size_t)pread((int)got, data, sizeof data, 0));
	}
	return refused("pidfd_getfd");
}

static bool op_kill(pid_t pid, bool really)
{
	if (kill(pid, 0) < 0)
		return refused("kill");
	if (really)
		kill(pid, SIGUSR1);
	return proven("may be signalled");
}

static bool op_tgkill(pid_t pid, bool really)
{
	return returned(syscall(SYS_tgkill, (long)pid, (long)pid, really ? (long)SIGUSR2 : 0L), "tgkill");
}

static bool op_sigqueue(pid_t pid, bool really)
{
	siginfo_t info = {.si_signo = really ? SIGRTMIN + 1 : 0, .si_code = SI_QUEUE};
	return returned(syscall(SYS_rt_sigqueueinfo, (long)pid, (long)info.si_signo, &info), "rt_sigqueueinfo");
}

static bool op_pidfd_signal(pid_t pid, bool really)
{
	long process = syscall(PIDFD_OPEN, (long)pid, 0L), sign = really ? SIGRTMIN + 2 : 0;
	if (process < 0)
		return refused("pidfd_open");
	return returned(syscall(PIDFD_SEND_SIGNAL, process, sign, NULL, 0L), "pidfd_send_signal");
}

static bool op_fd_owner_signal(pid_t pid, bool really)
{
	int ends[2];
	if (!really)
		return unproven("not tried: the victim is not to be seen");
	if (pipe(ends) < 0 || fcntl(ends[0], F_SETOWN, pid) < 0 || fcntl(ends[0], F_SETSIG, SIGRTMIN + 3) < 0
	    || fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK) < 0 || write(ends[1], "x", 1) < 0)
		return refused("fcntl");
	return unproven("sent; the witness tells whether it came");
}

static bool op_limits(pid_t pid, bool really)
{
	struct rlimit limit;
	if (prlimit(pid, RLIMIT_NOFILE, NULL, &limit) < 0)
		return refused("prlimit");
	limit.rlim_cur -= really;
	return returned(prlimit(pid, RLIMIT_NOFILE, &limit, NULL), "prlimit");
}

static bool op_affinity(pid_t pid, bool really)
{
	unsigned char mask[512] = {0};
	long size = syscall(SYS_sched_getaffinity, (long)pid, sizeof mask, mask);
	if (size < 0)
		return refused("sched_getaffinity");
	for (long i = 0, kept = 0; really && i < size * 8; i++) {
		kept += mask[i / 8] >> i % 8 & 1;
		if (kept > 1)
			mask[i / 8] &= (unsigned char)~(1 << i % 8);
	}
	return returned(syscall(SYS_sched_setaffinity, (long)pid, size, mask), "sched_setaffinity");
}

static bool op_scheduler(pid_t pid, bool really)
{
	struct sched_param parameters;
	int policy = sched_getscheduler(pid);
	if (policy < 0 || sched_getparam(pid, &parameters) < 0)
		return refused("sched_getscheduler");
	return returned(sched_setscheduler(pid, really ? SCHED_BATCH : policy, &parameters), "sched_setscheduler");
}

static bool op_nice(pid_t pid, bool really)
{
	errno = 0;
	int now = getpriority(PRIO_PROCESS, (id_t)pid);
	if (errno)
		return refused("getpriority");
	return returned(setpriority(PRIO_PROCESS, (id_t)pid, now + really), "setpriority");
}

static bool op_io_priority(pid_t pid, bool really)
{
	long now = syscall(SYS_ioprio_get, 1L, (long)pid);
	if (now < 0)
		return refused("ioprio_get");
	return returned(syscall(SYS_ioprio_set, 1L, (long)pid, really ? 2L << 13 | 7 : now), "ioprio_set");
}

static bool op_oom_score(pid_t pid, bool really)
{
	char path[64], data[32] = "";
	snprintf(path, sizeof path, "/proc/%d/oom_score_adj", pid);
	int fd = opened(path, O_RDWR);
	if (fd < 0 || read(fd, data, sizeof data - 1) < 0)
		return refused("open");
	int size = snprintf(data, sizeof data, "%ld", number(data) + 100 * really);
	return returned(write(fd, data, (size_t)size), "write");
}

static bool op_kcmp(pid_t pid, bool really)
{
	(void)really;
	return returned(syscall(SYS_kcmp, (long)getpid(), (long)pid, 1L, 0L, 0L), "kcmp");
}

static bool op_robust_list(pid_t pid, bool really)
{
	void *head;
	size_t size;
	(void)really;
	return returned(syscall(SYS_get_robust_list, (long)pid, &head, &size), "get_robust_list");
}

/* The CPU clock, user space only: struct perf_event_attr as 32-bit words. */
static long perf_event(pid_t pid)
{
	uint32_t attributes[28] = {1, sizeof attributes};
	attributes[10] = 1 << 5 | 1 << 6;
	return syscall(SYS_perf_event_open, attributes, (long)pid, -1L, -1L, 0L);
}

static bool op_perf_events(pid_t pid, bool really)
{
	(void)really;
	return returned(perf_event(pid), "perf_event_open");
}

static const char *of_process(pid_t pid, const char *format, const char *more)
{
	static char path[PATH_MAX];
	int size = snprintf(path, sizeof path, "/proc/%d/", pid);
	snprintf(path + size, sizeof path - (size_t)size, "%s%s", format, more);
	return path;
}

static bool is_listed(const char *path)
{
	DIR *directory = opendir(path);
	if (!directory)
		return refused("opendir");
	closedir(directory);
	return proven("listed");
}

static bool is_read(const char *path)
{
	char data[4096];
	ssize_t size = contents(path, data, sizeof data);
	return size > 0 ? proven("%zd bytes read", size) : size < 0 ? refused("read") : unproven("empty");
}

static bool op_root(pid_t pid, bool really)
{
	(void)really;
	NEED(path, "secret_file");
	return secret_of_file(of_process(pid, "root", path));
}

static bool op_cwd(pid_t pid, bool really)
{
	NEED(path, "inner_secret");
	return really ? secret_of_file(of_process(pid, "cwd/", base_name(path))) : is_listed(of_process(pid, "cwd", ""));
}

static bool op_fds(pid_t pid, bool really)
{
	NEED(fd, "victim_fd");
	return really ? secret_of_file(of_process(pid, "fd/", fd)) : is_listed(of_process(pid, "fd", ""));
}

static bool op_environ(pid_t pid, bool really)
{
	const char *path = of_process(pid, "environ", "");
	return really ? secret_of_file(path) : is_read(path);
}

static bool op_maps(pid_t pid, bool really)
{
	(void)really;
	return is_read(of_process(pid, "maps", ""));
}

static bool op_memory(pid_t pid, bool really)
{
	char data[64];
	unsigned long address = address_in(pid);
	int fd = opened(of_process(pid, "mem", ""), O_RDONLY);
	if (fd < 0)
		return refused("open");
	ssize_t size = pread(fd, data, sizeof data, (off_t)address);
	if (size < 0)
		return refused("pread");
	return really ? secret_in(data, (size_t)size) : proven("%zd bytes read", size);
}

static bool op_memory_write(pid_t pid, bool really)
{
	unsigned long address = address_in(pid) + 256;
	if (!really)
		return unproven("not tried: the victim is not to be seen");
	int fd = opened(of_process(pid, "mem", ""), O_RDWR);
	return fd < 0 ? refused("open") : returned(pwrite(fd, "attacked", 8, (off_t)address), "pwrite");
}

static bool op_exe(pid_t pid, bool really)
{
	char target[PATH_MAX];
	(void)really;
	return returned(readlink(of_process(pid, "exe", ""), target, sizeof target), "readlink");
}

static long enter(long fd) { return setns((int)fd, 0); }

static bool op_setns(pid_t pid, bool really)
{
	static const char *const names[] = {"user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"};
	(void)really;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		int fd = opened(of_process(pid, "ns/", names[i]), O_RDONLY);
		if (fd < 0)
			continue;
		errno = in_child(enter, fd);
		if (!errno)
			return proven("entered the namespace %s", names[i]);
		close(fd);
	}
	return refused("setns");
}

static const struct operation {
	const char *name;
	bool (*run)(pid_t pid, bool really);
	bool on_the_victim_only;
} operations[] = {
	{"ptrace", op_ptrace, false}, {"vm-read", op_vm_read, false}, {"pidfd-getfd", op_pidfd_getfd, false},
	{"kill", op_kill, false}, {"tgkill", op_tgkill, false}, {"sigqueue", op_sigqueue, false},
	{"pidfd-signal", op_pidfd_signal, false}, {"limits", op_limits, false}, {"affinity", op_affinity, false},
	{"scheduler", op_scheduler, false}, {"nice", op_nice, false}, {"io-priority", op_io_priority, false},
	{"oom-score", op_oom_score, false}, {"kcmp", op_kcmp, false}, {"robust-list", op_robust_list, false},
	{"perf-events", op_perf_events, false}, {"root", op_root, false}, {"cwd", op_cwd, false},
	{"fds", op_fds, false}, {"environ", op_environ, false}, {"maps", op_maps, false},
	{"memory", op_memory, false}, {"exe", op_exe, false}, {"setns", op_setns, false},
	{"vm-write", op_vm_write, true}, {"memory-write", op_memory_write, true},
	{"fd-owner-signal", op_fd_owner_signal, true},
};
enum { VICTIM, PARENT, OTHERS, TARGETS };
static const char *const targets[] = {"victim", "parent", "others"};

/* Every process that there is to be found: by trying numbers, and beyond those by /proc. */
static const pid_t *visible(int *count)
{
	enum { TRIED = 1 << 15 };
	static pid_t pids[2 * TRIED];
	*count = 0;
	for (pid_t pid = 1; pid < TRIED; pid++)
		if (getsid(pid) >= 0 || errno != ESRCH)
			pids[(*count)++] = pid;
	DIR *all = opendir("/proc");
	for (struct dirent *entry; all && *count < 2 * TRIED && (entry = readdir(all));)
		if (number(entry->d_name) >= TRIED)
			pids[(*count)++] = (pid_t)number(entry->d_name);
	if (all)
		closedir(all);
	return pids;
}

/* On everybody who is neither of the attack's family nor the victim, nor the parent. */
static bool on_others(bool (*run)(pid_t, bool))
{
	int count, tried = 0, reached = 0;
	pid_t first = 0, aside = victim();
	const pid_t *pids = visible(&count);
	for (int i = 0; i < count; i++) {
		if (pids[i] == parent_pid || pids[i] == aside || inside(pids[i]) || family(pids[i]))
			continue;
		tried++;
		if (run(pids[i], false) && !reached++)
			first = pids[i];
	}
	if (!reached)
		return unproven("none of %d others", tried);
	return proven("%d of %d others, the first %d", reached, tried, first);
}

static bool on_target(const struct operation *operation, int target)
{
	if (target == OTHERS)
		return on_others(operation->run);
	if (target == PARENT) {
		if (parent_pid == 0)
			return unproven("the parent is in another pid namespace");
		return inside(parent_pid) ? unproven("not tried: the parent belongs to the sandbox")
					  : operation->run(parent_pid, false);
	}
	pid_t pid = victim();
	if (!pid)
		return unproven("the victim's number is that of another process here");
	return operation->run(pid, victim_if_seen() != 0);
}

/* Signal 0 to -1 always finds the program that started us. It counts where somebody else is there to find. */
static bool kill_everyone(void)
{
	if (kill(-1, 0) < 0)
		return refused("kill");
	int count;
	const pid_t *pids = visible(&count);
	for (int i = 0; i < count; i++)
		if (!inside(pids[i]) && !family(pids[i]) && kill(pids[i], 0) == 0)
			return proven("it reaches %d", pids[i]);
	return unproven("it reaches the attack itself only");
}

/* Namespaces and mounts */

static long leave(long flags) { return unshare((int)flags); }

static bool unshare_user(void) { return returned(unshare(CLONE_NEWUSER), "unshare"); }

static bool unshare_the_rest(void)
{
	static const long flags[] = {CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS,
				     CLONE_NEWCGROUP, NAMESPACE_OF_TIME};
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
		errno = in_child(leave, flags[i]);
		if (!errno)
			return proven("a namespace by the flag %#lx", flags[i]);
	}
	return refused("unshare");
}

static bool ended(long pid, const char *call)
{
	if (pid == 0)
		_exit(0);
	if (pid < 0)
		return refused(call);
	waitpid((pid_t)pid, NULL, 0);
	return proven("a child in a namespace of its own");
}

static bool clone_user(void)
{
	return ended(syscall(SYS_clone, (long)CLONE_NEWUSER | SIGCHLD, 0L, 0L, 0L, 0L), "clone");
}

static bool clone3_user(void)
{
	uint64_t arguments[11] = {CLONE_NEWUSER, [4] = SIGCHLD};
	return ended(syscall(CLONE3, arguments, sizeof arguments), "clone3");
}

static bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool written = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		close(fd);
	return written;
}

/* uid 0 of a new user namespace. */
static bool become_root(int flags)
{
	char uid_map[64], gid_map[64];
	snprintf(uid_map, sizeof uid_map, "0 %u 1", getuid());
	snprintf(gid_map, sizeof gid_map, "0 %u 1", getgid());
	if (unshare(CLONE_NEWUSER | flags) < 0)
		return refused("unshare");
	if (!write_text("/proc/self/setgroups", "deny") || !write_text("/proc/self/gid_map", gid_map)
	    || !write_text("/proc/self/uid_map", uid_map))
		return refused("write of the maps");
	return true;
}

static bool mounted(const char *source, const char *name, const char *kind, unsigned long flags)
{
	const char *place = own_path(name);
	mkdir(place, 0700);
	return returned(mount(source, place, kind, flags, NULL), "mount");
}

static bool user_namespace_root(void)
{
	return become_root(0) && (setuid(0) == 0 && getuid() == 0 ? proven("uid 0") : refused("setuid"));
}

static bool user_namespace_mount(void) { return become_root(CLONE_NEWNS) && mounted("none", "mount", "tmpfs", 0); }

static long mount_a_proc(long unused)
{
	(void)unused;
	return mounted("proc", "proc", "proc", 0) ? 0 : -1;
}

static bool user_namespace_proc(void)
{
	return become_root(CLONE_NEWNS | CLONE_NEWPID) && child_worked(in_child(mount_a_proc, 0), "mount");
}

/* A mount namespace of our own where one can be had, so that what succeeds is the machine's no matter. */
static void private_mounts(void)
{
	if (unshare(CLONE_NEWNS) == 0)
		mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static bool mount_tmpfs(void)
{
	private_mounts();
	return mounted("none", "tmpfs", "tmpfs", 0);
}

static bool mount_proc(void)
{
	private_mounts();
	return mounted("proc", "procfs", "proc", 0);
}

static bool mount_bind(void)
{
	private_mounts();
	return mounted("/", "bind", NULL, MS_BIND | MS_REC);
}

static bool mount_remount(void)
{
	private_mounts();
	return returned(mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL), "mount");
}

static bool unmount(void)
{
	const char *places[] = {"/proc", "/sys", "/dev", "/tmp", "/run", getenv("HOME")};
	private_mounts();
	for (size_t i = 0; i < sizeof places / sizeof *places; i++)
		if (places[i] && umount2(places[i], MNT_DETACH) == 0)
			return proven("%s", places[i]);
	return refused("umount2");
}

static bool pivot_root(void)
{
	const char *place = own_path("pivot");
	private_mounts();
	mkdir(place, 0700);
	mount("none", place, "tmpfs", 0, NULL);
	if (chdir(place) < 0)
		return refused("chdir");
	return returned(syscall(SYS_pivot_root, ".", "."), "pivot_root");
}

static bool another_root(void) { return returned(chroot(work), "chroot"); }

static bool open_tree_clone(void)
{
	private_mounts();
	return returned(syscall(OPEN_TREE, (long)AT_FDCWD, "/", 1L), "open_tree");
}

static bool open_file_system(void) { return returned(syscall(FSOPEN, "tmpfs", 0L), "fsopen"); }

static bool pick_file_system(void)
{
	private_mounts();
	return returned(syscall(FSPICK, (long)AT_FDCWD, "/", 0L), "fspick");
}

static bool move_a_mount(void)
{
	const char *place = own_path("moved");
	private_mounts();
	mkdir(place, 0700);
	long source = opened("/proc", O_PATH);
	return returned(syscall(MOVE_MOUNT, source, "", (long)AT_FDCWD, place, 4L), "move_mount");
}

static bool set_mount_attributes(void)
{
	uint64_t attributes[4] = {0, 1, 0, 0}; /* clear MOUNT_ATTR_RDONLY */
	private_mounts();
	return returned(syscall(MOUNT_SETATTR, (long)AT_FDCWD, "/", 0L, attributes, sizeof attributes),
			"mount_setattr");
}

static bool open_by_handle(void)
{
	struct {
		struct file_handle handle;
		unsigned char room[128];
	} space = {.handle = {.handle_bytes = 128}};
	int id, made = open(own_path("handle"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (made < 0 || name_to_handle_at(AT_FDCWD, own_path("handle"), &space.handle, &id, 0) < 0)
		return refused("name_to_handle_at");
	return returned(open_by_handle_at(opened(work, O_RDONLY), &space.handle, O_RDONLY), "open_by_handle_at");
}

/* Files */

static bool read_private(void) { return secret_of_told("private_file"); }
static bool read_secret(void) { return secret_of_told("secret_file"); }
static bool read_inner(void) { return secret_of_told("inner_secret"); }
static bool read_home(void) { return secret_of_told("home_secret"); }
static bool read_mounted(void) { return secret_of_told("mounted_secret"); }
static bool read_shadow(void) { return is_read("/etc/shadow"); }

static bool list_directory(void)
{
	NEED(path, "directory");
	NEED(secret, "secret_file");
	DIR *directory = opendir(path);
	if (!directory)
		return refused("opendir");
	for (struct dirent *entry; (entry = readdir(directory));)
		if (strcmp(entry->d_name, base_name(secret)) == 0)
			return proven("listed");
	return unproven("it is another directory");
}

static bool stat_names(void)
{
	static const char *const keys[] = {"directory", "private_file", "secret_file", "inner_secret", "stream_socket"};
	struct stat status;
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		if (told(keys[i]) && lstat(told(keys[i]), &status) == 0)
			return proven("%s", keys[i]);
	return refused("lstat");
}

static bool change_directory(void)
{
	NEED(path, "directory");
	return returned(chdir(path), "chdir");
}

static bool watch_directory(void)
{
	NEED(path, "directory");
	int watcher = inotify_init1(0);
	return watcher < 0 ? refused("inotify_init1")
			   : returned(inotify_add_watch(watcher, path, IN_ALL_EVENTS), "inotify_add_watch");
}

static bool write_file(void)
{
	NEED(path, "writable_file");
	int fd = opened(path, O_WRONLY | O_APPEND);
	return fd < 0 ? refused("open") : returned(write(fd, "attacked\n", 9), "write");
}

static bool truncate_file(void)
{
	NEED(path, "writable_file");
	return returned(truncate(path, 3), "truncate");
}

static bool link_file(void)
{
	NEED(path, "writable_file");
	bool elsewhere = link(path, own_path("linked")) == 0;
	return link(path, beside("linked")) == 0 || elsewhere ? proven("linked") : refused("link");
}

static bool rename_file(void)
{
	NEED(path, "movable_file");
	return returned(rename(path, beside("movable_file-moved")), "rename");
}

static bool change_mode(void)
{
	NEED(path, "writable_file");
	return returned(chmod(path, 0667), "chmod");
}

static bool change_times(void)
{
	NEED(path, "writable_file");
	struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
	return returned(utimensat(AT_FDCWD, path, times, 0), "utimensat");
}

static bool set_attribute(void)
{
	NEED(path, "writable_file");
	return returned(setxattr(path, "user.attack", "x", 1, 0), "setxattr");
}

static bool create_beside(void)
{
	NEED(path, "directory");
	(void)path;
	return returned(open(beside("created"), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600), "open");
}

/* Whether `path` is `root` or lies beneath it. */
static bool is_beneath(const char *path, const char *root, size_t size)
{
	while (size && root[size - 1] == '/')
		size--;
	return size && strncmp(path, root, size) == 0 && (!path[size] || path[size] == '/');
}

/* Whether the program is meant to write there. */
static bool granted(const char *path)
{
	const char *roots[] = {"/tmp", "/dev/shm", getenv("HOME"), getenv("TMPDIR")};
	for (size_t i = 0; i < sizeof roots / sizeof *roots; i++)
		if (roots[i] && is_beneath(path, roots[i], strlen(roots[i])))
			return true;
	for (const char *list = told("writable"); list && *list;) {
		size_t size = strcspn(list, ":");
		if (is_beneath(path, list, size))
			return true;
		list += size + (list[size] == ':');
	}
	return false;
}

/* nftw(3) has no argument for its callback. */
static char findings[1024];
static int findings_count;
static time_t walk_ends;

static int found(const char *path)
{
	size_t used = strlen(findings);
	snprintf(findings + used, sizeof findings - used, "%s%s", used ? ", " : "", path);
	return ++findings_count >= 8 || time(NULL) > walk_ends;
}

static bool walk(const char *top, int (*visit)(const char *, const struct stat *, int, struct FTW *), int flags)
{
	walk_ends = time(NULL) + SECONDS - 2;
	nftw(top, visit, 16, FTW_PHYS | FTW_ACTIONRETVAL | flags);
	return findings_count > 0;
}

static int visit_directory(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)where;
	(void)status;
	char name[PATH_MAX + 16];
	if (time(NULL) > walk_ends)
		return FTW_STOP;
	if (kind != FTW_D && kind != FTW_DNR)
		return FTW_CONTINUE;
	if (strcmp(path, "/proc") == 0 || strcmp(path, "/sys") == 0 || granted(path))
		return FTW_SKIP_SUBTREE;
	if (access(path, W_OK | X_OK) < 0)
		return FTW_CONTINUE;
	snprintf(name, sizeof name, "%s/attack-XXXXXX", path);
	int fd = mkostemp(name, O_CLOEXEC);
	if (fd < 0)
		return FTW_CONTINUE;
	close(fd);
	unlink(name);
	return found(path) ? FTW_STOP : FTW_CONTINUE;
}

static bool write_anywhere(void)
{
	return walk("/", visit_directory, 0) ? proven("%s", findings)
					     : unproven("no directory but those that are granted");
}

static bool is_harmless_device(dev_t device)
{
	unsigned int first = major(device), second = minor(device);
	bool memory = first == 1 && (second == 3 || second == 5 || second == 7 || second == 8 || second == 9);
	bool terminal = (first == 5 && (second == 0 || second == 2)) || (first >= 136 && first < 144);
	return memory || terminal;
}

static bool reopen_fds(void)
{
	char path[64];
	for (int i = 0; i < inherited_count; i++) {
		struct stat status;
		int mode = fcntl(inherited[i], F_GETFL) & O_ACCMODE;
		if (fstat(inherited[i], &status) < 0 || mode == O_RDWR)
			continue;
		if (!S_ISREG(status.st_mode) && (!S_ISCHR(status.st_mode) || is_harmless_device(status.st_rdev)))
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%d", inherited[i]);
		if (can_open(path, mode == O_RDONLY ? O_WRONLY : O_RDONLY))
			return proven("fd %d", inherited[i]);
	}
	return unproven("no gain by any of the %d fds", inherited_count);
}

static bool parents_of_fds(void)
{
	NEED(secret, "secret_file");
	for (int i = 0; i < inherited_count; i++) {
		struct stat status;
		if (fstat(inherited[i], &status) < 0 || !S_ISDIR(status.st_mode))
			continue;
		int fd = inherited[i];
		for (int level = 0; level < 16 && fd >= 0; level++) {
			char data[256];
			fd = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
			int file = fd < 0 ? -1 : openat(fd, base_name(secret), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
			ssize_t size = file < 0 ? -1 : read(file, data, sizeof data);
			if (size >= 0)
				return secret_in(data, (size_t)size);
		}
	}
	return unproven("no inherited directory leads to the secret");
}

/* Devices */

static void look_at_device(const char *path)
{
	struct stat status;
	if (strstr(path, "watchdog") || lstat(path, &status) < 0) /* to open a watchdog arms it */
		return;
	if (!S_ISBLK(status.st_mode) && (!S_ISCHR(status.st_mode) || is_harmless_device(status.st_rdev)))
		return;
	/* Root may open all, and some act when they are opened. */
	if (careful ? access(path, R_OK) == 0 : can_open(path, O_RDONLY))
		found(path);
}

static int visit_device(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)status;
	(void)kind;
	(void)where;
	look_at_device(path);
	return FTW_CONTINUE;
}

static bool devices(void)
{
	static const char *const names[] = {
		"/dev/mem", "/dev/kmsg", "/dev/port", "/dev/kvm", "/dev/fuse", "/dev/net/tun", "/dev/loop-control",
		"/dev/loop0", "/dev/vda", "/dev/sda", "/dev/nvme0n1", "/dev/mapper/control", "/dev/console",
		"/dev/tty0", "/dev/tty1", "/dev/ttyS0", "/dev/uinput", "/dev/input/event0", "/dev/hidraw0",
		"/dev/dri/card0", "/dev/vsock", "/dev/vhost-net", "/dev/userfaultfd", "/dev/autofs",
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		look_at_device(names[i]);
	walk("/dev", visit_device, 0);
	return findings_count ? proven("%s", findings) : unproven("none but the harmless ones");
}

static bool make_character_device(void) { return returned(mknod(own_path("character"), S_IFCHR | 0600, makedev(1, 1)), "mknod"); }
static bool make_block_device(void) { return returned(mknod(own_path("block"), S_IFBLK | 0600, makedev(7, 0)), "mknod"); }

/* Terminals */

/* The terminals that the program was given; without a witness, one may be somebody's own. */
static int terminals(int *fds)
{
	int count = 0;
	for (int fd = 0; fd < 3; fd++)
		if (isatty(fd))
			fds[count++] = fd;
	int own = opened("/dev/tty", O_RDWR);
	if (own >= 0)
		fds[count++] = own;
	return told("terminal") ? count : 0;
}

static bool on_terminals(unsigned long request, char argument)
{
	int fds[4], count = terminals(fds);
	char buffer[16] = {argument};
	for (int i = 0; i < count; i++)
		if (syscall(SYS_ioctl, (long)fds[i], request, buffer) >= 0)
			return proven("fd %d", fds[i]);
	return count ? refused("ioctl") : unproven("no terminal");
}

static bool terminal_typing(void) { return on_terminals(TIOCSTI, 'x'); }
static bool terminal_typing_with_bit_32(void) { return on_terminals(1UL << BIT_32_SHIFT | TIOCSTI, 'y'); }
static bool terminal_linux(void) { return on_terminals(TIOCLINUX, 6); }
static bool terminal_linux_with_bit_32(void) { return on_terminals(1UL << BIT_32_SHIFT | TIOCLINUX, 6); }

static bool terminal_settings(void)
{
	int fds[4], count = terminals(fds);
	for (int i = 0; i < count; i++) {
		struct termios settings;
		if (tcgetattr(fds[i], &settings) < 0)
			continue;
		settings.c_lflag &= ~(tcflag_t)ECHO;
		if (tcsetattr(fds[i], TCSANOW, &settings) == 0)
			return proven("fd %d", fds[i]);
	}
	return count ? refused("tcsetattr") : unproven("no terminal");
}

static long steal(long fd)
{
	setsid();
	return ioctl((int)fd, TIOCSCTTY, 0);
}

static bool terminal_stolen(void)
{
	int fds[4];
	return terminals(fds) ? child_worked(in_child(steal, fds[0]), "ioctl") : unproven("no terminal");
}

static bool terminal_by_path(void)
{
	NEED(path, "terminal");
	NEED(device, "terminals_device");
	struct stat status;
	int fd = opened(path, O_RDWR);
	if (fd < 0 || fstat(fd, &status) < 0)
		return refused("open");
	return status.st_dev == (dev_t)number(device) ? proven("opened")
						      : unproven("it is a terminal of another devpts");
}

static bool other_terminals(void)
{
	int fds[4], count = terminals(fds);
	DIR *directory = opendir("/dev/pts");
	if (!count)
		return unproven("no terminal");
	if (!directory)
		return refused("opendir");
	for (struct dirent *entry; (entry = readdir(directory));) {
		struct stat status, own;
		char path[PATH_MAX];
		bool ours = !isdigit((unsigned char)*entry->d_name);
		snprintf(path, sizeof path, "/dev/pts/%s", entry->d_name);
		if (ours || stat(path, &status) < 0)
			continue;
		for (int i = 0; i < count; i++)
			ours = ours || (fstat(fds[i], &own) == 0 && own.st_rdev == status.st_rdev);
		if (!ours && can_open(path, O_RDWR))
			return proven("%s", path);
	}
	return unproven("none");
}

static bool ptmx_of_outside(void)
{
	NEED(device, "terminals_device");
	static const char *const paths[] = {"/dev/ptmx", "/dev/pts/ptmx"};
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		struct stat status;
		int unlocked = 0, fd = opened(paths[i], O_RDWR);
		if (fd < 0 || ioctl(fd, TIOCSPTLCK, &unlocked) < 0)
			continue;
		int other = ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY);
		if (other >= 0 && fstat(other, &status) == 0 && status.st_dev == (dev_t)number(device))
			return proven("%s", paths[i]);
	}
	return unproven("no terminal of the witness's devpts");
}

/* What stays: it keeps fd 0, and reads what is typed there. Whoever waits for the end of our output must not wait. */
static int stay(int released)
{
	signal(SIGHUP, SIG_IGN);
	close(1);
	close(2);
	close(released);
	for (time_t end = time(NULL) + 60; time(NULL) < end;) {
		char data[256];
		struct pollfd input = {.fd = 0, .events = POLLIN};
		if (poll(&input, 1, 200) > 0 && read(0, data, sizeof data) <= 0)
			poll(NULL, 0, 200);
	}
	return 0;
}

static bool left_over(void)
{
	NEED(mark, "left_over");
	int ends[2];
	char released[16], end;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return refused("pipe2");
	pid_t pid = fork();
	if (pid == 0) {
		setsid();
		if (fork())
			_exit(0);
		fcntl(ends[1], F_SETFD, 0);
		snprintf(released, sizeof released, "%d", ends[1]);
		execl("/proc/self/exe", "attack", "--stay", released, mark, NULL);
		execl(own_program, "attack", "--stay", released, mark, NULL);
		_exit(1);
	}
	close(ends[1]);
	waitpid(pid, NULL, 0);
	while (read(ends[0], &end, 1) < 0 && errno == EINTR)
		;
	return unproven("started; the witness tells whether it outlives the attack");
}

/* Privileges */

static bool capabilities(void)
{
	static const char *const names[] = {"CapInh:", "CapPrm:", "CapEff:", "CapAmb:"};
	char data[8192] = "";
	if (contents("/proc/self/status", data, sizeof data - 1) < 0)
		return refused("read");
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		const char *line = strstr(data, names[i]);
		if (line && strtoull(line + 7, NULL, 16))
			return proven("%.24s", line);
	}
	return unproven("no capability in any set");
}

static bool bounding_set(void)
{
	int count = 0;
	for (unsigned long one = 0; one < 64; one++)
		count += prctl(PR_CAPBSET_READ, one, 0, 0, 0) == 1;
	return count ? proven("%d capabilities", count) : unproven("the bounding set is empty");
}

static bool new_privileges(void)
{
	return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) ? unproven("no_new_privs is set")
						      : proven("no_new_privs is not set");
}

static bool set_uid_programs(void)
{
	static const char *const paths[] = {
		"/usr/bin/su", "/usr/bin/passwd", "/usr/bin/newgrp", "/usr/bin/mount", "/usr/bin/umount", "/usr/bin/sudo",
		"/usr/bin/chsh", "/usr/bin/pkexec", "/bin/su", "/bin/mount", "/bin/umount",
	};
	if (!new_privileges())
		return false;
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		struct stat status;
		struct statvfs system;
		if (stat(paths[i], &status) == 0 && status.st_mode & S_ISUID && statvfs(paths[i], &system) == 0
		    && !(system.f_flag & ST_NOSUID))
			return proven("%s", paths[i]);
	}
	return unproven("no set-uid program would raise anybody");
}

static long become_user(long uid) { return setresuid((uid_t)uid, (uid_t)uid, (uid_t)uid); }
static long become_group(long gid) { return setresgid((gid_t)gid, (gid_t)gid, (gid_t)gid); }

static bool becomes(long (*become)(long), long own)
{
	static const long ids[] = {0, 1, 5, 65534};
	for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
		if (ids[i] == own)
			continue;
		errno = in_child(become, ids[i]);
		if (!errno)
			return proven("%ld", ids[i]);
	}
	return refused("setresuid or setresgid");
}

static bool set_uid(void) { return becomes(become_user, getuid()); }
static bool set_gid(void) { return becomes(become_group, getgid()); }

static bool set_groups(void)
{
	gid_t groups[] = {0, 5};
	return returned(syscall(SYS_setgroups, 2L, groups), "setgroups");
}

static bool has_bit(const char *path, mode_t bit)
{
	struct stat status;
	if (stat(path, &status) < 0)
		return refused("stat");
	return status.st_mode & bit ? proven("%o", status.st_mode & 07777) : unproven("the bit is not there");
}

/* A file of our own, closed again. */
static const char *own_file(const char *name)
{
	int fd = open(own_path(name), O_CREAT | O_WRONLY | O_CLOEXEC, 0700);
	if (fd >= 0)
		close(fd);
	return own_path(name);
}

static bool set_uid_bit(void)
{
	const char *path = own_file("chmod");
	return chmod(path, 04755) < 0 ? refused("chmod") : has_bit(path, S_ISUID);
}

static bool set_uid_bit_by_fchmod(void)
{
	const char *path = own_file("fchmod");
	int fd = opened(path, O_RDONLY);
	return fchmod(fd, 04755) < 0 ? refused("fchmod") : has_bit(path, S_ISUID);
}

static bool set_uid_bit_by_fchmodat2(void)
{
	const char *path = own_file("fchmodat2");
	return syscall(FCHMODAT2, (long)AT_FDCWD, path, 04755L, 0L) < 0 ? refused("fchmodat2") : has_bit(path, S_ISUID);
}

static bool set_uid_bit_by_open(void)
{
	int fd = open(own_path("open"), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 04755);
	return fd < 0 ? refused("open") : has_bit(own_path("open"), S_ISUID);
}

static bool set_uid_bit_by_mknod(void)
{
	return mknod(own_path("mknod"), S_IFREG | 04755, 0) < 0 ? refused("mknod") : has_bit(own_path("mknod"), S_ISUID);
}

static bool set_gid_bit_by_mkdir(void)
{
	const char *path = own_path("mkdir");
	if (mkdir(path, 0700) < 0 || chmod(path, 02755) < 0)
		return refused("mkdir or chmod");
	return has_bit(path, S_ISGID);
}

/* Limits */

static struct rlimit raised(int limit)
{
	struct rlimit now = {0};
	getrlimit((unsigned)limit, &now);
	now.rlim_cur = now.rlim_max;
	setrlimit((unsigned)limit, &now);
	return now;
}

static bool many_fds(void)
{
	raised(RLIMIT_NOFILE);
	int fd = opened("/", O_PATH), count = 0;
	while (count <= ALLOWED_FDS && dup(fd) >= 0)
		count++;
	return count > ALLOWED_FDS ? proven("%d fds", count) : unproven("%d fds", count);
}

static bool core_dumps(void)
{
	/* Of less than a page nothing is written. */
	return raised(RLIMIT_CORE).rlim_cur > 1 ? proven("RLIMIT_CORE is not 0 or 1") : unproven("RLIMIT_CORE is 0 or 1");
}

static bool locked_memory(void)
{
	size_t size = (8 << 20) + 65536;
	raised(RLIMIT_MEMLOCK);
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return memory == MAP_FAILED ? refused("mmap") : returned(mlock(memory, size), "mlock");
}

static bool process_limit(void)
{
	struct rlimit now = raised(RLIMIT_NPROC);
	return now.rlim_max > ALLOWED_PROCESSES ? proven("RLIMIT_NPROC may be %llu", (unsigned long long)now.rlim_max)
						: unproven("RLIMIT_NPROC is %llu", (unsigned long long)now.rlim_max);
}

static bool raise_limits(void)
{
	for (unsigned limit = 0; limit < RLIM_NLIMITS; limit++) {
		struct rlimit now;
		if (getrlimit(limit, &now) < 0 || now.rlim_max == RLIM_INFINITY)
			continue;
		now.rlim_max++;
		struct rlimit then;
		if (setrlimit(limit, &now) == 0 && getrlimit(limit, &then) == 0 && then.rlim_max == now.rlim_max)
			return proven("limit %u", limit);
	}
	return refused("setrlimit");
}

/* They share our memory, and end with us. */
static int sleeper(void *unused)
{
	(void)unused;
	syscall(SYS_prctl, (long)PR_SET_PDEATHSIG, (long)SIGKILL, 0L, 0L, 0L);
	for (;;)
		syscall(SYS_ppoll, NULL, 0L, NULL, NULL, 0L);
	return 0;
}

static bool many_processes(void)
{
	enum { STACK = 8192 };
	static pid_t made[MANY_PROCESSES];
	int count = 0, error;
	char *stacks = mmap(NULL, (size_t)STACK * MANY_PROCESSES, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (stacks == MAP_FAILED)
		return refused("mmap");
	raised(RLIMIT_NPROC);
	while (count < MANY_PROCESSES) {
		made[count] = clone(sleeper, stacks + (size_t)STACK * ((size_t)count + 1), CLONE_VM | SIGCHLD, NULL);
		if (made[count] < 0)
			break;
		count++;
	}
	error = errno;
	for (int i = 0; i < count; i++)
		kill(made[i], SIGKILL);
	for (int i = 0; i < count; i++)
		waitpid(made[i], NULL, 0);
	return count > ALLOWED_PROCESSES ? proven("%d processes", count)
					 : unproven("%d processes: %s", count, strerror(error));
}

/* The kernel */

static bool bpf(void)
{
	uint32_t attributes[30] = {2, 4, 4, 1}; /* BPF_MAP_CREATE of an array */
	return returned(syscall(SYS_bpf, 0L, attributes, sizeof attributes), "bpf");
}

static bool perf_events(void) { return returned(perf_event(0), "perf_event_open"); }

static bool user_fault_fd(void)
{
	if (syscall(SYS_userfaultfd, 0L) >= 0)
		return proven("for the kernel's faults too");
	return returned(syscall(SYS_userfaultfd, 1L), "userfaultfd");
}

static bool io_uring(void)
{
	uint32_t parameters[30] = {0};
	return returned(syscall(IO_URING_SETUP, 1L, parameters), "io_uring_setup");
}

static bool kexec(void) { return passed_the_check(syscall(SYS_kexec_load, 0L, 0L, NULL, 0xffffL), "kexec_load"); }
static bool kernel_module(void) { return passed_the_check(syscall(SYS_init_module, NULL, 0L, NULL), "init_module"); }

static bool modify_ldt(void)
{
#ifdef SYS_modify_ldt
	uint32_t entry[4] = {0, 0, 0xfffff, 1 | 1 << 4 | 1 << 6};
	return returned(syscall(SYS_modify_ldt, 1L, entry, sizeof entry) == 0 ? 0 : -1, "modify_ldt");
#else
	return unproven("not tried: this architecture has none");
#endif
}

static bool io_ports(void)
{
#if defined SYS_iopl && defined SYS_ioperm
	if (syscall(SYS_iopl, 3L) == 0)
		return proven("iopl returned success");
	return returned(syscall(SYS_ioperm, 0x80L, 1L, 1L), "ioperm");
#else
	return unproven("not tried: this architecture has none");
#endif
}

static bool kernel_log(void)
{
	char data[4096];
	return returned(syscall(SYS_syslog, 3L, data, sizeof data), "syslog");
}

static bool fixed_addresses(void)
{
	if (personality(ADDR_NO_RANDOMIZE) < 0)
		return refused("personality");
	return personality(0xffffffff) & ADDR_NO_RANDOMIZE ? proven("addresses are no longer random")
							   : unproven("unchanged");
}

static bool quotas(void)
{
	return passed_the_check(syscall(SYS_quotactl, 0x800002L << 8, "/nonexistent", 0L, NULL), "quotactl");
}

static bool swap(void) { return passed_the_check(swapon("/nonexistent", 0), "swapon"); }
static bool accounting(void) { return passed_the_check(syscall(SYS_acct, "/nonexistent"), "acct"); }

static bool fanotify(void)
{
	if (syscall(SYS_fanotify_init, (long)FAN_CLASS_CONTENT, 0L) >= 0)
		return proven("all events");
	return returned(syscall(SYS_fanotify_init, 0x200L, 0L), "fanotify_init"); /* FAN_REPORT_FID */
}

static bool hang_up(void) { return returned(vhangup(), "vhangup"); }

static bool set_time(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return returned(syscall(SYS_clock_settime, (long)CLOCK_REALTIME, &now), "clock_settime");
}

static bool set_hostname(void) { return returned(sethostname("attacked", 8), "sethostname"); }

static bool same_hostname(void)
{
	NEED(outer, "hostname");
	struct utsname names;
	uname(&names);
	return strcmp(names.nodename, outer) == 0 ? proven("it is the outer one") : unproven("%s", names.nodename);
}

static int visit_writable(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)status;
	(void)where;
	if (time(NULL) > walk_ends)
		return FTW_STOP;
	/* Everybody may open ns_last_pid: it asks for a capability when it is written. */
	if (kind != FTW_F || strstr(path, "ns_last_pid") || access(path, W_OK) < 0 || !can_open(path, O_WRONLY))
		return FTW_CONTINUE;
	return found(path) ? FTW_STOP : FTW_CONTINUE;
}

static bool sys_writable(void)
{
	static const char *const tops[] = {"/sys/class", "/sys/kernel", "/sys/module", "/sys/power", "/sys/devices"};
	for (size_t i = 0; i < sizeof tops / sizeof *tops; i++)
		walk(tops[i], visit_writable, 0);
	return findings_count ? proven("%s", findings) : unproven("none");
}

static bool proc_sys_writable(void)
{
	return walk("/proc/sys", visit_writable, 0) ? proven("%s", findings) : unproven("none");
}

static bool cgroup_writable(void)
{
	return walk("/sys/fs/cgroup", visit_writable, 0) ? proven("%s", findings) : unproven("none");
}

static bool sysrq_trigger(void) { return returned(opened("/proc/sysrq-trigger", O_WRONLY), "open"); }
static bool kernel_memory(void) { return returned(opened("/proc/kcore", O_RDONLY), "open"); }

static bool kernel_addresses(void)
{
	static char data[1 << 16];
	if (contents("/proc/kallsyms", data, sizeof data - 1) < 0)
		return refused("read");
	for (char *line = data; line && *line; line = strchr(line, '\n'), line += !!line)
		if (strtoull(line, NULL, 16))
			return proven("%.*s", (int)strcspn(line, "\n"), line);
	return unproven("every address is 0");
}

/* The 32-bit call of getpid, which has another number: a filter that knows one ABI only lets it by. */
static bool foreign_abi(void)
{
#ifdef __x86_64__
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "cc", "r8", "r9", "r10", "r11");
	return result == getpid() ? proven("getpid by int 0x80 gave %ld", result) : unproven("it gave %ld", result);
#else
	return unproven("not tried: this architecture has none");
#endif
}

static bool x32_abi(void)
{
#ifdef __x86_64__
	return returned(syscall(0x40000000L | 39), "getpid of x32");
#else
	return unproven("not tried: this architecture has none");
#endif
}

/* What the program was given by its starter */

extern char **environ;

static bool environment(void)
{
	static const char *const names[] = {
		"SSH_AUTH_SOCK", "DBUS_SESSION_BUS_ADDRESS", "AWS_SECRET_ACCESS_KEY", "DISPLAY", "WAYLAND_DISPLAY",
		"XAUTHORITY", "XDG_RUNTIME_DIR", "GPG_AGENT_INFO", "SSH_CONNECTION", "SUDO_USER", "GITHUB_TOKEN",
		"NOTIFY_SOCKET", "LISTEN_FDS", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "BASH_ENV", "KUBECONFIG",
	};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (getenv(names[i]))
			return proven("%s", names[i]);
	for (char **one = environ; *one; one++)
		if (secret_in(*one, strlen(*one)))
			return true;
	return unproven("no telling variable");
}

static bool home_shared(void)
{
	NEED(device, "home_device");
	NEED(inode, "home_inode");
	struct stat status;
	if (!getenv("HOME") || stat(getenv("HOME"), &status) < 0)
		return unproven("no home");
	return status.st_dev == (dev_t)number(device) && status.st_ino == (ino_t)number(inode)
		? proven("$HOME is the directory that it is outside") : unproven("another directory than outside");
}

static bool policy_writable(void)
{
	NEED(path, "policy_file");
	return returned(opened(path, O_WRONLY), "open");
}

/* The broker must not keep an fd that it is sent: then this pipe's last writer is gone. */
static bool fd_to_broker(void)
{
	static char call[] = "{\"method\":\"org.varlink.service.GetInfo\",\"parameters\":{}}";
	const char *connection = getenv("FDBROKER_FD");
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr head;
	} control = {.head = {.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS}};
	struct iovec part = {call, sizeof call}; /* with its NUL */
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
				 .msg_controllen = sizeof control.room};
	int ends[2];
	if (!connection || !isdigit((unsigned char)*connection))
		return unproven("not tried: there is no connection to a broker");
	if (pipe(ends) < 0)
		return refused("pipe");
	memcpy(CMSG_DATA(&control.head), &ends[1], sizeof(int));
	if (sendmsg((int)number(connection), &message, MSG_NOSIGNAL) < 0)
		return refused("sendmsg");
	close(ends[1]);
	struct pollfd reader = {.fd = ends[0]};
	return poll(&reader, 1, 2000) ? unproven("sent, and not kept") : proven("the broker keeps an fd that it was sent");
}

/* The table. The name is the function's, with hyphens, unless Python's name is taken in C. */
static const struct attack {
	const char *name;
	bool (*run)(void);
	bool harmful;
} attacks[] = {
#define HARMLESS(name) {#name, name, false}
#define HARMFUL(name) {#name, name, true}
	HARMLESS(unix_stream), HARMLESS(unix_stream_by_proc_root), HARMLESS(unix_datagram),
	HARMLESS(unix_datagram_pair), HARMLESS(abstract_stream), HARMLESS(abstract_datagram),
	HARMLESS(abstract_datagram_pair), HARMLESS(tcp4), HARMLESS(tcp6), HARMLESS(tcp_fast_open),
	HARMLESS(mptcp), HARMLESS(udp4), HARMLESS(udp6), HARMLESS(raw_socket), HARMLESS(packet_socket),
	HARMLESS(ping_socket), HARMLESS(vsock_socket), HARMLESS(vsock_connect), HARMLESS(alg_socket),
	HARMFUL(other_families), HARMLESS(netlink_interfaces), HARMLESS(netlink_sockets), HARMLESS(netlink_audit),
	HARMLESS(netlink_uevent), HARMLESS(key_read), HARMLESS(key_search), HARMLESS(key_request),
	HARMLESS(key_add), HARMLESS(keys_listed), HARMLESS(segment_read), HARMLESS(segment_write),
	HARMLESS(message_queue), HARMLESS(semaphore), HARMLESS(posix_queue), HARMLESS(kill_everyone),
	HARMLESS(unshare_user), HARMLESS(unshare_the_rest), HARMLESS(clone_user), HARMLESS(clone3_user),
	HARMLESS(user_namespace_root), HARMLESS(user_namespace_mount), HARMLESS(user_namespace_proc),
	HARMLESS(mount_tmpfs), HARMLESS(mount_proc), HARMLESS(mount_bind), HARMLESS(mount_remount),
	HARMLESS(unmount), HARMLESS(pivot_root), {"chroot", another_root, false},
	{"open_tree", open_tree_clone, false}, {"fsopen", open_file_system, false},
	{"fspick", pick_file_system, false}, {"move_mount", move_a_mount, false},
	{"mount_setattr", set_mount_attributes, false}, HARMLESS(open_by_handle), HARMLESS(read_private),
	HARMLESS(read_secret), HARMLESS(read_inner), HARMLESS(read_home), HARMLESS(read_mounted),
	HARMLESS(read_shadow), HARMLESS(list_directory), HARMLESS(stat_names), HARMLESS(change_directory),
	HARMLESS(watch_directory), HARMLESS(write_file), HARMLESS(truncate_file), HARMLESS(link_file),
	HARMLESS(rename_file), HARMLESS(change_mode), HARMLESS(change_times), HARMLESS(set_attribute),
	HARMLESS(create_beside), HARMLESS(write_anywhere), HARMLESS(reopen_fds), HARMLESS(parents_of_fds),
	HARMLESS(devices), HARMLESS(make_character_device), HARMLESS(make_block_device), HARMLESS(terminal_typing),
	HARMLESS(terminal_typing_with_bit_32), HARMLESS(terminal_linux), HARMLESS(terminal_linux_with_bit_32),
	HARMLESS(terminal_settings), HARMLESS(terminal_stolen), HARMLESS(terminal_by_path),
	HARMLESS(other_terminals), HARMLESS(ptmx_of_outside), HARMLESS(capabilities),
	HARMLESS(bounding_set), HARMLESS(new_privileges), HARMLESS(set_uid_programs), HARMLESS(set_uid),
	HARMLESS(set_gid), HARMLESS(set_groups), HARMLESS(set_uid_bit), HARMLESS(set_uid_bit_by_fchmod),
	HARMLESS(set_uid_bit_by_fchmodat2), HARMLESS(set_uid_bit_by_open), HARMLESS(set_uid_bit_by_mknod),
	HARMLESS(set_gid_bit_by_mkdir), HARMLESS(many_fds), HARMLESS(core_dumps), HARMLESS(locked_memory),
	HARMLESS(process_limit), HARMLESS(raise_limits), HARMLESS(bpf), HARMLESS(perf_events),
	{"userfaultfd", user_fault_fd, false}, HARMLESS(io_uring), HARMFUL(kexec), HARMFUL(kernel_module),
	HARMLESS(modify_ldt), HARMFUL(io_ports), HARMLESS(kernel_log), {"personality", fixed_addresses, false},
	HARMFUL(quotas), HARMFUL(swap), HARMFUL(accounting), HARMLESS(fanotify), HARMFUL(hang_up),
	HARMFUL(set_time), HARMFUL(set_hostname), {"hostname", same_hostname, false}, HARMLESS(sys_writable),
	HARMLESS(proc_sys_writable), HARMLESS(cgroup_writable), HARMLESS(sysrq_trigger), HARMLESS(kernel_memory),
	HARMLESS(kernel_addresses), HARMLESS(sockets_listed), HARMLESS(environment), HARMLESS(home_shared),
	HARMLESS(policy_writable), HARMLESS(fd_to_broker), HARMLESS(foreign_abi), HARMLESS(x32_abi),
	HARMFUL(many_processes), HARMLESS(left_over), /* the last: what it leaves is one process more to reach */
};

enum {
	ON_TARGETS = TARGETS * sizeof operations / sizeof *operations,
	ALL = ON_TARGETS + sizeof attacks / sizeof *attacks,
};

/* Running them: an operation on a target has a number, and beyond those one of `attacks`. */

static const char *name_of(int which)
{
	static char name[64];
	if (which < ON_TARGETS) {
		const struct operation *operation = &operations[which / TARGETS];
		if (operation->on_the_victim_only && which % TARGETS)
			return NULL;
		snprintf(name, sizeof name, "%s-%s", operation->name, targets[which % TARGETS]);
		return name;
	}
	snprintf(name, sizeof name, "%s", attacks[which - ON_TARGETS].name);
	for (char *letter = name; *letter; letter++)
		if (*letter == '_')
			*letter = '-';
	return name;
}

/* What reaches every process would, with root's capabilities, reach every one of the machine's. */
static bool is_harmful(int which)
{
	return which < ON_TARGETS ? which % TARGETS == OTHERS : attacks[which - ON_TARGETS].harmful;
}

static bool run(int which)
{
	return which < ON_TARGETS ? on_target(&operations[which / TARGETS], which % TARGETS)
				  : attacks[which - ON_TARGETS].run();
}

struct answer {
	bool succeeded;
	char text[sizeof detail];
};

static void run_in_a_deadline(int which, struct answer *answer)
{
	int ends[2], status = 0;
	if (pipe2(ends, O_CLOEXEC) < 0)
		exit(2);
	pid_t pid = fork();
	if (pid == 0) {
		close(ends[0]);
		setpgid(0, 0);
		signal(SIGTTOU, SIG_IGN); /* in the background, a terminal would stop us */
		signal(SIGTTIN, SIG_IGN);
		answer->succeeded = run(which);
		memcpy(answer->text, detail, sizeof detail);
		_exit(write(ends[1], answer, sizeof *answer) != (ssize_t)sizeof *answer);
	}
	close(ends[1]);
	struct pollfd reader = {.fd = ends[0], .events = POLLIN};
	int ready = poll(&reader, 1, SECONDS * 1000);
	ssize_t got = ready > 0 ? read(ends[0], answer, sizeof *answer) : 0;
	close(ends[0]);
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	if (got == (ssize_t)sizeof *answer)
		return;
	answer->succeeded = false;
	if (!ready)
		snprintf(answer->text, sizeof answer->text, "no answer in %d s", SECONDS);
	else
		snprintf(answer->text, sizeof answer->text, "ended by signal %d", WTERMSIG(status));
}

static void print(const char *name, const struct answer *answer)
{
	printf("{\"attack\": \"%s\", \"succeeded\": %s, \"detail\": \"", name, answer->succeeded ? "true" : "false");
	for (const unsigned char *letter = (const unsigned char *)answer->text; *letter; letter++)
		if (*letter == '"' || *letter == '\\')
			printf("\\%c", *letter);
		else if (*letter < ' ' || *letter > '~')
			printf("\\u%04x", *letter);
		else
			putchar(*letter);
	printf("\"}\n");
	fflush(stdout);
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
	(void)status;
	(void)kind;
	(void)where;
	remove(path);
	return 0;
}

static void make_work_directory(void)
{
	const char *places[] = {getenv("HOME"), "/tmp", "/dev/shm", "."};
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		if (!places[i])
			continue;
		snprintf(work, sizeof work, "%s/attack-XXXXXX", places[i]);
		if (mkdtemp(work))
			return;
	}
	snprintf(work, sizeof work, "/nonexistent");
}

static bool wanted(const char *name, char **only, int count)
{
	for (int i = 0; i < count; i++)
		if (strcmp(only[i], name) == 0)
			return true;
	return count == 0;
}

static int usage(void)
{
	fprintf(stderr, "usage: attack --list | attack [--careful] [--only NAME]... KEY=VALUE...\n");
	return 2;
}

int main(int count, char **arguments)
{
	static char *only[512];
	int only_count = 0;
	if (count == 4 && strcmp(arguments[1], "--stay") == 0)
		return stay((int)number(arguments[2]));
	if (count == 2 && strcmp(arguments[1], "--list") == 0) {
		for (int which = 0; which < ALL; which++)
			if (name_of(which))
				puts(name_of(which));
		return 0;
	}
	for (int fd = 0; fd < 4096; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			inherited[inherited_count++] = fd;
	int first = 1;
	for (; first < count && strncmp(arguments[first], "--", 2) == 0; first++) {
		if (strcmp(arguments[first], "--careful") == 0)
			careful = true;
		else if (strcmp(arguments[first], "--only") == 0 && first + 1 < count && only_count < 512)
			only[only_count++] = arguments[++first];
		else
			return usage();
	}
	if (first == count)
		return usage();
	description = arguments + first;
	description_size = count - first;
	own_program = arguments[0];
	runner = getpid();
	parent_pid = getppid();
	make_work_directory();
	for (int which = 0; which < ALL; which++) {
		static struct answer answer;
		const char *name = name_of(which);
		if (!name || !wanted(name, only, only_count))
			continue;
		memset(&answer, 0, sizeof answer);
		if (careful && is_harmful(which))
			snprintf(answer.text, sizeof answer.text, "not tried: --careful");
		else
			run_in_a_deadline(which, &answer);
		print(name_of(which), &answer);
	}
	nftw(work, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
