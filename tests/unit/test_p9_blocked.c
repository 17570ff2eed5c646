// LINK: moat_gofer moat_wire seccomp
/*
 * A request on which the host makes the gofer wait (here a fanotify listener that has not said whether a file may be opened): others are
 * served meanwhile, and a Tflush is answered at once where nothing was changed, and behind the reply where something was.
 */
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/fanotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "tests/gofer_process.h"
#include "wire/p9.h"

#define ROOT 1u
#define OTHER_ROOT 2u /* of a tree that nobody keeps waiting */
#define STUCK_TAG 100 /* and following */
#define STUCK 40
#define STUCK_SERVED 8 /* what one tree has of GOFER_THREADS_MAX workers */
#define BLOCKED_TAG 7
#define OTHER_TAG 8
#define FLUSH_TAG 9
#define LATE_S 20 /* a reply that has not come by then never does */

static char dir[64], file[80], other_dir[64];
static int sock, listener;
static pid_t gofer;
static bool refused; /* it ends the connection for what was sent */
static uint8_t tx[P9_MSIZE_DEFAULT], rx[P9_MSIZE_DEFAULT];

static void ask(struct p9_msg *t, uint16_t tag)
{
	size_t size;

	t->tag = tag;
	assert_int_equal(p9_encode(t, tx, sizeof(tx), &size), 0);
	assert_int_equal(send(sock, tx, size, MSG_NOSIGNAL), size);
}

/* The next reply; descriptors that come along are dropped. */
static void hear(struct p9_msg *r)
{
	uint32_t size;

	assert_int_equal(recv(sock, rx, 4, MSG_WAITALL), 4);
	memcpy(&size, rx, 4);
	assert_in_range(size, P9_HEADER_SIZE, sizeof(rx));
	assert_int_equal(recv(sock, rx + 4, size - 4, MSG_WAITALL), size - 4);
	assert_int_equal(p9_decode(rx, size, r), 0);
}

static void expect(uint8_t type, uint16_t tag)
{
	struct p9_msg r;

	hear(&r);
	assert_int_equal(r.type, type);
	assert_int_equal(r.tag, tag);
}

