/*
 * sentry/fs/proc_mm.c - /proc/PID/{maps,smaps,smaps_rollup,numa_maps,mem,cmdline,environ,auxv,pagemap}: an address space.
 *
 * Rows are collected under the mm's lock (references only) and rendered after it: naming a file takes locks that rank
 * below. Access is checked when the file is opened, as on Linux.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sentry/fs/proc.h"

#define MAPS_NAME_COLUMN 73 /* where names begin: 25 + 6 * 8 */
#define MAPS_ROWS_MAX (MM_VMAS_MAX + 16)
#define CMDLINE_MAX (2ul << 20)

static int mm_open(struct synth_node *n, struct synth_file *sf)
{
	struct task *t = proc_task(n);
	int err;

	if (!t)
		return -ESRCH;
	err = proc_may_access(t, false);
	/* The open file is about the address space of now, also after an exec. */
	if (!err)
		sf->priv = task_get_mm(t);
	task_unref(t);
	return err;
}

static void mm_close(unused_arg struct synth_node *n, struct synth_file *sf)
{
	if (sf->priv)
		mm_unref(sf->priv);
}

/* ---- maps ---- */

struct map_row {
	struct mm_vma_info info; /* info.file: a reference */
};

struct map_rows {
	struct map_row *rows;
	size_t count, alloc;
	int error;
};

static int rows_add(void *arg, const struct mm_vma_info *info)
{
	struct map_rows *r = arg;

	if (r->count == r->alloc) {
		size_t alloc = r->alloc ? r->alloc * 2 : 64;
		struct map_row *rows;

		rows = alloc > MAPS_ROWS_MAX * 2 ? NULL
						 : reallocarray(r->rows, alloc, sizeof(*rows));
		if (!rows) {
			r->error = -ENOMEM;
			return 1;
		}
		r->rows = rows;
		r->alloc = alloc;
	}
	r->rows[r->count].info = *info;
	if (info->file)
		file_ref(info->file);
	r->count++;
	return 0;
}

static int rows_collect(struct mm *mm, struct map_rows *r)
{
	memset(r, 0, sizeof(*r));
	mm_for_each_vma(mm, 0, rows_add, r);
	return r->error;
}

static void rows_free(struct map_rows *r)
{
	for (size_t i = 0; i < r->count; i++)
		if (r->rows[i].info.file)
			file_unref(r->rows[i].info.file);
	free(r->rows);
}

static void row_name(const struct mm_vma_info *v, size_t line_start, struct buf *b)
{
	size_t used = b->len - line_start;

	if (!v->file && !v->name)
		return;
	while (used++ < MAPS_NAME_COLUMN)
		buf_putc(b, ' ');
	if (v->file) {
		size_t at = b->len;

		if (proc_path_text(&v->file->path, b))
			b->len = at;
		/* Newlines are the only bytes that are escaped. */
		for (size_t i = at; i < b->len; i++)
			if (b->data[i] == '\n')
				b->data[i] = '?';
	} else {
		buf_puts(b, v->name);
	}
}

static void row_render(const struct mm_vma_info *v, struct buf *b)
{
	struct stat_args args = {.mask = STATX_INO};
	struct moat_statx st = {0};
	size_t line = b->len;

	if (v->file && file_stat(v->file, &args, &st))
		memset(&st, 0, sizeof(st));
	buf_printf(b, "%08llx-%08llx %c%c%c%c %08llx %02x:%02x %llu ", (unsigned long long)v->start,
		   (unsigned long long)v->end, v->prot & PROT_READ ? 'r' : '-',
		   v->prot & PROT_WRITE ? 'w' : '-', v->prot & PROT_EXEC ? 'x' : '-',
		   v->shared ? 's' : 'p', (unsigned long long)(v->file ? v->off : 0), st.dev_major,
		   st.dev_minor, (unsigned long long)st.ino);
	row_name(v, line, b);
	buf_putc(b, '\n');
}

static int maps_show(unused_arg struct synth_node *n, struct synth_file *sf, struct buf *b)
{
	struct map_rows r;
	int err;

	if (!sf->priv)
		return 0;
	err = rows_collect(sf->priv, &r);
	for (size_t i = 0; i < r.count && !err; i++)
		row_render(&r.rows[i].info, b);
	rows_free(&r);
	return err;
}

/* ---- smaps ---- */

struct smaps_sums {
	uint64_t size, rss, pss, shared_dirty, private_clean, private_dirty, anonymous, locked;
	uint64_t pss_anon, pss_file, pss_shmem;
};

