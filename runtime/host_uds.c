/* runtime/host_uds.c - see host_uds.h. */
#include <errno.h>
#include <string.h>

#include "runtime/cli.h"
#include "runtime/host_uds.h"

int host_uds_parse(const char *word, unsigned *ret)
{
	static const struct {
		const char *word;
		unsigned bits;
	} words[] = {{"none", 0},
		     {"open", BOOT_UDS_OPEN},
		     {"create", BOOT_UDS_CREATE},
		     {"all", BOOT_UDS_OPEN | BOOT_UDS_CREATE}};

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
		if (strcmp(word, words[i].word) == 0) {
			*ret = words[i].bits;
			return 0;
		}
	return -EINVAL;
}

int host_uds_plan(struct oci_config *c)
{
	const char *word = cli.host_uds;

	if (!word)
		word = json_string_value(json_object_get(c->annotations, HOST_UDS_ANNOTATION));
	if (!word || host_uds_parse(word, &c->spec.host_uds) == 0)
		return 0;
	cli_error("annotation %s: '%s' is none of none, open, create, all", HOST_UDS_ANNOTATION,
		  word);
	return -EINVAL;
}
