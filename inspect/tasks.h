/*
 * Prompts with checkable answers, a JSON object a line: {"prompt", "answer", "match", "kind"}.
 * match says how a reply is checked:
 *
 *   exact   the reply is the answer, white space around both aside (the default)
 *   regex   the answer, a PCRE2 pattern, is found in the reply (^ and $ make it whole)
 *   number  the reply's last number equals the answer; thousands may have commas
 *
 * kind (optional) groups tasks in reports. A line that is not a task is named and left out.
 */
#ifndef INSPECT_TASKS_H
#define INSPECT_TASKS_H

#include "base/text.h"
#include <stdbool.h>
#include <stddef.h>

enum match { MATCH_EXACT, MATCH_REGEX, MATCH_NUMBER, N_MATCHES };

struct task {
	int line; // in the file, from 1
	enum match match;
	char *prompt, *answer, *kind; // kind "" = none
	size_t prompt_length, answer_length;
	double number; // MATCH_NUMBER
	void *pattern; // MATCH_REGEX
	char hash[17]; // of prompt, answer and match
};

struct tasks {
	struct task *items;
	size_t n, capacity;
	int n_broken;
	struct text broken; // a line each: "tasks.jsonl: line 7: ..."
};

/* -1: the file can't be read, or no line of it is a task. tasks starts as {0}. */
int tasks_read(struct tasks *tasks, const char *path, struct error *err);
/* The same from memory; name stands for the file in sentences. */
int tasks_parse(struct tasks *tasks, const char *name, const char *source, size_t length,
				struct error *err);
void tasks_free(struct tasks *tasks); // takes {0}

/* Keeps n of them, evenly spread over the file, so that every kind stays. */
void tasks_limit(struct tasks *tasks, size_t n);

bool task_right(const struct task *task, const char *reply, size_t length);

#endif
