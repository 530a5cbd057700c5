/* SPDX-License-Identifier: Apache-2.0 */
#include "base/yaml.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/parse.h"

struct mistake {
	uint32_t line, column;
	size_t order;
	char *text;
};

struct yaml {
	char *name;
	struct yaml_node *root;
	size_t nodes;
	struct mistake mistakes[YAML_MISTAKES_MAX];
	size_t count;
	bool more; /* mistakes than fit */
};

/* ---- mistakes */

CEDE_PRINTF(4, 0)

static void note(struct yaml *y, uint32_t line, uint32_t column, const char *fmt, va_list ap) {
	char text[400];

	if (y->count == YAML_MISTAKES_MAX) {
		y->more = true;
		return;
	}
	(void)vsnprintf(text, sizeof text, fmt, ap);
	for (char *c = text; *c != 0; c++) /* what came from the file must not steer a terminal */
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = '?';
	struct mistake *m = &y->mistakes[y->count];
	m->text = strdup(text);
	if (m->text == NULL) {
		y->more = true;
		return;
	}
	m->line = line;
	m->column = column;
	m->order = y->count++;
}

CEDE_PRINTF(4, 5)

static void note_at(struct yaml *y, uint32_t line, uint32_t column, const char *fmt, ...) {
	va_list ap;

	va_start(ap, fmt);
	note(y, line, column, fmt, ap);
	va_end(ap);
}

void yaml_mistake(struct yaml *y, const struct yaml_node *node, const char *fmt, ...) {
	va_list ap;

	va_start(ap, fmt);
	note(y, node == NULL ? 1 : node->line, node == NULL ? 1 : node->column, fmt, ap);
	va_end(ap);
}

static int by_place(const void *a, const void *b) {
	const struct mistake *x = a;
	const struct mistake *z = b;

	if (x->line != z->line)
		return x->line < z->line ? -1 : 1;
	if (x->column != z->column)
		return x->column < z->column ? -1 : 1;
	return (x->order > z->order) - (x->order < z->order);
}

size_t yaml_mistake_count(const struct yaml *y) {
	return y->count + y->more;
}

char **yaml_mistakes(struct yaml *y, size_t *ret_count) {
	char **lines = calloc(y->count + 2, sizeof *lines);
	size_t n = 0;

	*ret_count = yaml_mistake_count(y);
	if (lines == NULL || *ret_count == 0) {
		free(lines);
		return NULL;
	}
	qsort(y->mistakes, y->count, sizeof y->mistakes[0], by_place);
	for (size_t i = 0; i < y->count; i++) {
		const struct mistake *m = &y->mistakes[i];
		if (asprintf(&lines[n], "%s:%u:%u: %s", y->name, m->line, m->column, m->text) >= 0)
			n++;
		else
			lines[n] = NULL;
	}
	if (y->more && asprintf(&lines[n], "%s: and more mistakes", y->name) >= 0)
		n++;
	lines[n] = NULL;
	*ret_count = n > 0 ? n : *ret_count;
	return lines;
}

/* ---- the tree */

static void node_free(struct yaml_node *n) {
	while (n != NULL) {
		struct yaml_node *next = n->next;
		node_free(n->key);
		node_free(n->first);
		free(n->text);
		free(n);
		n = next;
	}
}

static struct yaml_node *node_new(struct yaml *y, enum yaml_kind kind, const yaml_event_t *e) {
	if (++y->nodes > YAML_NODES_MAX) {
		if (y->nodes == YAML_NODES_MAX + 1)
			note_at(y, (uint32_t)e->start_mark.line + 1,
				(uint32_t)e->start_mark.column + 1, "more than %d values",
				YAML_NODES_MAX);
		return NULL;
	}
	struct yaml_node *n = calloc(1, sizeof *n);
	if (n == NULL)
		return NULL;
	n->kind = kind;
	n->line = (uint32_t)e->start_mark.line + 1;
	n->column = (uint32_t)e->start_mark.column + 1;
	return n;
}

struct reader {
	struct yaml *y;
	yaml_parser_t *parser;
	struct slice text;
};

