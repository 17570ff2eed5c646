/*
 * sentry/fs/proc_mapquery.c - ioctl(PROCMAP_QUERY) on /proc/PID/maps: one mapping, found by address, without its text.
 */
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sentry/fs/proc.h"
#include "vfs/vfs.h"

#define PROCMAP_QUERY_ 0xc0686611u /* _IOWR('f', 17, struct map_query) */
#define QUERY_SIZE_MIN offsetof(struct map_query, vma_start)
#define QUERY_SIZE_MAX 4096u
#define NAME_SIZE_MAX 4096u
#define BUILD_ID_MAX 20u
/* What is read of a file in search of its build id. */
#define NOTES_MAX 4096u
#define PHDRS_MAX 64u

enum {
	QUERY_READABLE = 1,
	QUERY_WRITABLE = 2,
	QUERY_EXECUTABLE = 4,
	QUERY_SHARED = 8,
	QUERY_COVERING_OR_NEXT = 16,
	QUERY_FILE_BACKED = 32,
	QUERY_FLAGS = 63,
};

/* struct procmap_query of the kernel ABI. */
struct map_query {
	uint64_t size, flags, addr;
	uint64_t vma_start, vma_end, vma_flags, page_size, offset, inode;
	uint32_t dev_major, dev_minor, name_size, build_id_size;
	uint64_t name_addr, build_id_addr;
};
_Static_assert(sizeof(struct map_query) == 104, "procmap_query ABI");

struct search {
	uint64_t addr, flags;
	bool found;
	struct mm_vma_info info; /* file: a reference */
};

static uint64_t vma_query_flags(const struct mm_vma_info *v)
{
	return (v->prot & PROT_READ ? QUERY_READABLE : 0) |
	       (v->prot & PROT_WRITE ? QUERY_WRITABLE : 0) |
	       (v->prot & PROT_EXEC ? QUERY_EXECUTABLE : 0) | (v->shared ? QUERY_SHARED : 0);
}

static int search_vma(void *arg, const struct mm_vma_info *v)
{
	const uint64_t wanted = QUERY_READABLE | QUERY_WRITABLE | QUERY_EXECUTABLE | QUERY_SHARED;
	struct search *s = arg;

	if (v->end <= s->addr)
		return 0;
	if (v->start > s->addr && !(s->flags & QUERY_COVERING_OR_NEXT))
		return 1;
	if ((s->flags & wanted & ~vma_query_flags(v)) ||
	    ((s->flags & QUERY_FILE_BACKED) && !v->file))
		return !(s->flags & QUERY_COVERING_OR_NEXT);
	s->found = true;
	s->info = *v;
	if (v->file)
		file_ref(v->file);
	return 1;
}

/* ---- build ids ---- */

static size_t notes_find(const uint8_t *buf, size_t size, uint8_t *ret)
{
	size_t at = 0;

	while (size - at >= sizeof(Elf64_Nhdr)) {
		size_t name, desc;
		Elf64_Nhdr n;

		memcpy(&n, buf + at, sizeof(n));
		at += sizeof(n);
		name = round_up_u64(n.n_namesz, 4);
		desc = round_up_u64(n.n_descsz, 4);
		if (name > size - at || desc > size - at - name)
			return 0;
		if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && n.n_descsz &&
		    n.n_descsz <= BUILD_ID_MAX && !memcmp(buf + at, "GNU", 4)) {
			memcpy(ret, buf + at + name, n.n_descsz);
			return n.n_descsz;
		}
		at += name + desc;
	}
	return 0;
}

/* The GNU build id of an ELF file. Return: its bytes; 0: it has none. */
static size_t build_id_read(struct file *f, uint8_t *ret)
{
	uint8_t *notes = malloc(NOTES_MAX);
	size_t found = 0;
	Elf64_Ehdr e;

	if (!notes || file_read_kernel(f, &e, sizeof(e), 0) != sizeof(e) ||
	    memcmp(e.e_ident, ELFMAG, SELFMAG) != 0 || e.e_ident[EI_CLASS] != ELFCLASS64 ||
	    e.e_phentsize != sizeof(Elf64_Phdr))
		goto out;
	for (unsigned i = 0; i < MIN(e.e_phnum, PHDRS_MAX) && !found; i++) {
		Elf64_Phdr p;
		ssize_t n;

		if (file_read_kernel(f, &p, sizeof(p), e.e_phoff + i * sizeof(p)) != sizeof(p))
			break;
		if (p.p_type != PT_NOTE || p.p_filesz > NOTES_MAX)
			continue;
		n = file_read_kernel(f, notes, p.p_filesz, p.p_offset);
		if (n > 0)
			found = notes_find(notes, (size_t)n, ret);
	}
out:
	free(notes);
	return found;
}

