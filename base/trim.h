/*
 * base/trim.h - memory that only the start of a process needed.
 *
 * The host maps the pages around each that is touched, so that after its start nearly all of the program's text and constants are mapped, of which
 * a process that waits needs next to nothing.
 */
#ifndef MOAT_BASE_TRIM_H
#define MOAT_BASE_TRIM_H

#include <stddef.h>

/* When a process that does nothing has done what all do at their start. */
#define TRIM_AFTER_MS 500

/*
 * Drops the mappings of the text and constants of this program and its libraries: of a library that nobody else has mapped the pages are this
 * process's alone. Nothing is lost: the segments cannot be written, their pages are the file's. What is still in use comes back from the page cache,
 * by one minor fault of the host for sixteen pages. But breakpoints go, of a debugger or of uprobes, that were set before: they are copies of these
 * pages. Set later they stay. Return: bytes, whether they were mapped or not.
 */
size_t trim_own_text(void);
/* The same, and what the allocator keeps of freed memory. For processes that wait from then on. */
size_t trim_process(void);

#endif
