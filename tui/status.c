#include "tui/status.h"
#include "core/rule.h"
#include <stdio.h>
#include <string.h>

#define RECENT_STEPS 32
#define TYPED_COLUMNS 20 // that typed widths need in a row of gauges

void status_bytes(int64_t bytes, struct text *out)
{
	static const char units[] = "BKMGT";
	if (bytes < 0) {
		text_add(out, "N/A");
		return;
	}
	double value = (double)bytes;
	int unit = 0;
	while (value >= 999.5 && unit < 4) {
		value /= 1024;
		unit++;
	}
	text_format(out, value < 9.95 && unit > 0 ? "%.1f%c" : "%.0f%c", value, units[unit]);
}

void status_rate(double per_second, struct text *out)
{
	if (per_second >= 99950)
		text_format(out, "%.0fk", per_second / 1000);
	else if (per_second >= 999.5)
		text_format(out, "%.1fk", per_second / 1000);
	else
		text_format(out, per_second < 99.95 ? "%.1f" : "%.0f", per_second);
}

static void megabytes(const char *label, int64_t bytes, struct text *out)
{
	if (bytes >= 0)
		text_format(out, " %s%.1f", label, (double)bytes / 1e6);
	else
		text_format(out, " %sN/A", label);
}

#define MOST_NAME 32

static void budgets_part(const struct talk *talk, struct text *out)
{
	const struct turn_settings *settings = &talk->settings;
	const char *name = talk_budget_name(talk);
	bool cut = strlen(name) > MOST_NAME; // a mask's text; :mask shows it whole
	text_format(out, "%.*s%s%s", cut ? MOST_NAME - 3 : MOST_NAME, name, cut ? "..." : "",
				talk->running ? "*" : "");
	struct rule rule;
	bool ruled = *settings->rule && rule_parse(&rule, settings->rule, NULL) == 0 &&
				 rule.think.kind != RULE_NONE && rule.answer.kind != RULE_NONE;
	if (settings->policy && !ruled) // a rule for both stands above the pair
		text_format(out, " think:%s answer:%s", settings->think, settings->answer);
	char handoff[HANDOFF_TEXT_BYTES];
	handoff_write(settings->handoff, settings->repair, handoff);
	text_format(out, "%s %s", *settings->rule ? " rule" : "", handoff);
}

static void phase_part(const struct talk *talk, bool comparing, struct text *out)
{
	const struct gauges *gauges = &talk->gauges;
	if (talk->paused)
		text_add(out, "PAUSED ");
	if (talk->progress.bytes) {
		text_format(out, "UPLOAD %d%%",
					(int)((double)talk->progress.done * 100 / (double)talk->progress.total));
	} else if (!talk->running) {
		text_add(out, talk->opening ? "OPENING" : comparing ? "COMPARE" : "IDLE");
	} else if (gauges->prefilling) {
		text_format(out, "PREFILL %d/%d", gauges->prefill_done, gauges->prefill_total);
	} else if (!talk->turn_begun || talk->reply.completion_tokens == 0) {
		text_add(out, "READ"); // the phase is known with the first token
	} else if (gauges->phase == PHASE_THINK) {
		text_format(out, "THINK %d", talk->reply.reasoning_tokens);
		if (talk->settings.think_limit > 0)
			text_format(out, "/%d", talk->settings.think_limit);
	} else {
		text_format(out, "ANSWER %d", talk->reply.completion_tokens - talk->reply.reasoning_tokens);
		if (talk->settings.max_tokens > 0)
			text_format(out, "/%d", talk->settings.max_tokens);
	}
}

static double prefill_rate(const struct talk *talk)
{
	int64_t tokens = 0;
	uint64_t took = 0;
	for (int i = 0; i < talk->metrics.n_rows; i++)
		if (talk->metrics.rows[i].phase == PHASE_PREFILL) {
			tokens += talk->metrics.rows[i].tokens;
			took += talk->metrics.rows[i].took_ns;
		}
	return took > 0 ? (double)tokens * 1e9 / (double)took : 0;
}

static void speed_part(const struct talk *talk, bool prefill, struct text *out)
{
	double recent = metrics_recent_tps(&talk->metrics, RECENT_STEPS);
	if (recent > 0)
		status_rate(recent, out);
	else
		text_add(out, "N/A");
	text_add(out, " tok/s");
	double rate = prefill_rate(talk);
	if (prefill && rate > 0) {
		text_add(out, " (prefill ");
		status_rate(rate, out);
		text_add(out, ")");
	}
}

static void context_part(const struct talk *talk, struct text *out)
{
	const struct gauges *gauges = &talk->gauges;
	if (gauges->context_size > 0)
		text_format(out, "ctx %d%%",
					(int)((int64_t)gauges->context_used * 100 / gauges->context_size));
	else
		text_add(out, "ctx N/A");
}

