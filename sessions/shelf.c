#include "sessions/shelf.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "sessions/log.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOUND_BYTES 60

struct shelf_turn {
	int id, parent, seq;
};

struct look { // at one log
	struct shelf_row *row;
	const char *search;
	struct text said;  // by one side, until the other one speaks
	struct text last;  // line
	uint64_t began_ns; // session line
	struct shelf_turn *turns;
	size_t n_turns, capacity;
	bool is_log;
};

/* One line, controls as blanks. */
static void flat(struct text *out, const char *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		text_add_char(out, (unsigned char)bytes[i] < 32 ? ' ' : bytes[i]);
}

static bool inside_character(char byte)
{
	return ((unsigned char)byte & 0xc0) == 0x80;
}

static void search_said(struct look *look)
{
	struct text *found = &look->row->found;
	const char *said = text_chars(&look->said);
	const char *at = look->search && !found->length ? strcasestr(said, look->search) : NULL;
	if (at) {
		const char *from = at - said > FOUND_BYTES / 3 ? at - FOUND_BYTES / 3 : said;
		size_t rest = strlen(from), n = rest < FOUND_BYTES ? rest : FOUND_BYTES;
		while (inside_character(*from) && n > 0)
			from++, n--;
		while (n > 0 && inside_character(from[n]))
			n--;
		text_add(found, from > said ? "..." : "");
		flat(found, from, n);
		text_add(found, from[n] ? "..." : "");
	}
	text_clear(&look->said);
}

/* That turn and those before it count; a column's, too, once it was kept. */
static void count_turns(struct look *look, int id)
{
	for (size_t i = look->n_turns; i-- > 0;) {
		struct shelf_turn *turn = &look->turns[i];
		if (turn->id != id)
			continue;
		look->row->n_turns += turn->seq != 0;
		turn->seq = 0;
		id = turn->parent;
	}
}

static void take_turn(struct look *look, const struct event *event)
{
	if (event->seq == 0) {
		count_turns(look, event->turn.parent);
		look->row->n_turns++;
	}
	if (mem_grow(&look->turns, &look->capacity, look->n_turns + 1, sizeof *look->turns, NULL) == 0)
		look->turns[look->n_turns++] =
			(struct shelf_turn){event->turn.id, event->turn.parent, event->seq};
}

static void open_log(struct look *look, const struct event *event)
{
	struct shelf_row *row = look->row;
	struct session_origin origin;
	if (session_origin_read(event, &origin, NULL))
		return;
	if (!row->origin.checkpoint)
		look->began_ns = event->at_ns;
	session_origin_free(&row->origin);
	row->origin = origin;
	look->n_turns = 0; // ids are those of one opening
}

static void take(struct look *look, const struct event *event)
{
	struct shelf_row *row = look->row;
	if (event->type == EV_OPENED)
		open_log(look, event);
	if (event->type == EV_MESSAGE) {
		if (!strcmp(event->message.role, "user") && row->first.length == 0)
			flat(&row->first, event->text, event->length);
		search_said(look);
		text_append(&look->said, event->text, event->length);
		search_said(look);
	}
	if (event->type == EV_TOKEN && event->seq == 0 && !event->token.given)
		text_append(&look->said, event->text, event->length);
	if (event->type == EV_TURN)
		take_turn(look, event);
	if (event->type == EV_KEPT)
		count_turns(look, event->kept.turn);
	if (event->type == EV_STOP)
		search_said(look);
}

static int on_line(void *user, const char *line, size_t length)
{
	static const char token[] = "{\"ev\":\"token\",", given[] = "\"given\":true}";
	struct look *look = user;
	struct event event;
	bool is_token = length > sizeof token && !memcmp(line, token, sizeof token - 1);
	size_t tail = sizeof given - 1;
	bool is_given = length > tail && !memcmp(line + length - tail, given, tail);
	look->row->n_tokens += is_token && !is_given;
	text_clear(&look->last);
	text_append(&look->last, line, length);
	if (is_token && !look->search)
		return 0;
	if (event_read(line, length, &event, NULL) <= 0)
		return 0;
	look->is_log = true;
	take(look, &event);
	event_release(&event);
	return 0;
}

