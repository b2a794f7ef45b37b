#define PCRE2_CODE_UNIT_WIDTH 8
#include "inspect/tasks.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/memory.h"
#include <math.h>
#include <pcre2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)1 << 30)
#define REGEX_LIMIT 1000000 // steps; a pattern that needs more does not match

static const char *const match_names[N_MATCHES] = {"exact", "regex", "number"};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* The number that begins at text[0], commas between its digits left out. Returns the bytes it
 * takes, 0 = none begins here. */
static size_t read_number(const char *text, size_t length, double *value)
{
	char digits[64];
	size_t used = 0, at = 0;
	bool point = false;
	if (at < length && (text[at] == '-' || text[at] == '+'))
		digits[used++] = text[at++];
	size_t first = used;
	for (; at < length && used < sizeof digits - 1; at++) {
		bool more = at + 1 < length && is_digit(text[at + 1]);
		if (is_digit(text[at])) {
			digits[used++] = text[at];
		} else if (text[at] == '.' && !point && more) {
			point = true;
			digits[used++] = '.';
		} else if (text[at] != ',' || point || used == first || !more) {
			break;
		}
	}
	if (used == first)
		return 0;
	digits[used] = 0;
	*value = strtod(digits, NULL); // LC_NUMERIC is never set in this program
	return at;
}

/* The last number of a text. A minus belongs to it unless a digit or letter is in front (7-5). */
static bool last_number(const char *text, size_t length, double *value)
{
	bool found = false;
	for (size_t at = 0; at < length;) {
		char before = at > 0 ? text[at - 1] : ' ';
		bool glued = is_digit(before) || ((before | 32) >= 'a' && (before | 32) <= 'z');
		bool sign = text[at] == '-' || text[at] == '+';
		size_t n = sign && glued ? 0 : read_number(text + at, length - at, value);
		found |= n > 0;
		at += n > 0 ? n : 1;
	}
	return found;
}

static int compile(struct task *task, struct error *err)
{
	int code;
	PCRE2_SIZE at;
	PCRE2_UCHAR why[128];
	task->pattern = pcre2_compile((PCRE2_SPTR)task->answer, task->answer_length,
								  PCRE2_UTF | PCRE2_MATCH_INVALID_UTF, &code, &at, NULL);
	if (task->pattern)
		return 0;
	pcre2_get_error_message(code, why, sizeof why);
	return fail(err, "answer: the pattern is wrong at %zu: %s", (size_t)at, (const char *)why);
}

static int member(const struct json *json, const char *name, bool needed, char **out,
				  size_t *length, struct error *err)
{
	const struct json_node *node = json_member(json, json->nodes, name);
	struct text value = {0};
	bool number = json_is(node, JSON_NUMBER) && strcmp(name, "answer") == 0;
	if (!node && needed)
		return fail(err, "no \"%s\"", name);
	if (node && !json_is(node, JSON_STRING) && !number)
		return fail(err, "\"%s\": expected a string", name);
	if (node)
		json_string(json, node, &value);
	text_append(&value, "", 0);
	*length = value.length;
	*out = value.data ? text_take(&value) : mem_string("", 0, err);
	return *out ? 0 : fail(err, "no memory for the task");
}

static void task_free(struct task *task)
{
	free(task->prompt);
	free(task->answer);
	free(task->kind);
	pcre2_code_free(task->pattern);
}

static int task_hash(struct task *task, struct error *err)
{
	struct text all = {0};
	text_append(&all, task->prompt, task->prompt_length + 1);
	text_append(&all, task->answer, task->answer_length + 1);
	text_add(&all, match_names[task->match]);
	if (!text_check(&all, err))
		snprintf(task->hash, sizeof task->hash, "%016llx",
				 (unsigned long long)hash_bytes(all.data, all.length));
	int result = text_check(&all, err);
	text_free(&all);
	return result;
}

static int fill(struct task *task, const struct json *json, struct error *err)
{
	size_t length;
	const struct json_node *match = json_member(json, json->nodes, "match");
	if (!json_is(json->nodes, JSON_OBJECT))
		return fail(err, "expected an object {\"prompt\", \"answer\", \"match\"}");
	if (member(json, "prompt", true, &task->prompt, &task->prompt_length, err) ||
		member(json, "answer", true, &task->answer, &task->answer_length, err) ||
		member(json, "kind", false, &task->kind, &length, err))
		return -1;
	while (match && task->match < N_MATCHES && !json_equals(json, match, match_names[task->match]))
		task->match++;
	if (task->match == N_MATCHES)
		return fail(err, "\"match\": expected exact, regex or number");
	if (task->prompt_length == 0)
		return fail(err, "\"prompt\" is empty");
	if (task->match == MATCH_NUMBER &&
		read_number(task->answer, task->answer_length, &task->number) != task->answer_length)
		return fail(err, "\"answer\": '%s' is not a number, which match \"number\" needs",
					task->answer);
	if (task->match == MATCH_REGEX && compile(task, err))
		return -1;
	return task_hash(task, err);
}

