#include "tui/steps.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "tui/pane_compare.h"
#include "tui/state.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_SCRIPT_BYTES (16u << 20)
#define MAX_WAIT_NS 30000000000u

struct steps {
	char *text, *at; // the script; the step that comes next
	char name[256];
	int number;        // of its line
	uint64_t since_ns; // when the wait began, 0 = not waiting
	uint64_t until_ns; // of a rest
};

struct steps *steps_from(const char *text, const char *name, struct error *err)
{
	struct steps *steps = mem_new(1, sizeof *steps, err);
	if (!steps)
		return NULL;
	steps->text = steps->at = mem_string(text, strlen(text), err);
	snprintf(steps->name, sizeof steps->name, "%s", name);
	if (!steps->text) {
		steps_close(steps);
		return NULL;
	}
	return steps;
}

/* A file, or what a pipe or standard input ("-") holds until its end. */
static int read_script(const char *path, struct text *out, struct error *err)
{
	char block[4096];
	size_t n;
	if (file_exists(path) || file_is_directory(path))
		return file_read(path, MAX_SCRIPT_BYTES, out, err);
	FILE *file = strcmp(path, "-") == 0 ? fdopen(dup(STDIN_FILENO), "r") : fopen(path, "re");
	if (!file)
		return fail(err, "%s: %s", path, strerror(errno));
	while ((n = fread(block, 1, sizeof block, file)) > 0 && out->length < MAX_SCRIPT_BYTES)
		text_append(out, block, n);
	int failed = ferror(file) ? fail(err, "%s: %s", path, strerror(errno)) : text_check(out, err);
	fclose(file);
	if (!failed && out->length >= MAX_SCRIPT_BYTES)
		return fail(err, "%s: a script has less than %u MiB", path, MAX_SCRIPT_BYTES >> 20);
	return failed;
}

struct steps *steps_open(const char *path, struct error *err)
{
	struct text text = {0};
	struct steps *steps = NULL;
	if (read_script(path, &text, err) == 0)
		steps = steps_from(text_chars(&text), path, err);
	text_free(&text);
	return steps;
}

void steps_close(struct steps *steps)
{
	if (!steps)
		return;
	free(steps->text);
	free(steps);
}

uint64_t steps_due(const struct steps *steps)
{
	if (steps->until_ns)
		return steps->until_ns;
	return steps->since_ns ? steps->since_ns + MAX_WAIT_NS : 0;
}

static bool screen_has(struct app *app, const char *wanted)
{
	struct text text = {0};
	view_text(app, &text);
	bool has = strstr(text_chars(&text), wanted) != NULL;
	text_free(&text);
	return has;
}

static bool panes_busy(const struct app *app)
{
	bool busy = false;
	for (int i = 0; i < n_panes; i++)
		if (app->panes[i]->more && app->panes[i]->more->busy)
			busy |= app->panes[i]->more->busy(app->panes[i]);
	return busy;
}

/* 1 = what is waited for is there, 0 = not yet, -1 = it can't come or is not understood. */
static int wait_for(struct app *app, const char *what, struct error *err)
{
	const struct talk *talk = &app->talk;
	bool begun = !talk->running || talk->turn_begun;
	if (strcmp(what, "idle") == 0)
		return (talk->model || talk->replay) && !talk->opening && !talk->running &&
			   !pane_compare_running(app->panes[pane_find("compare")]) &&
			   !pane_compare_opening(app->panes[pane_find("compare")]);
	if (strcmp(what, "turn") == 0)
		return !talk->running && talk->reply.done;
	if (strcmp(what, "work") == 0)
		return !panes_busy(app);
	if (strncmp(what, "text ", 5) == 0)
		return screen_has(app, what + 5);
	if (strncmp(what, "token ", 6) == 0) {
		int wanted = atoi(what + 6);
		if (begun && talk->reply.completion_tokens >= wanted)
			return 1;
		if (!talk->running)
			return fail(err, "the turn is over after %d tokens, %d are waited for",
						talk->reply.completion_tokens, wanted);
		return 0;
	}
	return fail(err, "wait %s: idle, turn, work, token N or text T is expected", what);
}