static void memory_part(const struct talk *talk, bool all, struct text *out)
{
	struct memory_use sum = talk_memory(talk);
	const struct memory_use *memory = &sum;
	const struct device_gauges *card = &talk->gauges.card;
	if (memory->vram_bytes > 0 && card->known) {
		text_add(out, "VRAM ");
		status_bytes(memory->vram_bytes, out);
		text_add(out, "/");
		status_bytes(card->total_bytes, out);
	} else {
		text_add(out, "RSS ");
		status_bytes(memory->rss_bytes, out);
	}
	if (!all)
		return;
	megabytes("w", memory->vram_bytes > 0 ? card->weights_bytes : memory->weights_bytes, out);
	megabytes("kv", memory->kv_bytes, out);
	megabytes("ssm", memory->ssm_bytes + memory->conv_bytes, out);
	megabytes("x", memory->scratch_bytes, out);
	if (memory->bytes_per_token > 0)
		text_format(out, " MB/tok %.1f", (double)memory->bytes_per_token / 1e6);
}

/* With what detail: 0 = everything. */
static void compose(const struct talk *talk, bool comparing, int detail, struct text *out)
{
	text_clear(out);
	if (talk->replay)
		text_add(out, "REPLAY | ");
	if (talk->gauges.log_failed)
		text_add(out, "NOT RECORDED | ");
	budgets_part(talk, out);
	text_add(out, " | ");
	phase_part(talk, comparing, out);
	text_add(out, " | ");
	speed_part(talk, detail < 2, out);
	if (detail < 5) {
		text_add(out, " | ");
		context_part(talk, out);
	}
	if (talk->has_memory && detail < 3) {
		text_add(out, " | ");
		memory_part(talk, detail < 1, out);
	}
	if (talk->pace > 0 && detail < 6)
		text_format(out, " | pace %g", talk->pace);
	if (detail < 4)
		text_format(out, " | seed %llu", (unsigned long long)talk->settings.sampling.seed);
}

void status_line(const struct talk *talk, bool comparing, int columns, struct text *out)
{
	if (!talk->model && !talk->recorded) {
		text_add(out, talk->opening ? "opening the model" : "no model: :open DIR");
		return;
	}
	for (int detail = 0; detail < 7; detail++) {
		compose(talk, comparing, detail, out);
		if (canvas_width(text_chars(out), out->length) <= columns)
			return;
	}
}

static double largest_rate(const struct metrics *metrics)
{
	double most = 0;
	for (int i = 0; i < metrics->n_rows; i++)
		if (metrics->rows[i].phase != PHASE_PREFILL && metrics_row_tps(&metrics->rows[i]) > most)
			most = metrics_row_tps(&metrics->rows[i]);
	return most;
}

static void gauge_row(const struct talk *talk, const struct canvas *canvas, int row,
					  enum phase phase)
{
	double most = largest_rate(&talk->metrics);
	const struct elastic *elastic = talk_elastic(talk);
	int at = canvas_print(canvas, row, 0, ROLE_DIM, "%-7s", phase_name(phase)), shown = 0;
	int n_named = elastic && elastic->n_budgets < 4 ? elastic->n_budgets : 4;
	int n_typed = talk->n_typed; // of these the last ones, as many as have room
	while (n_typed > 1 && (canvas->columns - 14) / (n_named + n_typed) < TYPED_COLUMNS)
		n_typed--;
	int n = n_named + n_typed;
	for (int column = 0; elastic && column < n; column++) {
		int i = column < n_named ? column : elastic->n_budgets + talk->n_typed - n + column;
		const char *name = talk_writer_name(talk, i);
		const struct metrics_row *m = metrics_find(&talk->metrics, name, phase);
		double rate = m ? metrics_row_tps(m) : 0;
		struct text number = {0};
		if (rate > 0)
			status_rate(rate, &number);
		else
			text_add(&number, "-");
		int width = (canvas->columns - 14) / n;
		int start = 7 + shown++ * width;
		at = start + canvas_print(canvas, row, start, role_of_budget(i), "%c %.10s ",
								  talk_mark(talk, i), name);
		at += canvas_print(canvas, row, at, ROLE_TEXT, "%5s ", text_chars(&number));
		int room = start + width - at - 1;
		if (rate > 0 && most > 0 && room > 2)
			canvas_bar(canvas, row, at, room, (float)(rate / most), role_of_budget(i));
		text_free(&number);
	}
	canvas_right(canvas, row, canvas->columns, ROLE_DIM, "tok/s");
}

