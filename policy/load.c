/* SPDX-License-Identifier: Apache-2.0
 * policy.yaml -> struct policy. Each key once, in the order of the reference (docs/policy.md). */
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/parse.h"
#include "base/yaml.h"
#include "certs/seal.h"
#include "policy/load_internal.h"

#define CLASSIFICATION_MAX 64 /* bytes */
#define LIST_MAX           64 /* in a list that has no limit of its own */

static const char *const top_keys[] = {"version", "id", "serial", "expires", "destinations",
	"sources", "unmatched", "holds", "guard", "sandbox", "!below_requirement", NULL};
static const char *const destination_keys[] = {"url", "ca", "pins", "addresses", "seal_to",
	"receipts", "bundle_size", "bandwidth", "!suites", "!dialect", NULL};
static const char *const bandwidth_keys[] = {"limit", "windows", NULL};
static const char *const window_keys[] = {"days", "from", "to", "limit", NULL};
static const char *const source_keys[] = {"name", "path", "match", "ignore", "destination", "quiet",
	"group", "max_age", "at_max_age", "max_size", "wipe", "classification", "vault", "!guard",
	NULL};
static const char *const group_keys[] = {"by", "require", "wait", NULL};
static const char *const wipe_keys[] = {
	"after", "method", "require", "below_requirement", "verify", "scrub_within", NULL};
static const char *const vault_keys[] = {"epoch", "keys", "leftovers", NULL};
static const char *const hold_keys[] = {"id", "sources", "match", "from", "to", "until", NULL};
static const char *const unmatched_keys[] = {"max_age", "at_max_age", NULL};

/* Counts of the list, and a mistake when it is too long. */
static size_t list_length(struct yaml *y, const struct yaml_node *list, size_t most) {
	size_t n = 0;

	if (list == NULL)
		return 0;
	for (const struct yaml_node *i = list->first; i != NULL; i = i->next)
		n++;
	if (n > most) {
		yaml_mistake(y, list, "%s: at most %zu entries expected, not %zu", list->key->text,
			most, n);
		return 0;
	}
	return n;
}

static char *copy(struct loader *l, const char *text) {
	char *s = text == NULL ? NULL : strdup(text);

	l->no_memory = l->no_memory || (text != NULL && s == NULL);
	return s;
}

static void *array(struct loader *l, size_t n, size_t size) {
	void *a = calloc(n == 0 ? 1 : n, size);

	l->no_memory = l->no_memory || a == NULL;
	return a;
}

/* A list of texts; entries that are none are mistakes and left out. */
static void load_texts(struct loader *l, const struct yaml_node *map, const char *key,
	bool required, size_t most, char ***ret, size_t *ret_count) {
	const struct yaml_node *list = yaml_get_list(l->y, map, key, required);
	size_t n = list_length(l->y, list, most);

	if (list != NULL && required && list->first == NULL)
		yaml_mistake(l->y, list, "%s: at least one entry expected", key);
	*ret = array(l, n, sizeof **ret);
	for (const struct yaml_node *i = n > 0 && *ret != NULL ? list->first : NULL; i != NULL;
		i = i->next) {
		const char *text = yaml_text(l->y, i);
		if (text != NULL && ((*ret)[*ret_count] = copy(l, text)) != NULL)
			(*ret_count)++;
	}
}

/* "https://host[:port]/path/" */
static void load_url(struct loader *l, const struct yaml_node *map, struct policy_destination *d) {
	const char *text = yaml_get_text(l->y, map, "url", true);
	const struct yaml_node *node = yaml_get(l->y, map, "url", false);
	struct url url;
	struct cede_error err;

	if (text == NULL)
		return;
	if (url_parse(slice_str(text), &url, &err) < 0) {
		yaml_mistake(l->y, node, "url: %s", err.text);
		return;
	}
	size_t len = strlen(text);
	if (len + (text[len - 1] != '/') > ADDRESS_URL_MAX) {
		yaml_mistake(l->y, node, "url: at most %d bytes expected", ADDRESS_URL_MAX);
		return;
	}
	d->url = array(l, len + 2, 1);
	if (d->url != NULL) {
		memcpy(d->url, text, len);
		if (text[len - 1] != '/')
			d->url[len] = '/';
	}
	d->host = strndup((const char *)url.host.data, url.host.len);
	l->no_memory = l->no_memory || d->host == NULL;
	d->port = url.port;
}

