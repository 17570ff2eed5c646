/* runtime/systemd_props.c - linux.resources and org.systemd.property annotations as properties of a systemd unit. */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "runtime/cgroup.h"
#include "runtime/systemd_props.h"

#define QUOTA_STEP_US 10000 /* systemd's granularity, per second */
#define PERIOD_DEFAULT_US 100000

/* ---- linux.resources ---- */

static bool number(const json_t *obj, const char *name, long long *ret)
{
	const json_t *j = json_object_get(obj, name);

	if (!json_is_integer(j))
		return false;
	*ret = json_integer_value(j);
	return true;
}

static int put(sd_bus_message *m, struct systemd_props *p, const char *name, uint64_t value)
{
	p->count++;
	return sd.bus_message_append(m, "(sv)", name, "t", value);
}

/* Negative: without limit, which is systemd's largest number. */
static int put_limit(sd_bus_message *m, struct systemd_props *p, const char *name, long long v)
{
	return put(m, p, name, v < 0 ? UINT64_MAX : (uint64_t)v);
}

static int append_memory(sd_bus_message *m, struct systemd_props *p, const json_t *memory)
{
	long long limit = 0, swap = 0, v;
	int err = 0;

	if (number(memory, "limit", &limit) && limit)
		err = put_limit(m, p, p->v2 ? "MemoryMax" : "MemoryLimit", limit);
	if (!p->v2)
		return err;
	if (err >= 0 && number(memory, "reservation", &v) && v)
		err = put_limit(m, p, "MemoryLow", v);
	if (err >= 0 && number(memory, "swap", &swap) && swap) {
		/* OCI's is memory and swap together. */
		if (swap < 0)
			err = put_limit(m, p, "MemorySwapMax", -1);
		else if (limit > 0)
			err = put_limit(m, p, "MemorySwapMax", swap >= limit ? swap - limit : 0);
	}
	return err;
}

static int append_quota(sd_bus_message *m, struct systemd_props *p, long long quota,
			long long period)
{
	uint64_t per_second = UINT64_MAX;
	int err = 0;

	if (period > 0 && p->quota_period)
		err = put(m, p, "CPUQuotaPeriodUSec", (uint64_t)period);
	if (period <= 0)
		period = PERIOD_DEFAULT_US;
	/* Rounded up as runc does: the exact figure is in the cgroup's file. */
	if (quota > 0)
		per_second = (uint64_t)((__uint128_t)quota * 1000000 / (uint64_t)period +
					QUOTA_STEP_US - 1) /
			     QUOTA_STEP_US * QUOTA_STEP_US;
	return err < 0 ? err : put(m, p, "CPUQuotaPerSecUSec", per_second);
}

/* One line of it, whatever the configuration has in its strings. */
__attribute__((format(printf, 2, 3))) static void refuse(char *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, CGROUP_ERROR_MAX, fmt, ap);
	va_end(ap);
	for (char *c = why; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
}

/* "0-3,7" as systemd's bit set. */
static int append_cpuset(sd_bus_message *m, struct systemd_props *p, const char *name,
			 const char *list)
{
	uint8_t bits[SYSTEMD_CPUS_MAX / 8] = {0};
	size_t used = 0;
	char *end;
	int err;

	for (const char *s = list; *s; s = end + (*end == ',')) {
		unsigned long from = strtoul(s, &end, 10), to = from;

		if (end != s && *end == '-')
			to = strtoul(end + 1, &end, 10);
		if (end == s || (*end && *end != ',') || from > to || to >= SYSTEMD_CPUS_MAX) {
			refuse(p->why, "linux.resources.cpu: \"%.100s\" is no list of numbers",
			       list);
			return -EINVAL;
		}
		for (unsigned long c = from; c <= to; c++)
			bits[c / 8] |= (uint8_t)(1u << (c % 8));
		used = MAX(used, to / 8 + 1);
	}
	p->count++;
	err = sd.bus_message_open_container(m, 'r', "sv");
	if (err >= 0)
		err = sd.bus_message_append(m, "s", name);
	if (err >= 0)
		err = sd.bus_message_open_container(m, 'v', "ay");
	if (err >= 0)
		err = sd.bus_message_append_array(m, 'y', bits, used);
	if (err >= 0)
		err = sd.bus_message_close_container(m);
	return err < 0 ? err : sd.bus_message_close_container(m);
}

