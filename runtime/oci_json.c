/* runtime/oci_json.c - JSON as engines write it. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/oci.h"

/*
 * Engines write 18446744073709551615 for "unlimited", which jansson refuses. Integers past INT64_MAX become INT64_MAX, in place
 * and padded with spaces so that positions in messages stay right.
 */
static void clamp_integers(char *json, size_t size)
{
	static const char max[] = "9223372036854775807";
	bool in_string = false;

	for (size_t i = 0; i < size; i++) {
		size_t n = 0;

		if (json[i] == '"')
			in_string = !in_string;
		else if (in_string && json[i] == '\\')
			i++;
		if (in_string || json[i] < '1' || json[i] > '9')
			continue;
		while (i + n < size && json[i + n] >= '0' && json[i + n] <= '9')
			n++;
		if (n > 19 || (n == 19 && memcmp(json + i, max, 19) > 0)) {
			memset(json + i, ' ', n);
			memcpy(json + i, max, 19);
		}
		i += n - 1;
	}
}

json_t *oci_json_load(const char *json, size_t size, json_error_t *err)
{
	char *copy = malloc(size + 1);
	json_t *root;

	if (!copy) {
		*err = (json_error_t){.text = "out of memory"};
		return NULL;
	}
	memcpy(copy, json, size);
	clamp_integers(copy, size);
	root = json_loadb(copy, size, 0, err);
	free(copy);
	return root;
}
