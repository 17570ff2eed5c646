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
	got = fuse_check_reply(opcode % 60, 7, &head, used, size, &broken);
	if (got > (ssize_t)size || got < -4095)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	switch (data[0] % 4) {
	case 0:
		fuzz_request(data + 1, size - 1);
		break;
	case 1:
		fuzz_entries(data + 1, size - 1, false);
		break;
	case 2:
		fuzz_entries(data + 1, size - 1, true);
		break;
	default:
		fuzz_reply(data + 1, size - 1);
	}
	return 0;
}