void status_gauges(const struct talk *talk, const struct canvas *canvas)
{
	gauge_row(talk, canvas, 0, PHASE_THINK);
	if (canvas->rows > 1)
		gauge_row(talk, canvas, 1, PHASE_ANSWER);
}

/* The entries of the last turn: first and behind the last. */
static size_t last_turn(const struct transcript *transcript)
{
	size_t first = transcript->n_entries;
	while (first > 0 && transcript->entries[first - 1].kind != ENTRY_USER)
		first--;
	return first;
}

static void letter(const struct talk *talk, const struct canvas *canvas, int row, int column,
				   int budget)
{
	char text[2] = "?";
	if (budget == TAPE_NOBODY)
		text[0] = '.';
	else
		text[0] = talk_mark(talk, budget);
	canvas_text(canvas, row, column, budget == TAPE_NOBODY ? ROLE_DIM : role_of_budget(budget),
				text);
}

/* Who read the prompt, in runs: "read; prompt l12 s28". */
static void prompt_readers(const struct talk *talk, struct text *out)
{
	const struct tape *tape = &talk->tape;
	text_add(out, "read; prompt");
	for (size_t i = 0, n; i < tape->prompt; i += n) {
		int reader = tape->tokens[i].reader;
		for (n = 1; i + n < tape->prompt && tape->tokens[i + n].reader == reader; n++)
			;
		char mark = reader == TAPE_NOBODY ? '.' : talk_mark(talk, reader);
		text_format(out, " %c%zu", mark, n);
	}
}

static void strip_labels(const struct talk *talk, const struct canvas *canvas, int used)
{
	struct text text = {0};
	prompt_readers(talk, &text);
	int width = canvas_width(text_chars(&text), text.length);
	if (used > 1 && used + 2 + width <= canvas->columns) {
		canvas_text(canvas, 0, canvas->columns - width, ROLE_DIM, "written");
		canvas_text(canvas, 1, canvas->columns - width, ROLE_DIM, text_chars(&text));
	}
	text_free(&text);
}

/* "^phase", or the rule's own reason without blanks beside its sign: "^entropy 2.31>2". */
static void reason_of(const struct reply_switch *change, struct text *out)
{
	const char *why = change->why;
	text_add(out, "^");
	if (!*why)
		text_add(out, switch_reason_name(change->reason));
	for (const char *c = why; *c; c++) {
		bool before = c[1] == '<' || c[1] == '>',
			 behind = c > why && (c[-1] == '<' || c[-1] == '>');
		if (*c != ' ' || !(before || behind))
			text_add_char(out, *c);
	}
}

/* Under the first token that another budget reads, why; the next reason cuts it off. *next: the
 * first switch that is not behind yet. */
static void strip_reason(const struct talk *talk, const struct canvas *canvas, size_t position,
						 size_t *next, int column)
{
	const struct reply *reply = &talk->reply;
	size_t before = *next;
	while (*next < reply->n_switches && reply->switches[*next].at <= (int)position)
		(*next)++;
	if (*next == before || column < 0 || canvas->rows < 3)
		return;
	struct canvas rest = canvas_part(canvas, 2, column, 1, canvas->columns - column);
	struct text text = {0};
	reason_of(&reply->switches[*next - 1], &text);
	canvas_blank(&rest, ROLE_TEXT);
	canvas_text(&rest, 0, 0, ROLE_DIM, text_chars(&text));
	text_free(&text);
}

void status_strip(const struct talk *talk, const struct canvas *canvas)
{
	const struct transcript *transcript = &talk->transcript;
	size_t first = last_turn(transcript), total = 0;
	for (size_t i = first; i < transcript->n_entries; i++)
		total += transcript->entries[i].n_tokens + (i > first);
	size_t room = (size_t)(canvas->columns > 0 ? canvas->columns : 0);
	size_t skip = total > room ? total - room : 0, at = 0, written = talk->tape.prompt, next = 0;
	for (size_t i = first; i < transcript->n_entries; i++) {
		const struct entry *entry = &transcript->entries[i];
		if (i > first && at++ >= skip)
			canvas_text(canvas, 0, (int)(at - 1 - skip), ROLE_DIM, "|");
		for (size_t j = 0; j < entry->n_tokens; j++, at++, written++) {
			if (written < talk->tape.n)
				strip_reason(talk, canvas, written, &next, at < skip ? -1 : (int)(at - skip));
			if (at < skip)
				continue;
			letter(talk, canvas, 0, (int)(at - skip), entry->tokens[j].budget);
			if (canvas->rows > 1 && written < talk->tape.n)
				letter(talk, canvas, 1, (int)(at - skip), talk->tape.tokens[written].reader);
		}
	}
	if (canvas->rows > 1)
		strip_labels(talk, canvas, (int)(at > skip ? at - skip : 0));
}
