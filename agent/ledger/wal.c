/* SPDX-License-Identifier: Apache-2.0 */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/ledger/ledger_internal.h"
#include "base/cleanup.h"

#define PIECE (1U << 20)

/* SQLite unlinks the write-ahead log when the last connection is closed, and names of captures
 * would stay in the blocks that it frees. Overwritten before that, where it is safe: every frame is
 * in the database and flushed, and no reader needs one (a checkpoint of mode RESTART waits for
 * them; readers that come later read the database alone). A crash in the midst leaves frames whose
 * checksums are wrong: the log then counts as empty, as it is. */
void ledger_scrub_wal(struct ledger *l) {
	const char *name = sqlite3_db_filename(l->db, "main");
	CLEANUP(fd_closep) int fd = -1;
	CLEANUP(freep) uint8_t *zeros = NULL;
	int in_log = -1;
	int in_db = -1;
	struct stat st;

	if (name == NULL ||
		sqlite3_wal_checkpoint_v2(l->db, NULL, SQLITE_CHECKPOINT_RESTART, &in_log, &in_db) !=
			SQLITE_OK ||
		in_log != in_db)
		return; /* the next start goes on with it */
	fd = openat(AT_FDCWD, sqlite3_filename_wal(name), O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	zeros = calloc(1, PIECE);
	if (fd < 0 || zeros == NULL || fstat(fd, &st) < 0)
		return;
	for (off_t at = 0; at < st.st_size; at += PIECE) {
		size_t n = st.st_size - at < (off_t)PIECE ? (size_t)(st.st_size - at) : PIECE;
		if (file_pwrite_all(fd, zeros, n, (uint64_t)at, NULL) < 0)
			return;
	}
	(void)fdatasync(fd); /* it is on its way out: nothing depends on it */
}
