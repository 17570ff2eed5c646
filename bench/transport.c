// LINK: uring
/*
 * bench/transport.c [ROUNDS] - what one small request to a server costs over each way there is to carry it, without any protocol.
 *
 * A process sends 64 bytes and gets 512 back, as a walk with attributes does. "socket": a Unix stream socket, both sides in blocking calls;
 * "uring": the same, the server in one io_uring_enter() a request (the reply and the next receive together); "shared": two rings of one
 * message in shared memory, with futexes. The plain rows sleep for every message; ":spin" rows look for SPIN_NS first, which is what both ends
 * of Moat's gofer do while CPUs are free. Rows take turns, ROUNDS (15) times; medians, in ns a round trip:
 *
 *	NAME NS ns/trip
 */
#include <errno.h>
#include <liburing.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REQUEST 64
#define REPLY 512
#define SPIN_NS 40000
#define TRIPS 400
#define ROUNDS_MAX 1000

/* One message each way; `turn` is the number of the last message, even ones are replies. */
struct shared {
	_Atomic uint32_t turn;
	char request[REQUEST], reply[REPLY];
};

struct transport {
	int fd;
	struct shared *shared;
	bool spin;
};

static void check(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "bench/transport: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ll + t.tv_nsec;
}

/* ---- sockets ---- */

static bool receive(const struct transport *t, char *buf, size_t size)
{
	int64_t end = t->spin ? now_ns() + SPIN_NS : 0;

	for (size_t have = 0; have < size;) {
		ssize_t n = recv(t->fd, buf + have, size - have, end ? MSG_DONTWAIT : 0);

		if (n < 0 && errno == EAGAIN) {
			if (now_ns() > end)
				end = 0;
			continue;
		}
		if (n <= 0)
			return false;
		have += (size_t)n;
	}
	return true;
}

static void send_all(const struct transport *t, const char *buf, size_t size)
{
	check(send(t->fd, buf, size, MSG_NOSIGNAL) == (ssize_t)size, "send");
}

static void socket_serve(const struct transport *t)
{
	char request[REQUEST], reply[REPLY] = {0};

	while (receive(t, request, sizeof(request)))
		send_all(t, reply, sizeof(reply));
}

static void socket_trip(const struct transport *t)
{
	char request[REQUEST] = {0}, reply[REPLY];

	send_all(t, request, sizeof(request));
	check(receive(t, reply, sizeof(reply)), "recv");
}

enum { RECEIVED = 1, SENT };

static void uring_serve(const struct transport *t)
{
	char request[REQUEST], reply[REPLY] = {0};
	struct io_uring ring;
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;

	errno = -io_uring_queue_init(8, &ring, 0);
	check(!errno, "io_uring_queue_init");
	for (bool first = true;; first = false) {
		bool received = false;

		if (!first) {
			sqe = io_uring_get_sqe(&ring);
			io_uring_prep_send(sqe, t->fd, reply, sizeof(reply), MSG_NOSIGNAL);
			io_uring_sqe_set_data64(sqe, SENT);
		}
		sqe = io_uring_get_sqe(&ring);
		io_uring_prep_recv(sqe, t->fd, request, sizeof(request), MSG_WAITALL);
		io_uring_sqe_set_data64(sqe, RECEIVED);
		if (t->spin) {
			int64_t end = now_ns() + SPIN_NS;

			io_uring_submit(&ring);
			/* Peeking enters the kernel for work that it left for us. */
			while (io_uring_cq_ready(&ring) < (first ? 1u : 2u) && now_ns() < end)
				io_uring_get_events(&ring);
		} else {
			io_uring_submit_and_wait(&ring, first ? 1 : 2);
		}
		while (!received) {
			errno = -io_uring_wait_cqe(&ring, &cqe);
			check(!errno, "io_uring_wait_cqe");
			received = io_uring_cqe_get_data64(cqe) == RECEIVED;
			if (received && cqe->res != REQUEST) {
				io_uring_queue_exit(&ring);
				return;
			}
			io_uring_cqe_seen(&ring, cqe);
		}
	}
}

/* ---- shared memory ---- */

static void await_turn(const struct transport *t, uint32_t seen)
{
	int64_t end = t->spin ? now_ns() + SPIN_NS : 0;

	while (t->shared->turn == seen) {
		if (end && now_ns() < end)
			continue;
		syscall(SYS_futex, &t->shared->turn, FUTEX_WAIT, seen, NULL, NULL, 0);
	}
}

static void take_turn(const struct transport *t)
{
	t->shared->turn++;
	/* Spinning peers are woken too: who knows whether they gave up. */
	syscall(SYS_futex, &t->shared->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void shared_serve(const struct transport *t)
{
	char request[REQUEST];

	for (uint32_t seen = 0;; seen += 2) {
		await_turn(t, seen);
		memcpy(request, t->shared->request, sizeof(request));
		memset(t->shared->reply, request[0], sizeof(t->shared->reply));
		take_turn(t);
	}
}

static void shared_trip(const struct transport *t)
{
	char reply[REPLY];

	memset(t->shared->request, 0, sizeof(t->shared->request));
	take_turn(t);
	await_turn(t, t->shared->turn | 1);
	memcpy(reply, t->shared->reply, sizeof(reply));
}

/* ---- rows ---- */

static const struct row {
	const char *name;
	void (*serve)(const struct transport *t);
	void (*trip)(const struct transport *t);
	bool spin;
} rows[] = {
	{"socket", socket_serve, socket_trip, false},
	{"uring", uring_serve, socket_trip, false},
	{"shared", shared_serve, shared_trip, false},
	{"socket:spin", socket_serve, socket_trip, true},
	{"uring:spin", uring_serve, socket_trip, true},
	{"shared:spin", shared_serve, shared_trip, true},
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static double measure(const struct row *row)
{
	struct transport t = {.spin = row->spin};
	int fds[2];
	int64_t began;
	pid_t server;

	check(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), "socketpair");
	t.shared = mmap(NULL, sizeof(*t.shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
			-1, 0);
	check(t.shared != MAP_FAILED, "mmap");
	server = fork();
	check(server >= 0, "fork");
	t.fd = fds[server == 0];
	close(fds[server != 0]);
	if (!server) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		row->serve(&t);
		_exit(0);
	}
	for (int i = 0; i < TRIPS / 4; i++)
		row->trip(&t);
	began = now_ns();
	for (int i = 0; i < TRIPS; i++)
		row->trip(&t);
	began = now_ns() - began;
	close(t.fd);
	kill(server, SIGKILL);
	waitpid(server, NULL, 0);
	munmap(t.shared, sizeof(*t.shared));
	return (double)began / TRIPS;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static double times[ROWS][ROUNDS_MAX];
	int rounds = argc > 1 ? atoi(argv[1]) : 15;

	if (argc > 2 || rounds < 1 || rounds > ROUNDS_MAX) {
		fprintf(stderr, "usage: bench/transport [ROUNDS]   (1 to %d)\n", ROUNDS_MAX);
		return 2;
	}
	for (int r = 0; r < rounds; r++)
		for (size_t i = 0; i < ROWS; i++)
			times[i][r] = measure(&rows[i]);
	for (size_t i = 0; i < ROWS; i++) {
		qsort(times[i], (size_t)rounds, sizeof(times[i][0]), compare);
		printf("%s %.0f ns/trip\n", rows[i].name, times[i][rounds / 2]);
	}
	return 0;
}
