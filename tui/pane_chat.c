/*
 * The conversation. Its lines are wrapped once and again only where the transcript changed; a live
 * entry that grew is wrapped on from its last line.
 */
#include "base/memory.h"
#include "tui/cells.h"
#include "tui/pane.h"
#include "tui/status.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum line_kind { LINE_BLANK, LINE_LABEL, LINE_TEXT };

struct chat_line {
	uint32_t entry, offset, length;
	enum line_kind kind;
};

struct wrapped { // what an entry looked like when it was wrapped
	uint64_t version;
	size_t first_line, text_length;
	bool folded, live;
};

struct pane_chat {
	struct pane pane;
	struct chat_line *lines;
	size_t n_lines, capacity;
	struct wrapped *wrapped;
	size_t n_wrapped, wrapped_capacity;
	int columns, rows; // of the last drawing
	int top;
	bool follow;
	size_t seen; // lines when the tail was left
	int hit;     // line of the last search hit, -1 = none
};

static const struct transcript *transcript_of(const struct pane_chat *chat)
{
	return &chat->pane.talk->transcript;
}

static void add_line(struct pane_chat *chat, struct chat_line line)
{
	if (mem_grow(&chat->lines, &chat->capacity, chat->n_lines + 1, sizeof *chat->lines, NULL) == 0)
		chat->lines[chat->n_lines++] = line;
}

static bool is_hidden(const struct entry *entry)
{
	return entry->kind == ENTRY_THOUGHT && entry->folded;
}

static void wrap_from(struct pane_chat *chat, uint32_t index, size_t offset)
{
	const struct entry *entry = &transcript_of(chat)->entries[index];
	int columns = chat->columns > 4 ? chat->columns - 2 : 2;
	while (offset < entry->text.length) {
		size_t next;
		size_t length =
			cells_wrap(entry->text.data + offset, entry->text.length - offset, columns, &next);
		add_line(chat, (struct chat_line){index, (uint32_t)offset, (uint32_t)length, LINE_TEXT});
		offset += next;
	}
}

static void wrap_entry(struct pane_chat *chat, uint32_t index)
{
	const struct entry *entry = &transcript_of(chat)->entries[index];
	if (index > 0 && entry->kind == ENTRY_USER)
		add_line(chat, (struct chat_line){index, 0, 0, LINE_BLANK});
	add_line(chat, (struct chat_line){index, 0, 0, LINE_LABEL});
	if (!is_hidden(entry))
		wrap_from(chat, index, 0);
}

/* The last entry only grew: its last line is wrapped again, and what follows. */
static bool grow_last(struct pane_chat *chat, size_t index)
{
	const struct entry *entry = &transcript_of(chat)->entries[index];
	struct wrapped *old = &chat->wrapped[index];
	if (old->folded != entry->folded || old->text_length > entry->text.length ||
		chat->n_lines < old->first_line + 1)
		return false;
	const struct chat_line *last = &chat->lines[chat->n_lines - 1];
	if (last->kind != LINE_TEXT || last->entry != index)
		return false;
	size_t offset = last->offset;
	chat->n_lines--;
	wrap_from(chat, (uint32_t)index, offset);
	return true;
}

static void wrap(struct pane_chat *chat)
{
	const struct transcript *transcript = transcript_of(chat);
	size_t same = 0;
	while (same < chat->n_wrapped && same < transcript->n_entries &&
		   chat->wrapped[same].version == transcript->entries[same].version &&
		   chat->wrapped[same].folded == transcript->entries[same].folded)
		same++;
	if (same == transcript->n_entries && same == chat->n_wrapped)
		return;
	bool grown =
		same + 1 == transcript->n_entries && same + 1 == chat->n_wrapped && grow_last(chat, same);
	if (!grown && same < chat->n_wrapped)
		chat->n_lines = chat->wrapped[same].first_line;
	if (mem_grow(&chat->wrapped, &chat->wrapped_capacity, transcript->n_entries + 1,
				 sizeof *chat->wrapped, NULL))
		return;
	for (size_t i = same; i < transcript->n_entries; i++) {
		const struct entry *entry = &transcript->entries[i];
		size_t first = grown ? chat->wrapped[i].first_line : chat->n_lines;
		if (!grown)
			wrap_entry(chat, (uint32_t)i);
		chat->wrapped[i] =
			(struct wrapped){entry->version, first, entry->text.length, entry->folded, entry->live};
	}
	chat->n_wrapped = transcript->n_entries;
}

