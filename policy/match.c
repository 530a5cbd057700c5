/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/decide.h"

/* One byte of a class as it is meant; moves *at behind it. */
static uint8_t class_byte(struct slice p, size_t *at) {
	uint8_t c = p.data[(*at)++];

	return c == '\\' && *at < p.len ? p.data[(*at)++] : c;
}

/* One class at pattern[*at] ('[' already seen); false if it is not closed: then '[' is a plain byte. */
static bool in_class(struct slice p, size_t *at, uint8_t c, bool *ret_matched) {
	size_t i = *at;
	bool invert = i < p.len && (p.data[i] == '!' || p.data[i] == '^');
	bool matched = false;

	i += invert;
	for (bool first = true; i < p.len && (first || p.data[i] != ']'); first = false) {
		uint8_t low = class_byte(p, &i);
		uint8_t high = low;
		if (i + 1 < p.len && p.data[i] == '-' && p.data[i + 1] != ']') {
			i++;
			high = class_byte(p, &i);
		}
		matched = matched || (c >= low && c <= high);
	}
	if (i >= p.len)
		return false;
	*at = i + 1;
	*ret_matched = matched != invert && c != '/';
	return true;
}

size_t glob_class_end(struct slice pattern, size_t at) {
	bool matched;

	return in_class(pattern, &at, 0, &matched) ? at - 1 : 0;
}

/* Whether the pattern's next element takes this one byte; moves *at behind the element. */
static bool takes(struct slice p, size_t *at, uint8_t c) {
	uint8_t e = p.data[(*at)++];
	bool matched;

	if (e == '?')
		return c != '/';
	if (e == '[' && in_class(p, at, c, &matched))
		return matched;
	if (e == '\\' && *at < p.len)
		e = p.data[(*at)++];
	return e == c;
}

/* At most two places to come back to: the last '*' and the last "**". Going back to an earlier one
 * can never help where the later one failed, so the time is bounded by pattern * path. */
bool glob_match(struct slice pattern, struct slice path) {
	size_t p = 0, s = 0;
	size_t star_p = SIZE_MAX, star_s = 0; /* '*': goes on within a part */
	size_t deep_p = SIZE_MAX,
	       deep_s = 0;     /* "**" followed by a slash: goes on at the next part */
	bool deep_any = false; /* "**" at the end: takes everything */

	for (;;) {
		bool part_start = s == 0 || path.data[s - 1] == '/';
		if (part_start && p + 2 < pattern.len && pattern.data[p] == '*' &&
			pattern.data[p + 1] == '*' && pattern.data[p + 2] == '/' &&
			(p == 0 || pattern.data[p - 1] == '/')) {
			p += 3;
			deep_p = p;
			deep_s = s;
			star_p = SIZE_MAX;
			continue;
		}
		if (part_start && p + 2 == pattern.len && pattern.data[p] == '*' &&
			pattern.data[p + 1] == '*' && (p == 0 || pattern.data[p - 1] == '/')) {
			deep_any = s < path.len;
			if (deep_any)
				return true;
		}
		if (s == path.len && p == pattern.len)
			return true;
		if (p < pattern.len && pattern.data[p] == '*') {
			while (p < pattern.len && pattern.data[p] == '*')
				p++;
			star_p = p;
			star_s = s;
			continue;
		}
		size_t after = p;
		if (s < path.len && p < pattern.len && takes(pattern, &after, path.data[s])) {
			p = after;
			s++;
			continue;
		}
		/* back: '*' takes one byte more of its part */
		if (star_p != SIZE_MAX && star_s < path.len && path.data[star_s] != '/') {
			s = ++star_s;
			p = star_p;
			continue;
		}
		/* back: one directory further down */
		if (deep_p == SIZE_MAX)
			return false;
		while (deep_s < path.len && path.data[deep_s] != '/')
			deep_s++;
		if (deep_s >= path.len)
			return false;
		s = ++deep_s;
		p = deep_p;
		star_p = SIZE_MAX;
	}
}

struct slice group_stem(struct slice path) {
	for (size_t i = path.len; i > 0 && path.data[i - 1] != '/'; i--)
		if (path.data[i - 1] == '.' && i > 1 && path.data[i - 2] != '/')
			return slice_of(path.data, i - 1);
	return path;
}
