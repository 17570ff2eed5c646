/*
 * fsx FILE SECONDS [SEED [OPERATIONS]] - random reads, writes, mapped accesses, truncations, fallocates and copies of one file, each checked
 * against a buffer that is the file as it must be.
 *
 * FILE may exist: its contents are where it begins. A difference prints the seed, the operation's number and the last operations.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SIZE_MAX_FILE (768u << 10)
#define PAGE 4096u
#define LOG 40
#define FDS 2

static unsigned char model[SIZE_MAX_FILE + PAGE], buf[SIZE_MAX_FILE + PAGE];
static uint64_t size, rng, op;
static const char *path;
static unsigned long seed;
static int fd[FDS];
static char history[LOG][120];

static uint32_t rnd(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)((rng * 0x2545f4914f6cdd1dull >> 33) % n);
}

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("seed %lu, operation %llu: ", seed, (unsigned long long)op);
	vprintf(fmt, ap);
	va_end(ap);
	printf(" (%s)\n", strerror(errno));
	for (unsigned i = 0; i < LOG; i++)
		if (history[(op + 1 + i) % LOG][0])
			printf("  %s\n", history[(op + 1 + i) % LOG]);
	exit(1);
}

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(history[op % LOG], sizeof(history[0]), fmt, ap);
	va_end(ap);
}

static void compare(const char *what, uint64_t off, const unsigned char *got, uint64_t n)
{
	if (!memcmp(model + off, got, n))
		return;
	for (uint64_t i = 0; i < n; i++)
		if (model[off + i] != got[i]) {
			errno = 0;
			fail("%s: byte %llu is %02x, must be %02x (size %llu)", what,
			     (unsigned long long)(off + i), got[i], model[off + i],
			     (unsigned long long)size);
		}
}

static void fill(uint64_t off, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++)
		buf[i] = (unsigned char)(op * 31 + (off + i) * 7 + (op >> 8) + 1);
}

/* The model grows: what was past the end is zero. */
static void grow(uint64_t to)
{
	if (to > size) {
		memset(model + size, 0, to - size);
		size = to;
	}
}

static void pick(uint64_t *off, uint64_t *n, uint64_t limit)
{
	*off = rnd(rnd(2) ? 65536 : SIZE_MAX_FILE);
	*n = 1 + rnd(rnd(3) ? 8192 : 200000);
	if (!rnd(4))
		*off &= ~(uint64_t)(PAGE - 1);
	if (!rnd(4))
		*n = (*n + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	if (*off > limit)
		*off %= limit ? limit : 1;
	if (*off + *n > limit)
		*n = limit - *off;
}

static void do_read(int f)
{
	uint64_t off, n;
	ssize_t got, want;

	pick(&off, &n, SIZE_MAX_FILE);
	note("read %llu +%llu", (unsigned long long)off, (unsigned long long)n);
	if (rnd(2)) {
		got = pread(f, buf, n, (off_t)off);
	} else {
		struct iovec iov[2] = {{buf, n / 3}, {buf + n / 3, n - n / 3}};

		got = preadv(f, iov, 2, (off_t)off);
	}
	want = off >= size ? 0 : (ssize_t)(n < size - off ? n : size - off);
	if (got != want)
		fail("read: %zd bytes, must be %zd", got, want);
	compare("read", off, buf, (uint64_t)got);
}

static void do_write(int f)
{
	uint64_t off, n;

	pick(&off, &n, SIZE_MAX_FILE);
	note("write %llu +%llu", (unsigned long long)off, (unsigned long long)n);
	if (!n)
		return;
	fill(off, n);
	if (pwrite(f, buf, n, (off_t)off) != (ssize_t)n)
		fail("write");
	grow(off + n);
	memcpy(model + off, buf, n);
}

/* Past the end in the last page: zeros, and what is stored there does not come into the file. */
static void do_map(int f, int write)
{
	uint64_t off, n, base, len, past;
	unsigned char *p;

	if (!size)
		return;
	pick(&off, &n, size);
	if (!n)
		return;
	note("map %s %llu +%llu", write ? "write" : "read", (unsigned long long)off,
	     (unsigned long long)n);
	base = off & ~(uint64_t)(PAGE - 1);
	len = off + n - base;
	p = mmap(NULL, len, write ? PROT_READ | PROT_WRITE : PROT_READ,
		 !write && rnd(2) ? MAP_PRIVATE : MAP_SHARED, f, (off_t)base);
	/* A 9P server that gives no descriptors, as FSX_NO_MMAP says. */
	if (p == MAP_FAILED && errno == ENODEV && getenv("FSX_NO_MMAP"))
		return;
	if (p == MAP_FAILED)
		fail("mmap");
	if (write) {
		fill(off, n);
		memcpy(p + (off - base), buf, n);
		memcpy(model + off, buf, n);
		if (!rnd(3) && msync(p, len, rnd(2) ? MS_SYNC : MS_ASYNC))
			fail("msync");
	} else {
		compare("map", off, p + (off - base), n);
	}
	past = (size + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	if (off + n == size)
		for (uint64_t i = size; i < past; i++)
			if (p[i - base])
				fail("map: byte %llu past the end is %02x", (unsigned long long)i,
				     p[i - base]);
	if (munmap(p, len))
		fail("munmap");
}

static void do_truncate(int f)
{
	uint64_t to = rnd(3) ? rnd(SIZE_MAX_FILE) : rnd(20000);

	note("truncate %llu -> %llu", (unsigned long long)size, (unsigned long long)to);
	if (rnd(2) ? ftruncate(f, (off_t)to) : truncate(path, (off_t)to))
		fail("truncate");
	if (to > size)
		grow(to);
	else
		memset(model + to, 0, size - to);
	size = to;
}

static void do_fallocate(int f)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_ZERO_RANGE,
				    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	int mode = modes[rnd(5)];
	uint64_t off, n, end;

	pick(&off, &n, SIZE_MAX_FILE);
	if (!n)
		return;
	note("fallocate %x %llu +%llu", mode, (unsigned long long)off, (unsigned long long)n);
	if (fallocate(f, mode, (off_t)off, (off_t)n)) {
		if (errno == EOPNOTSUPP)
			return;
		fail("fallocate");
	}
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		grow(off + n);
	end = off + n < size ? off + n : size;
	if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && off < end)
		memset(model + off, 0, end - off);
}

