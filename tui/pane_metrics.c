/*
 * Metrics: how fast, how long until the first token, what memory holds. Sections stand below each
 * other, on a wide screen in two columns; what does not fit is scrolled to.
 */
#include "base/memory.h"
#include "inspect/memory.h"
#include "inspect/nesting.h"
#include "tui/look.h"
#include "tui/table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDE_COLUMNS 110
#define CURVE_ROWS 6
#define MAX_SWITCH_ROWS 5
#define RECENT_STEPS 16

enum speed_sort { BY_PHASE, BY_BUDGET, BY_SPEED, N_SPEED_SORTS };
static const char *const sort_names[] = {"phase", "budget", "speed"};

struct pane_metrics {
	struct pane pane;
	struct nesting costs; // bytes a token of every budget
	bool ready;
	enum speed_sort sort;
	int top, n_lines, rows;
};

typedef int section(const struct pane_metrics *m, const struct canvas *canvas, int row);

static void forget(struct pane_metrics *m)
{
	nesting_close(&m->costs);
	m->costs = (struct nesting){0};
	m->ready = false;
}

/* Megabytes of weights that a token of this budget reads; NAN for typed widths. */
static double megabytes_per_token(const struct pane_metrics *m, const char *budget)
{
	for (int b = 0; b < m->costs.n_budgets; b++)
		if (strcmp(m->costs.budgets[b].name, budget) == 0)
			return (double)m->costs.cost[b].bytes_per_token / 1e6;
	return NAN;
}

static int index_of(const struct pane_metrics *m, const char *budget)
{
	return talk_budget_index(m->pane.talk, budget);
}

static bool before(const struct pane_metrics *m, const struct metrics_row *a,
				   const struct metrics_row *b)
{
	int x = index_of(m, a->budget), y = index_of(m, b->budget);
	double p = metrics_row_tps(a), q = metrics_row_tps(b);
	if (m->sort == BY_SPEED && (p > q || p < q))
		return p > q;
	if (m->sort == BY_BUDGET && x != y)
		return x < y;
	return a->phase != b->phase ? a->phase < b->phase : x < y;
}

static int draw_heading(const struct canvas *canvas, int row, const char *name, const char *from)
{
	int at = canvas_text(canvas, row, 0, ROLE_HEADING, name);
	canvas_print(canvas, row, at, ROLE_DIM, "  %s", from);
	return row + 1;
}

static void draw_speed_row(const struct pane_metrics *m, const struct table *table,
						   const struct canvas *canvas, int row, const struct metrics_row *it)
{
	double rate = metrics_row_tps(it), bytes = megabytes_per_token(m, it->budget), most = 0;
	const struct metrics *metrics = &m->pane.talk->metrics;
	bool prefill = it->phase == PHASE_PREFILL;
	int index = index_of(m, it->budget);
	char text[32];
	for (int i = 0; i < metrics->n_rows; i++)
		if (metrics->rows[i].phase != PHASE_PREFILL && metrics_row_tps(&metrics->rows[i]) > most)
			most = metrics_row_tps(&metrics->rows[i]);
	table_cell(table, canvas, row, 0, ROLE_TEXT, phase_name(it->phase));
	table_cell(table, canvas, row, 1, role_of_budget(index),
			   talk_elastic(m->pane.talk)
				   ? budget_label(talk_elastic(m->pane.talk), index, it->budget, 10).text
				   : it->budget);
	table_cell(table, canvas, row, 2, ROLE_TEXT, number_rate(rate).text);
	if (!prefill && most > 0)
		table_bar(table, canvas, row, 3, role_of_budget(index), rate / most);
	snprintf(text, sizeof text, "%d", it->tokens);
	table_cell(table, canvas, row, 4, ROLE_TEXT, text);
	double ms = it->steps > 0 ? (double)it->took_ns / 1e6 / it->steps : (double)NAN;
	table_cell(table, canvas, row, 5, ROLE_TEXT, number_fixed(ms, 2).text);
	table_cell(table, canvas, row, 6, ROLE_TEXT, prefill ? "" : number_fixed(bytes, 2).text);
	table_cell(table, canvas, row, 7, ROLE_TEXT,
			   prefill       ? ""
			   : !(rate > 0) ? "N/A"
							 : number_fixed(bytes * rate / 1e3, 2).text);
}