static void wrap_anew(struct pane_chat *chat)
{
	chat->n_lines = chat->n_wrapped = 0;
	chat->hit = -1;
	wrap(chat);
}

static int last_top(const struct pane_chat *chat)
{
	int top = (int)chat->n_lines - chat->rows;
	return top > 0 ? top : 0;
}

static void thought_label(const struct pane_chat *chat, const struct entry *entry, struct text *out)
{
	int last = -2;
	text_add(out, entry->live ? "thinking" : "thought");
	for (size_t i = 0; i < entry->n_tokens; i++) { // the budgets in the order they wrote
		int budget = entry->tokens[i].budget;
		if (budget == last)
			continue;
		text_format(out, "%s%.24s", last == -2 ? " [" : ">",
					talk_writer_name(chat->pane.talk, budget));
		last = budget;
	}
	if (last != -2)
		text_add(out, "]");
	text_format(out, " %zu token%s", entry->n_tokens, entry->n_tokens == 1 ? "" : "s");
	if (entry->took_ns > 0) {
		text_add(out, ", ");
		status_rate(entry->steps * 1e9 / (double)entry->took_ns, out);
		text_format(out, " tok/s, %.2f s", (double)entry->took_ns / 1e9);
	}
}

static void draw_label(const struct pane_chat *chat, const struct canvas *canvas, int row,
					   const struct entry *entry)
{
	struct text label = {0};
	switch (entry->kind) {
	case ENTRY_USER: canvas_text(canvas, row, 0, ROLE_USER, "User"); break;
	case ENTRY_THOUGHT:
		text_format(&label, "%s ",
					canvas_glyph(canvas, is_hidden(entry) ? GLYPH_FOLDED : GLYPH_UNFOLDED));
		thought_label(chat, entry, &label);
		canvas_text(canvas, row, 0, ROLE_THOUGHT, text_chars(&label));
		break;
	case ENTRY_ANSWER: canvas_text(canvas, row, 0, ROLE_HEADING, "Answer"); break;
	case ENTRY_NOTE: canvas_text(canvas, row, 0, ROLE_DIM, "Note"); break;
	}
	text_free(&label);
}

/* Where `search` occurs in the line, without regard to case; -1 = nowhere. */
static int find_in(const char *bytes, size_t length, const char *search)
{
	size_t n = strlen(search);
	for (size_t i = 0; n > 0 && i + n <= length; i++)
		if (strncasecmp(bytes + i, search, n) == 0)
			return (int)i;
	return -1;
}

static void draw_line(const struct pane_chat *chat, const struct canvas *canvas, int row,
					  const struct chat_line *line)
{
	static const enum role roles[] = {[ENTRY_USER] = ROLE_TEXT,
									  [ENTRY_THOUGHT] = ROLE_THOUGHT,
									  [ENTRY_ANSWER] = ROLE_ANSWER,
									  [ENTRY_NOTE] = ROLE_DIM};
	const struct entry *entry = &transcript_of(chat)->entries[line->entry];
	if (line->kind == LINE_LABEL) {
		draw_label(chat, canvas, row, entry);
	} else if (line->kind == LINE_TEXT) {
		const char *bytes = entry->text.data + line->offset;
		canvas_bytes(canvas, row, 2, roles[entry->kind], bytes, line->length);
		int hit = find_in(bytes, line->length, chat->pane.search);
		if (hit >= 0)
			canvas_bytes(canvas, row, 2 + canvas_width(bytes, (size_t)hit), ROLE_MARK, bytes + hit,
						 strlen(chat->pane.search));
	}
}