static void row_free(struct shelf_row *row)
{
	free(row->path);
	session_origin_free(&row->origin);
	text_free(&row->first);
	text_free(&row->found);
	*row = (struct shelf_row){0};
}

enum found { NO_LOG, NOT_FOUND, FOUND };

static enum found look_at(struct shelf_row *row, const char *search)
{
	struct look look = {.row = row, .search = search};
	struct event last;
	size_t torn;
	if (session_log_read(row->path, on_line, &look, &torn, NULL) < 0) {
		text_free(&look.last);
		text_free(&look.said);
		free(look.turns);
		return NO_LOG;
	}
	search_said(&look);
	if (event_read(text_chars(&look.last), look.last.length, &last, NULL) > 0) {
		row->length_ns = last.at_ns > look.began_ns ? last.at_ns - look.began_ns : 0;
		event_release(&last);
	}
	text_free(&look.last);
	text_free(&look.said);
	free(look.turns);
	return !look.is_log ? NO_LOG : !search || row->found.length > 0 ? FOUND : NOT_FOUND;
}

static int is_log_name(const struct dirent *entry)
{
	size_t length = strlen(entry->d_name);
	return length > 6 && !strcmp(entry->d_name + length - 6, ".jsonl");
}

/* Names begin with the date. */
static int newest_first(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*b)->d_name, (*a)->d_name);
}

static int add(struct shelf *shelf, const char *name, const char *search, size_t *n_logs,
			   struct error *err)
{
	if (mem_grow(&shelf->rows, &shelf->capacity, shelf->n_rows + 1, sizeof *shelf->rows, err))
		return -1;
	struct shelf_row *row = &shelf->rows[shelf->n_rows];
	*row = (struct shelf_row){.path = file_join(shelf->directory, name, err)};
	if (!row->path)
		return -1;
	enum found found = look_at(row, search);
	*n_logs += found != NO_LOG;
	row->number = *n_logs;
	if (found == FOUND)
		shelf->n_rows++;
	else
		row_free(row);
	return 0;
}

int shelf_open(const char *directory, const char *search, struct shelf *shelf, struct error *err)
{
	struct dirent **names = NULL;
	int failed = 0;
	size_t n_logs = 0;
	*shelf = (struct shelf){0};
	shelf->directory = directory ? mem_string(directory, strlen(directory), err)
								 : file_place(PLACE_DATA, "sessions", err);
	if (!shelf->directory)
		return -1;
	int n = scandir(shelf->directory, &names, is_log_name, newest_first);
	if (n < 0 && errno != ENOENT)
		failed = fail(err, "%s: %s", shelf->directory, strerror(errno));
	for (int i = 0; i < n; i++) {
		failed = failed || add(shelf, names[i]->d_name, search, &n_logs, err);
		free(names[i]);
	}
	free(names);
	if (failed)
		shelf_close(shelf);
	return failed ? -1 : 0;
}

void shelf_close(struct shelf *shelf)
{
	for (size_t i = 0; i < shelf->n_rows; i++)
		row_free(&shelf->rows[i]);
	free(shelf->rows);
	free(shelf->directory);
	*shelf = (struct shelf){0};
}

/* Counts whole logs as the list does. */
static char *find_number(const char *directory, long number, struct error *err)
{
	struct shelf shelf;
	char *path = NULL;
	if (shelf_open(directory, NULL, &shelf, err))
		return NULL;
	if (number < 1 || (size_t)number > shelf.n_rows) {
		fail(err, "session %ld: there %s %zu in %s", number, shelf.n_rows == 1 ? "is" : "are",
			 shelf.n_rows, shelf.directory);
	} else {
		path = shelf.rows[number - 1].path;
		shelf.rows[number - 1].path = NULL;
	}
	shelf_close(&shelf);
	return path;
}

