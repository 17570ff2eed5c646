// LINK: moat_virtiofs moat_remote moat_vfs moat_mem moat_wire moat_base
/* mount(2)'s options of a virtio-fs mount, which a guest chooses: refused, or within their bounds and the same when said again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/virtiofs/virtiofs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TIMEOUT_MAX_NS (1000000000ll * 1000000000ll)

/* The canonical text of what was understood. */
static void print(const struct virtiofs_options *o, char *text, size_t size)
{
	static const char *const caches[] = {"auto", "none", "always"};
	int n = snprintf(text, size, "cache=%s,%s", caches[o->cache],
			 o->writeback ? "writeback" : "no_writeback");

	if (o->timeout_ns >= 0)
		snprintf(text + n, size - (size_t)n, ",timeout=%lld",
			 (long long)(o->timeout_ns / 1000000000));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtiofs_options o, again;
	char text[4097], said[128];

	size = MIN(size, sizeof(text) - 1);
	memcpy(text, data, size);
	text[size] = '\0';
	if (virtiofs_parse_options(text, &o))
		return 0;
	if (o.cache > VIRTIOFS_CACHE_ALWAYS || o.timeout_ns < -1 || o.timeout_ns > TIMEOUT_MAX_NS ||
	    o.readonly || o.max_dentries)
		abort();
	print(&o, said, sizeof(said));
	if (virtiofs_parse_options(said, &again) || again.cache != o.cache ||
	    again.timeout_ns != o.timeout_ns || again.writeback != o.writeback)
		abort();
	return 0;
}