static int draw_speed(const struct pane_metrics *m, const struct canvas *canvas, int row)
{
	const struct metrics *metrics = &m->pane.talk->metrics;
	const struct metrics_row *sorted[METRICS_MAX_BUDGETS * N_PHASES];
	struct table table = {0};
	row = draw_heading(canvas, row, "Speed", "measured, computing time only");
	if (metrics->n_rows == 0) {
		canvas_text(canvas, row, 1, ROLE_DIM, "tok/s N/A: no token yet");
		return row + 2;
	}
	table_add(&table, "phase", -8, 0);
	table_add(&table, "budget", -10, 0);
	table_add(&table, "tok/s", 7, 0);
	table_add(&table, "", -12, 4);
	table_add(&table, "tokens", 7, 2);
	table_add(&table, "ms/token", 9, 1);
	table_add(&table, "MB/token", 9, 3);
	table_add(&table, "GB/s", 6, 5);
	table_lay(&table, 1, canvas->columns - 1);
	table_head(&table, canvas, row++, -1);
	for (int i = 0; i < metrics->n_rows; i++) {
		int at = i;
		for (; at > 0 && before(m, &metrics->rows[i], sorted[at - 1]); at--)
			sorted[at] = sorted[at - 1];
		sorted[at] = &metrics->rows[i];
	}
	for (int i = 0; i < metrics->n_rows; i++)
		draw_speed_row(m, &table, canvas, row++, sorted[i]);
	return row + 1;
}

static struct number milliseconds(uint64_t ns)
{
	struct number out = {"N/A"};
	if (ns > 0)
		snprintf(out.text, sizeof out.text, "%.*f ms", ns < 10000000 ? 2 : 1, (double)ns / 1e6);
	return out;
}

static int draw_latency(const struct pane_metrics *m, const struct canvas *canvas, int row)
{
	const struct metrics *metrics = &m->pane.talk->metrics;
	double pace = m->pane.talk->pace;
	char paced[48] = "measured";
	if (pace > 0)
		snprintf(paced, sizeof paced, "measured; ITL is PACED at %g tok/s", pace);
	row = draw_heading(canvas, row, "Latency", paced);
	canvas_print(canvas, row++, 1, ROLE_TEXT, "TTFT %s (last turn)  switches %d",
				 milliseconds(metrics->first_ns).text, metrics->switches);
	canvas_print(canvas, row++, 1, ROLE_TEXT, "ITL  p50 %s  p99 %s  of %d%s",
				 milliseconds(metrics_itl(metrics, 50)).text,
				 milliseconds(metrics_itl(metrics, 99)).text, metrics->n_arrivals,
				 pace > 0 ? "  (paced)" : "");
	return row + 1;
}

/* Seconds a decode step of this budget took, over both phases; NAN = it made none. */
static double step_seconds(const struct metrics *metrics, const char *budget)
{
	uint64_t took = 0;
	int steps = 0;
	for (int i = 0; i < metrics->n_rows; i++)
		if (metrics->rows[i].phase != PHASE_PREFILL &&
			strcmp(metrics->rows[i].budget, budget) == 0) {
			took += metrics->rows[i].took_ns;
			steps += metrics->rows[i].steps;
		}
	return steps > 0 && took > 0 ? (double)took / 1e9 / steps : (double)NAN;
}

/* Seconds a token that this budget read in prefills; of all budgets if it read none. */
static double read_seconds(const struct metrics *metrics, const char *budget)
{
	double own = NAN, took = 0, tokens = 0;
	for (int i = 0; i < metrics->n_rows; i++) {
		const struct metrics_row *it = &metrics->rows[i];
		if (it->phase != PHASE_PREFILL || it->tokens == 0)
			continue;
		took += (double)it->took_ns / 1e9;
		tokens += it->tokens;
		if (strcmp(it->budget, budget) == 0)
			own = (double)it->took_ns / 1e9 / it->tokens;
	}
	return !isnan(own) ? own : tokens > 0 ? took / tokens : (double)NAN;
}

