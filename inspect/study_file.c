#include "inspect/study_file.h"
#include "base/file.h"
#include "base/memory.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FILE_BYTES ((size_t)4 << 30)
#define MAX_FIELDS 64

struct study_file {
	const struct study_fact *facts;
	size_t n_facts;
	char *path;
	int fd;
	struct text line; // reused
};

/* What follows the facts and the axes; `text` comes last and is always quoted, so that a torn line
 * never looks whole. */
enum column {
	COLUMN_LINE,
	COLUMN_TASK,
	COLUMN_KIND,
	COLUMN_TURN_SEED,
	COLUMN_PROMPT_TOKENS,
	COLUMN_THINK_TOKENS,
	COLUMN_TOKENS,
	COLUMN_STEPS,
	COLUMN_SWITCHES,
	COLUMN_PREFILL_MS,
	COLUMN_SWITCH_MS,
	COLUMN_DECODE_MS,
	COLUMN_FIRST_MS,
	COLUMN_MS,
	COLUMN_CORRECT,
	COLUMN_FINISH,
	COLUMN_TPS,    // steps / decode_ms; written only
	COLUMN_ENERGY, // joules: empty, nothing measures them
	COLUMN_TEXT,
	N_COLUMNS
};

static const char *const columns[N_COLUMNS] = {
	[COLUMN_LINE] = "line",
	[COLUMN_TASK] = "task",
	[COLUMN_KIND] = "kind",
	[COLUMN_TURN_SEED] = "turn_seed",
	[COLUMN_PROMPT_TOKENS] = "prompt_tokens",
	[COLUMN_THINK_TOKENS] = "think_tokens",
	[COLUMN_TOKENS] = "tokens",
	[COLUMN_STEPS] = "steps",
	[COLUMN_SWITCHES] = "switches",
	[COLUMN_PREFILL_MS] = "prefill_ms",
	[COLUMN_SWITCH_MS] = "switch_ms",
	[COLUMN_DECODE_MS] = "decode_ms",
	[COLUMN_FIRST_MS] = "first_ms",
	[COLUMN_MS] = "ms",
	[COLUMN_CORRECT] = "correct",
	[COLUMN_FINISH] = "finish",
	[COLUMN_TPS] = "tokens_per_second",
	[COLUMN_ENERGY] = "energy_joules",
	[COLUMN_TEXT] = "text",
};

/* ---- writing ---- */

static void add_quoted(struct text *line, const char *field)
{
	text_add_char(line, '"');
	for (; *field; field++) {
		if (*field == '"')
			text_add(line, "\"\"");
		else if (*field == '\n')
			text_add(line, "\\n");
		else if (*field == '\r')
			text_add(line, "\\r");
		else if (*field == '\\')
			text_add(line, "\\\\");
		else
			text_add_char(line, *field);
	}
	text_add_char(line, '"');
}

static void add_field(struct text *line, const char *field)
{
	if (line->length > 0)
		text_add_char(line, ',');
	if (field[strcspn(field, ",\"\n\r\\")])
		add_quoted(line, field);
	else
		text_add(line, field);
}

static void add_number(struct text *line, uint64_t value)
{
	text_format(line, ",%llu", (unsigned long long)value);
}

static void add_ms(struct text *line, uint64_t ns)
{
	text_format(line, ",%llu.%06llu", (unsigned long long)(ns / 1000000),
				(unsigned long long)(ns % 1000000));
}

static void add_header(struct text *line, const struct study_fact *facts, size_t n_facts)
{
	for (size_t i = 0; i < n_facts; i++)
		add_field(line, facts[i].name);
	for (int axis = 0; axis < N_GRID_AXES; axis++)
		add_field(line, grid_axis_name((enum grid_axis)axis));
	for (int i = 0; i < N_COLUMNS; i++)
		add_field(line, columns[i]);
	text_add_char(line, '\n');
}

static int write_line(struct study_file *file, struct error *err)
{
	const char *at = text_chars(&file->line);
	size_t left = file->line.length;
	if (text_check(&file->line, err))
		return -1;
	while (left > 0) {
		ssize_t n = write(file->fd, at, left);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(err, "%s: %s", file->path, strerror(errno));
		at += n;
		left -= (size_t)n;
	}
	return 0;
}

