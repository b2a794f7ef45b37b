/*
 * Fields are taken one after the other; the first one that is missing or of another type is
 * remembered and ends in one sentence. Times and seeds are read from their digits, so that they
 * come back exactly.
 */
#include "sessions/event_read.h"
#include "base/json.h"
#include "base/memory.h"
#include "sessions/event_json.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct reader {
	struct json json;
	struct error *err;
	bool failed;
};

static const struct json_node *field(const struct reader *r, const char *key)
{
	return json_member(&r->json, r->json.nodes, key);
}

static void wrong(struct reader *r, const char *key, const char *expected)
{
	if (!r->failed)
		fail(r->err, "field %s: %s", key, field(r, key) ? expected : "missing");
	r->failed = true;
}

static int integer(struct reader *r, const char *key)
{
	int64_t value = 0;
	if (json_integer(&r->json, field(r, key), key, &value, NULL) || value < INT32_MIN ||
		value > INT32_MAX)
		wrong(r, key, "expected a whole number of 32 bits");
	return (int)value;
}

static int optional_integer(struct reader *r, const char *key, int standard)
{
	return json_is(field(r, key), JSON_NUMBER) ? integer(r, key) : standard;
}

/* Digits only; others are an error. */
static uint64_t whole(struct reader *r, const char *key)
{
	const struct json_node *node = field(r, key);
	uint64_t value = 0;
	bool fine = json_is(node, JSON_NUMBER);
	for (size_t i = fine ? node->start : 0; fine && i < node->end; i++) {
		unsigned digit = (unsigned)(r->json.source[i] - '0');
		fine = digit <= 9 && value <= (UINT64_MAX - digit) / 10;
		value = value * 10 + digit;
	}
	if (!fine)
		wrong(r, key, "expected a whole number of 64 bits");
	return value;
}

/* Milliseconds with a fraction, as nanoseconds. */
static uint64_t time_of(struct reader *r, const char *key)
{
	const struct json_node *node = field(r, key);
	uint64_t ms = 0, ns = 0;
	uint32_t unit = 100000;
	bool fine = json_is(node, JSON_NUMBER), fraction = false;
	for (size_t i = fine ? node->start : 0; fine && i < node->end; i++) {
		char c = r->json.source[i];
		if (c == '.' && !fraction) {
			fraction = true;
		} else if (c < '0' || c > '9' || ms > UINT64_MAX / 20000000) {
			fine = false;
		} else if (fraction) {
			ns += (uint64_t)(c - '0') * unit;
			unit /= 10;
		} else {
			ms = ms * 10 + (uint64_t)(c - '0');
		}
	}
	if (!fine)
		wrong(r, key, "expected milliseconds");
	return ms * 1000000 + ns;
}

static uint64_t optional_time(struct reader *r, const char *key)
{
	return field(r, key) ? time_of(r, key) : 0;
}

static float float_of(struct reader *r, const struct json_node *node, const char *key)
{
	double value = 0;
	if (json_is(node, JSON_NULL))
		return -INFINITY;
	if (json_number(&r->json, node, key, &value, NULL))
		wrong(r, key, "expected a number");
	return (float)value;
}

static float number(struct reader *r, const char *key)
{
	return float_of(r, field(r, key), key);
}

/* null = unknown = -1 */
static int64_t bytes(struct reader *r, const char *key)
{
	return json_is(field(r, key), JSON_NULL) || !field(r, key) ? -1 : (int64_t)whole(r, key);
}

static void string(struct reader *r, const char *key, char *to, size_t size)
{
	struct text text = {0};
	if (!json_is(field(r, key), JSON_STRING)) {
		wrong(r, key, "expected a string");
		return;
	}
	json_string(&r->json, field(r, key), &text);
	if (text.length >= size || text.failed)
		wrong(r, key, "too long a string");
	else
		memcpy(to, text_chars(&text), text.length + 1);
	text_free(&text);
}

static void text_of(struct reader *r, struct event *event)
{
	struct text text = {0};
	if (!json_is(field(r, "text"), JSON_STRING)) {
		wrong(r, "text", "expected a string");
		return;
	}
	json_string(&r->json, field(r, "text"), &text);
	text_append(&text, "", 0);
	event->length = text.length;
	event->text = text.data ? text_take(&text) : mem_string("", 0, NULL);
	if (!event->text)
		wrong(r, "text", "no memory");
	text_free(&text);
}