static struct number seconds(double value)
{
	struct number out = {"N/A"};
	if (!isnan(value))
		snprintf(out.text, sizeof out.text, "%.*f %s", value < 1 ? 1 : 2,
				 value < 1 ? value * 1e3 : value, value < 1 ? "ms" : "s");
	return out;
}

static int draw_switches(const struct reply *reply, const struct canvas *canvas, int row)
{
	size_t first = reply->n_switches > MAX_SWITCH_ROWS ? reply->n_switches - MAX_SWITCH_ROWS : 0;
	if (first > 0)
		canvas_print(canvas, row++, 1, ROLE_DIM, "%zu earlier switch%s", first,
					 first == 1 ? "" : "es");
	for (size_t i = first; i < reply->n_switches; i++) {
		const struct reply_switch *it = &reply->switches[i];
		canvas_print(canvas, row++, 1, ROLE_TEXT, "at %d %.16s > %.16s %s %s, %s%s%s", it->at,
					 it->from, it->to, handoff_name(it->handoff),
					 seconds((double)it->took_ns / 1e9).text, switch_reason_name(it->reason),
					 *it->why ? ": " : "", it->why);
	}
	return row;
}

/* Thoughts n from which on thinking with `think` pays, though the largest budget reads the prompt
 * and them again: n (large - think) = (prompt + n) read. */
static struct number break_even(double large, double think, double read, int prompt)
{
	struct number out = {"N/A"};
	double gain = large - think - read;
	if (isnan(gain))
		return out;
	if (gain <= 0)
		strcpy(out.text, "never");
	else
		snprintf(out.text, sizeof out.text, "%.0f thought tokens", ceil(prompt * read / gain));
	return out;
}

/* The turn against all-large, and when a handoff pays. */
static int draw_turn(const struct pane_metrics *m, const struct canvas *canvas, int row)
{
	const struct talk *talk = m->pane.talk;
	const struct reply *reply = &talk->reply;
	const struct elastic *elastic = talk->model ? &talk->model->elastic : NULL;
	double switches = 0;
	row = draw_heading(canvas, row, "Last turn", "measured; all-large is estimated");
	if (!elastic || elastic->n_budgets == 0 || reply->completion_tokens == 0) {
		canvas_text(canvas, row, 1, ROLE_DIM, "N/A: no token yet");
		return row + 2;
	}
	const char *large = elastic->budgets[0].name, *think = talk->settings.think;
	for (size_t i = 0; i < reply->n_switches; i++)
		switches += (double)reply->switches[i].took_ns / 1e9;
	double step = step_seconds(&talk->metrics, large), read = read_seconds(&talk->metrics, large);
	double spent = (double)reply->prefill_ns / 1e9 + (double)reply->decode_ns / 1e9 + switches;
	double all = (reply->prompt_tokens - reply->cached_tokens) * read + reply->decode_steps * step;
	canvas_print(canvas, row++, 1, ROLE_TEXT, "this turn %s, of it switches %s",
				 seconds(spent).text, seconds(switches).text);
	canvas_print(canvas, row++, 1, ROLE_TEXT, "all %.16s %s (estimated)%s", large,
				 seconds(all).text, isnan(step) ? ": it has made no step yet" : "");
	canvas_print(canvas, row++, 1, ROLE_TEXT, "re-prefill now %s (estimated)",
				 seconds(talk->gauges.context_used * read).text);
	canvas_print(
		canvas, row++, 1, ROLE_TEXT, "break-even of %.16s: %s (estimated)", think,
		break_even(step, step_seconds(&talk->metrics, think), read, reply->prompt_tokens).text);
	return draw_switches(reply, canvas, row) + 1;
}