static void load_addresses(
	struct loader *l, const struct yaml_node *map, struct policy_destination *d) {
	const struct yaml_node *list = yaml_get_list(l->y, map, "addresses", false);
	size_t n = list_length(l->y, list, LIST_MAX);

	d->addresses = array(l, n, sizeof *d->addresses);
	for (const struct yaml_node *i = n > 0 && d->addresses != NULL ? list->first : NULL;
		i != NULL; i = i->next) {
		const char *text = yaml_text(l->y, i);
		struct cede_error err;
		if (text == NULL)
			continue;
		if (address_prefix_parse(slice_str(text), &d->addresses[d->address_count], &err) < 0)
			yaml_mistake(l->y, i, "addresses: %s", err.text);
		else
			d->address_count++;
	}
	if (list != NULL && list->first == NULL)
		yaml_mistake(l->y, list, "addresses: at least one entry expected, or no key at all");
}

static void load_rate(struct loader *l, const struct yaml_node *map, const char *key, bool required,
	uint64_t *ret) {
	const char *text = yaml_get_text(l->y, map, key, required);
	const struct yaml_node *node = yaml_get(l->y, map, key, false);
	struct cede_error err;

	if (text == NULL)
		return;
	if (parse_rate(slice_str(text), ret, &err) < 0)
		yaml_mistake(l->y, node, "%s: %s", key, err.text);
	else if (*ret < POLICY_RATE_MIN)
		yaml_mistake(l->y, node, "%s: at least 32KiB/s expected", key);
}

/* false: it is not there, or a mistake that was told. */
static bool load_minute(
	struct loader *l, const struct yaml_node *map, const char *key, uint32_t *ret) {
	const char *text = yaml_get_text(l->y, map, key, true);
	struct cede_error err;

	if (text == NULL)
		return false;
	if (parse_minute(slice_str(text), ret, &err) == CEDE_OK)
		return true;
	yaml_mistake(l->y, yaml_get(l->y, map, key, false), "%s: %s", key, err.text);
	return false;
}

static void load_days(struct loader *l, const struct yaml_node *map, struct policy_window *w) {
	static const char *const names[] = {"mon", "tue", "wed", "thu", "fri", "sat", "sun"};
	const struct yaml_node *list = yaml_get_list(l->y, map, "days", false);

	if (list == NULL)
		w->days = 0x7f;
	if (list != NULL && list->first == NULL)
		yaml_mistake(l->y, list, "days: at least one entry expected, or no key at all");
	for (const struct yaml_node *i = list != NULL ? list->first : NULL; i != NULL; i = i->next) {
		const char *text = yaml_text(l->y, i);
		size_t day = 0;
		while (text != NULL && day < ARRAY_LENGTH(names) && strcmp(text, names[day]) != 0)
			day++;
		if (text != NULL && day == ARRAY_LENGTH(names))
			yaml_mistake(l->y, i, "days: mon, tue, wed, thu, fri, sat or sun expected");
		else
			w->days |= (uint8_t)(1U << day);
	}
}

static void load_window(struct loader *l, const struct yaml_node *node, struct policy_window *w) {
	if (node->kind != YAML_MAP) {
		yaml_mistake(l->y, node, "a window: keys with values expected");
		return;
	}
	load_days(l, node, w);
	bool from = load_minute(l, node, "from", &w->from_m);
	bool to = load_minute(l, node, "to", &w->to_m);
	if (from && to && w->to_m <= w->from_m)
		yaml_mistake(l->y, yaml_get(l->y, node, "to", false),
			"to must be later than from (a night takes two windows: to 24:00, from 00:00)");
	load_rate(l, node, "limit", true, &w->rate);
	yaml_only(l->y, node, window_keys);
}

/* "200Mbit/s", or {limit: ..., windows: [...]} */
static void load_bandwidth(
	struct loader *l, const struct yaml_node *map, struct policy_destination *d) {
	const struct yaml_node *node = yaml_get(l->y, map, "bandwidth", false);

	if (node == NULL)
		return;
	if (node->kind == YAML_SCALAR) {
		load_rate(l, map, "bandwidth", false, &d->rate);
		return;
	}
	node = yaml_get_map(l->y, map, "bandwidth", false);
	if (node == NULL)
		return;
	load_rate(l, node, "limit", false, &d->rate);
	const struct yaml_node *list = yaml_get_list(l->y, node, "windows", false);
	size_t n = list_length(l->y, list, POLICY_WINDOWS_MAX);
	d->windows = array(l, n, sizeof *d->windows);
	for (const struct yaml_node *i = n > 0 && d->windows != NULL ? list->first : NULL;
		i != NULL; i = i->next)
		load_window(l, i, &d->windows[d->window_count++]);
	yaml_only(l->y, node, bandwidth_keys);
}

