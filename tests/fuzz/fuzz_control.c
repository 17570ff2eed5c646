// LINK: moat_wire moat_base
/* Control messages and boot specs. */
#include "wire/boot_spec.h"
#include "wire/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct control_msg msg;
	struct boot_spec spec;
	char why[128];

	if (size && data[0] == 'b') {
		if (boot_spec_decode((const char *)data + 1, size - 1, &spec, why, sizeof(why)) ==
		    0)
			boot_spec_fini(&spec);
	} else if (control_decode((const char *)data, size, &msg) == 0) {
		control_msg_fini(&msg);
	}
	return 0;
}