/* ---- the answer ---- */

static int answer_name(struct map_query *q, const struct mm_vma_info *v)
{
	struct buf b;
	int err = 0;

	buf_init(&b, NAME_SIZE_MAX * 2);
	if (v->file)
		err = proc_path_text(&v->file->path, &b);
	else if (v->name)
		buf_puts(&b, v->name);
	if (err || !b.len) {
		q->name_size = 0;
		err = 0;
	} else if (b.len + 1 > q->name_size) {
		err = -ENAMETOOLONG;
	} else {
		buf_putc(&b, '\0');
		q->name_size = (uint32_t)b.len;
		err = vfs_user_copy_out(q->name_addr, b.data, b.len) ? -EFAULT : 0;
	}
	buf_fini(&b);
	return err;
}

static int answer_build_id(struct map_query *q, const struct mm_vma_info *v)
{
	uint8_t id[BUILD_ID_MAX];
	size_t size = v->file ? build_id_read(v->file, id) : 0;

	if (size > q->build_id_size)
		return -ENAMETOOLONG;
	q->build_id_size = (uint32_t)size;
	return size && vfs_user_copy_out(q->build_id_addr, id, size) ? -EFAULT : 0;
}

static int answer(struct map_query *q, const struct mm_vma_info *v)
{
	struct stat_args args = {.mask = STATX_INO};
	struct moat_statx st = {0};
	int err = 0;

	q->vma_start = v->start;
	q->vma_end = v->end;
	q->vma_flags = vma_query_flags(v);
	q->page_size = MOAT_PAGE_SIZE;
	q->offset = q->inode = 0;
	q->dev_major = q->dev_minor = 0;
	if (v->file) {
		q->offset = v->off;
		if (!file_stat(v->file, &args, &st)) {
			q->inode = st.ino;
			q->dev_major = st.dev_major;
			q->dev_minor = st.dev_minor;
		}
	}
	if (q->build_id_size)
		err = answer_build_id(q, v);
	if (!err && q->name_size)
		err = answer_name(q, v);
	return err;
}

/* copy_struct_from_user(): what we do not know must be zero. */
static int query_get(uint64_t arg, struct map_query *q, uint64_t *ret_size)
{
	uint8_t rest[64];
	uint64_t size;

	if (vfs_user_copy_in(&size, arg, sizeof(size)))
		return -EFAULT;
	if (size > QUERY_SIZE_MAX)
		return -E2BIG;
	if (size < QUERY_SIZE_MIN)
		return -EINVAL;
	memset(q, 0, sizeof(*q));
	if (vfs_user_copy_in(q, arg, MIN(size, sizeof(*q))))
		return -EFAULT;
	for (uint64_t at = sizeof(*q); at < size; at += sizeof(rest)) {
		size_t n = MIN(size - at, sizeof(rest));

		if (vfs_user_copy_in(rest, arg + at, n))
			return -EFAULT;
		for (size_t i = 0; i < n; i++)
			if (rest[i])
				return -E2BIG;
	}
	*ret_size = size;
	return 0;
}

int64_t proc_maps_ioctl(unused_arg struct synth_node *n, struct synth_file *sf, unsigned cmd,
			uint64_t arg)
{
	struct search s = {0};
	struct map_query q;
	uint64_t size;
	int err;

	if (cmd != PROCMAP_QUERY_)
		return -ENOTTY;
	err = query_get(arg, &q, &size);
	if (err)
		return err;
	if ((q.flags & ~(uint64_t)QUERY_FLAGS) || !q.name_size != !q.name_addr ||
	    !q.build_id_size != !q.build_id_addr)
		return -EINVAL;
	if (!sf->priv)
		return -ESRCH;
	s.addr = q.addr;
	s.flags = q.flags;
	mm_for_each_vma(sf->priv, q.addr, search_vma, &s);
	if (!s.found)
		return -ENOENT;
	err = answer(&q, &s.info);
	if (s.info.file)
		file_unref(s.info.file);
	if (!err && vfs_user_copy_out(arg, &q, MIN(size, sizeof(q))))
		err = -EFAULT;
	return err;
}