static void load_destination(
	struct loader *l, const struct yaml_node *node, struct policy_destination *d) {
	d->where = (struct policy_where){node->key->line, node->key->column};
	d->name = copy(l, node->key->text);
	if (!name_valid(slice_str(node->key->text)))
		yaml_mistake(l->y, node->key,
			"destination name: 1 to 64 of A-Z a-z 0-9 . _ - expected, the first a letter or digit");
	if (node->kind != YAML_MAP) {
		yaml_mistake(l->y, node, "destination %.60s: keys with values expected",
			node->key->text);
		return;
	}
	load_url(l, node, d);
	d->ca = copy(l, yaml_get_text(l->y, node, "ca", true));
	load_texts(l, node, "pins", false, LIST_MAX, &d->pins, &d->pin_count);
	const struct yaml_node *pins = yaml_get(l->y, node, "pins", false);
	if (pins != NULL && pins->kind == YAML_LIST && pins->first == NULL)
		yaml_mistake(l->y, pins, "pins: at least one entry expected, or no key at all");
	for (const struct yaml_node *i = pins != NULL ? pins->first : NULL; i != NULL; i = i->next)
		if (i->kind == YAML_SCALAR && !pin_valid(slice_str(i->text)))
			yaml_mistake(l->y, i,
				"pins: \"sha256//\" and the base64 of 32 bytes expected (SHA-256 of the server's public key)");
	load_addresses(l, node, d);
	load_texts(l, node, "seal_to", true, SEAL_TO_MAX, &d->seal_to, &d->seal_to_count);
	load_texts(l, node, "receipts", true, LIST_MAX, &d->receipts, &d->receipt_count);
	d->bundle_size = POLICY_BUNDLE_DEFAULT;
	if (yaml_get_size(l->y, node, "bundle_size", false, &d->bundle_size) &&
		(d->bundle_size < POLICY_BUNDLE_MIN || d->bundle_size > POLICY_BUNDLE_MAX))
		yaml_mistake(l->y, yaml_get(l->y, node, "bundle_size", false),
			"bundle_size: 64KiB to 48MiB expected");
	load_bandwidth(l, node, d);
	yaml_only(l->y, node, destination_keys);
}

static void load_destinations(struct loader *l, const struct yaml_node *root) {
	const struct yaml_node *map = yaml_get_map(l->y, root, "destinations", true);
	size_t n = list_length(l->y, map, POLICY_DESTINATIONS_MAX);

	if (map != NULL && map->first == NULL)
		yaml_mistake(l->y, map, "destinations: at least one expected");
	l->policy->destinations = array(l, n, sizeof *l->policy->destinations);
	if (n == 0 || l->policy->destinations == NULL)
		return;
	for (const struct yaml_node *i = map->first; i != NULL; i = i->next)
		load_destination(l, i, &l->policy->destinations[l->policy->destination_count++]);
}

/* ---- sources */

static void load_patterns(struct loader *l, const struct yaml_node *map, const char *key,
	const char *const *preset, struct policy_pattern **ret, size_t *ret_count) {
	const struct yaml_node *list = yaml_get_list(l->y, map, key, preset == NULL);
	size_t n = list_length(l->y, list, LIST_MAX);

	if (list != NULL && preset == NULL && list->first == NULL)
		yaml_mistake(l->y, list, "%s: at least one pattern expected", key);
	*ret = array(l, n + 4, sizeof **ret);
	if (*ret == NULL)
		return;
	for (const struct yaml_node *i = n > 0 ? list->first : NULL; i != NULL; i = i->next) {
		const char *text = yaml_text(l->y, i);
		if (text == NULL)
			continue;
		const char *wrong = pattern_wrong(slice_str(text));
		if (wrong != NULL)
			yaml_mistake(l->y, i, "%s: %s", key, wrong);
		(*ret)[*ret_count].text = copy(l, text);
		(*ret)[*ret_count].where = (struct policy_where){i->line, i->column};
		*ret_count += (*ret)[*ret_count].text != NULL;
	}
	for (size_t i = 0; list == NULL && preset != NULL && preset[i] != NULL; i++) {
		(*ret)[*ret_count].text = copy(l, preset[i]);
		(*ret)[*ret_count].where = (struct policy_where){map->line, map->column};
		*ret_count += (*ret)[*ret_count].text != NULL;
	}
}

