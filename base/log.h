/*
 * base/log.h - leveled log lines to one descriptor (--debug-log) and a flight recorder.
 *
 * Lines are written with one write(2) each: "<time> <level> <thread> message". The sentry and the
 * gofer never print on stdout or stderr. The last LOG_RECORDER_LINES lines of every level are kept
 * in memory and dumped on a crash (log_dump_recorder is async-signal-safe).
 * Untrusted strings are logged with LOG_STR(): quoted, escaped and cut at LOG_STR_MAX.
 */
#ifndef MOAT_BASE_LOG_H
#define MOAT_BASE_LOG_H

#include "base/compiler.h"

enum log_level { LOG_ERROR_LEVEL, LOG_WARN_LEVEL, LOG_INFO_LEVEL, LOG_DEBUG_LEVEL };

#define LOG_RECORDER_LINES 512
#define LOG_LINE_MAX 1024

extern _Atomic int log_level_now;

/* fd < 0: recorder only. The descriptor is borrowed. `role` ("sentry", "gofer") is copied. */
void log_init(int fd, enum log_level level, const char *role);
void log_line(enum log_level level, const char *fmt, ...) printf_like(2, 3);
void log_dump_recorder(int fd);
/* Logs an error (on stderr when there is no log) and aborts. For our own bugs only. */
noreturn_fn void log_fatal(const char *fmt, ...) printf_like(1, 2);

#define log_error(...) log_line(LOG_ERROR_LEVEL, __VA_ARGS__)
#define log_warn(...) log_line(LOG_WARN_LEVEL, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO_LEVEL, __VA_ARGS__)
#define log_debug(...)                                                                     \
	do {                                                                               \
		if (unlikely(atomic_load_explicit(&log_level_now, memory_order_relaxed) >= \
			     LOG_DEBUG_LEVEL))                                             \
			log_line(LOG_DEBUG_LEVEL, __VA_ARGS__);                            \
	} while (0)

/* Escapes control bytes, quotes and non-ASCII of src[0..len) into buf; always terminated. Returns buf. */
const char *log_quote(char *buf, size_t size, const void *src, size_t len);

/* The quoted string, alive to the end of the enclosing block. */
#define LOG_STR_MAX 128
#define LOG_STR(src, len) log_quote((char[LOG_STR_MAX]){0}, LOG_STR_MAX, (src), (len))

#endif