static const char welcome[] =
	"It does sums, sorting, spelling and knows 47 facts about itself; press Tab.\n"
	"F5 F6 F7 or Alt-1 2 3 change the budget while it writes; F8 splits phases.\n"
	"F4 handoff, F9 ends the thinking, Esc to the views, F1 help, Ctrl-C stops.\n";

static void draw_welcome(const struct pane_chat *chat, const struct canvas *canvas)
{
	const struct talk *talk = chat->pane.talk;
	int row = canvas->rows > 8 ? 1 : 0;
	if (!talk->model) {
		canvas_text(canvas, row, 2, ROLE_DIM,
					talk->opening  ? "Opening the model ..."
					: talk->replay ? "A replay: no model is needed."
								   : "No model is open.");
		return;
	}
	const struct elastic *elastic = &talk->model->elastic;
	canvas_print(canvas, row++, 2, ROLE_HEADING, "%s: %d budget%s in one checkpoint",
				 talk->model->name, elastic->n_budgets, elastic->n_budgets == 1 ? "" : "s");
	for (int i = elastic->n_budgets - 1, key = 5; i >= 0 && row < canvas->rows; i--, key++) {
		int at = 4;
		if (key <= 7)
			canvas_print(canvas, row, at, ROLE_DIM, "F%d", key);
		at += 4;
		at += canvas_print(canvas, row, at, role_of_budget(i), "%c %s", elastic_mark(elastic, i),
						   elastic->budgets[i].name);
		canvas_print(canvas, row++, at, ROLE_DIM, "  hidden %d, experts %d",
					 elastic->budgets[i].width[AXIS_HIDDEN],
					 elastic->budgets[i].width[AXIS_EXPERTS]);
	}
	if (strcmp(talk->model->name, "demo") != 0)
		return;
	row += row + 4 <= canvas->rows;
	for (size_t at = 0, next; welcome[at] && row < canvas->rows; at += next) {
		size_t length = cells_wrap(welcome + at, strlen(welcome + at), canvas->columns - 3, &next);
		canvas_bytes(canvas, row++, 2, ROLE_TEXT, welcome + at, length);
	}
}

static void chat_event(struct pane *pane, const struct event *event)
{
	(void)event;
	pane->dirty = true;
}

/* The first line that shows what the anchor showed, now that lines were wrapped anew. */
static int find_line(const struct pane_chat *chat, const struct chat_line *anchor)
{
	int best = 0;
	for (size_t i = 0; i < chat->n_lines; i++) {
		const struct chat_line *line = &chat->lines[i];
		if (line->entry > anchor->entry ||
			(line->entry == anchor->entry && line->offset > anchor->offset))
			break;
		if (line->entry < anchor->entry || line->kind <= anchor->kind)
			best = (int)i;
	}
	return best;
}

/* Wraps what changed. A reader who has left the tail keeps the line at the top, whatever folds. */
static void wrap_in_place(struct pane_chat *chat, bool resized)
{
	bool anchored = !chat->follow && (size_t)chat->top < chat->n_lines;
	struct chat_line anchor = anchored ? chat->lines[chat->top] : (struct chat_line){0};
	if (resized)
		wrap_anew(chat);
	else
		wrap(chat);
	if (anchored)
		chat->top = find_line(chat, &anchor);
	if (chat->seen > chat->n_lines)
		chat->seen = chat->n_lines;
	if (chat->follow || chat->top > last_top(chat))
		chat->top = last_top(chat);
}

static void chat_draw(struct pane *pane, struct canvas *canvas)
{
	struct pane_chat *chat = (struct pane_chat *)pane;
	bool resized = chat->columns != canvas->columns;
	chat->rows = canvas->rows;
	chat->columns = canvas->columns;
	wrap_in_place(chat, resized);
	if (chat->n_lines == 0)
		draw_welcome(chat, canvas);
	for (int row = 0; row < canvas->rows && (size_t)(chat->top + row) < chat->n_lines; row++)
		draw_line(chat, canvas, row, &chat->lines[chat->top + row]);
	if (!chat->follow && chat->n_lines > chat->seen) {
		char news[64];
		snprintf(news, sizeof news, " %zu new line%s, G ", chat->n_lines - chat->seen,
				 chat->n_lines - chat->seen == 1 ? "" : "s");
		canvas_right(canvas, canvas->rows - 1, canvas->columns, ROLE_MARK, news);
	}
}