static int append_cpu(sd_bus_message *m, struct systemd_props *p, const json_t *cpu)
{
	const char *cpus = json_string_value(json_object_get(cpu, "cpus")),
		   *mems = json_string_value(json_object_get(cpu, "mems"));
	long long shares = 0, quota = 0, period = 0;
	int err = 0;

	number(cpu, "shares", &shares);
	number(cpu, "quota", &quota);
	number(cpu, "period", &period);
	if (shares > 0)
		err = p->v2 ? put(m, p, "CPUWeight", cgroup_weight_of_shares(shares))
			    : put(m, p, "CPUShares", (uint64_t)shares);
	if (err >= 0 && (quota || period))
		err = append_quota(m, p, quota, period);
	if (err >= 0 && p->v2 && p->cpuset && cpus && *cpus)
		err = append_cpuset(m, p, "AllowedCPUs", cpus);
	if (err >= 0 && p->v2 && p->cpuset && mems && *mems)
		err = append_cpuset(m, p, "AllowedMemoryNodes", mems);
	return err;
}

/* "max" or a number; anything else is left to the file, whose error is the kernel's. */
static bool unified_number(const char *text, long long *ret)
{
	char *end;

	if (strcmp(text, "max") == 0) {
		*ret = -1;
		return true;
	}
	errno = 0;
	*ret = strtoll(text, &end, 10);
	return isdigit((unsigned char)*text) && !*end && !errno;
}

static int append_unified_quota(sd_bus_message *m, struct systemd_props *p, const char *text)
{
	auto_free char *first = strndup(text, strcspn(text, " "));
	const char *second = text + strcspn(text, " ");
	long long quota, period = 0;

	if (!first)
		return -ENOMEM;
	second += strspn(second, " ");
	if (!unified_number(first, &quota) ||
	    (*second && (!unified_number(second, &period) || period <= 0)))
		return 0;
	return append_quota(m, p, quota, period ? period : PERIOD_DEFAULT_US);
}

/* One file of v2's, as the property that systemd would write there itself on its next occasion; what it does not know it leaves alone. */
static int append_unified(sd_bus_message *m, struct systemd_props *p, const char *file,
			  const char *text)
{
	static const char *const numbers[][2] = {
		{"cpu.weight", "CPUWeight"}, {"memory.min", "MemoryMin"},
		{"memory.low", "MemoryLow"}, {"memory.high", "MemoryHigh"},
		{"memory.max", "MemoryMax"}, {"memory.swap.max", "MemorySwapMax"},
		{"pids.max", "TasksMax"},
	};
	long long v;

	if (strcmp(file, "cpu.max") == 0)
		return append_unified_quota(m, p, text);
	if (strcmp(file, "cpuset.cpus") == 0)
		return p->cpuset && *text ? append_cpuset(m, p, "AllowedCPUs", text) : 0;
	if (strcmp(file, "cpuset.mems") == 0)
		return p->cpuset && *text ? append_cpuset(m, p, "AllowedMemoryNodes", text) : 0;
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (strcmp(file, numbers[i][0]) == 0 && unified_number(text, &v))
			return put_limit(m, p, numbers[i][1], v);
	return 0;
}

int systemd_append_resources(sd_bus_message *m, struct systemd_props *p, const json_t *resources)
{
	const char *file;
	json_t *text;
	long long v;
	int err = append_memory(m, p, json_object_get(resources, "memory"));

	if (err >= 0)
		err = append_cpu(m, p, json_object_get(resources, "cpu"));
	if (err >= 0 && !p->v2 && number(json_object_get(resources, "blockIO"), "weight", &v) &&
	    v > 0)
		err = put(m, p, "BlockIOWeight", (uint64_t)v);
	if (err >= 0 && number(json_object_get(resources, "pids"), "limit", &v) && v)
		err = put_limit(m, p, "TasksMax", cgroup_host_pids(v));
	/* Last: as in the files, they win. */
	json_object_foreach((json_t *)json_object_get(resources, "unified"), file, text)
	{
		if (err >= 0 && p->v2 && json_is_string(text))
			err = append_unified(m, p, file, json_string_value(text));
	}
	return err < 0 ? err : 0;
}

/* ---- annotations ---- */

/* One 'string' or "string" at *at, with backslashes; the malloc'd text, NULL if there is none. */
static char *take_string(const char **at)
{
	const char *s = *at;
	char quote = *s, *text = malloc(strlen(s) + 1), *out = text;

	if (!text || (quote != '\'' && quote != '"')) {
		free(text);
		return NULL;
	}
	for (s++; *s && *s != quote; s++) {
		if (*s == '\\' && s[1])
			s++;
		*out++ = *s;
	}
	*out = '\0';
	if (*s != quote) {
		free(text);
		return NULL;
	}
	*at = s + 1;
	return text;
}

