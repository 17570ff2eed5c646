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
#define OTHER_ROOT 2u /* of a tree that nobody keeps waiting, unless a test does; and of two more */
#define OTHERS 3
#define BIG 9u /* an open file of the first of these, of BIG_BYTES */
#define BIG_BYTES 65536
#define READS 6 /* their answers are more than the socket holds */
#define STUCK_TAG 100 /* and following */
#define STUCK 40
#define STUCK_SERVED 8 /* what one tree has of GOFER_THREADS_MAX workers */
#define BLOCKED_TAG 7
#define OTHER_TAG 8
#define FLUSH_TAG 9
#define LATE_S 60 /* a reply that has not come by then never does */

static char dir[64], other_dirs[OTHERS][64];
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

static void ask_open_of(uint32_t fid, uint16_t tag)
{
	struct p9_msg t = {.type = P9_Tmopen};

	t.Tmopen.fid = fid;
	t.Tmopen.newfid = P9_NOFID;
	t.Tmopen.want = P9_WANT_FD;
	t.Tmopen.path = p9_str("f");
	ask(&t, tag);
}

static void ask_open(uint16_t tag)
{
	ask_open_of(ROOT, tag);
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

/* Opening what is in it is asked the listener for. */
static void keep_waiting(const char *of)
{
	assert_int_equal(fanotify_mark(listener, FAN_MARK_ADD, FAN_OPEN_PERM | FAN_EVENT_ON_CHILD,
				       AT_FDCWD, of),
			 0);
}

static void make_file(const char *in, off_t size)
{
	char path[80];
	int fd;

	snprintf(path, sizeof(path), "%s/f", in);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static void remove_tree(const char *tree)
{
	char path[80];

	snprintf(path, sizeof(path), "%s/f", tree);
	unlink(path);
	snprintf(path, sizeof(path), "%s/new", tree);
	unlink(path);
	assert_int_equal(rmdir(tree), 0);
}

static void make_others(void)
{
	char more[sizeof(other_dirs)] = "";

	for (unsigned i = 0; i < OTHERS; i++) {
		strcpy(other_dirs[i], "/tmp/p9other.XXXXXX");
		assert_non_null(mkdtemp(other_dirs[i]));
		make_file(other_dirs[i], BIG_BYTES);
		strcat(more, i ? ":" : "");
		strcat(more, other_dirs[i]);
	}
	setenv("GOFER_PROCESS_MORE", more, 1);
}

static int set_up(void **state)
{
	const struct timeval late = {.tv_sec = LATE_S};
	struct p9_msg t = {.type = P9_Tversion};
	char aname[2] = "1";
	int sv[2];

	(void)state;
	/* Its events' descriptors must not be the gofer's: it is started first. */
	strcpy(dir, "/tmp/p9blocked.XXXXXX");
	assert_non_null(mkdtemp(dir));
	make_file(dir, 0);
	make_others();
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
	for (uint32_t i = 0; i < OTHERS; i++, aname[0]++)
		attach(OTHER_ROOT + i, aname);
	listener = fanotify_init(FAN_CLASS_CONTENT | FAN_CLOEXEC, O_RDONLY | O_CLOEXEC);
	if (listener < 0)
		return 0;
	keep_waiting(dir);
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
	remove_tree(dir);
	for (unsigned i = 0; i < OTHERS; i++)
		remove_tree(other_dirs[i]);
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

/* More than may be served at once of a tree that stands still. */
static void ask_stuck(void)
{
	for (uint16_t i = 0; i < STUCK; i++)
		ask_open((uint16_t)(STUCK_TAG + i));
}

/* A tree that stands still, and as many requests for it as anybody likes. */
static void others_are_served_beside_many(void **state)
{
	int events[STUCK];
	unsigned count = 0, replies = 0, threads = gofer_threads();
	struct pollfd p = {.fd = listener, .events = POLLIN};

	(void)state;
	need_listener();
	ask_stuck();
	for (int i = 0; i < 20; i++) {
		ask_stat_of(OTHER_ROOT, OTHER_TAG);
		expect(P9_Rmsetattr, OTHER_TAG);
	}
	/* Each worker has one, of a share of them; the others have none. */
	while (count < STUCK_SERVED)
		events[count++] = await_event();
	gofer_process_until_idle(gofer, sock);
	assert_int_equal(poll(&p, 1, 0), 0);
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
	for (int i = 0; i < 600 && gofer_threads() > threads + 1; i++)
		usleep(100000);
	assert_in_range(gofer_threads(), threads, threads + 1);
	ask_stat(OTHER_TAG);
	expect(P9_Rmsetattr, OTHER_TAG);
}

/* `count` opens of that tree, each of which has a worker: their events. */
static void keep_busy(uint32_t fid, uint16_t tag, unsigned count, int *ret_events)
{
	for (unsigned i = 0; i < count; i++) {
		ask_open_of(fid, (uint16_t)(tag + i));
		ret_events[i] = await_event();
	}
}

/*
 * Three trees stand still, with all workers that they may have but one; the fourth has one, and something waits for that. What waits longer for the third
 * could be served when it ends, but then nobody would come back for the fourth's.
 */
static void healthy_tree_has_its_turn(void **state)
{
	const uint32_t second = OTHER_ROOT, third = OTHER_ROOT + 1, healthy = OTHER_ROOT + 2;
	int events[12], event, still;

	(void)state;
	need_listener();
	for (unsigned i = 0; i < OTHERS; i++)
		keep_waiting(other_dirs[i]);
	keep_busy(ROOT, 200, 8, events);
	keep_busy(second, 220, 4, events + 8);
	keep_busy(third, 240, 1, &still);
	keep_busy(healthy, 260, 1, &event);
	ask_open_of(third, 241);
	ask_open_of(healthy, 261);
	ask_stat_of(healthy, 262); /* behind it, when nobody may serve that */
	gofer_process_until_idle(gofer, sock);
	allow(event);
	expect(P9_Rmopen, 260);
	allow(await_event());
	expect(P9_Rmopen, 261);
	expect(P9_Rmsetattr, 262);
	for (unsigned i = 0; i < 12; i++)
		close(events[i]);
	close(still);
}

static void open_big(void)
{
	struct p9_msg t = {.type = P9_Twalk};

	t.Twalk.fid = OTHER_ROOT;
	t.Twalk.newfid = BIG;
	t.Twalk.names.count = 1;
	t.Twalk.names.name[0] = p9_str("f");
	ask(&t, OTHER_TAG);
	expect(P9_Rwalk, OTHER_TAG);
	t = (struct p9_msg){.type = P9_Tlopen};
	t.Tlopen.fid = BIG;
	ask(&t, OTHER_TAG);
	expect(P9_Rlopen, OTHER_TAG);
}

/*
 * A tag is used again as soon as its reply can be seen, and flushed, while who sent that reply did not get on: what is flushed is the request that waits
 * for a worker. Who cannot send its reply stands for who was not scheduled.
 */
static void flush_beside_a_reply(void **state)
{
	struct p9_msg t = {.type = P9_Tread}, r;
	int events[STUCK_SERVED];

	(void)state;
	need_listener();
	open_big();
	keep_busy(ROOT, STUCK_TAG, STUCK_SERVED, events);
	t.Tread.fid = BIG;
	t.Tread.count = BIG_BYTES;
	for (uint16_t i = 0; i < READS; i++)
		ask(&t, (uint16_t)(200 + i));
	gofer_process_until_idle(gofer, sock);
	ask_open(200 + READS - 1);
	ask_flush_of(200 + READS - 1);
	gofer_process_until_idle(gofer, sock);
	for (unsigned i = 0; i < READS + 1; i++) {
		hear(&r);
		assert_int_equal(r.type, r.tag == FLUSH_TAG ? P9_Rflush : P9_Rread);
	}
	ask_stat_of(OTHER_ROOT, 200 + READS - 1);
	expect(P9_Rmsetattr, 200 + READS - 1);
	for (unsigned i = 0; i < STUCK_SERVED; i++)
		close(events[i]);
}

/* By a worker that is made for it: all others are kept waiting. Return: the mode that a file has then. */
static mode_t create_by_another(void)
{
	struct p9_msg t = {.type = P9_Tmcreate};
	int events[GOFER_THREADS_DEFAULT];
	char path[80];
	struct stat st;

	keep_busy(ROOT, STUCK_TAG, GOFER_THREADS_DEFAULT, events);
	t.Tmcreate.fid = OTHER_ROOT;
	t.Tmcreate.newfid = P9_NOFID;
	t.Tmcreate.path = p9_str("new");
	t.Tmcreate.flags = O_RDWR | O_EXCL;
	t.Tmcreate.mode = 0666;
	t.Tmcreate.umask = 022;
	ask(&t, OTHER_TAG);
	expect(P9_Rmcreate, OTHER_TAG);
	for (unsigned i = 0; i < GOFER_THREADS_DEFAULT; i++)
		allow(events[i]);
	for (unsigned i = 0; i < GOFER_THREADS_DEFAULT; i++) {
		struct p9_msg r;

		hear(&r);
		assert_int_equal(r.type, P9_Rmopen);
	}
	snprintf(path, sizeof(path), "%s/new", other_dirs[0]);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(unlink(path), 0);
	return st.st_mode & 07777;
}

/* A worker that was made and ended leaves nothing to the next one in its place. */
static void umask_of_another(void **state)
{
	unsigned threads = gofer_threads();
	struct p9_msg t = {.type = P9_Tfsync};

	(void)state;
	need_listener();
	assert_int_equal(create_by_another(), 0644);
	/* It reads no more: this may take long. */
	t.Tfsync.fid = ROOT;
	ask(&t, OTHER_TAG);
	expect(P9_Rfsync, OTHER_TAG);
	for (int i = 0; i < 600 && gofer_threads() > threads; i++)
		usleep(100000);
	assert_int_equal(gofer_threads(), threads);
	assert_int_equal(create_by_another(), 0644);
}

/* The connection ends while requests wait for a worker, and some have one. */
static void end_with_many(void **state)
{
	(void)state;
	need_listener();
	ask_stuck();
	ask_stat_of(OTHER_ROOT, OTHER_TAG);
	expect(P9_Rmsetattr, OTHER_TAG);
}

/* Who serves what was flushed ends when nobody is left: what waited behind it is not done for nobody. */
static void nothing_is_done_for_nobody(void **state)
{
	struct p9_msg t = {.type = P9_Tmmkdir};
	int events[STUCK_SERVED];
	unsigned threads;
	siginfo_t ended;
	char path[80];

	(void)state;
	need_listener();
	keep_busy(ROOT, STUCK_TAG, STUCK_SERVED, events);
	t.Tmmkdir.fid = ROOT;
	t.Tmmkdir.path = p9_str("new");
	t.Tmmkdir.mode = 0755;
	ask(&t, BLOCKED_TAG);
	for (unsigned i = 0; i < STUCK_SERVED; i++) {
		ask_flush_of((uint16_t)(STUCK_TAG + i));
		expect(P9_Rflush, FLUSH_TAG);
	}
	threads = gofer_threads();
	assert_int_equal(shutdown(sock, SHUT_RDWR), 0);
	/* Who reads, or waits to read, hears of it and ends, unless it is the first thread. */
	for (int i = 0; i < 300 && gofer_threads() >= threads; i++)
		usleep(10000);
	for (unsigned i = 0; i < STUCK_SERVED; i++)
		allow(events[i]);
	assert_int_equal(waitid(P_PID, (id_t)gofer, &ended, WEXITED | WNOWAIT), 0);
	snprintf(path, sizeof(path), "%s/new", dir);
	assert_int_equal(rmdir(path), -1);
}

/* A tag twice, while its request waits for a worker: no client does that. */
static void tag_twice(void **state)
{
	struct pollfd p = {.fd = sock, .events = POLLRDHUP};

	(void)state;
	need_listener();
	ask_stuck();
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
		BLOCKED_TEST(healthy_tree_has_its_turn),
		BLOCKED_TEST(flush_beside_a_reply),
		BLOCKED_TEST(umask_of_another),
		BLOCKED_TEST(end_with_many),
		BLOCKED_TEST(nothing_is_done_for_nobody),
		BLOCKED_TEST(tag_twice),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