static void check_endings(struct loader *l, const struct yaml_node *list) {
	for (const struct yaml_node *i = list != NULL ? list->first : NULL; i != NULL; i = i->next) {
		if (i->kind != YAML_SCALAR)
			continue;
		if (i->text[0] != '.' || i->text[1] == 0 || strpbrk(i->text + 1, "./") != NULL)
			yaml_mistake(l->y, i,
				"require: an ending with its dot, and no other, expected (.jpg)");
		for (const struct yaml_node *k = list->first; k != i; k = k->next)
			if (k->kind == YAML_SCALAR && strcmp(k->text, i->text) == 0)
				yaml_mistake(
					l->y, i, "require: \"%.32s\" stands here twice", i->text);
	}
}

static void load_group(struct loader *l, const struct yaml_node *map, struct policy_source *s) {
	static const char *const by[] = {"stem", NULL};
	const struct yaml_node *group = yaml_get_map(l->y, map, "group", false);
	size_t which;

	s->group_wait_ns = 30 * NS_PER_SECOND;
	if (group == NULL)
		return;
	s->grouped = true;
	(void)yaml_get_word(l->y, group, "by", true, by, &which);
	load_texts(l, group, "require", true, LIST_MAX, &s->group_require, &s->group_require_count);
	const struct yaml_node *list = yaml_get(l->y, group, "require", false);
	check_endings(l, list);
	(void)yaml_get_duration(l->y, group, "wait", false, &s->group_wait_ns);
	yaml_only(l->y, group, group_keys);
}

/* A duration, or "never". */
static void load_scrub(struct loader *l, const struct yaml_node *wipe, struct policy_source *s) {
	const struct yaml_node *node = yaml_get(l->y, wipe, "scrub_within", false);

	if (node != NULL && node->kind == YAML_SCALAR && strcmp(node->text, "never") == 0) {
		(void)yaml_get_text(l->y, wipe, "scrub_within", false);
		s->wipe_scrub_ns = 0;
		return;
	}
	if (yaml_get_duration(l->y, wipe, "scrub_within", false, &s->wipe_scrub_ns) &&
		s->wipe_scrub_ns < POLICY_SCRUB_MIN_S * NS_PER_SECOND)
		yaml_mistake(l->y, node, "scrub_within: at least 1s expected, or never");
}

static void load_wipe(struct loader *l, const struct yaml_node *map, struct policy_source *s) {
	static const char *const after[] = {"receipt", "seal", NULL};
	static const char *const method[] = {"overwrite", "!unlink", "!vault", NULL};
	static const char *const require[] = {
		"none", "overwritten", "watched", "crypto-erased", NULL};
	static const char *const below[] = {"wipe-and-report", "keep-and-report", NULL};
	static const char *const verify[] = {"none", "sample", "all", NULL};
	const struct yaml_node *wipe = yaml_get_map(l->y, map, "wipe", false);
	size_t which;

	s->wipe_require = WIPE_REQUIRE_OVERWRITTEN;
	s->wipe_verify = WIPE_VERIFY_SAMPLE;
	s->wipe_scrub_ns = POLICY_SCRUB_DEFAULT_S * NS_PER_SECOND;
	if (wipe == NULL)
		return;
	if (yaml_get_word(l->y, wipe, "after", false, after, &which))
		s->wipe_after_seal = which == 1;
	(void)yaml_get_word(l->y, wipe, "method", false, method, &which);
	if (yaml_get_word(l->y, wipe, "require", false, require, &which))
		s->wipe_require = (enum wipe_require)which;
	if (yaml_get_word(l->y, wipe, "below_requirement", false, below, &which))
		s->wipe_keep_below = which == 1;
	if (yaml_get_word(l->y, wipe, "verify", false, verify, &which))
		s->wipe_verify = (enum wipe_verify)which;
	load_scrub(l, wipe, s);
	yaml_only(l->y, wipe, wipe_keys);
}

