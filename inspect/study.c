#include "inspect/study.h"
#include "base/memory.h"
#include "core/reply.h"
#include "inspect/statistics.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_MS 100 // how often a wish to stop is looked for

/* How much like "the largest budget does everything, without limits": 2 = it is. */
static int plainness(const struct cell *cell, const char *largest)
{
	const char *think = cell->value[GRID_THINK];
	bool all = strcmp(cell->value[GRID_ANSWER], largest) == 0 &&
			   (strcmp(think, largest) == 0 || strcmp(think, GRID_OFF) == 0) &&
			   strcmp(cell->value[GRID_READ], GRID_SAME) == 0;
	return all + (all && strcmp(cell->value[GRID_LIMIT], "0") == 0);
}

int study_init(struct study *study, const struct tasks *tasks, const struct cell *cells,
			   size_t n_cells, const struct turn_settings *base, const char *largest,
			   struct error *err)
{
	size_t n_rows;
	*study = (struct study){.tasks = tasks, .cells = cells, .n_cells = n_cells, .base = *base};
	if (!mem_multiply(tasks->n, n_cells, &n_rows))
		return fail(err, "%zu tasks in %zu cells are too many", tasks->n, n_cells);
	for (size_t i = 1; i < n_cells; i++)
		if (plainness(&cells[i], largest) > plainness(&cells[study->baseline], largest))
			study->baseline = i;
	study->rows = mem_new(n_rows, sizeof *study->rows, err);
	return study->rows ? 0 : -1;
}

void study_free(struct study *study)
{
	for (size_t i = 0; study->rows && i < study->tasks->n * study->n_cells; i++)
		free(study->rows[i].text);
	free(study->rows);
	*study = (struct study){0};
}

struct study_row *study_row(const struct study *study, size_t task, size_t cell)
{
	return &study->rows[task * study->n_cells + cell];
}

void study_put(struct study *study, size_t task, size_t cell, struct study_row *row)
{
	struct study_row *to = study_row(study, task, cell);
	free(to->text);
	study->n_done += !to->done;
	*to = *row;
	to->done = true;
}

/* ---- one turn ---- */

static void note(const struct study_watch *watch, const char *sentence)
{
	if (watch->note && sentence)
		watch->note(watch->user, sentence);
}

/* Takes events until the turn stops. 1 = it was cancelled. */
static int listen(struct engine *engine, struct reply *reply, const struct study_watch *watch,
				  struct error *err)
{
	bool stopping = false;
	for (;;) {
		const struct event *event = engine_wait(engine, LOOK_MS);
		if (!stopping && watch->cancelled && watch->cancelled(watch->user)) {
			struct request stop = {.type = REQUEST_STOP};
			if (engine_submit(engine, &stop, err))
				return -1;
			stopping = true;
		}
		if (!event)
			continue;
		reply_event(reply, event);
		if (event->type == EV_STOP)
			return stopping;
	}
}

static int fill(struct study_row *row, const struct reply *reply, const struct task *task,
				struct error *err)
{
	const struct text *answer = &reply->answer;
	*row = (struct study_row){.failed = reply->failed,
							  .reason = reply->reason,
							  .prompt_tokens = reply->prompt_tokens,
							  .think_tokens = reply->reasoning_tokens,
							  .tokens = reply->completion_tokens,
							  .steps = reply->decode_steps,
							  .switches = (int)reply->n_switches,
							  .prefill_ns = reply->prefill_ns,
							  .decode_ns = reply->decode_ns,
							  .first_ns = reply->first_ns,
							  .total_ns = reply->total_ns};
	for (size_t i = 0; i < reply->n_switches; i++)
		row->switch_ns += reply->switches[i].took_ns;
	row->right = !reply->failed && task_right(task, text_chars(answer), answer->length);
	row->text = mem_string(text_chars(answer), answer->length, err);
	return row->text ? 0 : -1;
}

static int ask(const struct study *study, size_t task, size_t cell, struct engine *engine,
			   struct reply *reply, const struct study_watch *watch, struct error *err)
{
	const struct task *asked = &study->tasks->items[task];
	struct request clear = {.type = REQUEST_CLEAR}, turn = {.type = REQUEST_TURN};
	struct conversation conversation;
	turn.settings = study->base;
	turn.settings.sampling.seed += (uint64_t)asked->line;
	if (grid_settings(&study->cells[cell], &turn.settings, err))
		return -1;
	conversation_init(&conversation);
	conversation.enable_thinking = turn.settings.thinking;
	turn.conversation = &conversation;
	struct chat_string prompt = {asked->prompt, asked->prompt_length};
	int result =
		conversation_append(&conversation, CHAT_USER, prompt, (struct chat_string){0}, err) < 0 ||
				engine_submit(engine, &clear, err) || engine_submit(engine, &turn, err)
			? -1
			: listen(engine, reply, watch, err);
	conversation_free(&conversation);
	return result;
}

