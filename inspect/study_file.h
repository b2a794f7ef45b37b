/*
 * A study's rows on disk: CSV, one line a row, appended as rows come and never changed, so that a
 * study that was stopped goes on with the same file. The first columns say what decided the rows
 * (checkpoint, seed, sampling, math ...); a file with other values is refused. A last line that was
 * torn is cut off. Newlines of answers are written as \n, so a row is one line.
 */
#ifndef INSPECT_STUDY_FILE_H
#define INSPECT_STUDY_FILE_H

#include "base/text.h"
#include "inspect/study.h"

struct study_fact {
	const char *name;
	bool number;
	char value[72];
};

struct study_file;

/* Opens or creates; rows of the study that are there are put into it, others are left alone. path
 * "-" is stdout, which has none. facts are borrowed until the file is closed. NULL and err if the
 * file can't be written, is in use, or is of another study (both values are named). */
struct study_file *study_file_open(const char *path, struct study *study,
								   const struct study_fact *facts, size_t n_facts,
								   struct error *err);

/* Appends a row; it is in the file when this returns. */
int study_file_add(struct study_file *file, const struct study *study, size_t task, size_t cell,
				   struct error *err);
void study_file_close(struct study_file *file); // takes NULL

#endif