/* Each epoch's directory has a key of its own. */
static void load_vault(struct loader *l, const struct yaml_node *map, struct policy_source *s) {
	static const char *const keys[] = {"wrapped", "memory", NULL};
	static const char *const leftovers[] = {"keep", "erase", NULL};
	const struct yaml_node *vault = yaml_get_map(l->y, map, "vault", false);
	size_t which;

	if (vault == NULL)
		return;
	if (yaml_get_duration(l->y, vault, "epoch", true, &s->vault_epoch_ns) &&
		(s->vault_epoch_ns < POLICY_EPOCH_MIN || s->vault_epoch_ns > POLICY_EPOCH_MAX))
		yaml_mistake(l->y, yaml_get(l->y, vault, "epoch", false), "epoch: 1s to 7d expected");
	if (yaml_get_word(l->y, vault, "keys", false, keys, &which))
		s->vault_keys_in_memory = which == 1;
	if (yaml_get_word(l->y, vault, "leftovers", false, leftovers, &which))
		s->vault_erases_leftovers = which == 1;
	yaml_only(l->y, vault, vault_keys);
}

static void load_ages(struct loader *l, const struct yaml_node *node, struct policy_source *s) {
	static const char *const at_max_age[] = {"hold", "seal", "destroy", NULL};
	size_t which;

	s->quiet_ns = 2 * NS_PER_SECOND;
	s->at_max_age = AT_MAX_AGE_SEAL;
	(void)yaml_get_duration(l->y, node, "quiet", false, &s->quiet_ns);
	if (yaml_get_duration(l->y, node, "max_age", true, &s->max_age_ns)) {
		if (s->max_age_ns <= s->quiet_ns)
			yaml_mistake(l->y, yaml_get(l->y, node, "max_age", false),
				"max_age must be longer than quiet: no file could be handed over in time");
	}
	if (yaml_get_word(l->y, node, "at_max_age", false, at_max_age, &which))
		s->at_max_age = (enum at_max_age)which;
}

static void load_source(struct loader *l, const struct yaml_node *node, struct policy_source *s) {
	static const char *const ignore[] = {"**/.*", "**/*.tmp", "**/*.part", NULL};
	const char *text;

	s->where = (struct policy_where){node->line, node->column};
	if (node->kind != YAML_MAP) {
		yaml_mistake(l->y, node, "a source: keys with values expected");
		return;
	}
	s->name = copy(l, text = yaml_get_text(l->y, node, "name", true));
	if (text != NULL && !name_valid(slice_str(text)))
		yaml_mistake(l->y, yaml_get(l->y, node, "name", false),
			"name: 1 to 64 of A-Z a-z 0-9 . _ - expected, the first a letter or digit");
	s->path = copy(l, text = yaml_get_text(l->y, node, "path", true));
	if (text != NULL && !path_valid(slice_str(text)))
		yaml_mistake(l->y, yaml_get(l->y, node, "path", false),
			"path: an absolute path without \"..\", \".\", \"//\" or a slash at its end expected");
	load_patterns(l, node, "match", NULL, &s->match, &s->match_count);
	load_patterns(l, node, "ignore", ignore, &s->ignore, &s->ignore_count);
	load_ages(l, node, s);
	s->max_size = POLICY_CAPTURE_MAX;
	if (yaml_get_size(l->y, node, "max_size", false, &s->max_size) &&
		(s->max_size == 0 || s->max_size > POLICY_CAPTURE_MAX))
		yaml_mistake(l->y, yaml_get(l->y, node, "max_size", false),
			"max_size: 1B to 1TiB expected");
	load_group(l, node, s);
	load_wipe(l, node, s);
	load_vault(l, node, s);
	text = yaml_get_text(l->y, node, "classification", false);
	if (text != NULL && strlen(text) > CLASSIFICATION_MAX)
		yaml_mistake(l->y, yaml_get(l->y, node, "classification", false),
			"classification: longer than %d bytes", CLASSIFICATION_MAX);
	s->classification = copy(l, text == NULL ? "" : text);
	l->destination_of[l->policy->source_count - 1] = yaml_get(l->y, node, "destination", true);
	(void)yaml_get_text(l->y, node, "destination", false);
	yaml_only(l->y, node, source_keys);
}