static void list(struct reader *r, const char *key, struct event *event)
{
	const struct json_node *array = field(r, key), *item;
	if (!json_is(array, JSON_ARRAY)) {
		wrong(r, key, "expected a list");
		return;
	}
	int32_t *numbers = mem_new(array->n_children + (size_t)1, sizeof *numbers, NULL);
	if (!numbers) {
		wrong(r, key, "no memory");
		return;
	}
	event->numbers = numbers;
	for (item = json_first(&r->json, array); item; item = json_next(&r->json, array, item)) {
		int64_t value = 0;
		if (json_integer(&r->json, item, key, &value, NULL) || value < INT32_MIN ||
			value > INT32_MAX)
			wrong(r, key, "expected whole numbers of 32 bits");
		numbers[event->n_numbers++] = (int32_t)value;
	}
}

/* Which of n names the string is. */
static int one_of(struct reader *r, const char *key, int n, const char *(*name)(int))
{
	for (int i = 0; i < n; i++)
		if (json_is(field(r, key), JSON_STRING) && json_equals(&r->json, field(r, key), name(i)))
			return i;
	wrong(r, key, "a name that this version does not know");
	return 0;
}

static const char *name_of_phase(int i)
{
	return phase_name((enum phase)i);
}

static const char *name_of_reason(int i)
{
	return switch_reason_name((enum switch_reason)i);
}

static const char *name_of_stop(int i)
{
	return stop_reason_name((enum stop_reason)i);
}

static const char *name_of_math(int i)
{
	return i == MATH_FAST ? "fast" : "exact";
}

#define PHASE(key) ((enum phase)one_of(r, key, N_PHASES, name_of_phase))
#define MATH(key) (one_of(r, key, 2, name_of_math) == MATH_FAST ? MATH_FAST : MATH_EXACT)

/* "repair:N", or "repair" with the number elsewhere. */
static enum handoff handoff_of(struct reader *r, int *repair)
{
	char text[HANDOFF_TEXT_BYTES] = "";
	enum handoff handoff = HANDOFF_REPREFILL;
	string(r, "handoff", text, sizeof text);
	*repair = optional_integer(r, "repair", 0);
	if (!strcmp(text, handoff_name(HANDOFF_REPAIR)))
		return HANDOFF_REPAIR;
	int n = 0;
	if (handoff_parse(text, &handoff, &n, NULL))
		wrong(r, "handoff", "a name that this version does not know");
	if (n > 0)
		*repair = n;
	return handoff;
}

/* Who writes: a rule is the policy's own text; who reads the prompt is said only if it is another.
 */
static void writers(struct reader *r, struct turn_settings *settings)
{
	char policy[RULE_BYTES] = "";
	string(r, "policy", policy, sizeof policy);
	string(r, "think", settings->think, BUDGET_NAME_BYTES);
	string(r, "answer", settings->answer, BUDGET_NAME_BYTES);
	string(r, "read", settings->read, BUDGET_NAME_BYTES);
	memcpy(settings->budget, settings->think, BUDGET_NAME_BYTES);
	settings->policy = !strcmp(policy, "think-answer");
	if (!settings->policy && strcmp(policy, "none") != 0)
		memcpy(settings->rule, policy, sizeof policy);
	const char *first =
		settings->policy && !settings->thinking ? settings->answer : settings->think;
	if (!strcmp(settings->read, first))
		settings->read[0] = 0;
}

static bool is_true(struct reader *r, const char *key)
{
	return json_is(field(r, key), JSON_TRUE);
}

static void opened(struct reader *r, struct event *event, const char *line, size_t length)
{
	char device[96] = "";
	string(r, "device", device, sizeof device);
	const char *comma = strchr(device, ',');
	size_t n = comma ? (size_t)(comma - device) : strlen(device);
	memcpy(event->opened.rung, device, n < 31 ? n : 31);
	event->opened.n_threads = comma ? atoi(comma + 1) : 0;
	event->opened.math = field(r, "math") ? MATH("math") : MATH_EXACT;
	char kv[16] = "f32";
	if (field(r, "kv"))
		string(r, "kv", kv, sizeof kv);
	event->opened.kv_dtype = kv_find(kv) < 0 ? DTYPE_F32 : (enum dtype)kv_find(kv);
	event->opened.context = optional_integer(r, "context", 0);
	for (const char *key = "version\0checkpoint\0hash\0budgets\0time\0"; *key;
		 key += strlen(key) + 1)
		if (!field(r, key))
			wrong(r, key, "");
	event->text = mem_string(line, length, NULL);
	event->length = length;
	if (!event->text)
		wrong(r, "ev", "no memory");
}

