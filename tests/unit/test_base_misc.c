// LINK: moat_base
/* buf, hash, io and log: small enough for one file. */
#include "tests/unit/check.h"

#include <pthread.h>
#include <sys/socket.h>

#include "base/buf.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "base/trim.h"

/* KiB that are mapped of the text of files whose names have `name` in them. */
static unsigned long text_kib(const char *name)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long kib, total = 0;
	bool counts = false;
	char line[512];

	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (strchr(line, '/'))
			counts = strstr(line, " r-xp ") && strstr(line, name);
		else if (counts && sscanf(line, "Rss: %lu kB", &kib) == 1)
			total += kib;
	fclose(f);
	return total;
}

/* Text that was mapped goes, the program's and its libraries', and what goes on is mapped again. */
static void test_trim(void **state)
{
	unsigned long all, libc;

	(void)state;
	for (size_t i = 0; i < 1000; i++)
		free(malloc(i * 100));
	all = text_kib("/");
	libc = text_kib("/libc.so");
	assert_true(trim_process() > (libc + 64) << 10);
	assert_in_range(text_kib("/"), 1, all - 1);
	assert_in_range(text_kib("/libc.so"), 1, libc - 1);
	assert_int_equal(strtol("42", NULL, 10), 42);
}

static void test_buf(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, BUF_DEFAULT_MAX);
	assert_null(b.data);
	buf_puts(&b, "");
	assert_string_equal(b.data, "");
	for (int i = 0; i < 1000; i++)
		buf_printf(&b, "%d,", i);
	buf_putc(&b, '!');
	assert_int_equal(buf_error(&b), 0);
	assert_int_equal(b.len, strlen(b.data));
	assert_memory_equal(b.data, "0,1,2,3,", 8);
	assert_string_equal(b.data + b.len - 5, "999,!");
	buf_reset(&b);
	assert_string_equal(b.data, "");
	memset(buf_extend(&b, 4), 'x', 4);
	assert_string_equal(b.data, "xxxx");
	buf_fini(&b);
}

static void test_buf_bound(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 10);
	buf_puts(&b, "12345");
	buf_printf(&b, "%s", "67890");
	assert_int_equal(buf_error(&b), 0);
	assert_string_equal(b.data, "1234567890");
	buf_printf(&b, "%d", 1);
	assert_int_equal(buf_error(&b), -EMSGSIZE);
	assert_string_equal(b.data, "1234567890");
	/* Sticky. */
	buf_puts(&b, "");
	assert_null(buf_extend(&b, 0));
	assert_int_equal(buf_error(&b), -EMSGSIZE);
	buf_fini(&b);
	buf_init(&b, 3);
	buf_printf(&b, "%0200d", 5);
	assert_int_equal(buf_error(&b), -EMSGSIZE);
	assert_string_equal(b.data, "");
	buf_fini(&b);
	buf_init(&b, SIZE_MAX);
	buf_putc(&b, 'a');
	assert_null(buf_extend(&b, SIZE_MAX - 1));
	assert_int_equal(buf_error(&b), -ENOMEM);
	buf_fini(&b);
}

static void test_hash(void **state)
{
	(void)state;
	assert_true(hash_bytes("abc", 3) == hash_bytes("abc", 3));
	assert_true(hash_bytes("abc", 3) != hash_bytes("abd", 3));
	assert_true(hash_bytes("abc", 3) != hash_bytes("abc", 2));
	assert_true(hash_u64(1) != hash_u64(2));
	assert_true(hash_u64(5) == hash_u64(5));
	assert_true(hash_seed() == hash_seed());
}

static void test_io_files(void **state)
{
	char dir[] = "/tmp/moat-unit-XXXXXX", path[64], *data;
	size_t size;
	int fd, pipes[2];
	char byte[2];

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/f", dir);
	assert_int_equal(io_write_file_at(AT_FDCWD, path, "hello", 5, 0600), 0);
	assert_int_equal(io_read_file_at(AT_FDCWD, path, 5, &data, &size), 0);
	assert_string_equal(data, "hello");
	assert_int_equal(size, 5);
	free(data);
	assert_int_equal(io_read_file_at(AT_FDCWD, path, 4, &data, &size), -EFBIG);
	assert_int_equal(io_read_file_at(AT_FDCWD, dir, 4, &data, &size), -EISDIR);
	fd = open(path, O_RDWR);
	assert_int_equal(ftruncate(fd, 100000), 0);
	assert_int_equal(io_read_file_at(AT_FDCWD, path, 100000, &data, &size), 0);
	assert_int_equal(size, 100000);
	free(data);
	assert_int_equal(io_read_file_at(AT_FDCWD, path, 99999, &data, &size), -EFBIG);
	close(fd);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(io_read_file_at(AT_FDCWD, path, 4, &data, &size), -ENOENT);
	assert_int_equal(io_read_file_at(AT_FDCWD, "/proc/self/stat", 65536, &data, NULL), 0);
	assert_true(strlen(data) > 10);
	free(data);
	rmdir(dir);
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(io_write_full(pipes[1], "x", 1), 0);
	close(pipes[1]);
	assert_int_equal(read(pipes[0], byte, 2), 1);
	assert_int_equal(byte[0], 'x');
	close(pipes[0]);
}