char *shelf_find(const char *directory, const char *name, struct error *err)
{
	struct text file = {0};
	if (file_exists(name))
		return mem_string(name, strlen(name), err);
	if (name[0] && strspn(name, "0123456789") == strlen(name) && strlen(name) < 9)
		return find_number(directory, strtol(name, NULL, 10), err);
	char *folder = directory ? mem_string(directory, strlen(directory), err)
							 : file_place(PLACE_DATA, "sessions", err);
	char *path = NULL;
	for (int i = 0; folder && i < 2 && !path; i++) {
		text_clear(&file);
		text_format(&file, "%s%s", name, i ? ".jsonl" : "");
		path = file_join(folder, text_chars(&file), err);
		if (path && !file_exists(path)) {
			free(path);
			path = NULL;
		}
	}
	if (!path && folder)
		fail(err, "%s: no such session, neither as a file nor in %s", name, folder);
	text_free(&file);
	free(folder);
	return path;
}

/* "43ms", "9.1s", "1m 23s" */
static void add_duration(uint64_t ns, struct text *out)
{
	uint64_t s = ns / 1000000000;
	if (ns < 1000000000)
		text_format(out, "%.3gms", (double)ns / 1e6);
	else if (s < 60)
		text_format(out, "%.1fs", (double)ns / 1e9);
	else if (s < 3600)
		text_format(out, "%dm %02ds", (int)(s / 60), (int)(s % 60));
	else
		text_format(out, "%dh %02dm", (int)(s / 3600), (int)(s % 3600 / 60));
}

static const char *last_part(const char *path)
{
	const char *slash = path ? strrchr(path, '/') : NULL;
	return slash ? slash + 1 : path ? path : "-";
}

/* At most `room` characters. */
static void add_cut(struct text *out, const struct text *text, int room)
{
	const char *from = text_chars(text);
	size_t n = 0;
	for (int i = 0; i < room && n < text->length; i++)
		for (n++; n < text->length && inside_character(from[n]); n++)
			;
	text_append(out, from, n);
}

/* The columns before the first words; narrow screens do without checkpoint and budgets. */
static int columns_of(const struct shelf_row *row, bool wide, char *line, size_t size)
{
	struct text length = {0};
	char date[24], origin[64] = "";
	snprintf(date, sizeof date, "%.16s", row->origin.time[0] ? row->origin.time : "-");
	if (strlen(date) > 10)
		date[10] = ' ';
	if (wide)
		snprintf(origin, sizeof origin, "%-12.12s %-16s %7d ", last_part(row->origin.checkpoint),
				 row->origin.hash[0] ? row->origin.hash : "-", row->origin.n_budgets);
	add_duration(row->length_ns, &length);
	int n = snprintf(line, size, "%3zu  %-16s  %s%5d %6d %8s  ", row->number, date, origin,
					 row->n_turns, row->n_tokens, text_chars(&length));
	text_free(&length);
	return n;
}

void shelf_table(const struct shelf *shelf, int columns, struct text *out)
{
	bool wide = columns >= 110;
	char line[192];
	text_format(out, "%3s  %-16s  ", "#", "date (UTC)");
	if (wide)
		text_format(out, "%-12s %-16s %7s ", "checkpoint", "hash", "budgets");
	text_format(out, "%5s %6s %8s  first words\n", "turns", "tokens", "length");
	for (size_t i = 0; i < shelf->n_rows; i++) {
		const struct shelf_row *row = &shelf->rows[i];
		int room = columns - columns_of(row, wide, line, sizeof line);
		text_add(out, line);
		add_cut(out, row->found.length ? &row->found : &row->first, room > 10 ? room : 10);
		text_add_char(out, '\n');
	}
}