static int draw_history(const struct pane_metrics *m, const struct canvas *canvas, int row)
{
	const struct metrics *metrics = &m->pane.talk->metrics;
	float values[METRICS_WINDOW], most = 0;
	int n = metrics->n_speed;
	char text[64] = "N/A: no decode step yet";
	for (int i = 0; i < n; i++) {
		int at = metrics->next_speed - n + i;
		values[i] = metrics->speed[(at + METRICS_WINDOW) % METRICS_WINDOW];
		most = values[i] > most ? values[i] : most;
	}
	if (n > 0)
		snprintf(text, sizeof text, "tok/s of the last %d decode steps", n);
	row = draw_heading(canvas, row, "History", text);
	if (n == 0)
		return row + 1;
	struct canvas plot = canvas_part(canvas, row, 8, CURVE_ROWS, canvas->columns);
	canvas_print(canvas, row, 0, ROLE_DIM, "%7s", number_rate((double)most).text);
	canvas_print(canvas, row + CURVE_ROWS - 1, 0, ROLE_DIM, "%7d", 0);
	if (row >= 0) // cut at the top it would be another curve
		canvas_curve(&plot, values, n, 0, most, ROLE_BAR);
	return row + CURVE_ROWS + 1;
}

static int draw_context(const struct pane_metrics *m, const struct canvas *canvas, int row)
{
	const struct gauges *gauges = &m->pane.talk->gauges;
	row = draw_heading(canvas, row, "Context", "tokens, measured");
	if (gauges->context_size <= 0) {
		canvas_text(canvas, row, 1, ROLE_DIM, "N/A");
		return row + 2;
	}
	double share = (double)gauges->context_used / gauges->context_size;
	int at = 1 + canvas_print(canvas, row, 1, ROLE_TEXT, "%d of %d (%s) ", gauges->context_used,
							  gauges->context_size, number_percent(share).text);
	int columns = canvas->columns - at - 1 < 30 ? canvas->columns - at - 1 : 30;
	canvas_bar(canvas, row, at, columns, (float)share, share > .9 ? ROLE_WARN : ROLE_BAR);
	return row + 2;
}

static int draw_part(const struct canvas *canvas, int row, const char *name, int64_t bytes,
					 int64_t most)
{
	canvas_print(canvas, row, 1, bytes < 0 ? ROLE_DIM : ROLE_TEXT, "%-18s %9s", name,
				 number_bytes(bytes).text);
	int columns = canvas->columns - 32 < 30 ? canvas->columns - 32 : 30;
	if (bytes > 0 && most > 0)
		canvas_bar(canvas, row, 31, columns, (float)((double)bytes / (double)most), ROLE_BAR);
	return row + 1;
}

/* Before the engine has said anything: what shapes and the system tell. */
static void memory_without_engine(const struct pane_metrics *m, struct memory_use *use)
{
	const struct model *model = m->pane.talk->model;
	struct memory_facts facts;
	*use = (struct memory_use){.weights_bytes = -1,
							   .resident_bytes = -1,
							   .kv_bytes = -1,
							   .conv_bytes = -1,
							   .ssm_bytes = -1,
							   .snapshot_bytes = -1,
							   .scratch_bytes = -1,
							   .rss_bytes = -1,
							   .vram_bytes = -1,
							   .bytes_per_token = -1};
	if (!model) // a replay
		return;
	memory_measure(&facts, model);
	use->weights_bytes = (int64_t)facts.mapped;
	use->resident_bytes = (int64_t)facts.resident;
	if (facts.rss_known)
		use->rss_bytes = (int64_t)facts.rss;
}

/* "612 W", "N/A" where it is not known. */
static int draw_reading(const struct canvas *canvas, int row, const char *name, double value,
						double unit, const char *suffix)
{
	char text[32] = "N/A";
	if (value >= 0)
		snprintf(text, sizeof text, "%.0f %s", value / unit, suffix);
	canvas_print(canvas, row, 1, value >= 0 ? ROLE_TEXT : ROLE_DIM, "%-18s %9s", name, text);
	return row + 1;
}

/* Bytes that the last steps moved a second, and what the card's memory gives when it is only read:
 * a step reads the running budget's weights and the KV so far, and reads and writes conv and SSM
 * state. */