static int run_row(struct study *study, size_t task, size_t cell, struct engine *engine,
				   struct reply *reply, const struct study_watch *watch, struct error *err)
{
	struct study_row row;
	const struct task *asked = &study->tasks->items[task];
	reply->error[0] = 0;
	int result = ask(study, task, cell, engine, reply, watch, err);
	if (result || fill(&row, reply, asked, err))
		return result ? result : -1;
	if (reply->error[0]) {
		struct error why;
		fail(&why, "task in line %d: %s", asked->line, reply->error);
		note(watch, why.text);
	}
	row.seed = study->base.sampling.seed + (uint64_t)asked->line;
	study_put(study, task, cell, &row);
	return watch->row ? watch->row(watch->user, study, task, cell, err) : 0;
}

int study_run(struct study *study, struct engine *engine, const struct study_watch *watch,
			  struct error *err)
{
	struct reply reply = {0};
	int result = 0;
	for (size_t i = 0; i < study->tasks->n * study->n_cells && result == 0; i++) {
		if (study->rows[i].done)
			continue;
		result = watch->cancelled && watch->cancelled(watch->user)
					 ? 1
					 : run_row(study, i / study->n_cells, i % study->n_cells, engine, &reply, watch,
							   err);
	}
	reply_free(&reply);
	return result;
}

/* ---- what came out ---- */

/* The cell that differs only by handing over exactly; n_cells = there is none, or it is itself. */
static size_t twin_of(const struct study *study, size_t cell)
{
	struct cell wanted = study->cells[cell];
	size_t twin = 0;
	if (strcmp(wanted.value[GRID_HANDOFF], GRID_NONE) == 0)
		return study->n_cells;
	wanted.value[GRID_HANDOFF] = handoff_name(HANDOFF_REPREFILL);
	while (twin < study->n_cells && !cell_equal(&study->cells[twin], &wanted))
		twin++;
	return twin == cell ? study->n_cells : twin;
}

static void compare(const struct study *study, size_t cell, struct study_summary *out)
{
	size_t twin = twin_of(study, cell);
	for (size_t task = 0; task < study->tasks->n; task++) {
		const struct study_row *row = study_row(study, task, cell);
		const struct study_row *base = study_row(study, task, study->baseline);
		if (row->done && base->done) {
			out->n_pairs++;
			out->lost += base->right && !row->right;
			out->won += row->right && !base->right;
		}
		if (twin < study->n_cells && row->done && study_row(study, task, twin)->done) {
			out->n_twin++;
			out->n_same += strcmp(row->text, study_row(study, task, twin)->text) == 0;
		}
	}
	out->mcnemar = accuracy_mcnemar(out->lost, out->won);
}

static double median(double *values, size_t n)
{
	statistics_sort(values, n);
	return statistics_percentile(values, n, 0.5);
}

/* medians: three lists of (tasks->n) */
static void summarise(const struct study *study, size_t cell, double *medians,
					  struct study_summary *out)
{
	size_t most = study->tasks->n, n_switched = 0;
	double *total = medians, *first = medians + most, *change = medians + 2 * most;
	double steps = 0, decode_ns = 0;
	*out = (struct study_summary){0};
	for (size_t task = 0; task < most; task++) {
		const struct study_row *row = study_row(study, task, cell);
		if (!row->done)
			continue;
		total[out->n] = (double)row->total_ns / 1e9;
		first[out->n] = (double)row->first_ns / 1e9;
		out->seconds += total[out->n++];
		out->right += row->right;
		out->failed += row->failed;
		out->tokens += row->tokens;
		out->think_tokens += row->think_tokens;
		steps += row->steps;
		decode_ns += (double)row->decode_ns;
		if (row->switches > 0)
			change[n_switched++] = (double)row->switch_ns / 1e6;
	}
	double n = (double)out->n; // 0 / 0 is NAN, which means unknown
	out->seconds /= n;
	out->tokens /= n;
	out->think_tokens /= n;
	out->tps = decode_ns > 0 ? steps * 1e9 / decode_ns : NAN;
	out->interval = accuracy_interval(out->right, out->n);
	out->median_seconds = median(total, out->n);
	out->first_seconds = median(first, out->n);
	out->switch_ms = median(change, n_switched);
	compare(study, cell, out);
}

static bool beats(const struct study_summary *a, const struct study_summary *b)
{
	double right_a = (double)a->right * (double)b->n, right_b = (double)b->right * (double)a->n;
	return a->n > 0 && right_a >= right_b && a->median_seconds <= b->median_seconds &&
		   (right_a > right_b || a->median_seconds < b->median_seconds);
}

int study_summarise(const struct study *study, struct study_summary *summaries, struct error *err)
{
	double *medians = mem_new(study->tasks->n, 3 * sizeof *medians, err);
	if (!medians)
		return -1;
	for (size_t cell = 0; cell < study->n_cells; cell++)
		summarise(study, cell, medians, &summaries[cell]);
	for (size_t cell = 0; cell < study->n_cells; cell++) {
		summaries[cell].front = summaries[cell].n > 0;
		for (size_t other = 0; other < study->n_cells; other++)
			summaries[cell].front &= !beats(&summaries[other], &summaries[cell]);
	}
	free(medians);
	return 0;
}
