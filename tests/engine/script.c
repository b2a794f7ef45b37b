#include "tests/engine/script.h"
#include "base/memory.h"
#include "core/journal.h"
#include "core/request.h"
#include <stdlib.h>
#include <string.h>

#define AT_ONCE (-1)

struct line { // one event waiting to be told; owns text and numbers
	struct event event;
	struct line *next;
};

struct chapter {
	int type; // of the request that starts it
	struct line *first, *last;
	struct chapter *next;
};

struct script_inside {
	struct journal *journal;
	int reader;
	struct chapter *chapters, *writing; // writing NULL = at once
	struct request_copy **requests;
	size_t n_requests, capacity;
	int position, tokens;
	const char *refusal;
};

static void must(bool fine)
{
	if (!fine)
		abort();
}

static void tell(struct script_inside *inside, const struct event *event)
{
	must(journal_append(inside->journal, event, NULL) == 0);
}

static void free_line(struct line *line)
{
	free((char *)line->event.text);
	free((int32_t *)line->event.numbers);
	free(line);
}

/* Takes the oldest chapter of this type out and tells it. */
static void start_chapter(struct script_inside *inside, int type)
{
	struct chapter **at = &inside->chapters;
	while (*at && (*at)->type != type)
		at = &(*at)->next;
	struct chapter *chapter = *at;
	if (!chapter)
		return;
	*at = chapter->next;
	if (inside->writing == chapter)
		inside->writing = NULL;
	for (struct line *line = chapter->first, *next; line; line = next) {
		next = line->next;
		tell(inside, &line->event);
		free_line(line);
	}
	free(chapter);
}

static int submit(struct engine *engine, const struct request *request, struct error *err)
{
	struct script_inside *inside = ((struct script *)engine)->inside;
	if (inside->refusal)
		return fail(err, "%s", inside->refusal);
	struct request_copy *copy = request_copy(request, err);
	if (!copy || mem_grow(&inside->requests, &inside->capacity, inside->n_requests + 1,
						  sizeof *inside->requests, err)) {
		request_free(copy);
		return -1;
	}
	inside->requests[inside->n_requests++] = copy;
	start_chapter(inside, (int)request->type);
	return 0;
}

static int descriptor(struct engine *engine)
{
	struct script_inside *inside = ((struct script *)engine)->inside;
	return journal_fd(inside->journal, inside->reader);
}

static const struct event *next(struct engine *engine)
{
	struct script_inside *inside = ((struct script *)engine)->inside;
	return journal_next(inside->journal, inside->reader);
}

static void gauges(struct engine *engine, struct gauges *out)
{
	*out = ((struct script *)engine)->gauges;
}

static int experts(struct engine *engine, struct expert_counts *out, struct error *err)
{
	const struct expert_counts *from = &((struct script *)engine)->experts;
	size_t n = (size_t)N_PHASES * (size_t)from->n_layers * (size_t)from->n_experts;
	uint32_t *counts = realloc(out->counts, (n + 1) * sizeof *counts);
	if (!counts)
		return fail(err, "no memory for %zu expert counts", n);
	if (n)
		memcpy(counts, from->counts, n * sizeof *counts);
	*out = *from;
	out->counts = counts;
	return 0;
}

static void close_script(struct engine *engine)
{
	struct script *script = (struct script *)engine;
	if (!script)
		return;
	struct script_inside *inside = script->inside;
	while (inside->chapters) {
		struct chapter *chapter = inside->chapters;
		inside->chapters = chapter->next;
		for (struct line *line = chapter->first, *after; line; line = after) {
			after = line->next;
			free_line(line);
		}
		free(chapter);
	}
	for (size_t i = 0; i < inside->n_requests; i++)
		request_free(inside->requests[i]);
	free(inside->requests);
	journal_close(inside->journal);
	free(inside);
	free(script);
}

static const struct engine_table table = {submit, descriptor, next, gauges, experts, close_script};

struct script *script_open(struct error *err)
{
	struct script *script = mem_new(1, sizeof *script, err);
	struct script_inside *inside = mem_new(1, sizeof *inside, err);
	must(script && inside);
	script->engine.table = &table;
	script->inside = inside;
	inside->journal = journal_open(err);
	must(inside->journal);
	inside->reader = journal_add_reader(inside->journal, err);
	must(inside->reader >= 0);
	return script;
}

void script_on(struct script *script, enum request_type type)
{
	struct chapter *chapter = mem_new(1, sizeof *chapter, NULL), **at = &script->inside->chapters;
	must(chapter);
	chapter->type = (int)type;
	while (*at)
		at = &(*at)->next;
	*at = script->inside->writing = chapter;
}

void script_at_once(struct script *script)
{
	script->inside->writing = NULL;
}

