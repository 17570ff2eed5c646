// LINK: moat_wire
/* Any bytes as a FUSE request, as a reply and as directory entries: the decoders stay in bounds. */
#include <stdlib.h>
#include <string.h>

#include "wire/fuse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned touched;

static void touch(const void *p, size_t size)
{
	const uint8_t *at = p;

	for (size_t i = 0; i < size; i++)
		touched += at[i];
}

static void fuzz_request(const uint8_t *data, size_t size)
{
	struct fuse_decoded d;

	if (fuse_decode(data, size, size, &d))
		return;
	touch(d.arg, d.arg_size);
	for (unsigned i = 0; i < d.op->strings; i++)
		if (strlen(d.name[i]) != d.name_len[i])
			abort();
	touch(d.data, d.data_size);
}

static void fuzz_entries(const uint8_t *data, size_t size, bool plus)
{
	uint8_t copy[4096];
	struct fuse_entry e;
	size_t off = 0, put = 0;

	while (fuse_next_entry(data, size, &off, plus, &e) == 1) {
		touch(e.name, e.len);
		if (plus)
			(void)fuse_entry_ok(&e.node);
		(void)fuse_put_entry(copy, sizeof(copy), &put, plus, &e);
	}
	if (off > size || put > sizeof(copy))
		abort();
}

static void fuzz_reply(const uint8_t *data, size_t size)
{
	struct fuse_out_header head;
	uint32_t opcode, used;
	bool broken;
	ssize_t got;

	if (size < sizeof(head) + 8)
		return;
	memcpy(&opcode, data, 4);
	memcpy(&used, data + 4, 4);
	memcpy(&head, data + 8, sizeof(head));
	got = fuse_check_reply(opcode % 64, 7, &head, used, size, &broken);
	if (got > (ssize_t)size || got < -4095)
		abort();
}

/* The names of a walk are single components, and put together again they are the path. */
static void fuzz_path(const uint8_t *data, size_t size)
{
	const char *path = (const char *)data, *name;
	size_t left = size, len, sum = 0;
	unsigned count = 0;
	int got;

	while ((got = fuse_walk_next(&path, &left, &name, &len)) == 1) {
		if (!len || len > FUSE_NAME_BYTES_MAX || memchr(name, '/', len) || name[0] == 0 ||
		    (const uint8_t *)name < data || (const uint8_t *)name + len > data + size)
			abort();
		touch(name, len);
		sum += len + (count++ != 0);
	}
	if (got > 0 || (!got && sum != size))
		abort();
}

/* What passes is whole, has no node twice, and goes on below directories only. */
static void fuzz_walk(const uint8_t *data, size_t size)
{
	struct fuse_walk_reply r;
	unsigned asked;

	if (size < 2)
		return;
	asked = data[0] % (FUSE_WALK_ENTRIES_MAX + 1);
	memset(&r, 0, sizeof(r));
	size = MIN(size - 2, sizeof(r));
	memcpy(&r, data + 2, size);
	if (fuse_walk_check(&r, size, asked, data[1])) {
		if (r.out.count > FUSE_WALK_ENTRIES_MAX)
			abort();
		return;
	}
	if (r.out.count > asked || size != sizeof(r.out) + r.out.count * sizeof(r.entries[0]))
		abort();
	for (unsigned i = 0; i < r.out.count; i++)
		if (!fuse_entry_ok(&r.entries[i]))
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	switch (data[0] % 6) {
	case 0:
		fuzz_request(data + 1, size - 1);
		break;
	case 1:
		fuzz_entries(data + 1, size - 1, false);
		break;
	case 2:
		fuzz_entries(data + 1, size - 1, true);
		break;
	case 3:
		fuzz_reply(data + 1, size - 1);
		break;
	case 4:
		fuzz_path(data + 1, size - 1);
		break;
	default:
		fuzz_walk(data + 1, size - 1);
	}
	return 0;
}