static bool scroll(struct pane_chat *chat, enum action action)
{
	int top = chat->top;
	if (!pane_scroll(&top, (int)chat->n_lines, chat->rows, action))
		return false;
	bool was = chat->follow;
	chat->follow = action == ACTION_BOTTOM || (chat->follow && top == chat->top);
	if (was && !chat->follow)
		chat->seen = chat->n_lines;
	chat->top = top;
	return true;
}

static void search(struct pane_chat *chat, int direction)
{
	int n = (int)chat->n_lines,
		from = chat->hit >= 0 ? chat->hit : chat->top + (direction < 0 ? 0 : -1);
	for (int step = 1; step <= n; step++) {
		int i = ((from + direction * step) % n + n) % n;
		const struct chat_line *line = &chat->lines[i];
		const struct entry *entry = &transcript_of(chat)->entries[line->entry];
		if (line->kind != LINE_TEXT ||
			find_in(entry->text.data + line->offset, line->length, chat->pane.search) < 0)
			continue;
		if (chat->follow)
			chat->seen = chat->n_lines;
		chat->hit = i;
		chat->follow = false;
		chat->top = i - chat->rows / 2;
		if (chat->top > last_top(chat))
			chat->top = last_top(chat);
		chat->top = chat->top < 0 ? 0 : chat->top;
		return;
	}
	snprintf(chat->pane.message, sizeof chat->pane.message, "not found: %s", chat->pane.search);
}

/* The thought that begins above the last visible line, nearest to it. */
static void fold(struct pane_chat *chat)
{
	const struct transcript *transcript = transcript_of(chat);
	int i = chat->top + chat->rows - 1;
	if (i >= (int)chat->n_lines)
		i = (int)chat->n_lines - 1;
	for (; i >= 0; i--) {
		struct entry *entry = &transcript->entries[chat->lines[i].entry];
		if (entry->kind != ENTRY_THOUGHT)
			continue;
		entry->folded = !entry->folded;
		wrap(chat);
		return;
	}
}

static bool chat_action(struct pane *pane, enum action action, int key)
{
	struct pane_chat *chat = (struct pane_chat *)pane;
	(void)key;
	pane->dirty = true;
	wrap_in_place(chat, false); // the transcript may have changed since the last frame
	switch (action) {
	case ACTION_SEARCH:
		chat->hit = -1;
		search(chat, 1);
		return true;
	case ACTION_SEARCH_NEXT: search(chat, 1); return true;
	case ACTION_SEARCH_PREVIOUS: search(chat, -1); return true;
	case ACTION_FOLD: fold(chat); return true;
	default: return scroll(chat, action);
	}
}

static void chat_title(const struct pane *pane, struct text *out)
{
	const struct talk *talk = pane->talk;
	int turns = 0;
	for (size_t i = 0; i < talk->transcript.n_entries; i++)
		turns += talk->transcript.entries[i].kind == ENTRY_USER;
	if (turns > 0)
		text_format(out, "turn %d", turns);
}

static void chat_close(struct pane *pane)
{
	struct pane_chat *chat = (struct pane_chat *)pane;
	free(chat->lines);
	free(chat->wrapped);
	free(chat);
}

static const struct pane_table table = {chat_event, chat_draw, chat_action, chat_title, chat_close};

struct pane *pane_chat_open(const struct talk *talk, struct error *err)
{
	struct pane_chat *chat = mem_new(1, sizeof *chat, err);
	if (!chat)
		return NULL;
	chat->pane = (struct pane){.table = &table, .talk = talk, .dirty = true};
	chat->follow = true;
	chat->hit = -1;
	return &chat->pane;
}