static void smaps_count(const struct mm_vma_info *v, struct smaps_sums *s)
{
	memset(s, 0, sizeof(*s));
	s->size = v->end - v->start;
	s->rss = MIN(v->rss, s->size);
	s->pss = s->rss;
	if (!v->file) {
		s->private_dirty = s->rss;
		s->anonymous = s->rss;
		s->pss_anon = s->rss;
	} else if (v->shared) {
		s->shared_dirty = s->rss;
		s->pss_shmem = s->rss;
	} else {
		/* Debuggers write such a mapping into a core only where it has pages of its own. */
		s->anonymous = MIN(v->rss_anon, s->rss);
		s->private_dirty = s->anonymous;
		s->private_clean = s->rss - s->anonymous;
		s->pss_anon = s->anonymous;
		s->pss_file = s->private_clean;
	}
	if (v->locked)
		s->locked = s->rss;
}

static void smaps_line(struct buf *b, const char *name, uint64_t bytes)
{
	buf_printf(b, "%-16s%8llu kB\n", name, (unsigned long long)(bytes >> 10));
}

static void smaps_body(struct buf *b, const struct smaps_sums *s, bool rollup)
{
	smaps_line(b, "Rss:", s->rss);
	smaps_line(b, "Pss:", s->pss);
	smaps_line(b, "Pss_Dirty:", s->private_dirty + s->shared_dirty);
	if (rollup) {
		smaps_line(b, "Pss_Anon:", s->pss_anon);
		smaps_line(b, "Pss_File:", s->pss_file);
		smaps_line(b, "Pss_Shmem:", s->pss_shmem);
	}
	smaps_line(b, "Shared_Clean:", 0);
	smaps_line(b, "Shared_Dirty:", s->shared_dirty);
	smaps_line(b, "Private_Clean:", s->private_clean);
	smaps_line(b, "Private_Dirty:", s->private_dirty);
	smaps_line(b, "Referenced:", s->rss);
	smaps_line(b, "Anonymous:", s->anonymous);
	smaps_line(b, "KSM:", 0);
	smaps_line(b, "LazyFree:", 0);
	smaps_line(b, "AnonHugePages:", 0);
	smaps_line(b, "ShmemPmdMapped:", 0);
	smaps_line(b, "FilePmdMapped:", 0);
	smaps_line(b, "Shared_Hugetlb:", 0);
	smaps_line(b, "Private_Hugetlb:", 0);
	smaps_line(b, "Swap:", 0);
	smaps_line(b, "SwapPss:", 0);
	smaps_line(b, "Locked:", s->locked);
}

static void smaps_flags(struct buf *b, const struct mm_vma_info *v)
{
	buf_puts(b, "VmFlags: ");
	if (v->prot & PROT_READ)
		buf_puts(b, "rd ");
	if (v->prot & PROT_WRITE)
		buf_puts(b, "wr ");
	if (v->prot & PROT_EXEC)
		buf_puts(b, "ex ");
	if (v->shared)
		buf_puts(b, "sh ");
	if (v->max_prot & PROT_READ)
		buf_puts(b, "mr ");
	if (v->max_prot & PROT_WRITE)
		buf_puts(b, "mw ");
	if (v->max_prot & PROT_EXEC)
		buf_puts(b, "me ");
	if (v->grows_down)
		buf_puts(b, "gd ");
	if (v->locked)
		buf_puts(b, "lo ");
	if (!v->file)
		buf_puts(b, "ac ");
	buf_putc(b, '\n');
}

static int smaps_show(unused_arg struct synth_node *n, struct synth_file *sf, struct buf *b)
{
	struct map_rows r;
	int err;

	if (!sf->priv)
		return 0;
	err = rows_collect(sf->priv, &r);
	for (size_t i = 0; i < r.count && !err; i++) {
		const struct mm_vma_info *v = &r.rows[i].info;
		struct smaps_sums s;

		smaps_count(v, &s);
		row_render(v, b);
		smaps_line(b, "Size:", s.size);
		smaps_line(b, "KernelPageSize:", MOAT_PAGE_SIZE);
		smaps_line(b, "MMUPageSize:", MOAT_PAGE_SIZE);
		smaps_body(b, &s, false);
		buf_puts(b, "THPeligible:           0\n");
		smaps_flags(b, v);
	}
	rows_free(&r);
	return err;
}