static void turn(struct reader *r, struct event *event)
{
	struct turn_settings *settings = &event->turn.settings;
	bool no_parent = json_is(field(r, "parent"), JSON_NULL);
	event->turn.id = integer(r, "id");
	event->turn.parent = no_parent ? -1 : integer(r, "parent");
	event->turn.known = optional_integer(r, "known", -1);
	settings->sampling.seed = whole(r, "seed");
	settings->sampling.temperature = number(r, "temperature");
	settings->sampling.top_p = number(r, "top_p");
	settings->sampling.top_k = integer(r, "top_k");
	settings->sampling.min_p = number(r, "min_p");
	settings->sampling.forced = -1;
	settings->max_tokens = integer(r, "n");
	settings->handoff = handoff_of(r, &settings->repair);
	settings->think_limit = integer(r, "think_limit");
	settings->thinking = field(r, "thinking") ? is_true(r, "thinking") : true;
	writers(r, settings);
	event->turn.branched = field(r, "left") != NULL;
	event->turn.left = optional_integer(r, "left", -1);
	if (field(r, "tokens"))
		list(r, "tokens", event);
	event->turn.math = MATH("math");
	string(r, "rung", event->turn.rung, sizeof event->turn.rung);
}

static void alternatives(struct reader *r, struct picked *picked)
{
	const struct json_node *array = field(r, "top"), *pair;
	int n = 0;
	if (!json_is(array, JSON_ARRAY)) {
		wrong(r, "top", "expected a list");
		return;
	}
	for (pair = json_first(&r->json, array); pair; pair = json_next(&r->json, array, pair)) {
		int64_t id = -1;
		if (!json_is(pair, JSON_ARRAY) || pair->n_children != 2 ||
			json_integer(&r->json, json_first(&r->json, pair), "top", &id, NULL)) {
			wrong(r, "top", "expected pairs of an id and a logprob");
			return;
		}
		if (n == N_ALTERNATIVES)
			return;
		const struct json_node *second = json_next(&r->json, pair, json_first(&r->json, pair));
		picked->top[n].id = (int32_t)id;
		picked->top[n++].logprob = float_of(r, second, "top");
	}
	if (n < N_ALTERNATIVES)
		picked->top[n].id = -1;
}

static void token(struct reader *r, struct event *event)
{
	event->token.at = integer(r, "at");
	event->token.id = event->token.picked.id = integer(r, "id");
	event->token.logprob = event->token.picked.logprob = number(r, "logprob");
	string(r, "budget", event->token.budget, BUDGET_NAME_BYTES);
	event->token.phase = PHASE("phase");
	event->token.took_ns = time_of(r, "took_ms");
	event->token.forced = is_true(r, "forced");
	event->token.thinking_ends = is_true(r, "thinking_ends");
	event->token.given = is_true(r, "given");
	alternatives(r, &event->token.picked);
	text_of(r, event);
}

static void change(struct reader *r, struct event *event)
{
	event->change.at = integer(r, "at");
	string(r, "from", event->change.from, BUDGET_NAME_BYTES);
	string(r, "to", event->change.to, BUDGET_NAME_BYTES);
	event->change.handoff = handoff_of(r, &event->change.repair);
	event->change.replayed = optional_integer(r, "replayed", 0);
	event->change.reason = (enum switch_reason)one_of(r, "reason", 3, name_of_reason);
	event->change.took_ns = time_of(r, "took_ms");
	list(r, "stale", event);
	if (field(r, "text"))
		text_of(r, event);
}

static void memory(struct reader *r, struct event *event)
{
	event->memory = (struct memory_use){
		.weights_bytes = bytes(r, "weights_bytes"),
		.resident_bytes = bytes(r, "resident_bytes"),
		.kv_bytes = bytes(r, "kv_bytes"),
		.ssm_bytes = bytes(r, "ssm_bytes"),
		.conv_bytes = bytes(r, "conv_bytes"),
		.scratch_bytes = bytes(r, "scratch_bytes"),
		.rss_bytes = bytes(r, "rss_bytes"),
		.vram_bytes = bytes(r, "vram_bytes"),
		.snapshot_bytes = bytes(r, "snapshot_bytes"),
		.bytes_per_token = bytes(r, "bytes_per_token"),
		.n_sequences = optional_integer(r, "sequences", 0),
	};
}

/* From here on the mask's short name, if it has one, stands for its text. */
static void mask(struct reader *r, struct event *event)
{
	const struct json_node *edits = field(r, "edits"), *base = field(r, "base"), *item;
	struct text text = {0};
	if (json_is(base, JSON_STRING))
		json_string(&r->json, base, &text);
	if (!json_is(edits, JSON_ARRAY)) {
		wrong(r, "edits", "expected a list");
		text_free(&text);
		return;
	}
	for (item = json_first(&r->json, edits); item; item = json_next(&r->json, edits, item)) {
		if (text.length)
			text_add_char(&text, ',');
		json_string(&r->json, item, &text);
	}
	if (budget_name_of(event->mask.budget, text_chars(&text), NULL))
		wrong(r, "edits", "no memory");
	event->length = text.length;
	text_add(&text, "");
	event->text = text_take(&text);
}

