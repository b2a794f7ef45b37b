/*
 * The logs of a folder: what each is about, without reading more of it than needed. Newest first;
 * number 1 is the newest, and that is how people name a session.
 */
#ifndef SESSIONS_SHELF_H
#define SESSIONS_SHELF_H

#include "base/text.h"
#include "sessions/event_read.h"

struct shelf_row {
	char *path;
	size_t number;                // in the whole list, from 1
	struct session_origin origin; // of the last session line; empty if the log has none
	int n_turns, n_tokens;
	uint64_t length_ns; // from the first event to the last
	struct text first;  // what the user said first
	struct text found;  // the place that a search found, on one line
};

struct shelf {
	char *directory;
	struct shelf_row *rows; // newest first
	size_t n_rows, capacity;
};

/* directory NULL: where the workbench records. No such folder = an empty shelf. search (NULL =
 * all): only sessions in which this was said, by whomever, case-blind in ASCII. A file that is no
 * log is left out. */
int shelf_open(const char *directory, const char *search, struct shelf *shelf, struct error *err);
void shelf_close(struct shelf *shelf); // takes {0}

/* The path that a user means: a file, a name in the folder with or without .jsonl, or a number of
 * the list. free(). NULL and a sentence. */
char *shelf_find(const char *directory, const char *name, struct error *err);

/* As a table with a head, for at most `columns`. */
void shelf_table(const struct shelf *shelf, int columns, struct text *out);

#endif