void script_event(struct script *script, const struct event *event)
{
	struct chapter *chapter = script->inside->writing;
	if (!chapter) {
		tell(script->inside, event);
		return;
	}
	struct line *line = mem_new(1, sizeof *line, NULL);
	must(line);
	line->event = *event;
	if (event->text)
		must((line->event.text = mem_string(event->text, event->length, NULL)) != NULL);
	if (event->n_numbers) {
		int32_t *numbers = mem_new(event->n_numbers, sizeof *numbers, NULL);
		must(numbers);
		memcpy(numbers, event->numbers, event->n_numbers * sizeof *numbers);
		line->event.numbers = numbers;
	}
	if (chapter->last)
		chapter->last->next = line;
	else
		chapter->first = line;
	chapter->last = line;
}

static struct event event_at(enum event_type type, double at_ms, const char *text)
{
	return (struct event){.type = type,
						  .at_ns = (uint64_t)(at_ms * 1e6 + 0.5),
						  .text = text,
						  .length = text ? strlen(text) : 0};
}

static void name(char to[BUDGET_NAME_BYTES], const char *from)
{
	memcpy(to, from, strnlen(from, BUDGET_NAME_BYTES - 1));
}

void script_opened(struct script *script, double at_ms, struct model *model, int context)
{
	struct event event = event_at(EV_OPENED, at_ms, NULL);
	event.opened.model = model;
	event.opened.math = MATH_FAST;
	strcpy(event.opened.rung, "script");
	event.opened.n_threads = 2;
	event.opened.context = context;
	script_event(script, &event);
}

void script_turn(struct script *script, double at_ms, const struct turn_settings *settings)
{
	struct event event = event_at(EV_TURN, at_ms, NULL);
	event.turn.parent = -1;
	event.turn.settings = *settings;
	event.turn.math = MATH_FAST;
	strcpy(event.turn.rung, "script");
	script->inside->tokens = 0;
	script_event(script, &event);
}

void script_message(struct script *script, double at_ms, const char *role, const char *text)
{
	struct event event = event_at(EV_MESSAGE, at_ms, text);
	memcpy(event.message.role, role, strnlen(role, sizeof event.message.role - 1));
	script_event(script, &event);
}

void script_prefill(struct script *script, double at_ms, int tokens, int cached, const char *budget,
					uint64_t took_ns)
{
	struct event event = event_at(EV_PREFILL, at_ms, NULL);
	int32_t end = cached + tokens;
	event.prefill.from = cached;
	event.prefill.tokens = tokens;
	event.prefill.cached = cached;
	event.prefill.took_ns = took_ns;
	name(event.prefill.budget, budget);
	event.numbers = &end;
	event.n_numbers = 1;
	script->inside->position = end;
	script_event(script, &event);
}

void script_token(struct script *script, double at_ms, const char *budget, enum phase phase,
				  const char *text, uint64_t took_ns)
{
	bool ends = !strcmp(text, "</think>");
	struct event event = event_at(EV_TOKEN, at_ms, ends ? "" : text);
	event.token.at = script->inside->position++;
	event.token.id = ends ? 13 : 1000 + event.token.at;
	event.token.logprob = -0.25f;
	event.token.phase = phase;
	event.token.took_ns = took_ns;
	event.token.thinking_ends = ends;
	name(event.token.budget, budget);
	event.token.picked.id = event.token.id;
	event.token.picked.logprob = event.token.logprob;
	for (int i = 0; i < N_ALTERNATIVES; i++) {
		event.token.picked.top[i].id = i ? 2000 + i : event.token.id;
		event.token.picked.top[i].logprob = -0.25f - 2 * (float)i;
	}
	script->inside->tokens++;
	script_event(script, &event);
}

void script_switch(struct script *script, double at_ms, const char *from, const char *to,
				   enum handoff handoff, enum switch_reason reason, uint64_t took_ns)
{
	struct event event = event_at(EV_SWITCH, at_ms, NULL);
	event.change.at = script->inside->position - 1; // the last token is read by `to`
	event.change.handoff = handoff;
	event.change.reason = reason;
	event.change.took_ns = took_ns;
	name(event.change.from, from);
	name(event.change.to, to);
	script_event(script, &event);
}

void script_stop(struct script *script, double at_ms, enum stop_reason reason)
{
	struct event event = event_at(EV_STOP, at_ms, NULL);
	event.stop.reason = reason;
	event.stop.tokens = script->inside->tokens;
	event.stop.phase = PHASE_ANSWER;
	script_event(script, &event);
}

void script_error(struct script *script, double at_ms, const char *text)
{
	struct event event = event_at(EV_ERROR, at_ms, text);
	script_event(script, &event);
}

void script_notice(struct script *script, double at_ms, const char *text)
{
	struct event event = event_at(EV_NOTICE, at_ms, text);
	script_event(script, &event);
}

const struct request *script_request(const struct script *script, size_t number)
{
	return number < script->inside->n_requests ? &script->inside->requests[number]->request : NULL;
}

size_t script_n_requests(const struct script *script)
{
	return script->inside->n_requests;
}

void script_refuse(struct script *script, const char *sentence)
{
	script->inside->refusal = sentence;
}