static int draw_bandwidth(const struct talk *talk, const struct canvas *canvas, int row)
{
	const struct gauges *gauges = &talk->gauges;
	const struct memory_use use = talk_memory(talk);
	const struct sequence_bytes *chat = &use.sequences[0];
	double peak = (double)gauges->card.read_bps;
	double steps = metrics_recent_tps(&talk->metrics, RECENT_STEPS), bytes = -1;
	if (steps > 0 && use.bytes_per_token > 0 && gauges->context_size > 0)
		bytes = steps * ((double)use.bytes_per_token + 2 * (double)(chat->conv + chat->ssm) +
						 (double)chat->kv * gauges->context_used / gauges->context_size);
	row = draw_reading(canvas, row, "bandwidth", bytes, 1e9, "GB/s");
	if (bytes >= 0 && peak > 0)
		canvas_print(canvas, row - 1, 30, ROLE_DIM, "%s of %.0f measured",
					 number_percent(bytes / peak).text, peak / 1e9);
	else if (bytes >= 0)
		canvas_print(canvas, row - 1, 30, ROLE_DIM, "of the last steps");
	return row;
}

static int draw_card(const struct talk *talk, const struct canvas *canvas, int row)
{
	const struct gauges *gauges = &talk->gauges;
	const struct device_gauges *card = &gauges->card;
	const char *name = talk_budget_name(talk);
	row = draw_reading(canvas, row, "power", card->known ? card->power_mw : -1, 1000, "W");
	if (!card->known)
		return row;
	row = draw_reading(canvas, row, "card clock", card->clock_mhz, 1, "MHz");
	row = draw_reading(canvas, row, "temperature", card->temperature_c, 1, "C");
	row = draw_reading(canvas, row, "card busy", card->busy_percent, 1, "%");
	row = draw_bandwidth(talk, canvas, row);
	row = draw_part(canvas, row, "weights on it", card->weights_bytes, card->total_bytes);
	char reads[32];
	snprintf(reads, sizeof reads, "%.12s reads", *name ? name : "budget");
	row = draw_part(canvas, row, reads, gauges->read_bytes > 0 ? gauges->read_bytes : -1,
					card->total_bytes);
	row = draw_part(canvas, row, "recorded passes", card->graph_bytes, card->total_bytes);
	row = draw_part(canvas, row, "VRAM of all", card->used_bytes, card->total_bytes);
	canvas_print(canvas, row++, 1, ROLE_DIM, "%-18s %9s", "the card has",
				 number_bytes(card->total_bytes).text);
	return row;
}

static int draw_memory(const struct pane_metrics *m, const struct canvas *canvas, int row)
{
	const struct talk *talk = m->pane.talk;
	struct memory_use use = talk_memory(talk);
	char how[64] = "measured by the engine";
	if (!talk->has_memory)
		memory_without_engine(m, &use);
	const struct {
		const char *name;
		int64_t bytes;
	} parts[] = {
		{"weights, mapped", use.weights_bytes},
		{"weights, resident", use.resident_bytes},
		{"KV cache", use.kv_bytes},
		{"conv state", use.conv_bytes},
		{"SSM state", use.ssm_bytes},
		{"snapshots", use.snapshot_bytes},
		{"scratch", use.scratch_bytes},
		{"process (RSS)", use.rss_bytes},
		{"VRAM", use.vram_bytes > 0 ? use.vram_bytes : -1},
	};
	int64_t most = 0;
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		most = parts[i].bytes > most ? parts[i].bytes : most;
	if (use.n_sequences > 1)
		snprintf(how, sizeof how, "measured by the engine, %d sequences", use.n_sequences);
	row =
		draw_heading(canvas, row, "Memory", talk->has_memory ? how : "measured here; no turn yet");
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
		row = draw_part(canvas, row, parts[i].name, parts[i].bytes, most);
	const char *name = talk_budget_name(talk);
	double derived = megabytes_per_token(m, name);
	bool last = isnan(derived) && use.bytes_per_token > 0; // typed widths: the engine's last reader
	if (last)
		derived = (double)use.bytes_per_token / 1e6;
	canvas_print(canvas, row++, 1, ROLE_TEXT, "%-18s %9s", "weights per token",
				 number_fixed(derived, 2).text);
	canvas_print(canvas, row - 1, 30, ROLE_DIM, "MB derived, %.10s", last ? "last" : name);
	return draw_card(talk, canvas, row) + 1;
}

