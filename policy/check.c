/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <string.h>

#include "base/parse.h"
#include "policy/decide.h"
#include "policy/load_internal.h"

#define HOST_MAX    253 /* RFC 1035 section 2.3.4, without the root's dot */
#define LABEL_MAX   63
#define PATTERN_MAX 512

static bool is_alnum(uint8_t c) {
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool is_digit(uint8_t c) {
	return c >= '0' && c <= '9';
}

bool name_valid(struct slice text) {
	if (text.len == 0 || text.len > 64 || !is_alnum(text.data[0]))
		return false;
	for (size_t i = 0; i < text.len; i++)
		if (!is_alnum(text.data[i]) && strchr("._-", text.data[i]) == NULL)
			return false;
	return true;
}

bool path_valid(struct slice text) {
	struct slice rest = text;

	if (text.len < 2 || text.len > 4000 || text.data[0] != '/')
		return false;
	rest = slice_of(text.data + 1, text.len - 1);
	for (;;) {
		struct slice part = rest;
		struct slice tail = SLICE_NONE;
		bool more = slice_cut(rest, '/', &part, &tail);
		if (part.len == 0 || slice_is(part, ".") || slice_is(part, ".."))
			return false;
		if (!more)
			return true;
		rest = tail;
	}
}

bool pin_valid(struct slice text) {
	static const char head[] = "sha256//";
	size_t n = sizeof head - 1;

	/* 32 bytes: 43 digits and one '='; the last digit carries 4 bits, the other 2 are zero */
	if (!slice_starts(text, head) || text.len != n + 44 || text.data[text.len - 1] != '=')
		return false;
	for (size_t i = n; i + 1 < text.len; i++)
		if (!is_alnum(text.data[i]) && text.data[i] != '+' && text.data[i] != '/')
			return false;
	return strchr("AEIMQUYcgkosw048", text.data[text.len - 2]) != NULL;
}

static bool is_address(int family, struct slice text) {
	char copy[INET6_ADDRSTRLEN];
	struct in6_addr address;

	if (text.len == 0 || text.len >= sizeof copy || memchr(text.data, 0, text.len) != NULL)
		return false;
	memcpy(copy, text.data, text.len);
	copy[text.len] = 0;
	return inet_pton(family, copy, &address) == 1;
}

static bool label_valid(struct slice label) {
	if (label.len == 0 || label.len > LABEL_MAX || label.data[0] == '-' ||
		label.data[label.len - 1] == '-')
		return false;
	for (size_t i = 0; i < label.len; i++)
		if (!is_alnum(label.data[i]) && label.data[i] != '-')
			return false;
	return true;
}

/* A host name (RFC 1123 section 2.1), or four numbers: "127.1" and "0x7f.1" are addresses to a
 * resolver and look like names. */
static bool host_valid(struct slice host, bool ipv6) {
	struct slice rest = host;
	struct slice label;

	if (ipv6)
		return is_address(AF_INET6, host);
	if (host.len == 0 || host.len > HOST_MAX)
		return false;
	while (slice_cut(rest, '.', &label, &rest))
		if (!label_valid(label))
			return false;
	return label_valid(rest) && (!is_digit(rest.data[0]) || is_address(AF_INET, host));
}

/* host[:port], or [ipv6][:port] */
static int split_authority(struct slice a, struct url *ret, struct cede_error *reterr) {
	struct slice port = SLICE_NONE;
	bool ipv6 = a.len > 0 && a.data[0] == '[';
	uint64_t number = 443;

	if (ipv6) {
		struct slice tail;
		if (!slice_cut(slice_of(a.data + 1, a.len - 1), ']', &ret->host, &tail) ||
			(tail.len > 0 && tail.data[0] != ':'))
			return CEDE_FAIL(
				reterr, CEDE_ERR_INPUT, "an IPv6 address in brackets expected");
		port = tail.len > 0 ? slice_of(tail.data + 1, tail.len - 1) : SLICE_NONE;
		if (tail.len == 1)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a port number expected behind ':'");
	} else {
		ret->host = a;
		if (slice_cut(a, ':', &ret->host, &port) && port.len == 0)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a port number expected behind ':'");
	}
	if (!host_valid(ret->host, ipv6))
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "a host name or address expected");
	if (port.len > 0 && parse_u64(port, 1, 65535, &number, NULL) < 0)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "port: 1 to 65535 expected");
	ret->port = (uint16_t)number;
	return CEDE_OK;
}

/* "" or "a/b/": one slash at the end is fine. */
static bool parts_valid(struct slice path) {
	struct slice rest = path;
	struct slice part;

	while (slice_cut(rest, '/', &part, &rest))
		if (part.len == 0 || slice_is(part, ".") || slice_is(part, ".."))
			return false;
	return !slice_is(rest, ".") && !slice_is(rest, "..");
}

