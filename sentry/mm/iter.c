/*
 * sentry/mm/iter.c - guest memory as an io_iter: a window of pinned pieces at a time.
 *
 * A pin is a reference on the piece's chunks, so the host may write there while the mm changes; pages
 * that are unmapped meanwhile take the bytes and vanish. Windows for reads (is_dest) are listed with the
 * mm, so that fork copies what lies there instead of sharing it (fork.c).
 */
#include "mem/pressure.h"
#include "sentry/mm/internal.h"

/* One window's entry in the mm's list, kept in the iterator. */
static struct mm_pin *iter_pin(struct io_iter *it)
{
	static_assert(sizeof(struct mm_pin) <= sizeof(it->ops_data), "room for the pin");
	return (struct mm_pin *)(void *)it->ops_data;
}

static void mm_iter_release(struct io_iter *it)
{
	struct mm *mm = it->priv;
	unsigned i;

	if (!it->npins)
		return;
	if (it->is_dest) {
		mutex_lock(&mm->pin_lock);
		LIST_REMOVE(iter_pin(it), link);
		mutex_unlock(&mm->pin_lock);
	}
	for (i = 0; i < it->npins; i++)
		memfile_range_unref(it->pins[i][0], (uintptr_t)it->pins[i][1],
				    (uintptr_t)it->pins[i][2]);
	it->npins = 0;
}

/* Pins up to `size` bytes at addr. Return: bytes, 0 when a fault is needed, -errno. Pre: pt_lock (read). */
static ssize_t iter_pin_piece(struct io_iter *it, uint64_t addr, uint64_t size)
{
	struct mm *mm = it->priv;
	struct pma *pma = pma_find(mm, addr);
	unsigned access = it->is_dest ? MEM_WRITE : MEM_READ;
	struct iovec *last = it->nsegs ? &it->segs[it->nsegs - 1] : NULL;
	uint64_t off;
	char *ptr;
	int err;

	if (!pma || !(pma->access & access))
		return 0;
	size = MIN(size, pma->end - addr);
	off = pma->off + (addr - pma->start);
	ptr = pma->ptr + (addr - pma->start);
	err = memfile_range_ref(pma->mf, off, size);
	if (err)
		return err;
	it->pins[it->npins][0] = pma->mf;
	it->pins[it->npins][1] = (void *)(uintptr_t)off;
	it->pins[it->npins][2] = (void *)(uintptr_t)size;
	if (it->is_dest) {
		struct mm_pin *pin = iter_pin(it);

		mutex_lock(&mm->pin_lock);
		if (!it->npins) {
			pin->start = addr;
			pin->end = addr + size;
			LIST_INSERT_HEAD(&mm->pins, pin, link);
		} else {
			pin->start = MIN(pin->start, addr);
			pin->end = MAX(pin->end, addr + size);
		}
		mutex_unlock(&mm->pin_lock);
	}
	it->npins++;
	if (last && (char *)last->iov_base + last->iov_len == ptr)
		last->iov_len += size;
	else
		it->segs[it->nsegs++] = (struct iovec){.iov_base = ptr, .iov_len = size};
	return (ssize_t)size;
}

/* Return: bytes; 0 where the address is bad. */
static uint64_t iter_add_piece(struct io_iter *it, uint64_t addr, uint64_t size)
{
	struct mm *mm = it->priv;

	if (addr >= ARCH_TASK_SIZE)
		return 0;
	size = MIN(size, ARCH_TASK_SIZE - addr);
	for (;;) {
		int signo, sicode;
		ssize_t n;

		rwlock_read_lock(&mm->pt_lock);
		n = iter_pin_piece(it, addr, size);
		rwlock_read_unlock(&mm->pt_lock);
		if (n)
			return n < 0 ? 0 : (uint64_t)n;
		if (mm_fault(mm, addr, it->is_dest ? MEM_WRITE : MEM_READ, &signo, &sicode))
			return 0;
	}
}

static int mm_iter_fill(struct io_iter *it)
{
	uint64_t piece = atomic_load_explicit(&mem_piece, memory_order_relaxed);
	uint64_t total = 0, limit = MIN(it->remaining, piece);

	mm_iter_release(it);
	/* What the last window's bytes were written to may be new memory as well. */
	if (mm_relieve())
		return -EFAULT;
	it->nsegs = 0;
	it->cur = 0;
	it->seg_off = 0;
	while (total < limit && it->npins < IO_ITER_SEGS && it->uiov_cur < it->uiov_count) {
		const struct iovec *iov = &it->uiov[it->uiov_cur];
		uint64_t n;

		if (it->uiov_off >= iov->iov_len) {
			it->uiov_cur++;
			it->uiov_off = 0;
			continue;
		}
		n = iter_add_piece(it, (uintptr_t)iov->iov_base + it->uiov_off,
				   MIN(iov->iov_len - it->uiov_off, limit - total));
		if (!n)
			break;
		it->uiov_off += n;
		total += n;
	}
	return total ? 0 : -EFAULT;
}

static void mm_iter_seek(struct io_iter *it, uint64_t consumed)
{
	mm_iter_release(it);
	it->nsegs = 0;
	it->cur = 0;
	it->seg_off = 0;
	for (it->uiov_cur = 0; it->uiov_cur < it->uiov_count; it->uiov_cur++) {
		if (consumed < it->uiov[it->uiov_cur].iov_len)
			break;
		consumed -= it->uiov[it->uiov_cur].iov_len;
	}
	it->uiov_off = consumed;
}

static const struct io_iter_ops mm_iter_ops = {
	.fill = mm_iter_fill,
	.release = mm_iter_release,
	.seek = mm_iter_seek,
};

void mm_iter_init(struct mm *mm, struct io_iter *it, const struct iovec *uiov, unsigned count,
		  bool is_dest)
{
	unsigned i;

	it->ops = &mm_iter_ops;
	it->nsegs = 0;
	it->cur = 0;
	it->seg_off = 0;
	it->remaining = 0;
	it->consumed = 0;
	it->is_dest = is_dest;
	it->error = 0;
	it->priv = mm;
	it->uiov = uiov;
	it->uiov_count = count;
	it->uiov_cur = 0;
	it->uiov_off = 0;
	it->npins = 0;
	for (i = 0; i < count; i++)
		it->remaining += uiov[i].iov_len;
}

void mm_iter_init_one(struct mm *mm, struct io_iter *it, struct iovec *one, uint64_t addr,
		      uint64_t size, bool is_dest)
{
	one->iov_base = (void *)(uintptr_t)addr;
	one->iov_len = size;
	mm_iter_init(mm, it, one, 1, is_dest);
}
