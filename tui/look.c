#include "tui/look.h"
#include "tui/cells.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

bool list_action(struct list *list, int n, int rows, enum action action)
{
	/* As if every line could be the top one: then the top is the cursor. */
	bool taken = pane_scroll(&list->cursor, n + rows - 1, rows, action);
	if (taken)
		list_show(list, n, rows);
	return taken;
}

void list_show(struct list *list, int n, int rows)
{
	rows = rows < 1 ? 1 : rows;
	if (list->cursor >= n)
		list->cursor = n - 1;
	if (list->cursor < 0)
		list->cursor = 0;
	if (list->top > list->cursor)
		list->top = list->cursor;
	if (list->top <= list->cursor - rows)
		list->top = list->cursor - rows + 1;
	if (list->top > n - rows)
		list->top = n - rows;
	if (list->top < 0)
		list->top = 0;
}

/* Moves the cursor to the next line (direction 1 or -1; 0 = the cursor's own counts too) in which
 * `needle` occurs, without regard to case. False if there is none. */
static bool list_search(struct list *list, const struct list_lines *lines, const char *needle,
						int direction)
{
	struct text text = {0};
	bool found = false;
	int step = direction < 0 ? -1 : 1, first = direction == 0 ? 0 : 1;
	for (int k = first; k < lines->n + first && !found && *needle; k++) {
		int i = ((list->cursor + step * k) % lines->n + lines->n) % lines->n;
		text_clear(&text);
		lines->line(lines->user, i, &text);
		found = strcasestr(text_chars(&text), needle) != NULL;
		if (found)
			list->cursor = i;
	}
	text_free(&text);
	return found;
}

bool list_search_action(struct list *list, const struct list_lines *lines, struct pane *pane,
						enum action action)
{
	if (action != ACTION_SEARCH && action != ACTION_SEARCH_NEXT && action != ACTION_SEARCH_PREVIOUS)
		return false;
	int direction = action == ACTION_SEARCH ? 0 : action == ACTION_SEARCH_NEXT ? 1 : -1;
	if (!list_search(list, lines, pane->search, direction))
		snprintf(pane->message, sizeof pane->message, "not found: %s", pane->search);
	return true;
}

static struct number unknown(void)
{
	return (struct number){"N/A"};
}

static struct number scaled(double value, double base, const char *const units[5])
{
	struct number out;
	int unit = 0;
	while (value >= 999.5 && unit < 4) {
		value /= base;
		unit++;
	}
	int decimals = unit == 0 || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
	snprintf(out.text, sizeof out.text, "%.*f%s", decimals, value, units[unit]);
	return out;
}

struct number number_count(double count)
{
	static const char *const units[5] = {"", "k", "M", "G", "T"};
	return isnan(count) || count < 0 ? unknown() : scaled(count, 1000, units);
}

struct number number_bytes(int64_t bytes)
{
	static const char *const units[5] = {" B", " KiB", " MiB", " GiB", " TiB"};
	return bytes < 0 ? unknown() : scaled((double)bytes, 1024, units);
}

struct number number_percent(double share)
{
	struct number out = unknown();
	if (!isnan(share))
		snprintf(out.text, sizeof out.text, "%.1f%%", 100 * share);
	return out;
}

struct number number_rate(double per_second)
{
	static const char *const units[5] = {"", "k", "M", "G", "T"};
	if (!(per_second > 0))
		return unknown();
	if (per_second >= 999.5)
		return scaled(per_second, 1000, units);
	return number_fixed(per_second, per_second < 99.95 ? 1 : 0);
}

struct number number_fixed(double value, int decimals)
{
	struct number out = unknown();
	if (!isnan(value))
		snprintf(out.text, sizeof out.text, "%.*f", decimals, value);
	return out;
}

const char *axis_short(enum axis axis)
{
	static const char *const names[N_AXES + 1] = {
		[AXIS_HIDDEN] = "hidden",
		[AXIS_EXPERT_FFN] = "expert ffn",
		[AXIS_EXPERTS] = "experts",
		[AXIS_SHARED_FFN] = "shared ffn",
		[AXIS_FFN] = "ffn",
		[AXIS_MAMBA_HEADS] = "mamba heads",
		[AXIS_MAMBA_CHANNELS] = "mamba chans",
		[AXIS_ATTENTION_HEADS] = "attn heads",
		[N_AXES] = "layers",
	};
	return names[axis];
}

struct number budget_label(const struct elastic *elastic, int index, const char *name, int columns)
{
	struct number out;
	char whole[sizeof((struct budget *)0)->name + 4];
	int width, most = columns < (int)sizeof out.text - 1 ? columns : (int)sizeof out.text - 1;
	if (index >= 0)
		snprintf(whole, sizeof whole, "%c %s", elastic_mark(elastic, index), name);
	else
		snprintf(whole, sizeof whole, "%s", name);
	size_t fits = cells_fit(whole, strlen(whole), most, &width);
	if (fits >= sizeof out.text)
		fits = 0; // many bytes in few columns: not a name that fits
	snprintf(out.text, sizeof out.text, "%.*s", (int)fits, whole);
	return out;
}

void look_heat_line(const struct canvas *canvas, int row, int column, const float *values, int n)
{
	float both[2 * LOOK_HEAT_COLUMNS]; // half blocks: the same above and below
	if (n > LOOK_HEAT_COLUMNS)
		n = LOOK_HEAT_COLUMNS;
	for (int i = 0; i < n; i++)
		both[i] = both[n + i] = values[i];
	bool half = canvas_heat_rows(canvas, 2) == 1;
	canvas_heat(canvas, row, column, both, half ? 2 : 1, n, RAMP_SEQUENTIAL);
}

int look_heat_columns(int n, int room)
{
	if (room > LOOK_HEAT_COLUMNS)
		room = LOOK_HEAT_COLUMNS;
	if (n < 1 || room <= n)
		return room;
	return n * (room / n < 4 ? room / n : 4);
}

int look_budget(const struct talk *talk)
{
	return talk_budget_index(talk, talk_budget_name(talk));
}

void look_say(const struct canvas *canvas, int row, enum role role, const char *sentence)
{
	size_t length = strlen(sentence), at = 0;
	int columns = canvas->columns > 4 ? canvas->columns - 2 : canvas->columns;
	while (at < length && row < canvas->rows && columns > 0) {
		size_t next, n = cells_wrap(sentence + at, length - at, columns, &next);
		canvas_bytes(canvas, row++, canvas->columns > 4 ? 1 : 0, role, sentence + at, n);
		at += next;
	}
}

bool look_ready(const struct pane *pane, const struct canvas *canvas)
{
	if (pane->talk->model)
		return true;
	look_say(canvas, 0, ROLE_DIM,
			 pane->talk->opening  ? "Opening the model ..."
			 : pane->talk->replay ? "No model: this is a replay, and a session keeps no weights."
								  : "No model is open (:open DIR).");
	return false;
}