static void load_sources(struct loader *l, const struct yaml_node *root) {
	const struct yaml_node *list = yaml_get_list(l->y, root, "sources", true);
	size_t n = list_length(l->y, list, POLICY_SOURCES_MAX);

	if (list != NULL && list->first == NULL)
		yaml_mistake(l->y, list, "sources: at least one expected");
	l->policy->sources = array(l, n, sizeof *l->policy->sources);
	l->destination_of = array(l, n, sizeof(struct yaml_node *));
	if (n == 0 || l->policy->sources == NULL || l->destination_of == NULL)
		return;
	for (const struct yaml_node *i = list->first; i != NULL; i = i->next)
		load_source(l, i, &l->policy->sources[l->policy->source_count++]);
}

static void load_unmatched(struct loader *l, const struct yaml_node *root) {
	static const char *const at_max_age[] = {"hold", "!seal", "!destroy", NULL};
	const struct yaml_node *map = yaml_get_map(l->y, root, "unmatched", false);
	size_t which;

	l->policy->unmatched_max_age_ns = 24 * 3600 * NS_PER_SECOND;
	if (map == NULL)
		return;
	(void)yaml_get_duration(l->y, map, "max_age", false, &l->policy->unmatched_max_age_ns);
	(void)yaml_get_word(l->y, map, "at_max_age", false, at_max_age, &which);
	yaml_only(l->y, map, unmatched_keys);
}

/* ---- holds */

static void load_hold(struct loader *l, const struct yaml_node *node, struct policy_hold *h) {
	const char *text;

	h->where = (struct policy_where){node->line, node->column};
	if (node->kind != YAML_MAP) {
		yaml_mistake(l->y, node, "a hold: keys with values expected");
		return;
	}
	h->id = copy(l, text = yaml_get_text(l->y, node, "id", true));
	if (text != NULL && !name_valid(slice_str(text)))
		yaml_mistake(l->y, yaml_get(l->y, node, "id", false),
			"id: 1 to 64 of A-Z a-z 0-9 . _ - expected, the first a letter or digit");
	load_texts(l, node, "sources", false, LIST_MAX, &h->sources, &h->source_count);
	if (yaml_get(l->y, node, "sources", false) != NULL && h->source_count == 0)
		yaml_mistake(l->y, yaml_get(l->y, node, "sources", false),
			"sources: at least one entry expected, or no key at all");
	if (yaml_get(l->y, node, "match", false) != NULL)
		load_patterns(l, node, "match", NULL, &h->match, &h->match_count);
	h->from_ns = INT64_MIN;
	h->to_ns = INT64_MAX;
	(void)yaml_get_time(l->y, node, "from", false, &h->from_ns);
	if (yaml_get_time(l->y, node, "to", false, &h->to_ns) && h->to_ns <= h->from_ns)
		yaml_mistake(l->y, yaml_get(l->y, node, "to", false),
			"to must be later than from: the hold would cover nothing");
	(void)yaml_get_time(l->y, node, "until", true, &h->until_ns);
	yaml_only(l->y, node, hold_keys);
}

static void load_holds(struct loader *l, const struct yaml_node *root) {
	const struct yaml_node *list = yaml_get_list(l->y, root, "holds", false);
	size_t n = list_length(l->y, list, POLICY_HOLDS_MAX);

	l->policy->holds = array(l, n, sizeof *l->policy->holds);
	l->hold_nodes = array(l, n, sizeof(struct yaml_node *));
	if (n == 0 || l->policy->holds == NULL || l->hold_nodes == NULL)
		return;
	for (const struct yaml_node *i = list->first; i != NULL; i = i->next) {
		l->hold_nodes[l->policy->hold_count] = i;
		load_hold(l, i, &l->policy->holds[l->policy->hold_count++]);
	}
}

static void load_top(struct loader *l, const struct yaml_node *root) {
	uint64_t version;
	const char *text;

	if (root->kind != YAML_MAP) {
		yaml_mistake(l->y, root, "a policy is made of keys with values (version: 1 ...)");
		return;
	}
	(void)yaml_get_number(l->y, root, "version", true, 1, 1, &version);
	l->policy->id = copy(l, text = yaml_get_text(l->y, root, "id", true));
	if (text != NULL && !name_valid(slice_str(text)))
		yaml_mistake(l->y, yaml_get(l->y, root, "id", false),
			"id: 1 to 64 of A-Z a-z 0-9 . _ - expected, the first a letter or digit");
	(void)yaml_get_number(l->y, root, "serial", true, 1, INT64_MAX, &l->policy->serial);
	(void)yaml_get_time(l->y, root, "expires", true, &l->policy->expires_ns);
	const struct yaml_node *expires = yaml_get(l->y, root, "expires", false);
	if (expires != NULL)
		l->policy->expires_where = (struct policy_where){expires->line, expires->column};
	load_destinations(l, root);
	load_sources(l, root);
	load_unmatched(l, root);
	load_holds(l, root);
	load_guard(l, root);
	load_sandbox(l, root);
	yaml_only(l->y, root, top_keys);
	policy_check(l);
}