static int smaps_rollup_show(unused_arg struct synth_node *n, struct synth_file *sf, struct buf *b)
{
	struct smaps_sums sum = {0};
	uint64_t start = 0, end = 0;
	struct map_rows r;
	size_t line = b->len;
	int err;

	if (!sf->priv)
		return -ESRCH;
	err = rows_collect(sf->priv, &r);
	for (size_t i = 0; i < r.count; i++) {
		struct smaps_sums s;
		uint64_t *to = (uint64_t *)&sum;

		smaps_count(&r.rows[i].info, &s);
		for (size_t k = 0; k < sizeof(s) / sizeof(uint64_t); k++)
			to[k] += ((uint64_t *)&s)[k];
		if (!i)
			start = r.rows[i].info.start;
		end = r.rows[i].info.end;
	}
	rows_free(&r);
	if (err)
		return err;
	buf_printf(b, "%08llx-%08llx ---p 00000000 00:00 0 ", (unsigned long long)start,
		   (unsigned long long)end);
	row_name(&(struct mm_vma_info){.name = "[rollup]"}, line, b);
	buf_putc(b, '\n');
	smaps_body(b, &sum, true);
	return 0;
}

static int numa_maps_show(unused_arg struct synth_node *n, struct synth_file *sf, struct buf *b)
{
	struct map_rows r;
	int err;

	if (!sf->priv)
		return 0;
	err = rows_collect(sf->priv, &r);
	for (size_t i = 0; i < r.count && !err; i++) {
		const struct mm_vma_info *v = &r.rows[i].info;

		buf_printf(b, "%08llx default", (unsigned long long)v->start);
		if (v->file) {
			buf_puts(b, " file=");
			err = proc_path_text(&v->file->path, b);
		} else if (v->name && !strcmp(v->name, "[heap]")) {
			buf_puts(b, " heap");
		} else if (v->name && !strcmp(v->name, "[stack]")) {
			buf_puts(b, " stack");
		}
		if (v->rss)
			buf_printf(b, " anon=%llu N0=%llu kernelpagesize_kB=4",
				   (unsigned long long)(v->rss >> MOAT_PAGE_SHIFT),
				   (unsigned long long)(v->rss >> MOAT_PAGE_SHIFT));
		buf_putc(b, '\n');
	}
	rows_free(&r);
	return err;
}

/* ---- memory itself ---- */

static int mem_open(struct synth_node *n, struct synth_file *sf)
{
	struct task *t = proc_task(n);
	int err;

	if (!t)
		return -ESRCH;
	err = proc_may_access(t, true);
	if (!err)
		sf->priv = task_get_mm(t);
	task_unref(t);
	return err;
}

static ssize_t mem_io(struct synth_file *sf, struct io_iter *it, int64_t off, bool write)
{
	char *page = malloc(MOAT_PAGE_SIZE);
	ssize_t total = 0;
	uint64_t addr = (uint64_t)off;

	if (!page)
		return -ENOMEM;
	while (sf->priv && it->remaining) {
		size_t want = MIN(it->remaining, MOAT_PAGE_SIZE - (addr & (MOAT_PAGE_SIZE - 1)));
		size_t done;

		if (write) {
			want = io_iter_get(it, page, want);
			done = want ? mm_access_remote(sf->priv, addr, page, want, true) : 0;
			if (done < want)
				io_iter_revert(it, want - done);
		} else {
			done = mm_access_remote(sf->priv, addr, page, want, false);
			done = io_iter_put(it, page, done);
		}
		if (!done) {
			if (!total)
				total = it->error ? -EFAULT : -EIO;
			break;
		}
		total += (ssize_t)done;
		addr += done;
		if (done < want)
			break;
	}
	free(page);
	return total;
}

static ssize_t mem_read(unused_arg struct synth_node *n, struct synth_file *sf, struct io_iter *it,
			int64_t off)
{
	return mem_io(sf, it, off, false);
}

static ssize_t mem_write(unused_arg struct synth_node *n, struct synth_file *sf, struct io_iter *it,
			 int64_t off)
{
	return mem_io(sf, it, off, true);
}

/* Appends [start, end) of mm's memory, as far as it is there. */
static int mm_text(struct mm *mm, uint64_t start, uint64_t end, struct buf *b)
{
	while (start < end) {
		size_t want = MIN(end - start, MOAT_PAGE_SIZE - (start & (MOAT_PAGE_SIZE - 1)));
		char *room = buf_extend(b, want);
		size_t done;

		if (!room)
			return buf_error(b);
		done = mm_access_remote(mm, start, room, want, false);
		b->len -= want - done;
		if (done < want)
			break;
		start += done;
	}
	return 0;
}

