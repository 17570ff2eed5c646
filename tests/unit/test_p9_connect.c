// LINK: moat_gofer_fs moat_vfs moat_mem moat_wire
/* fsimpl/gofer/conn.c: a connection with what is no 9P server. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/sleep.h"
#include "fsimpl/gofer/conn.h"

/* An answer that does not end, a byte at a time. */
static void *dribble(void *arg)
{
	static const uint8_t head[P9_HEADER_SIZE] = {0, 16, 0, 0, P9_Rversion, 0xff, 0xff};
	int sock = *(int *)arg;
	size_t at = 0;
	uint8_t byte;

	do {
		byte = at < sizeof(head) ? head[at] : 0;
		at++;
		usleep(5000);
	} while (at < 20000 && send(sock, &byte, 1, MSG_NOSIGNAL) == 1);
	return NULL;
}

static void test_first_answer_in_time(void **state)
{
	int64_t began = time_monotonic_ns();
	struct p9_conn *c;
	pthread_t thread;
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(pthread_create(&thread, NULL, dribble, &sv[1]), 0);
	assert_int_equal(p9_conn_create_within(sv[0], 300000000, &c), -ETIMEDOUT);
	assert_true(time_monotonic_ns() - began < 60000000000);
	pthread_join(thread, NULL);
	close(sv[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_first_answer_in_time)};

	/* What hangs must not keep everything else waiting. */
	alarm(120);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
