/*
 * The two steps of every open of an object that was decided on before, without an interpreter between the
 * system calls. broker/hotpath.py says what they mean, and has the same two in Python; the tests hold one
 * against the other. Nothing is decided here: what is compared was decided on by the policy.
 *
 * The interpreter's lock is kept: the worker has one thread, and none of these calls may wait.
 */
#define PY_SSIZE_T_CLEAN
#define _GNU_SOURCE
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The layout of hotpath.EXPECTED. */
struct expected {
	uint64_t flags, resolve, blocking;
	uint64_t mode, inode, device, links, owner, number;
};

static int is_expected(const struct stat *status, const struct expected *expected)
{
	return status->st_mode == expected->mode && status->st_ino == expected->inode
		&& status->st_dev == expected->device && status->st_nlink == expected->links
		&& status->st_uid == expected->owner && status->st_rdev == expected->number;
}

static PyObject *open_same(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
	(void)module;
	struct expected expected;

	if (count != 2 || !PyBytes_Check(arguments[0]) || !PyBytes_Check(arguments[1])
	    || PyBytes_GET_SIZE(arguments[1]) != (Py_ssize_t)sizeof expected) {
		PyErr_SetString(PyExc_TypeError, "open_same(path: bytes, expected: bytes)");
		return NULL;
	}
	memcpy(&expected, PyBytes_AS_STRING(arguments[1]), sizeof expected);

	struct open_how how = {.flags = expected.flags, .resolve = expected.resolve};
	int fd = (int)syscall(SYS_openat2, AT_FDCWD, PyBytes_AS_STRING(arguments[0]), &how, sizeof how);
	if (fd < 0)
		return PyLong_FromLong(-1);
	struct stat status;
	int off = 0;
	if (fstat(fd, &status) != 0 || !is_expected(&status, &expected)
	    || (expected.blocking && ioctl(fd, FIONBIO, &off) != 0)) {
		close(fd);
		return PyLong_FromLong(-1);
	}
	return PyLong_FromLong(fd);
}

static ssize_t send_with_fd(int connection, const char *data, size_t size, int fd)
{
	union {
		struct cmsghdr align;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {{0}};
	struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(header), &fd, sizeof fd);
	return sendmsg(connection, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static PyObject *record_and_pass(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
	(void)module;
	if (count != 5 || !PyLong_Check(arguments[0]) || !PyBytes_Check(arguments[1]) || !PyBytes_Check(arguments[3])
	    || !PyLong_Check(arguments[4])) {
		PyErr_SetString(PyExc_TypeError, "record_and_pass(audit: int, record: bytes, connection, reply: bytes, fd: int)");
		return NULL;
	}
	int audit = (int)PyLong_AsLong(arguments[0]);
	int connection = PyObject_AsFileDescriptor(arguments[2]);
	int fd = (int)PyLong_AsLong(arguments[4]);
	if (connection < 0 || PyErr_Occurred())
		return NULL;

	/* Up to PIPE_BUF bytes go into a pipe whole or not at all (pipe(7)). */
	Py_ssize_t size = PyBytes_GET_SIZE(arguments[1]);
	if (size > PIPE_BUF || write(audit, PyBytes_AS_STRING(arguments[1]), (size_t)size) != size)
		return PyLong_FromLong(-1);
	ssize_t sent = send_with_fd(
		connection, PyBytes_AS_STRING(arguments[3]), (size_t)PyBytes_GET_SIZE(arguments[3]), fd);
	int error = errno;
	close(fd);
	if (sent < 0) {
		errno = error;
		return PyErr_SetFromErrno(PyExc_OSError);
	}
	return PyLong_FromSsize_t(sent);
}

static PyMethodDef methods[] = {
	{"open_same", (PyCFunction)(void (*)(void))open_same, METH_FASTCALL, "See broker/hotpath.py."},
	{"record_and_pass", (PyCFunction)(void (*)(void))record_and_pass, METH_FASTCALL, "See broker/hotpath.py."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT, "_fdbroker_hotpath", "The hot path of fdbroker's worker.", -1, methods,
	NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__fdbroker_hotpath(void)
{
	return PyModule_Create(&definition);
}