static void expect_silence(void)
{
	usleep(300000);
	assert_int_equal(recv(sock, rx, 1, MSG_PEEK | MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
}

static void ask_stat_of(uint32_t fid, uint16_t tag)
{
	struct p9_msg t = {.type = P9_Tmsetattr};

	t.Tmsetattr.fid = fid;
	ask(&t, tag);
}

static void ask_stat(uint16_t tag)
{
	ask_stat_of(ROOT, tag);
}

static void ask_flush_of(uint16_t tag)
{
	struct p9_msg t = {.type = P9_Tflush};

	t.Tflush.oldtag = tag;
	ask(&t, FLUSH_TAG);
}

static void ask_flush(void)
{
	ask_flush_of(BLOCKED_TAG);
}

static void ask_open(uint16_t tag)
{
	struct p9_msg t = {.type = P9_Tmopen};

	t.Tmopen.fid = ROOT;
	t.Tmopen.newfid = P9_NOFID;
	t.Tmopen.want = P9_WANT_FD;
	t.Tmopen.path = p9_str("f");
	ask(&t, tag);
}

/* Somebody is about to open something. Return: the event's descriptor. */
static int await_event(void)
{
	struct fanotify_event_metadata ev;

	assert_int_equal(read(listener, &ev, sizeof(ev)), sizeof(ev));
	assert_true(ev.mask & FAN_OPEN_PERM);
	return ev.fd;
}

static void allow(int fd)
{
	const struct fanotify_response r = {.fd = fd, .response = FAN_ALLOW};

	assert_int_equal(write(listener, &r, sizeof(r)), sizeof(r));
	close(fd);
}

static void attach(uint32_t fid, const char *aname)
{
	struct p9_msg t = {.type = P9_Tattach};

	t.Tattach.fid = fid;
	t.Tattach.afid = P9_NOFID;
	t.Tattach.aname = p9_str(aname);
	t.Tattach.uname = p9_str("");
	ask(&t, OTHER_TAG);
	expect(P9_Rattach, OTHER_TAG);
}

static int set_up(void **state)
{
	const struct timeval late = {.tv_sec = LATE_S};
	struct p9_msg t = {.type = P9_Tversion};
	int sv[2], fd;

	(void)state;
	/* Its events' descriptors must not be the gofer's: it is started first. */
	strcpy(dir, "/tmp/p9blocked.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(file, sizeof(file), "%s/f", dir);
	fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	close(fd);
	strcpy(other_dir, "/tmp/p9other.XXXXXX");
	assert_non_null(mkdtemp(other_dir));
	setenv("GOFER_PROCESS_MORE", other_dir, 1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(gofer_process_start(dir, sv[1], &gofer), 0);
	close(sv[1]);
	sock = sv[0];
	assert_int_equal(setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &late, sizeof(late)), 0);
	t.Tversion.msize = P9_MSIZE_DEFAULT;
	t.Tversion.version = p9_str(P9_VERSION_MOAT);
	ask(&t, P9_NOTAG);
	expect(P9_Rversion, P9_NOTAG);
	attach(ROOT, "0");
	attach(OTHER_ROOT, "1");
	listener = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY | O_CLOEXEC);
	if (listener < 0)
		return 0;
	assert_int_equal(fanotify_mark(listener, FAN_MARK_ADD, FAN_OPEN_PERM | FAN_EVENT_ON_CHILD,
				       AT_FDCWD, dir),
			 0);
	return 0;
}

static int tear_down(void **state)
{
	int status;

	(void)state;
	/* Whoever waits for an answer may go on. */
	if (listener >= 0)
		close(listener);
	close(sock);
	assert_int_equal(waitpid(gofer, &status, 0), gofer);
	assert_true(WIFEXITED(status) && (WEXITSTATUS(status) != 0) == refused);
	refused = false;
	unlink(file);
	snprintf(file, sizeof(file), "%s/new", dir);
	unlink(file);
	assert_int_equal(rmdir(dir), 0);
	assert_int_equal(rmdir(other_dir), 0);
	return 0;
}

/* CAP_SYS_ADMIN, and a kernel with permission events. */
static void need_listener(void)
{
	if (listener < 0)
		skip();
}

static void others_are_served(void **state)
{
	int event;

	(void)state;
	need_listener();
	ask_open(BLOCKED_TAG);
	event = await_event();
	for (int i = 0; i < 3; i++) {
		ask_stat(OTHER_TAG);
		expect(P9_Rmsetattr, OTHER_TAG);
	}
	expect_silence();
	allow(event);
	expect(P9_Rmopen, BLOCKED_TAG);
	/* And on: whoever read in its place does so still. */
	ask_stat(BLOCKED_TAG);
	expect(P9_Rmsetattr, BLOCKED_TAG);
}

static void flush_of_a_look(void **state)
{
	int event;

	(void)state;
	need_listener();
	ask_open(BLOCKED_TAG);
	event = await_event();
	ask_flush();
	expect(P9_Rflush, FLUSH_TAG);
	/* Again: there is no such request any more. */
	ask_flush();
	expect(P9_Rflush, FLUSH_TAG);
	/* The tag is free, and its reply another request's. */
	ask_stat(BLOCKED_TAG);
	expect(P9_Rmsetattr, BLOCKED_TAG);
	allow(event);
	expect_silence();
	ask_stat(BLOCKED_TAG);
	expect(P9_Rmsetattr, BLOCKED_TAG);
}

static void flush_of_a_change(void **state)
{
	struct p9_msg t = {.type = P9_Tmcreate};
	int event;

	(void)state;
	need_listener();
	t.Tmcreate.fid = ROOT;
	t.Tmcreate.newfid = P9_NOFID;
	t.Tmcreate.path = p9_str("new");
	t.Tmcreate.flags = O_RDWR | O_EXCL;
	t.Tmcreate.mode = 0644;
	ask(&t, BLOCKED_TAG);
	event = await_event();
	ask_flush();
	expect_silence();
	ask_stat(OTHER_TAG);
	expect(P9_Rmsetattr, OTHER_TAG);
	allow(event);
	expect(P9_Rmcreate, BLOCKED_TAG);
	expect(P9_Rflush, FLUSH_TAG);
}

static unsigned gofer_threads(void)
{
	char path[64];
	unsigned n = 0;
	struct dirent *e;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", gofer);
	tasks = opendir(path);
	assert_non_null(tasks);
	while ((e = readdir(tasks)))
		n += e->d_name[0] != '.';
	closedir(tasks);
	return n;
}

/* A tree that stands still, and as many requests for it as anybody likes. */
static void others_are_served_beside_many(void **state)
{
	int events[STUCK];
	unsigned count = 0, replies = 0, threads = gofer_threads();
	struct pollfd p = {.fd = listener, .events = POLLIN};

	(void)state;
	need_listener();
	for (uint16_t i = 0; i < STUCK; i++)
		ask_open((uint16_t)(STUCK_TAG + i));
	for (int i = 0; i < 20; i++) {
		ask_stat_of(OTHER_ROOT, OTHER_TAG);
		expect(P9_Rmsetattr, OTHER_TAG);
	}
	/* Each worker has one, of a share of them; the others have none. */
	while (poll(&p, 1, 1000) > 0)
		events[count++] = await_event();
	assert_int_equal(count, STUCK_SERVED);
	assert_in_range(gofer_threads(), STUCK_SERVED + 1,
			threads + GOFER_THREADS_MAX - GOFER_THREADS_DEFAULT);
	ask_stat_of(OTHER_ROOT, OTHER_TAG);
	expect(P9_Rmsetattr, OTHER_TAG);
	/* One that waits for a worker, and one that has one; then their tags are free. */
	ask_flush_of(STUCK_TAG + STUCK - 1);
	expect(P9_Rflush, FLUSH_TAG);
	ask_flush_of(STUCK_TAG);
	expect(P9_Rflush, FLUSH_TAG);
	ask_stat_of(OTHER_ROOT, STUCK_TAG + STUCK - 1);
	expect(P9_Rmsetattr, STUCK_TAG + STUCK - 1);
	expect_silence();
	/* It goes on: everybody else has his answer. */
	for (unsigned i = 0; i < STUCK - 1; i++)
		allow(i < count ? events[i] : await_event());
	while (replies < STUCK - 2) {
		struct p9_msg r;

		hear(&r);
		assert_int_equal(r.type, P9_Rmopen);
		assert_in_range(r.tag, STUCK_TAG + 1, STUCK_TAG + STUCK - 2);
		replies++;
	}
	expect_silence();
	ask_stat(OTHER_TAG);
	expect(P9_Rmsetattr, OTHER_TAG);
	/* What was made for them ends, but for one that may be the reader now. */
	for (int i = 0; i < 300 && gofer_threads() > threads + 1; i++)
		usleep(100000);
	assert_in_range(gofer_threads(), threads, threads + 1);
	ask_stat(OTHER_TAG);
	expect(P9_Rmsetattr, OTHER_TAG);
}

/* The connection ends while requests wait for a worker, and some have one. */
static void end_with_many(void **state)
{
	(void)state;
	need_listener();
	for (uint16_t i = 0; i < STUCK; i++)
		ask_open((uint16_t)(STUCK_TAG + i));
	ask_stat_of(OTHER_ROOT, OTHER_TAG);
	expect(P9_Rmsetattr, OTHER_TAG);
}

/* A tag twice, while its request waits for a worker: no client does that. */
static void tag_twice(void **state)
{
	struct pollfd p = {.fd = sock, .events = POLLRDHUP};

	(void)state;
	need_listener();
	for (uint16_t i = 0; i < STUCK; i++)
		ask_open((uint16_t)(STUCK_TAG + i));
	ask_stat_of(OTHER_ROOT, OTHER_TAG);
	expect(P9_Rmsetattr, OTHER_TAG);
	ask_open(STUCK_TAG + STUCK - 1);
	refused = true;
	assert_int_equal(poll(&p, 1, LATE_S * 1000), 1);
}

/* One after the other: more than there are threads, but never all of them at once. */
static void many(void **state)
{
	(void)state;
	need_listener();
	for (int i = 0; i < 20; i++) {
		int event;

		ask_open(BLOCKED_TAG);
		event = await_event();
		ask_flush();
		expect(P9_Rflush, FLUSH_TAG);
		allow(event);
	}
	ask_stat(OTHER_TAG);
	expect(P9_Rmsetattr, OTHER_TAG);
}

#define BLOCKED_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BLOCKED_TEST(others_are_served),
		BLOCKED_TEST(flush_of_a_look),
		BLOCKED_TEST(flush_of_a_change),
		BLOCKED_TEST(many),
		BLOCKED_TEST(others_are_served_beside_many),
		BLOCKED_TEST(end_with_many),
		BLOCKED_TEST(tag_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