int study_file_add(struct study_file *file, const struct study *study, size_t task, size_t cell,
				   struct error *err)
{
	const struct study_row *row = study_row(study, task, cell);
	const struct task *asked = &study->tasks->items[task];
	struct text *line = &file->line;
	text_clear(line);
	for (size_t i = 0; i < file->n_facts; i++)
		add_field(line, file->facts[i].value);
	for (int axis = 0; axis < N_GRID_AXES; axis++)
		add_field(line, study->cells[cell].value[axis]);
	add_number(line, (uint64_t)asked->line);
	add_field(line, asked->hash);
	add_field(line, asked->kind);
	add_number(line, row->seed);
	const int counts[] = {row->prompt_tokens, row->think_tokens, row->tokens, row->steps,
						  row->switches};
	for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
		add_number(line, (uint64_t)counts[i]);
	const uint64_t times[] = {row->prefill_ns, row->switch_ns, row->decode_ns, row->first_ns,
							  row->total_ns};
	for (size_t i = 0; i < sizeof times / sizeof times[0]; i++)
		add_ms(line, times[i]);
	add_number(line, row->right);
	add_field(line, stop_reason_name(row->reason));
	text_add_char(line, ',');
	if (row->decode_ns > 0) // empty = unknown, as the energy
		text_format(line, "%.3f", row->steps * 1e9 / (double)row->decode_ns);
	text_add(line, ",,");
	add_quoted(line, row->text);
	text_add_char(line, '\n');
	return write_line(file, err);
}

/* ---- reading ---- */

/* Splits a line into fields, undoing quotes and backslashes in place. -1: a quote stays open, or
 * there are too many. */
static int split(char *line, char *fields[MAX_FIELDS])
{
	int n = 0;
	for (char *at = line;; at++) {
		if (n == MAX_FIELDS)
			return -1;
		char *to = fields[n++] = at;
		bool quoted = *at == '"';
		at += quoted;
		for (; *at && (quoted || *at != ','); at++) {
			if (quoted && *at == '"') {
				if (at[1] != '"')
					break;
				at++;
			} else if (quoted && *at == '\\' && at[1]) {
				at++;
				*to++ = *at == 'n' ? '\n' : *at == 'r' ? '\r' : *at;
				continue;
			}
			*to++ = *at;
		}
		if (quoted && *at != '"')
			return -1;
		at += quoted;
		bool end = !*at;
		if (!end && *at != ',')
			return -1;
		*to = 0;
		if (end)
			return n;
	}
}

static bool read_count(const char *field, uint64_t *value)
{
	char *end;
	errno = 0;
	*value = strtoull(field, &end, 10);
	return end != field && !*end && !errno && field[0] != '-';
}

static bool read_ms(const char *field, uint64_t *ns)
{
	char *end;
	double ms = strtod(field, &end);
	*ns = (uint64_t)(ms * 1e6 + 0.5);
	return end != field && !*end && ms >= 0 && ms < 1e12;
}

/* The row of a line's columns; false: some field is not what it should be. */
static bool read_row(char **fields, struct study_row *row)
{
	int *counts[] = {&row->prompt_tokens, &row->think_tokens, &row->tokens, &row->steps,
					 &row->switches};
	uint64_t *times[] = {&row->prefill_ns, &row->switch_ns, &row->decode_ns, &row->first_ns,
						 &row->total_ns};
	uint64_t value;
	if (!read_count(fields[COLUMN_TURN_SEED], &row->seed) ||
		!read_count(fields[COLUMN_CORRECT], &value) || value > 1)
		return false;
	row->right = value == 1;
	for (int i = 0; i < 5; i++) {
		if (!read_count(fields[COLUMN_PROMPT_TOKENS + i], &value) || value > INT32_MAX ||
			!read_ms(fields[COLUMN_PREFILL_MS + i], times[i]))
			return false;
		*counts[i] = (int)value;
	}
	for (int reason = STOP_EOS; reason <= STOP_ERROR; reason++)
		if (strcmp(fields[COLUMN_FINISH], stop_reason_name((enum stop_reason)reason)) == 0) {
			row->reason = (enum stop_reason)reason;
			row->failed = reason == STOP_ERROR;
			return true;
		}
	return false;
}

static size_t find_cell(const struct study *study, char **axes)
{
	struct cell wanted;
	size_t cell = 0;
	for (int axis = 0; axis < N_GRID_AXES; axis++)
		wanted.value[axis] = axes[axis];
	while (cell < study->n_cells && !cell_equal(&study->cells[cell], &wanted))
		cell++;
	return cell;
}

