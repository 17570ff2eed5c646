/* runtime/systemd_props.h - a unit's properties from config.json, and libsystemd's functions; for runtime/systemd*.c only. */
#ifndef MOAT_RUNTIME_SYSTEMD_PROPS_H
#define MOAT_RUNTIME_SYSTEMD_PROPS_H

#include <jansson.h>
#include <systemd/sd-bus.h>

#include "base/compiler.h"

#define SYSTEMD_NAME "org.freedesktop.systemd1"
#define SYSTEMD_OBJECT "/org/freedesktop/systemd1"
/* CPUs and memory nodes that a list may name; elements of a list in an annotation. */
#define SYSTEMD_CPUS_MAX 8192
#define SYSTEMD_LIST_MAX 64

/* What is used of libsystemd, found at run time. */
struct sd_api {
#define FUNCTION(name) __typeof__(&sd_##name) name
	FUNCTION(bus_new);
	FUNCTION(bus_set_address);
	FUNCTION(bus_start);
	FUNCTION(bus_open_system);
	FUNCTION(bus_open_user);
	FUNCTION(bus_flush_close_unref);
	FUNCTION(bus_match_signal);
	FUNCTION(bus_process);
	FUNCTION(bus_wait);
	FUNCTION(bus_call);
	FUNCTION(bus_call_method);
	FUNCTION(bus_get_property_string);
	FUNCTION(bus_message_new_method_call);
	FUNCTION(bus_message_append);
	FUNCTION(bus_message_append_array);
	FUNCTION(bus_message_open_container);
	FUNCTION(bus_message_close_container);
	FUNCTION(bus_message_read);
	FUNCTION(bus_message_unref);
	FUNCTION(bus_error_free);
	FUNCTION(bus_slot_unref);
#undef FUNCTION
};

extern struct sd_api sd;

struct systemd_props {
	bool v2;
	bool quota_period, cpuset; /* this systemd knows them */
	unsigned count; /* appended so far */
	char *why;
};

/* linux.resources as (sv) elements of the open array. Return 0 or -errno, with `why` where it is the configuration's fault. */
must_check int systemd_append_resources(sd_bus_message *m, struct systemd_props *p,
					const json_t *resources);
/* The annotations org.systemd.property.NAME (values in GVariant's text form), likewise. */
must_check int systemd_append_annotations(sd_bus_message *m, const json_t *annotations, char *why);

#endif