int url_parse(struct slice text, struct url *ret, struct cede_error *reterr) {
	struct slice authority, path = SLICE_NONE;

	if (!slice_starts(text, "https://"))
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "https:// expected: nothing else is allowed");
	struct slice rest = slice_of(text.data + 8, text.len - 8);
	authority = rest;
	(void)slice_cut(rest, '/', &authority, &path);
	if (authority.len > 0 && memchr(authority.data, '@', authority.len) != NULL)
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "user names and passwords are not allowed");
	CEDE_TRY(split_authority(authority, ret, reterr));
	for (size_t i = 0; i < path.len; i++)
		if (!is_alnum(path.data[i]) && strchr("._-~/", path.data[i]) == NULL)
			return CEDE_FAIL(reterr, CEDE_ERR_INPUT,
				"the path may have A-Z a-z 0-9 . _ - ~ and / only (no query, no fragment)");
	if (!parts_valid(path))
		return CEDE_FAIL(
			reterr, CEDE_ERR_INPUT, "the path may not have \"//\", \".\" or \"..\"");
	return CEDE_OK;
}

static const char *part_wrong(struct slice part) {
	if (part.len == 0)
		return "no slash at either end and no \"//\": patterns are relative to the source";
	if (slice_is(part, ".") || slice_is(part, ".."))
		return "\".\" and \"..\" match nothing: patterns are relative to the source";
	if (slice_is(part, "**"))
		return NULL;
	for (size_t i = 0; i < part.len; i++) {
		if (part.data[i] == '\\') {
			if (++i == part.len)
				return "a backslash with nothing behind it";
			continue;
		}
		if (part.data[i] == '*' && i + 1 < part.len && part.data[i + 1] == '*')
			return "\"**\" must stand alone between slashes (\"**/*.jpg\")";
		if (part.data[i] == '[' && (i = glob_class_end(part, i + 1)) == 0)
			return "\"[\" without its \"]\"";
	}
	return NULL;
}

const char *pattern_wrong(struct slice text) {
	struct slice rest = text;
	struct slice part;

	if (text.len > PATTERN_MAX)
		return "longer than 512 bytes";
	while (slice_cut(rest, '/', &part, &rest)) {
		const char *wrong = part_wrong(part);
		if (wrong != NULL)
			return wrong;
	}
	return part_wrong(rest);
}

/* ---- across keys */

static struct yaml_node at(const struct policy_where *where) {
	return (struct yaml_node){.line = where->line, .column = where->column};
}

static bool is_below(const char *path, const char *of) {
	size_t n = strlen(of);

	return strncmp(path, of, n) == 0 && (path[n] == 0 || path[n] == '/');
}

static void check_pair(
	struct loader *l, const struct policy_source *a, const struct policy_source *b) {
	struct yaml_node node = at(&b->where);

	if (a->name != NULL && b->name != NULL && strcmp(a->name, b->name) == 0)
		yaml_mistake(l->y, &node, "a second source has the name %s (first in line %u)",
			b->name, a->where.line);
	if (a->path != NULL && b->path != NULL &&
		(is_below(a->path, b->path) || is_below(b->path, a->path)))
		yaml_mistake(l->y, &node,
			"its path overlaps that of the source in line %u: a file would belong to both",
			a->where.line);
}

static bool has_source(const struct policy *p, const char *name) {
	for (size_t i = 0; i < p->source_count; i++)
		if (p->sources[i].name != NULL && strcmp(p->sources[i].name, name) == 0)
			return true;
	return false;
}

static void check_hold(struct loader *l, size_t number) {
	const struct policy *p = l->policy;
	const struct policy_hold *h = &p->holds[number];
	const struct yaml_node *names = yaml_get(l->y, l->hold_nodes[number], "sources", false);

	for (const struct yaml_node *i = names != NULL ? names->first : NULL; i != NULL; i = i->next)
		if (i->kind == YAML_SCALAR && !has_source(p, i->text))
			yaml_mistake(l->y, i, "sources: there is no source \"%.60s\"", i->text);
	for (size_t i = 0; i < number; i++)
		if (h->id != NULL && p->holds[i].id != NULL && strcmp(h->id, p->holds[i].id) == 0) {
			struct yaml_node node = at(&h->where);
			yaml_mistake(l->y, &node, "a second hold has the id %s (first in line %u)",
				h->id, p->holds[i].where.line);
		}
}

void policy_check(struct loader *l) {
	struct policy *p = l->policy;

	for (size_t i = 0; i < p->source_count; i++) {
		const struct yaml_node *node = l->destination_of[i];
		size_t d = 0;
		if (node == NULL || node->kind != YAML_SCALAR)
			continue;
		while (d < p->destination_count &&
			(p->destinations[d].name == NULL ||
				strcmp(p->destinations[d].name, node->text) != 0))
			d++;
		if (d == p->destination_count)
			yaml_mistake(l->y, node, "destination: there is no destination \"%.60s\"",
				node->text);
		else
			p->sources[i].destination = d;
	}
	for (size_t i = 0; i < p->source_count; i++)
		for (size_t k = 0; k < i; k++)
			check_pair(l, &p->sources[k], &p->sources[i]);
	for (size_t i = 0; i < p->hold_count; i++)
		check_hold(l, i);
}