static int append_strings(sd_bus_message *m, const char *s)
{
	int err = sd.bus_message_open_container(m, 'v', "as"), count = 0;

	if (err >= 0)
		err = sd.bus_message_open_container(m, 'a', "s");
	for (s++; err >= 0 && *s && *s != ']' && ++count <= SYSTEMD_LIST_MAX;) {
		auto_free char *text = NULL;

		s += strspn(s, " ");
		text = take_string(&s);
		err = text ? sd.bus_message_append(m, "s", text) : -EINVAL;
		s += strspn(s, " ,");
	}
	if (err >= 0 && strcmp(s, "]") != 0)
		err = -EINVAL;
	if (err >= 0)
		err = sd.bus_message_close_container(m);
	return err < 0 ? err : sd.bus_message_close_container(m);
}

/* "uint64 5", or "5", which is an int32. `scale`: of what is given in seconds. */
static int append_number(sd_bus_message *m, const char *s, uint64_t scale)
{
	static const struct number_type {
		const char *name, *type;
		int64_t min;
		uint64_t max;
	} types[] = {
		{"int32 ", "i", INT32_MIN, INT32_MAX}, {"byte ", "y", 0, UINT8_MAX},
		{"int16 ", "n", INT16_MIN, INT16_MAX}, {"uint16 ", "q", 0, UINT16_MAX},
		{"uint32 ", "u", 0, UINT32_MAX},       {"int64 ", "x", INT64_MIN, INT64_MAX},
		{"uint64 ", "t", 0, UINT64_MAX},
	};
	const struct number_type *t = &types[0];
	bool negative;
	uint64_t v;
	char *end;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		if (strncmp(s, types[i].name, strlen(types[i].name)) == 0) {
			t = &types[i];
			s += strlen(t->name);
			break;
		}
	s += strspn(s, " ");
	negative = *s == '-';
	errno = 0;
	v = negative ? (uint64_t)strtoll(s, &end, 0) : strtoull(s, &end, 0);
	if (errno || end == s || *end)
		return -EINVAL;
	if (negative ? (int64_t)v < t->min : v > t->max)
		return -ERANGE;
	if (scale > 1)
		return (negative && v) || v > UINT64_MAX / scale
			       ? -ERANGE
			       : sd.bus_message_append(m, "v", "t", v * scale);
	/* What is narrower than an int is passed as one. */
	if (*t->type == 't' || *t->type == 'x')
		return sd.bus_message_append(m, "v", t->type, v);
	return sd.bus_message_append(m, "v", t->type, (uint32_t)v);
}

static int append_value(sd_bus_message *m, const char *s, uint64_t scale)
{
	auto_free char *text = NULL;

	if (strcmp(s, "true") == 0 || strcmp(s, "false") == 0)
		return sd.bus_message_append(m, "v", "b", *s == 't');
	if (*s == '[')
		return append_strings(m, s);
	if (*s != '\'' && *s != '"')
		return append_number(m, s, scale);
	text = take_string(&s);
	return text && !*s ? sd.bus_message_append(m, "v", "s", text) : -EINVAL;
}

/* Names are letters, as systemd's all are. */
static bool name_valid(const char *name)
{
	for (const char *p = name; *p; p++)
		if (!isalpha((unsigned char)*p))
			return false;
	return *name && strlen(name) < 64;
}

int systemd_append_annotations(sd_bus_message *m, const json_t *annotations, char *why)
{
	static const char prefix[] = "org.systemd.property.";
	const char *key;
	int err = 0;
	json_t *v;

	json_object_foreach((json_t *)annotations, key, v)
	{
		const char *name = key + strlen(prefix), *text = json_string_value(v);
		char usec[80];
		size_t len;

		if (strncmp(key, prefix, strlen(prefix)) != 0 || !*name)
			continue;
		snprintf(usec, sizeof(usec), "%.70s", name);
		len = strlen(usec);
		/* Documented in seconds, kept in microseconds: "TimeoutStopSec". */
		if (len > 3 && strcmp(usec + len - 3, "Sec") == 0 && usec[len - 4] != 'U')
			snprintf(usec + len - 3, 5, "USec");
		err = name_valid(name) && text ? sd.bus_message_open_container(m, 'r', "sv")
					       : -EINVAL;
		if (err >= 0)
			err = sd.bus_message_append(m, "s", usec);
		if (err >= 0)
			err = append_value(m, text, strcmp(usec, name) != 0 ? 1000000 : 1);
		if (err >= 0)
			err = sd.bus_message_close_container(m);
		if (err < 0) {
			refuse(why,
			       "annotation %.100s=%.60s: not a property of systemd's with a "
			       "value such as \"uint64 5\", 'text', true or ['a', 'b']",
			       key, text ? text : "");
			return err;
		}
	}
	return 0;
}