static void take_mistakes(struct yaml *y, struct policy_mistakes *ret) {
	size_t count;

	ret->lines = yaml_mistakes(y, &count);
	ret->count = ret->lines == NULL ? 0 : count;
}

int policy_parse(struct slice text, const char *name, struct policy **ret,
	struct policy_mistakes *ret_mistakes, struct cede_error *reterr) {
	CLEANUP(yaml_freep) struct yaml *y = NULL;
	CLEANUP(policy_freep) struct policy *policy = calloc(1, sizeof *policy);
	struct loader l = {.policy = policy};

	*ret_mistakes = (struct policy_mistakes){0};
	if (policy == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (EVP_Digest(text.data, text.len, policy->sha256, NULL, EVP_sha256(), NULL) != 1)
		return CEDE_FAIL(reterr, CEDE_ERR_CRYPTO, "SHA-256 failed");
	CEDE_TRY(yaml_parse(text, name, &y, reterr));
	l.y = y;
	if (yaml_root(y) != NULL)
		load_top(&l, yaml_root(y));
	free(l.destination_of);
	free(l.hold_nodes);
	if (l.no_memory)
		return CEDE_FAIL_MEMORY(reterr);
	if (yaml_mistake_count(y) > 0) {
		take_mistakes(y, ret_mistakes);
		return CEDE_FAIL(reterr, CEDE_ERR_INPUT, "%s: %zu mistake%s", name,
			yaml_mistake_count(y), yaml_mistake_count(y) == 1 ? "" : "s");
	}
	*ret = CEDE_TAKE(policy);
	return CEDE_OK;
}

int policy_load(const char *path, struct policy **ret, struct policy_mistakes *ret_mistakes,
	struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf text = BUF_INIT(POLICY_FILE_MAX);
	const char *slash = strrchr(path, '/');

	*ret_mistakes = (struct policy_mistakes){0};
	CEDE_TRY(file_load(AT_FDCWD, path, &text, reterr));
	return policy_parse(
		buf_slice(&text), slash == NULL ? path : slash + 1, ret, ret_mistakes, reterr);
}

void policy_mistakes_done(struct policy_mistakes *mistakes) {
	for (size_t i = 0; i < mistakes->count; i++)
		free(mistakes->lines[i]);
	free(mistakes->lines);
	*mistakes = (struct policy_mistakes){0};
}

static void free_texts(char **list, size_t n) {
	for (size_t i = 0; list != NULL && i < n; i++)
		free(list[i]);
	free(list);
}

static void free_patterns(struct policy_pattern *list, size_t n) {
	for (size_t i = 0; list != NULL && i < n; i++)
		free(list[i].text);
	free(list);
}

void policy_free(struct policy *p) {
	if (p == NULL)
		return;
	for (size_t i = 0; i < p->destination_count; i++) {
		struct policy_destination *d = &p->destinations[i];
		free_texts(d->pins, d->pin_count);
		free_texts(d->seal_to, d->seal_to_count);
		free_texts(d->receipts, d->receipt_count);
		free(d->addresses);
		free(d->windows);
		free(d->name);
		free(d->url);
		free(d->host);
		free(d->ca);
	}
	for (size_t i = 0; i < p->source_count; i++) {
		struct policy_source *s = &p->sources[i];
		free_patterns(s->match, s->match_count);
		free_patterns(s->ignore, s->ignore_count);
		free_texts(s->group_require, s->group_require_count);
		free(s->name);
		free(s->path);
		free(s->classification);
	}
	for (size_t i = 0; i < p->hold_count; i++) {
		free_texts(p->holds[i].sources, p->holds[i].source_count);
		free_patterns(p->holds[i].match, p->holds[i].match_count);
		free(p->holds[i].id);
	}
	guard_done(&p->guard);
	free(p->holds);
	free(p->destinations);
	free(p->sources);
	free(p->id);
	free(p);
}

void policy_freep(struct policy **policy) {
	policy_free(*policy);
	*policy = NULL;
}
