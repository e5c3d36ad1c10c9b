/*
 * What programs do, to be timed inside of a sandbox and outside of it.
 *
 * usage: work DIRECTORY       (a directory to write in)
 *
 * For each line on standard input, "WORK ITERATIONS", it prints one line: the
 * nanoseconds of each iteration. An iteration is as much work as some tenths of
 * a millisecond hold, or one run of a program. Whatever fails ends the program
 * with status 2: work that was refused must not pass for quick work.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_ITERATIONS = 10000, NUMBERS = 500000, CALLS = 1000, FILES = 200 };

/* Files that every machine has, at different depths. */
static const char *const PATHS[] = {"/usr", "/usr/bin/env", "/usr/lib/os-release", "/usr/bin/true"};
enum { PATH_COUNT = sizeof PATHS / sizeof *PATHS };

static const char SOURCE[] = "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
			     "int main(int argc, char **argv) { return printf(\"%d %s\\n\", argc, argv[0]) < 0; }\n";

extern char **environ;

static int zero, null;
static volatile uint64_t sink;

static void fail(const char *what)
{
	fprintf(stderr, "work: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void compute(void)
{
	uint64_t number = 88172645463325252u;
	for (int i = 0; i < NUMBERS; i++) {
		number ^= number << 13;
		number ^= number >> 7;
		number ^= number << 17;
	}
	sink = number;
}

static void ask_for_parent(void)
{
	for (int i = 0; i < CALLS; i++)
		sink = (uint64_t)syscall(SYS_getppid);
}

static void read_and_write(void)
{
	char byte;
	for (int i = 0; i < CALLS; i++)
		if (read(zero, &byte, 1) != 1 || write(null, &byte, 1) != 1)
			fail("read and write");
}

static void open_files(void)
{
	struct stat status;
	for (int i = 0; i < FILES; i++) {
		int fd = open(PATHS[i % PATH_COUNT], O_RDONLY | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &status) != 0)
			fail("open");
		close(fd);
	}
}

static void look_at_files(void)
{
	struct stat status;
	for (int i = 0; i < FILES; i++)
		if (stat(PATHS[i % PATH_COUNT], &status) != 0)
			fail("stat");
}

static void run(char *const arguments[])
{
	posix_spawn_file_actions_t actions;
	pid_t child;
	int status;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, null, 0);
	posix_spawn_file_actions_adddup2(&actions, null, 1);
	errno = posix_spawnp(&child, arguments[0], &actions, NULL, arguments, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (errno != 0)
		fail(arguments[0]);
	if (waitpid(child, &status, 0) != child || status != 0)
		fail(arguments[0]);
}

static void find_files(void)
{
	/* Directories that not everybody may read are passed over: the program inside is an ordinary user. */
	run((char *const[]){"find", "/usr/share", "-type", "d", "!", "-readable", "-prune", "-o", "-type", "f",
			    "-print", NULL});
}

static void compile(void)
{
	run((char *const[]){"gcc", "-O1", "-c", "-o", "work-compiled.o", "work-compiled.c", NULL});
}

static const struct {
	const char *name;
	void (*iterate)(void);
} WORKS[] = {
	{"compute", compute},        {"getppid", ask_for_parent}, {"read-write", read_and_write},
	{"open", open_files},        {"stat", look_at_files},     {"find", find_files},
	{"compile", compile},
};
enum { WORK_COUNT = sizeof WORKS / sizeof *WORKS };

static int64_t now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void run_round(const char *name, unsigned iterations)
{
	static int64_t nanoseconds[MOST_ITERATIONS];
	unsigned work = 0;

	while (work < WORK_COUNT && strcmp(WORKS[work].name, name) != 0)
		work++;
	errno = EINVAL;
	if (work == WORK_COUNT || iterations > MOST_ITERATIONS)
		fail(name);
	for (unsigned i = 0; i < iterations; i++) {
		int64_t start = now();
		WORKS[work].iterate();
		nanoseconds[i] = now() - start;
	}
	for (unsigned i = 0; i < iterations; i++)
		printf("%lld ", (long long)nanoseconds[i]);
	printf("\n");
	fflush(stdout);
}

static void write_source(void)
{
	int fd = open("work-compiled.c", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, SOURCE, sizeof SOURCE - 1) != (ssize_t)sizeof SOURCE - 1)
		fail("work-compiled.c");
	close(fd);
}

int main(int argc, char **argv)
{
	char name[32];
	unsigned iterations;

	if (argc != 2 || chdir(argv[1]) != 0)
		fail("usage: work DIRECTORY");
	zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (zero < 0 || null < 0)
		fail("/dev/zero and /dev/null");
	write_source();
	while (scanf("%31s %u", name, &iterations) == 2)
		run_round(name, iterations);
	return 0;
}