static int open_fds(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

static void test_io_fds(void **state)
{
	int socks[2], sent[IO_FDS_MAX], received[IO_FDS_MAX], before;
	size_t count = 3;
	char byte = 0;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks), 0);
	for (int i = 0; i < IO_FDS_MAX; i++)
		sent[i] = 2;
	before = open_fds();
	assert_int_equal(io_send_fds(socks[0], "a", 1, sent, 3), 1);
	assert_int_equal(io_recv_fds(socks[1], &byte, 1, received, &count), 1);
	assert_int_equal(count, 3);
	assert_int_equal(byte, 'a');
	for (int i = 0; i < 3; i++) {
		assert_int_equal(fcntl(received[i], F_GETFD), FD_CLOEXEC);
		close(received[i]);
	}
	/* What the caller has no room for is closed. */
	assert_int_equal(io_send_fds(socks[0], "b", 1, sent, IO_FDS_MAX), 1);
	count = 1;
	assert_int_equal(io_recv_fds(socks[1], &byte, 1, received, &count), 1);
	assert_int_equal(count, 1);
	close(received[0]);
	assert_int_equal(io_send_fds(socks[0], "c", 1, NULL, 0), 1);
	count = 1;
	assert_int_equal(io_recv_fds(socks[1], &byte, 1, received, &count), 1);
	assert_int_equal(count, 0);
	assert_int_equal(open_fds(), before);
	assert_int_equal(io_send_fds(socks[0], "d", 1, sent, IO_FDS_MAX + 1), -EINVAL);
	close(socks[0]);
	count = 1;
	assert_int_equal(io_recv_fds(socks[1], &byte, 1, received, &count), 0);
	close(socks[1]);
}

static void test_quote(void **state)
{
	char buf[16];

	(void)state;
	assert_string_equal(log_quote(buf, sizeof(buf), "ab", 2), "\"ab\"");
	assert_string_equal(log_quote(buf, sizeof(buf), "a\"\n", 3), "\"a\\\"\\x0a\"");
	for (size_t size = 0; size <= sizeof(buf); size++) {
		memset(buf, '#', sizeof(buf));
		log_quote(buf, size, "\xff\xff\xff\xff\xff\xff\xff\xff\xff", 9);
		if (size)
			assert_true(memchr(buf, '\0', size) != NULL);
		for (size_t i = size; i < sizeof(buf); i++)
			assert_int_equal(buf[i], '#');
	}
	assert_string_equal(LOG_STR("ok", 2), "\"ok\"");
}

static void *log_many(void *arg)
{
	for (int i = 0; i < 2000; i++)
		log_info("thread %d line %d", (int)(uintptr_t)arg, i);
	return NULL;
}

static void test_log(void **state)
{
	char *data, long_text[3000];
	FILE *f = tmpfile();
	size_t size;
	pthread_t t[2];
	int pipes[2];

	(void)state;
	log_init(fileno(f), LOG_INFO_LEVEL, "unit");
	log_debug("invisible");
	log_info("one\ntwo");
	memset(long_text, 'y', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	log_error("%s", long_text);
	for (uintptr_t i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&t[i], NULL, log_many, (void *)i), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
	rewind(f);
	size = (size_t)lseek(fileno(f), 0, SEEK_END);
	data = calloc(1, size + 1);
	assert_int_equal(pread(fileno(f), data, size, 0), size);
	assert_null(strstr(data, "invisible"));
	assert_non_null(strstr(data, " info unit/"));
	assert_non_null(strstr(data, "one two\n"));
	size = 0;
	for (char *line = data; *line; line = strchr(line, '\n') + 1) {
		assert_true(strchr(line, '\n') - line < LOG_LINE_MAX);
		size++;
	}
	assert_int_equal(size, 4002);
	free(data);
	fclose(f);
	log_init(-1, LOG_INFO_LEVEL, "unit");
	/* The recorder has the last lines. */
	assert_int_equal(pipe(pipes), 0);
	assert_int_equal(fcntl(pipes[1], F_SETPIPE_SZ, 1 << 20), 1 << 20);
	log_info("the very last");
	log_dump_recorder(pipes[1]);
	close(pipes[1]);
	data = calloc(1, 1 << 20);
	size = 0;
	for (ssize_t n; (n = read(pipes[0], data + size, (1 << 20) - 1 - size)) > 0;)
		size += (size_t)n;
	close(pipes[0]);
	assert_non_null(strstr(data, "the very last\n"));
	assert_string_equal(data + size - 14, "the very last\n");
	free(data);
}

static void fatal(void *arg)
{
	(void)arg;
	log_fatal("the end");
}

static void test_fatal(void **state)
{
	(void)state;
	assert_int_equal(check_child_signal(fatal, NULL), SIGABRT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buf),    cmocka_unit_test(test_buf_bound),
		cmocka_unit_test(test_hash),   cmocka_unit_test(test_io_files),
		cmocka_unit_test(test_io_fds), cmocka_unit_test(test_quote),
		cmocka_unit_test(test_log),    cmocka_unit_test(test_fatal),
		cmocka_unit_test(test_trim),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