/* setproctitle(3): when the byte before arg_end is no NUL, the string goes on into the environment. */
static int cmdline_render(struct mm *mm, struct buf *b)
{
	struct mm_layout l;
	char last = 0;
	size_t at = b->len, len;
	int err;

	mm_get_layout(mm, &l);
	if (l.arg_start >= l.arg_end || l.arg_end - l.arg_start > CMDLINE_MAX)
		return 0;
	if (l.env_start != l.arg_end || l.env_end < l.env_start)
		l.env_start = l.env_end = l.arg_end;
	if (mm_access_remote(mm, l.arg_end - 1, &last, 1, false) != 1)
		return 0;
	if (!last)
		return mm_text(mm, l.arg_start, l.arg_end, b);
	err = mm_text(mm, l.arg_start, MIN(l.env_end, l.arg_start + CMDLINE_MAX), b);
	if (err || b->len == at)
		return err;
	len = strnlen(b->data + at, b->len - at);
	b->len = at + MIN(len + 1, b->len - at);
	return 0;
}

static int cmdline_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	struct task *t = proc_task(n);
	struct mm *mm;
	int err = 0;

	if (!t)
		return -ESRCH;
	mm = task_get_mm(t);
	task_unref(t);
	if (mm) {
		err = cmdline_render(mm, b);
		mm_unref(mm);
	}
	return err;
}

static int environ_show(unused_arg struct synth_node *n, struct synth_file *sf, struct buf *b)
{
	struct mm_layout l;

	if (!sf->priv)
		return 0;
	mm_get_layout(sf->priv, &l);
	if (l.env_end <= l.env_start || l.env_end - l.env_start > CMDLINE_MAX)
		return 0;
	return mm_text(sf->priv, l.env_start, l.env_end, b);
}

static int auxv_show(unused_arg struct synth_node *n, struct synth_file *sf, struct buf *b)
{
	struct mm_layout l;

	if (!sf->priv)
		return 0;
	mm_get_layout(sf->priv, &l);
	buf_append(b, l.auxv, MIN(l.auxv_count, (unsigned)ARRAY_SIZE(l.auxv)) * sizeof(l.auxv[0]));
	return 0;
}

static ssize_t clear_refs_store(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
				const char *data, size_t size, unused_arg int64_t off)
{
	int64_t what;

	/* Reference bits are not kept: there is nothing to clear. */
	if (synth_parse_i64(data, size, 1, 5, &what))
		return -EINVAL;
	return (ssize_t)size;
}

/* Frame numbers are nobody's business; "present" is not known per page: all zeros, as for absent pages. */
static ssize_t pagemap_read(unused_arg struct synth_node *n, struct synth_file *sf,
			    struct io_iter *it, int64_t off)
{
	if ((off | (int64_t)it->remaining) & 7)
		return -EINVAL;
	if (!sf->priv || (uint64_t)off >= (ARCH_TASK_SIZE >> MOAT_PAGE_SHIFT) * 8)
		return 0;
	return (ssize_t)io_iter_zero(it, MIN(it->remaining, 1ul << 20));
}

#define OPS(var, ...)                                                      \
	const struct synth_node_ops var = {.getattr = proc_pid_getattr,    \
					   .no_poll = true,                \
					   .setattr = synth_setattr_eperm, \
					   __VA_ARGS__}

OPS(proc_maps_ops, .show = maps_show, .open = mm_open, .close = mm_close, .ioctl = proc_maps_ioctl);
OPS(proc_smaps_ops, .show = smaps_show, .open = mm_open, .close = mm_close);
OPS(proc_smaps_rollup_ops, .show = smaps_rollup_show, .open = mm_open, .close = mm_close);
OPS(proc_numa_maps_ops, .show = numa_maps_show, .open = mm_open, .close = mm_close);
OPS(proc_mem_ops, .read_at = mem_read, .write_at = mem_write, .open = mem_open, .close = mm_close);
OPS(proc_cmdline_ops, .show = cmdline_show);
OPS(proc_environ_ops, .show = environ_show, .open = mm_open, .close = mm_close);
OPS(proc_auxv_ops, .show = auxv_show, .open = mm_open, .close = mm_close);
OPS(proc_clear_refs_ops, .store = clear_refs_store);
OPS(proc_pagemap_ops, .read_at = pagemap_read, .open = mm_open, .close = mm_close);