static int draw_formula(const struct pane_metrics *m, const struct canvas *canvas, int row)
{
	(void)m;
	row = draw_heading(canvas, row, "Formula", "");
	look_say(canvas, row, ROLE_DIM, metrics_formula);
	int columns = canvas->columns > 8 ? canvas->columns - 4 : 4;
	return row + (int)strlen(metrics_formula) / columns + 2;
}

static int draw_column(const struct pane_metrics *m, const struct canvas *canvas,
					   section *const *sections, int n)
{
	int row = -m->top;
	for (int i = 0; i < n; i++)
		row = sections[i](m, canvas, row);
	return row + m->top - 1;
}

static void metrics_draw(struct pane *pane, struct canvas *canvas)
{
	static section *const all[] = {draw_speed,   draw_latency, draw_turn,   draw_context,
								   draw_history, draw_memory,  draw_formula};
	struct pane_metrics *m = (struct pane_metrics *)pane;
	struct error err;
	if (!talk_elastic(pane->talk) && !look_ready(pane, canvas))
		return;
	if (!m->ready && pane->talk->model && nesting_open(&m->costs, pane->talk->model, NULL, &err))
		forget(m);
	m->ready = true;
	m->rows = canvas->rows;
	if (canvas->columns < WIDE_COLUMNS) {
		m->n_lines = draw_column(m, canvas, all, 7);
	} else {
		int half = canvas->columns * 3 / 5;
		struct canvas left = canvas_part(canvas, 0, 0, canvas->rows, half - 2);
		struct canvas right = canvas_part(canvas, 0, half, canvas->rows, canvas->columns);
		int a = draw_column(m, &left, all, 5), b = draw_column(m, &right, all + 5, 2);
		m->n_lines = a > b ? a : b;
	}
	if (m->top + canvas->rows < m->n_lines && canvas->columns > 20) {
		char more[32];
		snprintf(more, sizeof more, " %d more, j ", m->n_lines - m->top - canvas->rows);
		canvas_right(canvas, canvas->rows - 1, canvas->columns, ROLE_MARK, more);
	}
}

static bool metrics_action(struct pane *pane, enum action action, int key)
{
	struct pane_metrics *m = (struct pane_metrics *)pane;
	(void)key;
	pane->dirty = true;
	if (action == ACTION_SORT) {
		m->sort = (enum speed_sort)((m->sort + 1) % N_SPEED_SORTS);
		snprintf(pane->message, sizeof pane->message, "sorted by %s", sort_names[m->sort]);
		return true;
	}
	return pane_scroll(&m->top, m->n_lines, m->rows, action);
}

static void metrics_event_pane(struct pane *pane, const struct event *event)
{
	struct pane_metrics *m = (struct pane_metrics *)pane;
	if (event->type == EV_OPENED)
		forget(m);
	pane->dirty = true;
}

static void metrics_title(const struct pane *pane, struct text *out)
{
	const struct talk *talk = pane->talk;
	text_add(out, talk->rung);
	if (talk->n_threads > 0) // a card has none
		text_format(out, ", %d thread%s", talk->n_threads, talk->n_threads == 1 ? "" : "s");
}

static void metrics_close_pane(struct pane *pane)
{
	struct pane_metrics *m = (struct pane_metrics *)pane;
	forget(m);
	free(m);
}

static const struct pane_table table = {metrics_event_pane, metrics_draw, metrics_action,
										metrics_title, metrics_close_pane};

struct pane *pane_metrics_open(const struct talk *talk, struct error *err)
{
	struct pane_metrics *m = mem_new(1, sizeof *m, err);
	if (!m)
		return NULL;
	m->pane = (struct pane){.table = &table, .talk = talk, .dirty = true};
	return &m->pane;
}
