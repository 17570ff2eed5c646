/*
 * base/log.c - log lines and the flight recorder, without a lock.
 *
 * A line is formatted on the stack, written with one write(2) (a pipe or an O_APPEND file keeps
 * lines whole up to PIPE_BUF, and LOG_LINE_MAX is below it), and copied into a slot of a ring.
 * A slot is claimed by making its sequence odd; a writer or a dumper that finds it odd leaves it
 * alone, so a crash inside log_line() loses one line and never hangs. No allocation, no time zone
 * files, nothing that a seccomp filter refuses but write, gettid and the clock.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

struct log_slot {
	_Atomic uint32_t seq; /* odd: being written or read */
	uint32_t len;
	char text[LOG_LINE_MAX];
};

_Atomic int log_level_now = LOG_INFO_LEVEL;

static _Atomic int log_fd = -1;
static char log_role[16] = "moat"; /* set before threads start */
static struct log_slot recorder[LOG_RECORDER_LINES];
static _Atomic uint32_t recorder_next;

void log_init(int fd, enum log_level level, const char *role)
{
	snprintf(log_role, sizeof(log_role), "%s", role);
	atomic_store_explicit(&log_fd, fd, memory_order_relaxed);
	atomic_store_explicit(&log_level_now, level, memory_order_relaxed);
}

static bool slot_claim(struct log_slot *slot, uint32_t *ret_seq)
{
	uint32_t seq = atomic_load_explicit(&slot->seq, memory_order_relaxed);

	if ((seq & 1) ||
	    !atomic_compare_exchange_strong_explicit(&slot->seq, &seq, seq + 1,
						     memory_order_acquire, memory_order_relaxed))
		return false;
	*ret_seq = seq;
	return true;
}

static void recorder_add(const char *line, size_t len)
{
	uint32_t at = atomic_fetch_add_explicit(&recorder_next, 1, memory_order_relaxed);
	struct log_slot *slot = &recorder[at % LOG_RECORDER_LINES];
	uint32_t seq;

	if (!slot_claim(slot, &seq))
		return;
	memcpy(slot->text, line, len);
	slot->len = (uint32_t)len;
	atomic_store_explicit(&slot->seq, seq + 2, memory_order_release);
}

void log_dump_recorder(int fd)
{
	uint32_t end = atomic_load_explicit(&recorder_next, memory_order_relaxed);

	for (uint32_t i = 0; i < LOG_RECORDER_LINES; i++) {
		struct log_slot *slot = &recorder[(end + i) % LOG_RECORDER_LINES];
		uint32_t seq;

		if (!slot_claim(slot, &seq))
			continue;
		if (slot->len && write(fd, slot->text, slot->len) < 0)
			i = LOG_RECORDER_LINES;
		atomic_store_explicit(&slot->seq, seq, memory_order_release);
	}
}

/* UTC, by arithmetic: gmtime_r() would open the time zone file. */
static int log_format_time(char *buf, size_t size)
{
	struct timespec ts;
	int64_t days, era, doe, yoe, doy, mp;
	int64_t year, month, day, secs;

	clock_gettime(CLOCK_REALTIME, &ts);
	days = ts.tv_sec / 86400;
	secs = ts.tv_sec % 86400;
	/* Days since 0000-03-01, then years of 400-year eras (the civil calendar). */
	days += 719468;
	era = days / 146097;
	doe = days % 146097;
	yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
	doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
	mp = (5 * doy + 2) / 153;
	day = doy - (153 * mp + 2) / 5 + 1;
	month = mp < 10 ? mp + 3 : mp - 9;
	year = yoe + era * 400 + (month <= 2);
	return snprintf(buf, size, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", (int)year, (int)month,
			(int)day, (int)(secs / 3600), (int)(secs / 60 % 60), (int)(secs % 60),
			(int)(ts.tv_nsec / 1000));
}

static size_t log_format(char *line, enum log_level level, const char *fmt, va_list ap)
{
	static const char *const names[] = {
		[LOG_ERROR_LEVEL] = "error",
		[LOG_WARN_LEVEL] = "warn",
		[LOG_INFO_LEVEL] = "info",
		[LOG_DEBUG_LEVEL] = "debug",
	};
	size_t len = (size_t)log_format_time(line, LOG_LINE_MAX);
	int n;

	len += (size_t)snprintf(line + len, LOG_LINE_MAX - len, " %s %s/%ld ", names[level],
				log_role, syscall(SYS_gettid));
	n = vsnprintf(line + len, LOG_LINE_MAX - len, fmt, ap);
	if (n > 0)
		n = MIN(n, (int)(LOG_LINE_MAX - len - 1));
	else
		n = 0;
	for (int i = 0; i < n; i++)
		if (line[len + (size_t)i] == '\n')
			line[len + (size_t)i] = ' ';
	len += (size_t)n;
	if (len == LOG_LINE_MAX - 1)
		len--;
	line[len++] = '\n';
	return len;
}

static void log_emit(enum log_level level, const char *line, size_t len)
{
	int fd = atomic_load_explicit(&log_fd, memory_order_relaxed);

	recorder_add(line, len);
	if (fd >= 0 && (int)level <= atomic_load_explicit(&log_level_now, memory_order_relaxed)) {
		ssize_t n = write(fd, line, len);

		(void)n; /* a full disk or a closed log must not stop the sandbox */
	}
}

void log_line(enum log_level level, const char *fmt, ...)
{
	int saved = errno;
	char line[LOG_LINE_MAX];
	va_list ap;
	size_t len;

	va_start(ap, fmt);
	len = log_format(line, level, fmt, ap);
	va_end(ap);
	log_emit(level, line, len);
	errno = saved;
}

noreturn_fn void log_fatal(const char *fmt, ...)
{
	char line[LOG_LINE_MAX];
	ssize_t n;
	va_list ap;
	size_t len;
	int fd;

	va_start(ap, fmt);
	len = log_format(line, LOG_ERROR_LEVEL, fmt, ap);
	va_end(ap);
	log_emit(LOG_ERROR_LEVEL, line, len);
	fd = atomic_load_explicit(&log_fd, memory_order_relaxed);
	if (fd < 0) {
		n = write(STDERR_FILENO, line, len);
		(void)n;
	}
	abort();
}

const char *log_quote(char *buf, size_t size, const void *src, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	const unsigned char *s = src;
	size_t at = 0;
	size_t i;

	if (size < 8) {
		if (size)
			buf[0] = '\0';
		return buf;
	}
	buf[at++] = '"';
	/* Five bytes stay free: a four-byte escape would still leave the quote and the end. */
	for (i = 0; i < len && at + 4 + 4 < size; i++) {
		unsigned char c = s[i];

		if (c == '"' || c == '\\') {
			buf[at++] = '\\';
			buf[at++] = (char)c;
		} else if (c >= 0x20 && c < 0x7f) {
			buf[at++] = (char)c;
		} else {
			buf[at++] = '\\';
			buf[at++] = 'x';
			buf[at++] = hex[c >> 4];
			buf[at++] = hex[c & 15];
		}
	}
	if (i < len) {
		/* Cut: "... says so. */
		buf[at++] = '"';
		if (at + 3 < size) {
			memcpy(buf + at, "...", 3);
			at += 3;
		}
	} else {
		buf[at++] = '"';
	}
	buf[at] = '\0';
	return buf;
}