static int parse_line(struct tasks *tasks, const char *line, size_t length, int number,
					  struct error *err)
{
	struct json json = {0};
	struct task task = {.line = number};
	int result =
		json_parse(&json, line, length, err) || fill(&task, &json, err) ||
				mem_grow(&tasks->items, &tasks->capacity, tasks->n + 1, sizeof *tasks->items, err)
			? -1
			: 0;
	json_free(&json);
	if (result)
		task_free(&task);
	else
		tasks->items[tasks->n++] = task;
	return result;
}

/* The reader of JSON saw one line only, so its "line 1, column 12: " gives just the column. */
static void name_broken(struct tasks *tasks, const char *name, int number, const char *why)
{
	static const char own[] = "line 1, column ";
	bool placed = strncmp(why, own, sizeof own - 1) == 0;
	text_format(&tasks->broken, "%s: line %d%s %s\n", name, number, placed ? "," : ":",
				why + (placed ? strlen("line 1, ") : 0));
}

int tasks_parse(struct tasks *tasks, const char *name, const char *source, size_t length,
				struct error *err)
{
	int number = 1;
	for (size_t at = 0; at < length; number++) {
		const char *end = memchr(source + at, '\n', length - at);
		size_t n = end ? (size_t)(end - (source + at)) : length - at;
		struct error why = {0};
		bool blank = strspn(source + at, " \t\r\n") >= n;
		if (!blank && parse_line(tasks, source + at, n, number, &why)) {
			tasks->n_broken++;
			name_broken(tasks, name, number, why.text);
		}
		at += n + 1;
	}
	if (tasks->n == 0 && tasks->n_broken > 0)
		return fail(err, "%s: none of %d lines is a task; the first: %.*s", name, tasks->n_broken,
					(int)strcspn(text_chars(&tasks->broken), "\n"), text_chars(&tasks->broken));
	if (tasks->n == 0)
		return fail(err, "%s: no tasks, expected a line of JSON for each", name);
	return text_check(&tasks->broken, err);
}

int tasks_read(struct tasks *tasks, const char *path, struct error *err)
{
	struct text source = {0};
	int result = file_read(path, MAX_FILE_BYTES, &source, err) ||
				 tasks_parse(tasks, path, text_chars(&source), source.length, err);
	text_free(&source);
	return result ? -1 : 0;
}

void tasks_free(struct tasks *tasks)
{
	for (size_t i = 0; i < tasks->n; i++)
		task_free(&tasks->items[i]);
	free(tasks->items);
	text_free(&tasks->broken);
	*tasks = (struct tasks){0};
}

void tasks_limit(struct tasks *tasks, size_t n)
{
	size_t kept = 0, all = tasks->n;
	if (n >= all)
		return;
	for (size_t i = 0; i < all; i++) {
		// the kept-th of n equal parts begins at kept * all / n
		if (kept < n && i == kept * all / n)
			tasks->items[kept++] = tasks->items[i];
		else
			task_free(&tasks->items[i]);
	}
	tasks->n = kept;
}

static void trim(const char **text, size_t *length)
{
	while (*length > 0 && strchr(" \t\r\n", (*text)[0]) && (*text)[0]) {
		(*text)++;
		(*length)--;
	}
	while (*length > 0 && (*text)[*length - 1] && strchr(" \t\r\n", (*text)[*length - 1]))
		(*length)--;
}

static bool found(const struct task *task, const char *reply, size_t length)
{
	pcre2_match_data *data = pcre2_match_data_create(1, NULL);
	pcre2_match_context *context = pcre2_match_context_create(NULL);
	bool yes = false;
	if (data && context) {
		pcre2_set_match_limit(context, REGEX_LIMIT);
		yes = pcre2_match(task->pattern, (PCRE2_SPTR)reply, length, 0, 0, data, context) >= 0;
	}
	pcre2_match_data_free(data);
	pcre2_match_context_free(context);
	return yes;
}

bool task_right(const struct task *task, const char *reply, size_t length)
{
	const char *answer = task->answer;
	size_t answer_length = task->answer_length;
	double number;
	switch (task->match) {
	case MATCH_REGEX: return found(task, reply, length);
	case MATCH_NUMBER:
		return last_number(reply, length, &number) &&
			   fabs(number - task->number) <= 1e-9 * fmax(1, fabs(task->number));
	default: break;
	}
	trim(&reply, &length);
	trim(&answer, &answer_length);
	return length == answer_length && memcmp(reply, answer, length) == 0;
}
