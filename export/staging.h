/*
 * The directory that an export makes. Everything is written into a temporary directory beside it,
 * NAME.partial-PID; staging_commit() syncs that and renames it, so that under its own name a
 * checkpoint is whole or not there, whatever happens: an error, a full disk, a kill. A lock on the
 * temporary and its PID tell the one of a killed process from the one of a running process; what
 * killed ones left is removed when the next export to the same name begins.
 */
#ifndef EXPORT_STAGING_H
#define EXPORT_STAGING_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>

struct staging {
	char *path;      // as it will be called, links resolved
	char *temporary; // NULL = committed or never made
	int lock;        // the temporary's descriptor
	bool replace;    // there is one already, --force allows to replace it
};

/* Refuses a path that is there already and not empty (force: only what is no flat directory of a
 * checkpoint), is the source or inside it, or holds it; then makes the temporary. */
int staging_open(struct staging *staging, const char *path, const char *source, bool force,
				 struct error *err);

/* Whether the disk has room for that many bytes. */
int staging_check_room(const struct staging *staging, unsigned long long bytes, struct error *err);

/* A new file in the temporary: a descriptor, or -1. */
int staging_create(const struct staging *staging, const char *name, struct error *err);

/* fsync and close, also on failure. */
int staging_close_file(int fd, const char *name, struct error *err);

/* Small files: whole from memory, or copied from another directory. */
int staging_write(const struct staging *staging, const char *name, const char *bytes, size_t n,
				  struct error *err);
int staging_copy(const struct staging *staging, const char *directory, const char *name,
				 struct error *err);

int staging_commit(struct staging *staging, struct error *err);
void staging_discard(struct staging *staging); // what is not committed goes; takes {0}

#endif
