/*
 * The directory that an export makes. Everything is written into a temporary directory beside it,
 * NAME.partial-PID; target_commit() syncs that and renames it, so that under its own name a
 * checkpoint is whole or not there, whatever happens: an error, a full disk, a kill. A lock on the
 * temporary tells the one of a killed process from the one of a running process; what killed ones
 * left is removed when the next export to the same name begins.
 */
#ifndef EXPORT_TARGET_H
#define EXPORT_TARGET_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>

struct target {
	char *path;      // as it will be called, links resolved
	char *temporary; // NULL = committed or never made
	int lock;        // the temporary's descriptor
	bool replace;    // there is one already, --force allows to replace it
};

/* Refuses a path that is there already (force: only what is no flat directory of a checkpoint), is
 * the source or inside it, or holds it; then makes the temporary. */
int target_open(struct target *target, const char *path, const char *source, bool force,
				struct error *err);

/* Whether the disk has room for that many bytes. */
int target_check_room(const struct target *target, unsigned long long bytes, struct error *err);

/* A new file in the temporary: a descriptor, or -1. */
int target_create(const struct target *target, const char *name, struct error *err);

/* fsync and close, also on failure. */
int target_close_file(int fd, const char *name, struct error *err);

/* Small files: whole from memory, or copied from another directory. */
int target_write(const struct target *target, const char *name, const char *bytes, size_t n,
				 struct error *err);
int target_copy(const struct target *target, const char *directory, const char *name,
				struct error *err);

int target_commit(struct target *target, struct error *err);
void target_discard(struct target *target); // what is not committed goes; takes {0}

#endif