/* libyaml tells the byte alone. */
static void note_bytes(struct reader *r, const char *problem, size_t offset) {
	uint32_t line = 1;
	uint32_t column = 1;

	for (size_t i = 0; i < offset && i < r->text.len; i++) {
		bool starts =
			(r->text.data[i] & 0xc0) != 0x80; /* a character, not the rest of one */
		column = r->text.data[i] == '\n' ? 1 : column + starts;
		line += r->text.data[i] == '\n';
	}
	note_at(r->y, line, column, "%s%s (byte %zu)",
		strncmp(problem, "control", 7) == 0 ? "" : "not UTF-8 text: ", problem, offset);
}

static bool next_event(struct reader *r, yaml_event_t *e) {
	const yaml_parser_t *p = r->parser;

	if (yaml_parser_parse(r->parser, e))
		return true;
	if (p->error == YAML_READER_ERROR)
		note_bytes(r, p->problem, p->problem_offset);
	else
		note_at(r->y, (uint32_t)p->problem_mark.line + 1,
			(uint32_t)p->problem_mark.column + 1, "no valid YAML: %s%s%s",
			p->problem == NULL ? "unreadable" : p->problem,
			p->context == NULL ? "" : " ", p->context == NULL ? "" : p->context);
	return false;
}

/* Anchors and tags have no use in cede's files, and have broken many readers. */
static bool is_bare(
	struct yaml *y, const yaml_event_t *e, const yaml_char_t *anchor, const yaml_char_t *tag) {
	uint32_t line = (uint32_t)e->start_mark.line + 1;
	uint32_t column = (uint32_t)e->start_mark.column + 1;

	if (anchor != NULL)
		note_at(y, line, column, "anchors and aliases (&, *) are not allowed");
	if (tag != NULL)
		note_at(y, line, column, "tags (!) are not allowed");
	return anchor == NULL && tag == NULL;
}

static struct yaml_node *read_node(struct reader *r, const yaml_event_t *e, unsigned depth);

static struct yaml_node *read_scalar(struct reader *r, const yaml_event_t *e) {
	const char *value = (const char *)e->data.scalar.value;

	if (!is_bare(r->y, e, e->data.scalar.anchor, e->data.scalar.tag))
		return NULL;
	if (strlen(value) != e->data.scalar.length) {
		note_at(r->y, (uint32_t)e->start_mark.line + 1, (uint32_t)e->start_mark.column + 1,
			"a NUL character is not allowed");
		return NULL;
	}
	struct yaml_node *n = node_new(r->y, YAML_SCALAR, e);
	if (n == NULL)
		return NULL;
	n->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	n->text = strdup(value);
	if (n->text == NULL) {
		node_free(n);
		return NULL;
	}
	return n;
}

static bool has_key(struct reader *r, const struct yaml_node *map, const struct yaml_node *key) {
	for (const struct yaml_node *m = map->first; m != NULL; m = m->next)
		if (m->key != NULL && strcmp(m->key->text, key->text) == 0) {
			note_at(r->y, key->line, key->column,
				"key \"%.60s\" stands here a second time (first in line %u)",
				key->text, m->key->line);
			return true;
		}
	return false;
}

/* Members until the end event. NULL only when reading can't go on. */
static bool read_members(struct reader *r, struct yaml_node *to, unsigned depth) {
	struct yaml_node **end = &to->first;

	for (;;) {
		struct yaml_node *key = NULL;
		struct yaml_node *value;
		yaml_event_t e;
		if (!next_event(r, &e))
			return false;
		if (e.type == YAML_SEQUENCE_END_EVENT || e.type == YAML_MAPPING_END_EVENT) {
			yaml_event_delete(&e);
			return true;
		}
		value = read_node(r, &e, depth);
		yaml_event_delete(&e);
		if (value == NULL)
			return false;
		if (to->kind == YAML_MAP) {
			key = value;
			if (key->kind != YAML_SCALAR) {
				note_at(r->y, key->line, key->column, "a key must be a simple word");
				node_free(key);
				return false;
			}
			if (!next_event(r, &e)) {
				node_free(key);
				return false;
			}
			value = read_node(r, &e, depth);
			yaml_event_delete(&e);
			if (value == NULL || has_key(r, to, key)) {
				node_free(key);
				if (value == NULL)
					return false;
				node_free(value);
				continue;
			}
			value->key = key;
		}
		*end = value;
		end = &value->next;
	}
}