static void fields(struct reader *r, struct event *event, const char *line, size_t length)
{
	switch (event->type) {
	case EV_OPENED: opened(r, event, line, length); break;
	case EV_TURN: turn(r, event); break;
	case EV_MESSAGE:
		string(r, "role", event->message.role, sizeof event->message.role);
		text_of(r, event);
		break;
	case EV_PREFILL:
		event->prefill.from = integer(r, "from");
		event->prefill.tokens = integer(r, "tokens");
		event->prefill.cached = integer(r, "cached");
		string(r, "budget", event->prefill.budget, BUDGET_NAME_BYTES);
		event->prefill.took_ns = time_of(r, "took_ms");
		list(r, "cuts", event);
		break;
	case EV_TOKEN: token(r, event); break;
	case EV_SWITCH: change(r, event); break;
	case EV_KEPT: event->kept.turn = optional_integer(r, "turn", -1); break;
	case EV_MASK: mask(r, event); break;
	case EV_MEMORY: memory(r, event); break;
	case EV_STOP:
		event->stop.reason = (enum stop_reason)one_of(r, "reason", 4, name_of_stop);
		event->stop.tokens = integer(r, "tokens");
		event->stop.phase = field(r, "phase") ? PHASE("phase") : PHASE_ANSWER;
		event->stop.took_ns = optional_time(r, "took_ms");
		event->stop.first_ns = optional_time(r, "first_ms");
		break;
	default: text_of(r, event); break;
	}
}

int event_read(const char *line, size_t length, struct event *event, struct error *err)
{
	struct error unused;
	struct reader r = {.err = err ? err : &unused};
	*event = (struct event){0};
	if (json_parse(&r.json, line, length, r.err))
		return -1;
	const struct json_node *kind = field(&r, "ev");
	if (!json_is(kind, JSON_STRING))
		wrong(&r, "ev", "expected a string");
	enum event_type type = EV_OPENED;
	while (!r.failed && type < N_EVENT_TYPES &&
		   !(event_type_name(type) && json_equals(&r.json, kind, event_type_name(type))))
		type++;
	if (!r.failed && type < N_EVENT_TYPES) {
		event->type = type;
		event->at_ns = time_of(&r, "ms");
		event->seq = integer(&r, "seq");
		fields(&r, event, line, length);
	}
	json_free(&r.json);
	if (r.failed)
		event_release(event);
	return r.failed ? -1 : type < N_EVENT_TYPES;
}

void event_release(struct event *event)
{
	free((char *)event->text);
	free((int32_t *)event->numbers);
	event->text = NULL;
	event->numbers = NULL;
}

static void origin_budgets(struct reader *r, struct session_origin *origin)
{
	const struct json_node *array = field(r, "budgets"), *item;
	if (!json_is(array, JSON_ARRAY)) {
		wrong(r, "budgets", "expected a list");
		return;
	}
	origin->budgets = mem_new(array->n_children + (size_t)1, sizeof *origin->budgets, NULL);
	if (!origin->budgets)
		wrong(r, "budgets", "no memory");
	for (item = json_first(&r->json, array); item && origin->budgets;
		 item = json_next(&r->json, array, item)) {
		struct text name = {0};
		json_string(&r->json, item, &name);
		memcpy(origin->budgets[origin->n_budgets++], text_chars(&name),
			   name.length < BUDGET_NAME_BYTES ? name.length : BUDGET_NAME_BYTES - 1);
		text_free(&name);
	}
}

int session_origin_read(const struct event *event, struct session_origin *origin, struct error *err)
{
	struct error unused;
	struct reader r = {.err = err ? err : &unused};
	struct text checkpoint = {0};
	*origin = (struct session_origin){0};
	if (!event->text)
		return fail(err, "no session line");
	if (json_parse(&r.json, event->text, event->length, r.err))
		return -1;
	string(&r, "version", origin->version, sizeof origin->version);
	if (!json_is(field(&r, "hash"), JSON_NULL))
		string(&r, "hash", origin->hash, sizeof origin->hash);
	string(&r, "time", origin->time, sizeof origin->time);
	if (json_is(field(&r, "checkpoint"), JSON_STRING))
		json_string(&r.json, field(&r, "checkpoint"), &checkpoint);
	origin->checkpoint = mem_string(text_chars(&checkpoint), checkpoint.length, NULL);
	text_free(&checkpoint);
	origin_budgets(&r, origin);
	json_free(&r.json);
	if (!origin->checkpoint || r.failed) {
		session_origin_free(origin);
		return r.failed ? -1 : fail(err, "no memory for a session line");
	}
	return 0;
}

void session_origin_free(struct session_origin *origin)
{
	free(origin->checkpoint);
	free(origin->budgets);
	*origin = (struct session_origin){0};
}
