/* SPDX-License-Identifier: Apache-2.0
 * What a program that was taken over might try, and what it needs for its own work. Each act is tried in a
 * child process of its own that has entered the sandbox of the product's program, with its very data. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What there is to aim at; made before the sandbox. */
struct acts_world {
	char top[64];       /* a directory of the test: inside/, outside/, aside/ */
	char inside[96];    /* may be written */
	char outside[96];   /* may not */
	uint16_t good_port; /* a listener on the loopback: may be connected to by the courier */
	uint16_t bad_port;  /* another one */
	int listening;      /* the socket of a third, as a program holds its own */
	int old;            /* a TCP socket that was made before */
	int pair[2];        /* a socket pair that was open before */
	int directory;      /* of inside, open before */
	pid_t other;        /* a process of the test, to aim signals at */
};

/* 0: it worked; else errno. */
typedef int act_fn(const struct acts_world *w);

struct act {
	const char *name;
	act_fn *try;
	const char *may; /* first letters of the programs that may: keeper, courier, receiver, opener */
};

extern const struct act acts[];
extern const size_t acts_count;
