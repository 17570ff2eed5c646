// LINK: moat_patch moat_mem moat_base
/*
 * Pages of text in which a call trapped: what is patched there, and what registers mean at each address of it afterwards. The input is up to a page,
 * behind two bytes that say where the call ended and one with its number.
 */
#include <stdlib.h>
#include <string.h>

#include "base/rcu.h"
#include "mem/memfile.h"
#include "platform/patch/patch.h"

#define PAGE_VA 0x400000ul

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
	if (!ok)
		abort();
}

static void begin(void)
{
	static bool begun;

	if (begun)
		return;
	begun = true;
	rcu_thread_begin();
	check(mem_init(0) == 0);
}

/* Five bytes before the `syscall`, or the two before it and seven of padding: nothing else may be another. */
static void check_copy(const uint8_t *page, const uint8_t *copy, uint64_t end)
{
	unsigned near = 0, padding = 0;

	check(memcmp(page + end - 2, copy + end - 2, 2) == 0);
	for (uint64_t i = 0; i < MOAT_PAGE_SIZE; i++) {
		if (page[i] == copy[i])
			continue;
		near += i < end && i + 7 >= end;
		padding += i > end && i < end + 64;
		check((i < end && i + 7 >= end) || (i > end && i < end + 64));
	}
	check(near && near <= 5 && padding <= 7 && (!padding || near <= 2));
}

/* Whoever is interrupted is somewhere in the page, or where it was. */
static void check_registers(struct patch_space *space)
{
	for (uint64_t at = 0; at < MOAT_PAGE_SIZE; at++) {
		struct arch_regs regs = {.r = {.rip = PAGE_VA + at}};
		struct platform_event ev = {.kind = PLATFORM_INTERRUPTED};

		patch_resolve_event(space, NULL, true, &regs, &ev);
		check(ev.kind == PLATFORM_INTERRUPTED && regs.r.rip - PAGE_VA < MOAT_PAGE_SIZE);
		check(regs.r.rip <= PAGE_VA + at);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t page[MOAT_PAGE_SIZE], copy[MOAT_PAGE_SIZE];
	struct patch_space *space;
	uint64_t end, off;

	if (size < 3)
		return 0;
	begin();
	memset(page, 0xcc, sizeof(page));
	memcpy(page, data + 3, MIN(size - 3, sizeof(page)));
	end = ((uint64_t)data[0] | (uint64_t)data[1] << 8) % (MOAT_PAGE_SIZE + 8);
	if (patch_space_create(&space))
		return 0;
	patch_set_alone(space, true);
	if (patch_apply(space, PAGE_VA + end, data[2], PAGE_VA, page, &off) == 0) {
		memcpy(copy, memfile_ptr(mem_private(), off), sizeof(copy));
		check_copy(page, copy, end);
		check(patch_apply(space, PAGE_VA + end, data[2], PAGE_VA, copy, &off) == -EALREADY);
		check_registers(space);
		patch_drop(space, PAGE_VA, MOAT_PAGE_SIZE);
		patch_settle(space);
		check(!patch_detour_find(space, &off));
	}
	patch_space_destroy(space);
	return 0;
}