static struct yaml_node *read_node(struct reader *r, const yaml_event_t *e, unsigned depth) {
	bool list = e->type == YAML_SEQUENCE_START_EVENT;

	if (e->type == YAML_SCALAR_EVENT)
		return read_scalar(r, e);
	if (e->type == YAML_ALIAS_EVENT) {
		(void)is_bare(r->y, e, e->data.alias.anchor, NULL);
		return NULL;
	}
	if (!list && e->type != YAML_MAPPING_START_EVENT)
		return NULL;
	if (!is_bare(r->y, e, list ? e->data.sequence_start.anchor : e->data.mapping_start.anchor,
		    list ? e->data.sequence_start.tag : e->data.mapping_start.tag))
		return NULL;
	if (depth == YAML_DEPTH_MAX) {
		note_at(r->y, (uint32_t)e->start_mark.line + 1, (uint32_t)e->start_mark.column + 1,
			"nested deeper than %d", YAML_DEPTH_MAX);
		return NULL;
	}
	struct yaml_node *n = node_new(r->y, list ? YAML_LIST : YAML_MAP, e);
	if (n != NULL && !read_members(r, n, depth + 1)) {
		node_free(n);
		return NULL;
	}
	return n;
}

/* Stream start, document start, one node, document end, stream end. */
static void read_document(struct reader *r) {
	yaml_event_t e;
	bool more = true;

	while (more && next_event(r, &e)) {
		uint32_t line = (uint32_t)e.start_mark.line + 1;
		switch (e.type) {
		case YAML_STREAM_END_EVENT:
			more = false;
			break;
		case YAML_DOCUMENT_START_EVENT:
			if (r->y->root != NULL) {
				note_at(r->y, line, 1, "a second document is not allowed");
				more = false;
			}
			break;
		case YAML_NO_EVENT:
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_END_EVENT:
			break;
		case YAML_ALIAS_EVENT:
		case YAML_SCALAR_EVENT:
		case YAML_SEQUENCE_START_EVENT:
		case YAML_SEQUENCE_END_EVENT:
		case YAML_MAPPING_START_EVENT:
		case YAML_MAPPING_END_EVENT:
			r->y->root = read_node(r, &e, 0);
			more = r->y->root != NULL;
			break;
		}
		yaml_event_delete(&e);
	}
}

