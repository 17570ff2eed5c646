// LINK: moat_oci moat_wire moat_base
/*
 * config.json: any bytes give a configuration or one line that says why not; as the data of an overlay, layers or none; as a line of linux.sysctl, a name
 * that stays below /proc/sys/net or none.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/sysctl.h"
#include "runtime/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void as_overlay(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size), *readonly;

	assert(text);
	readonly = oci_overlay_readonly(text);
	if (readonly)
		assert(strstr(text, "lowerdir=") && strncmp(readonly, "lowerdir=", 9) == 0);
	free(readonly);
	free(text);
}

static void as_sysctl(const uint8_t *data, size_t size)
{
	char *line = strndup((const char *)data, size), name[64];
	const char *value;

	assert(line);
	if (sysctl_is_network(line) && !sysctl_network_split(line, name, sizeof(name), &value)) {
		assert(strlen(name) < sizeof(name) && !strstr(name, ".."));
		assert(value > line && value[-1] == '=' && value <= line + strlen(line));
	}
	free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct oci_config c;
	char why[OCI_ERROR_MAX];
	int err = oci_config_parse((const char *)data, size, "config.json", "/bundle", &c, why);

	as_overlay(data, size);
	as_sysctl(data, size);
	if (err) {
		assert(why[0] && !strchr(why, '\n'));
		return 0;
	}
	assert(c.spec.argv[0] && c.nattaches >= 1);
	oci_config_fini(&c);
	return 0;
}
