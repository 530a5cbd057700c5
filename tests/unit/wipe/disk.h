/* SPDX-License-Identifier: Apache-2.0
 * A file system of its own in an image file, so that a test can look at the raw blocks.
 *
 * Owns    a directory, an image and its loop mount until disk_done().
 * Fails   needs root, loop devices and the mkfs program: disk_init() says false where one lacks. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the five above first */
#include <cmocka.h>

struct disk {
	char home[64];  /* temporary directory */
	char image[96]; /* the raw disk */
	char mount[96]; /* where it is mounted */
	bool mounted;
};

/* mkfs and tune (may be NULL): programs and options, space-separated, the image is added; options:
 * for mount(8) behind "loop", or "". */
bool disk_init(struct disk *disk, const char *mkfs, const char *tune, const char *options);
/* Unmounts and calls fn for each place in the image where the text stands; false if it can't be read. */
bool disk_each(struct disk *disk, const char *text,
	void (*fn)(void *ctx, const char *at, size_t left), void *ctx);
void disk_done(struct disk *disk);
/* Runs a program (space-separated words) without a shell; its exit code, or -1. */
int disk_run(const char *words);