/* Takes one line's row, if the study has a place for it. */
static int take_line(struct study_file *file, struct study *study, char *line, struct error *err)
{
	char *fields[MAX_FIELDS];
	int expected = (int)file->n_facts + N_GRID_AXES + N_COLUMNS, n = split(line, fields);
	if (n != expected)
		return fail(err, "expected %d columns, found %d", expected, n);
	for (size_t i = 0; i < file->n_facts; i++)
		if (strcmp(fields[i], file->facts[i].value))
			return fail(err, "%s is %s there and %s here; use another file", file->facts[i].name,
						fields[i], file->facts[i].value);
	char **axes = fields + file->n_facts, **own = axes + N_GRID_AXES;
	struct study_row row = {0};
	uint64_t number;
	if (!read_count(own[COLUMN_LINE], &number) || !read_row(own, &row))
		return fail(err, "not a row of a study");
	size_t cell = find_cell(study, axes), task = 0;
	while (task < study->tasks->n && (uint64_t)study->tasks->items[task].line != number)
		task++;
	if (cell == study->n_cells || task == study->tasks->n)
		return 0; // of a larger grid, or without --limit
	if (strcmp(own[COLUMN_TASK], study->tasks->items[task].hash))
		return fail(err, "the task of line %llu is %s there and %s here; use another file",
					(unsigned long long)number, own[COLUMN_TASK], study->tasks->items[task].hash);
	row.text = mem_string(own[COLUMN_TEXT], strlen(own[COLUMN_TEXT]), err);
	if (!row.text)
		return -1;
	study_put(study, task, cell, &row);
	return 0;
}

static int check_header(struct study_file *file, const char *found, struct error *err)
{
	text_clear(&file->line);
	add_header(&file->line, file->facts, file->n_facts);
	if (text_check(&file->line, err))
		return -1;
	size_t length = file->line.length - 1;
	if (strlen(found) != length || memcmp(found, file->line.data, length))
		return fail(err, "%s: line 1: not the head of a study of this version; use another file",
					file->path);
	return 0;
}

/* Reads all whole lines; cuts off what follows the last one. */
static int resume(struct study_file *file, struct study *study, struct error *err)
{
	struct text source = {0};
	int result = file_read(file->path, MAX_FILE_BYTES, &source, err), number = 1;
	char *at = source.data, *end = NULL;
	for (; !result && source.length > 0 &&
		   (end = memchr(at, '\n', source.length - (size_t)(at - source.data)));
		 at = end + 1, number++) {
		*end = 0;
		if (number == 1)
			result = check_header(file, at, err);
		else if (take_line(file, study, at, err))
			result = fail_in(err, "%s: line %d", file->path, number);
	}
	size_t whole = source.data ? (size_t)(at - source.data) : 0;
	if (!result && whole < source.length && number == 1)
		result = fail(err, "%s: not a study, expected a line of CSV; use another file", file->path);
	if (!result && whole < source.length && ftruncate(file->fd, (off_t)whole))
		result = fail(err, "%s: %s", file->path, strerror(errno));
	bool empty = number == 1;
	text_free(&source);
	study->n_had = study->n_done;
	if (result || !empty)
		return result;
	text_clear(&file->line);
	add_header(&file->line, file->facts, file->n_facts);
	return write_line(file, err);
}

struct study_file *study_file_open(const char *path, struct study *study,
								   const struct study_fact *facts, size_t n_facts,
								   struct error *err)
{
	struct study_file *file = mem_new(1, sizeof *file, err);
	bool out = strcmp(path, "-") == 0;
	if (!file)
		return NULL;
	*file = (struct study_file){.facts = facts, .n_facts = n_facts, .fd = -1};
	file->path = mem_string(out ? "stdout" : path, strlen(out ? "stdout" : path), err);
	int result = file->path ? 0 : -1;
	if (out && !result) {
		file->fd = STDOUT_FILENO;
		add_header(&file->line, facts, n_facts);
		result = write_line(file, err);
	} else if (!result) {
		file->fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
		if (file->fd < 0)
			result = fail(err, "%s: %s", path, strerror(errno));
		else if (flock(file->fd, LOCK_EX | LOCK_NB))
			result = fail(err, "%s: another study writes to it", path);
		else
			result = resume(file, study, err);
	}
	if (!result)
		return file;
	study_file_close(file);
	return NULL;
}

void study_file_close(struct study_file *file)
{
	if (!file)
		return;
	if (file->fd > STDERR_FILENO)
		close(file->fd);
	text_free(&file->line);
	free(file->path);
	free(file);
}
