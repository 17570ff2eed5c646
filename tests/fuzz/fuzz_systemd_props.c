// LINK: moat_oci moat_wire moat_base
/*
 * The annotations org.systemd.property.*: "NAME\nVALUE" becomes a well-formed property of a message, or one line that says why not. Likewise linux.resources,
 * where the input is a JSON object.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/cgroup.h"
#include "runtime/systemd_props.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEPTH_MAX 8

static int depth, elements;

static int fake_open(sd_bus_message *m, char type, const char *contents)
{
	assert(!m && strchr("rva", type) && *contents);
	assert(++depth <= DEPTH_MAX);
	return 0;
}

static int fake_close(sd_bus_message *m)
{
	assert(!m && depth-- > 0);
	return 0;
}

static int fake_append(sd_bus_message *m, const char *types, ...)
{
	va_list ap;

	assert(!m);
	va_start(ap, types);
	if (strcmp(types, "(sv)") == 0)
		assert(*va_arg(ap, const char *));
	else
		assert(strcmp(types, "s") == 0 || strcmp(types, "v") == 0);
	if (strcmp(types, "s") != 0)
		types = va_arg(ap, const char *);
	switch (*types) {
	case 's':
		assert(strlen(va_arg(ap, const char *)) <= 4096);
		break;
	case 't':
	case 'x':
		(void)va_arg(ap, uint64_t);
		break;
	default:
		assert(strchr("byniqu", *types));
		(void)va_arg(ap, int);
	}
	assert(!types[1]);
	va_end(ap);
	elements++;
	return 0;
}

static int fake_array(sd_bus_message *m, char type, const void *bytes, size_t size)
{
	assert(!m && type == 'y' && bytes && size);
	return 0;
}

struct sd_api sd = {
	.bus_message_append = fake_append,
	.bus_message_append_array = fake_array,
	.bus_message_open_container = fake_open,
	.bus_message_close_container = fake_close,
};

static void resources(json_t *j)
{
	char why[CGROUP_ERROR_MAX] = "";

	for (unsigned bits = 0; bits < 8; bits++) {
		struct systemd_props p = {
			.v2 = bits & 1, .quota_period = bits & 2, .cpuset = bits & 4, .why = why};
		int err = systemd_append_resources(NULL, &p, j);

		assert(err < 0 || depth == 0);
		assert(!strchr(why, '\n'));
		depth = 0;
	}
}

static void annotation(const char *name, const char *value)
{
	char why[CGROUP_ERROR_MAX] = "", key[256];
	json_t *j = json_object();
	int err;

	snprintf(key, sizeof(key), "org.systemd.property.%.200s", name);
	if (j && json_object_set_new(j, key, json_string(value)) == 0) {
		elements = 0;
		err = systemd_append_annotations(NULL, j, why);
		assert(err < 0 ? why[0] != '\0' : depth == 0 && (elements || !*name));
		assert(!strchr(why, '\n'));
		depth = 0;
	}
	json_decref(j);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text, *value;
	json_t *j;

	if (size > 4096 || memchr(data, '\0', size))
		return 0;
	j = json_loadb((const char *)data, size, 0, NULL);
	if (json_is_object(j))
		resources(j);
	json_decref(j);
	text = calloc(1, size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	value = strchr(text, '\n');
	if (value) {
		*value++ = '\0';
		annotation(text, value);
	}
	free(text);
	return 0;
}