int yaml_parse(struct slice text, const char *name, struct yaml **ret, struct cede_error *reterr) {
	CLEANUP(yaml_freep) struct yaml *y = calloc(1, sizeof *y);
	yaml_parser_t parser;

	if (y == NULL || (y->name = strdup(name)) == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	if (text.len > YAML_FILE_MAX) {
		note_at(y, 1, 1, "larger than the %d bytes allowed", YAML_FILE_MAX);
		*ret = CEDE_TAKE(y);
		return CEDE_OK;
	}
	if (!yaml_parser_initialize(&parser))
		return CEDE_FAIL_MEMORY(reterr);
	yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(&parser, text.data, text.len);
	struct reader r = {y, &parser, text};
	read_document(&r);
	yaml_parser_delete(&parser);
	if (y->count > 0 || y->more) { /* a broken tree is not walked */
		node_free(y->root);
		y->root = NULL;
	} else if (y->root == NULL) {
		note_at(y, 1, 1, "the file is empty");
	}
	*ret = CEDE_TAKE(y);
	return CEDE_OK;
}

int yaml_load(const char *file, struct yaml **ret, char **ret_directory, struct cede_error *reterr) {
	CLEANUP(buf_done) struct buf text = BUF_INIT(YAML_FILE_MAX);
	const char *slash = strrchr(file, '/');
	CLEANUP(freep)
	char *directory = slash == NULL ? strdup("") : strndup(file, (size_t)(slash - file) + 1);

	if (directory == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	CEDE_TRY(file_load(AT_FDCWD, file, &text, reterr));
	CEDE_TRY(yaml_parse(buf_slice(&text), slash == NULL ? file : slash + 1, ret, reterr));
	*ret_directory = CEDE_TAKE(directory);
	return CEDE_OK;
}

int yaml_verdict(struct yaml *y, const char *file, char ***ret_lines, struct cede_error *reterr) {
	size_t count = yaml_mistake_count(y);

	if (count == 0)
		return CEDE_OK;
	*ret_lines = yaml_mistakes(y, &count);
	return CEDE_FAIL(
		reterr, CEDE_ERR_INPUT, "%s: %zu mistake%s", file, count, count == 1 ? "" : "s");
}

void yaml_free(struct yaml *y) {
	if (y == NULL)
		return;
	node_free(y->root);
	for (size_t i = 0; i < y->count; i++)
		free(y->mistakes[i].text);
	free(y->name);
	free(y);
}

void yaml_freep(struct yaml **y) {
	yaml_free(*y);
	*y = NULL;
}

const struct yaml_node *yaml_root(const struct yaml *y) {
	return y->root;
}

/* ---- walking */

const struct yaml_node *yaml_get(
	struct yaml *y, const struct yaml_node *map, const char *key, bool required) {
	if (map == NULL || map->kind != YAML_MAP)
		return NULL;
	for (struct yaml_node *m = map->first; m != NULL; m = m->next)
		if (strcmp(m->key->text, key) == 0) {
			m->used = true;
			return m;
		}
	if (required)
		yaml_mistake(y, map, "key \"%s\" is missing", key);
	return NULL;
}

static const struct yaml_node *get_kind(struct yaml *y, const struct yaml_node *map,
	const char *key, bool required, enum yaml_kind kind, const char *what) {
	const struct yaml_node *n = yaml_get(y, map, key, required);

	if (n == NULL || n->kind == kind)
		return n;
	yaml_mistake(y, n, "%s: %s expected", key, what);
	return NULL;
}

const struct yaml_node *yaml_get_map(
	struct yaml *y, const struct yaml_node *map, const char *key, bool required) {
	return get_kind(y, map, key, required, YAML_MAP, "keys with values");
}

const struct yaml_node *yaml_get_list(
	struct yaml *y, const struct yaml_node *map, const char *key, bool required) {
	return get_kind(y, map, key, required, YAML_LIST, "a list");
}

/* Nothing, or what YAML 1.1 reads as nothing; between quotes "null" is a text. */
static bool is_nothing(const struct yaml_node *n) {
	static const char *const words[] = {"", "~", "null", "Null", "NULL"};

	for (size_t i = 0; n->plain && i < sizeof words / sizeof words[0]; i++)
		if (strcmp(n->text, words[i]) == 0)
			return true;
	return n->text[0] == 0;
}

const char *yaml_text(struct yaml *y, const struct yaml_node *node) {
	if (node->kind != YAML_SCALAR || is_nothing(node)) {
		yaml_mistake(y, node, "a text expected");
		return NULL;
	}
	return node->text;
}

const char *yaml_get_text(
	struct yaml *y, const struct yaml_node *map, const char *key, bool required) {
	const struct yaml_node *n = yaml_get(y, map, key, required);

	if (n == NULL)
		return NULL;
	if (n->kind != YAML_SCALAR || is_nothing(n)) {
		yaml_mistake(y, n, "%s: a text expected", key);
		return NULL;
	}
	return n->text;
}

bool yaml_get_duration(struct yaml *y, const struct yaml_node *map, const char *key, bool required,
	int64_t *ret_ns) {
	const char *text = yaml_get_text(y, map, key, required);
	struct cede_error err;

	if (text == NULL)
		return false;
	if (parse_duration(slice_str(text), ret_ns, &err) == CEDE_OK)
		return true;
	yaml_mistake(y, yaml_get(y, map, key, false), "%s: %s", key, err.text);
	return false;
}

bool yaml_get_size(struct yaml *y, const struct yaml_node *map, const char *key, bool required,
	uint64_t *ret) {
	const char *text = yaml_get_text(y, map, key, required);
	struct cede_error err;

	if (text == NULL)
		return false;
	if (parse_size(slice_str(text), ret, &err) == CEDE_OK)
		return true;
	yaml_mistake(y, yaml_get(y, map, key, false), "%s: %s", key, err.text);
	return false;
}

bool yaml_get_number(struct yaml *y, const struct yaml_node *map, const char *key, bool required,
	uint64_t min, uint64_t max, uint64_t *ret) {
	const char *text = yaml_get_text(y, map, key, required);
	struct cede_error err;

	if (text == NULL)
		return false;
	if (parse_u64(slice_str(text), min, max, ret, &err) == CEDE_OK)
		return true;
	yaml_mistake(y, yaml_get(y, map, key, false), "%s: %s", key, err.text);
	return false;
}

bool yaml_get_time(struct yaml *y, const struct yaml_node *map, const char *key, bool required,
	int64_t *ret_ns) {
	const char *text = yaml_get_text(y, map, key, required);
	struct cede_error err;

	if (text == NULL)
		return false;
	if (parse_time(slice_str(text), ret_ns, &err) == CEDE_OK)
		return true;
	yaml_mistake(y, yaml_get(y, map, key, false), "%s: %s", key, err.text);
	return false;
}

bool yaml_get_word(struct yaml *y, const struct yaml_node *map, const char *key, bool required,
	const char *const *words, size_t *ret) {
	const char *text = yaml_get_text(y, map, key, required);
	char list[200] = "";

	if (text == NULL)
		return false;
	for (size_t i = 0; words[i] != NULL; i++) {
		const char *word = words[i][0] == '!' ? words[i] + 1 : words[i];
		size_t used = strlen(list);
		if (strcmp(text, word) == 0 && word != words[i]) {
			yaml_mistake(y, yaml_get(y, map, key, false), "%s: %s: not supported yet",
				key, word);
			return false;
		}
		if (strcmp(text, word) == 0) {
			*ret = i;
			return true;
		}
		(void)snprintf(list + used, sizeof list - used, "%s%s", used > 0 ? ", " : "", word);
	}
	yaml_mistake(y, yaml_get(y, map, key, false), "%s: one of %s expected, found \"%.60s\"",
		key, list, text);
	return false;
}

/* Levenshtein distance of short words; large when they are not short. */
static unsigned distance(const char *a, const char *b) {
	size_t n = strlen(a);
	size_t m = strlen(b);
	unsigned row[33];

	if (n > 32 || m > 32)
		return 99;
	for (size_t j = 0; j <= m; j++)
		row[j] = (unsigned)j;
	for (size_t i = 1; i <= n; i++) {
		unsigned corner = row[0];
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= m; j++) {
			unsigned change = corner + (a[i - 1] != b[j - 1]);
			corner = row[j];
			unsigned best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
			row[j] = change < best ? change : best;
		}
	}
	return row[m];
}

static void unknown(struct yaml *y, const struct yaml_node *key, const char *const *known) {
	const char *nearest = NULL;
	unsigned best = 4;

	for (size_t i = 0; known[i] != NULL; i++) {
		const char *name = known[i][0] == '!' ? known[i] + 1 : known[i];
		unsigned d = distance(key->text, name);
		if (d == 0) {
			yaml_mistake(y, key, "%s: not supported yet", name);
			return;
		}
		if (d < best) {
			best = d;
			nearest = name;
		}
	}
	if (nearest != NULL)
		yaml_mistake(
			y, key, "unknown key \"%.60s\"; did you mean \"%s\"?", key->text, nearest);
	else
		yaml_mistake(y, key, "unknown key \"%.60s\"", key->text);
}

void yaml_only(struct yaml *y, const struct yaml_node *map, const char *const *known) {
	if (map == NULL || map->kind != YAML_MAP)
		return;
	for (const struct yaml_node *m = map->first; m != NULL; m = m->next)
		if (!m->used)
			unknown(y, m->key, known);
}