static void do_copy(int from, int to)
{
	uint64_t off, n, target;
	off_t in, out;
	ssize_t got;

	if (!size)
		return;
	pick(&off, &n, size);
	target = rnd(SIZE_MAX_FILE);
	if (target + n > SIZE_MAX_FILE)
		n = SIZE_MAX_FILE - target;
	/* Ranges of one file must not overlap. */
	if (!n || (off < target + n && target < off + n))
		return;
	in = (off_t)off;
	out = (off_t)target;
	note("copy %llu +%llu to %llu", (unsigned long long)off, (unsigned long long)n,
	     (unsigned long long)target);
	got = syscall(SYS_copy_file_range, from, &in, to, &out, n, 0);
	if (got < 0 && (errno == EOPNOTSUPP || errno == ENOSYS || errno == EXDEV))
		return;
	if (got <= 0 || (uint64_t)got > n)
		fail("copy_file_range: %zd", got);
	grow(target + (uint64_t)got);
	memmove(model + target, model + off, (size_t)got);
}

static void do_append(void)
{
	uint64_t n = 1 + rnd(5000);
	int f;

	if (size + n > SIZE_MAX_FILE)
		return;
	note("append +%llu", (unsigned long long)n);
	f = open(path, O_WRONLY | O_APPEND);
	fill(size, n);
	if (f < 0 || write(f, buf, n) != (ssize_t)n || close(f))
		fail("append");
	memcpy(model + size, buf, n);
	size += n;
}

/* Where SEEK_DATA says that there is none, all is zero. */
static void do_seek(int f)
{
	off_t at = 0, data;

	note("seek");
	while ((uint64_t)at < size) {
		data = lseek(f, at, SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			fail("SEEK_DATA");
		for (uint64_t i = (uint64_t)at; i < (data < 0 ? size : (uint64_t)data); i++)
			if (model[i])
				fail("byte %llu is in a hole", (unsigned long long)i);
		if (data < 0)
			break;
		at = lseek(f, data, SEEK_HOLE);
		if (at <= data || (uint64_t)at > size)
			fail("SEEK_HOLE from %lld: %lld", (long long)data, (long long)at);
	}
}

static void check_all(int f)
{
	struct stat st;

	note("check");
	if (fstat(f, &st) || (uint64_t)st.st_size != size)
		fail("size is %lld, must be %llu", (long long)st.st_size, (unsigned long long)size);
	if (pread(f, buf, sizeof(buf), 0) != (ssize_t)size)
		fail("read of it all");
	compare("all", 0, buf, size);
}

static void reopen(unsigned i)
{
	note("reopen");
	close(fd[i]);
	fd[i] = open(path, O_RDWR | (rnd(4) ? 0 : O_SYNC));
	if (fd[i] < 0)
		fail("open");
}

static void step(void)
{
	int f = fd[rnd(FDS)], g = fd[rnd(FDS)];

	switch (rnd(20)) {
	case 0 ... 3:
		do_read(f);
		break;
	case 4 ... 7:
		do_write(f);
		break;
	case 8 ... 9:
		do_map(f, 0);
		break;
	case 10 ... 11:
		do_map(f, 1);
		break;
	case 12:
		do_truncate(f);
		break;
	case 13 ... 14:
		do_fallocate(f);
		break;
	case 15:
		do_copy(f, g);
		break;
	case 16:
		do_append();
		break;
	case 17:
		if (!rnd(4))
			do_seek(f);
		break;
	case 18:
		reopen(rnd(FDS));
		break;
	default:
		note("sync");
		if (rnd(2) ? fsync(f) : fdatasync(f))
			fail("fsync");
	}
}

int main(int argc, char **argv)
{
	time_t end;
	ssize_t n;

	if (argc < 3)
		return 2;
	path = argv[1];
	end = time(NULL) + atoi(argv[2]);
	seed = argc > 3 ? strtoul(argv[3], NULL, 0) : (unsigned long)time(NULL);
	rng = seed * 0x9e3779b97f4a7c15ull + 1;
	/* For reading first: in an overlay the file is then still the lower layer's. */
	fd[0] = open(path, O_RDONLY | O_CREAT, 0644);
	n = fd[0] < 0 ? -1 : pread(fd[0], model, SIZE_MAX_FILE, 0);
	if (n < 0)
		fail("open");
	size = (uint64_t)n;
	fd[1] = open(path, O_RDWR);
	if (fd[1] < 0)
		fail("open");
	check_all(fd[0]);
	reopen(0);
	for (op = 1; time(NULL) < end && (argc < 5 || op < strtoull(argv[4], NULL, 0)); op++) {
		step();
		if (op % 200 == 0)
			check_all(fd[rnd(FDS)]);
	}
	check_all(fd[0]);
	printf("%llu operations, seed %lu\n", (unsigned long long)op, seed);
	return 0;
}
