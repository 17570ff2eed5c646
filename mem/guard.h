/*
 * mem/guard.h - touching memory that may vanish: guest pages backed by host files.
 *
 * A host file that shrank raises SIGBUS in the sentry. These few routines are assembly between two
 * symbols; the SIGBUS/SIGSEGV handler (guard_install) finds the faulting address in their range and resumes at a
 * fix-up that returns -EFAULT. A fault anywhere else is the sentry's own bug and crashes it.
 */
#ifndef MOAT_MEM_GUARD_H
#define MOAT_MEM_GUARD_H

#include "base/compiler.h"

/* Installs the handlers, once per process, before guest memory is touched. */
must_check int guard_install(void);
/* True if `ucontext` was a fault in a guarded routine and now resumes at its fix-up. */
bool guard_fixup(void *ucontext);

/* Return: bytes NOT copied (0 is success), like Linux's copy_from_user. */
must_check size_t guard_copy(void *dst, const void *src, size_t size);
must_check size_t guard_zero(void *dst, size_t size);
/* Return: 0 or -EFAULT. Pointers are naturally aligned. */
must_check int guard_load_u32(const void *src, uint32_t *ret_val);
must_check int guard_load_u64(const void *src, uint64_t *ret_val);
must_check int guard_cmpxchg_u32(void *dst, uint32_t *inout_expected,
				 uint32_t desired); /* -EAGAIN: differs, *inout updated */
must_check int guard_xchg_u32(void *dst, uint32_t val, uint32_t *ret_old);
/* Touches one byte for reading (or by a locked or of 0 for writing): a PTE may be installed if 0. */
must_check int guard_probe(void *addr, bool write);

#endif