static int write_screen(struct app *app, const char *path, struct error *err)
{
	struct text text = {0};
	view_text(app, &text);
	FILE *file = strcmp(path, "-") == 0 ? fdopen(dup(STDOUT_FILENO), "w") : fopen(path, "w");
	int result = file && fwrite(text_chars(&text), 1, text.length, file) == text.length ? 0 : -1;
	if (file && fclose(file))
		result = -1;
	text_free(&text);
	return result ? fail(err, "%s: %s", path, strerror(errno)) : 0;
}

static int set_size(struct app *app, const char *size, struct error *err)
{
	int columns, rows;
	char rest;
	if (sscanf(size, "%dx%d%c", &columns, &rows, &rest) != 2 || columns < 1 || rows < 1 ||
		columns > 1000 || rows > 1000)
		return fail(err, "size %s: COLUMNSxROWS up to 1000x1000 is expected", size);
	view_resize(app, rows, columns);
	return 0;
}

static int press(struct app *app, const char *name, struct error *err)
{
	int key = key_parse(name, strlen(name));
	if (key < 0)
		return fail(err, "key %s: F5, C-c, A-1, Esc, Enter or a character is expected", name);
	app_key(app, key);
	return 0;
}

static int run_step(struct steps *steps, struct app *app, const char *line, struct error *err)
{
	const char *space = strchr(line, ' ');
	size_t length = space ? (size_t)(space - line) : strlen(line);
	const char *rest = space ? space + 1 : "";
#define IS(word) (length == sizeof word - 1 && strncmp(line, word, length) == 0)
	if (line[0] == ':') {
		app_run_command(app, line + 1);
	} else if (IS("type")) {
		for (const char *c = rest; *c; c++)
			app_key(app, (unsigned char)*c);
	} else if (IS("paste")) {
		app_paste(app, rest, strlen(rest), false);
	} else if (IS("key")) {
		return press(app, rest, err);
	} else if (IS("size")) {
		return set_size(app, rest, err);
	} else if (IS("screen")) {
		return write_screen(app, rest, err);
	} else if (IS("say")) {
		talk_say(&app->talk, "%s", rest);
	} else if (IS("rest")) {
		steps->until_ns = clock_ns() + (uint64_t)atoi(rest) * 1000000u;
	} else {
		return fail(err,
					"'%s' is no step: :command, type, paste, key, wait, size or screen is expected",
					line);
	}
#undef IS
	return 0;
}

/* The line at steps->at, ended by NUL; moves on. */
static char *take_line(struct steps *steps, char **next)
{
	char *line = steps->at, *end = strchrnul(line, '\n');
	*next = *end ? end + 1 : end;
	*end = 0;
	return line;
}

int steps_run(struct steps *steps, struct app *app, struct error *err)
{
	if (steps->until_ns && clock_ns() < steps->until_ns)
		return STEPS_WAITING;
	steps->until_ns = 0;
	if (!*steps->at)
		return STEPS_DONE;
	char *next, *end = strchrnul(steps->at, '\n'), kept = *end;
	char *line = take_line(steps, &next);
	int result = 0;
	if (steps->since_ns == 0)
		steps->number++;
	if (strncmp(line, "wait ", 5) == 0) {
		uint64_t now = clock_ns();
		steps->since_ns = steps->since_ns ? steps->since_ns : now;
		result = wait_for(app, line + 5, err);
		if (result == 0 && now - steps->since_ns > MAX_WAIT_NS)
			result = fail(err, "%s: waited for 30 s", line);
		if (result == 0) {
			*end = kept;
			return STEPS_WAITING;
		}
		steps->since_ns = 0;
	} else if (*line && *line != '#') {
		result = run_step(steps, app, line, err);
	}
	if (result < 0)
		return fail_in(err, "%s: line %d", steps->name, steps->number);
	steps->at = next;
	app->wanted = app->urgent = true;
	return STEPS_AGAIN;
}
