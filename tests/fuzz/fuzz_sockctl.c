// LINK: moat_socket moat_anon moat_vfs moat_mem moat_base
/* Control messages of sockets, in both directions. */
#include <stdlib.h>
#include <string.h>

#include "fsimpl/socket/host.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct cred *root;
	struct socket_msg sm = {0};
	size_t whole;

	if (!root) {
		if (cred_create_root(&root))
			return 0;
		cred_set_current(root);
	}
	/* An allocation of its own size: what reads beyond it is seen. */
	sm.control = malloc(size ? size : 1);
	if (!sm.control)
		return 0;
	memcpy(sm.control, data, size);
	whole = host_control_check(sm.control, size);
	assert(whole <= size);
	sm.control_size = size;
	if (inet_control_send(&sm) == 0)
		assert(sm.control_size <= size);
	free(sm.control);
	return 0;
}
