/*
 * Written by hand, because a line is made for every token: no allocation but the growing text,
 * numbers that do not depend on the locale, and text that is valid JSON whatever was said
 * (ill-formed UTF-8 becomes U+FFFD).
 */
#include "sessions/event_json.h"
#include "base/clock.h"
#include "base/utf8.h"
#include "core/model.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#ifndef ELASTISCOPE_VERSION
#define ELASTISCOPE_VERSION "unknown"
#endif

static void add_string(struct text *out, const char *bytes, size_t length)
{
	size_t plain = 0; // bytes[plain..i) go out as they are
	text_add_char(out, '"');
	for (size_t i = 0; i < length;) {
		unsigned char c = (unsigned char)bytes[i];
		if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
			i++;
			continue;
		}
		uint32_t code;
		int n = utf8_decode(bytes + i, length - i, &code);
		if (n > 1) {
			i += (size_t)n;
			continue;
		}
		text_append(out, bytes + plain, i - plain);
		if (n == 0) // the end of the text cuts a character
			n = -(int)(length - i);
		if (n < 0)
			text_add(out, UTF8_REPLACEMENT);
		else if (c == '"' || c == '\\')
			text_append(out, (char[]){'\\', (char)c}, 2);
		else if (c == '\n')
			text_append(out, "\\n", 2);
		else
			text_format(out, "\\u%04x", c);
		i += (size_t)(n < 0 ? -n : n);
		plain = i;
	}
	text_append(out, bytes + plain, length - plain);
	text_add_char(out, '"');
}

static void add_key(struct text *out, const char *key)
{
	text_append(out, ",\"", 2);
	text_add(out, key);
	text_append(out, "\":", 2);
}

static void add_name(struct text *out, const char *key, const char *value)
{
	add_key(out, key);
	if (value)
		add_string(out, value, strlen(value));
	else
		text_add(out, "null");
}

/* At least n_digits of them. */
static void add_digits(struct text *out, uint64_t value, int n_digits)
{
	char digits[20];
	int at = sizeof digits;
	for (; value > 0 || n_digits > 0; value /= 10, n_digits--)
		digits[--at] = (char)('0' + value % 10);
	text_append(out, digits + at, sizeof digits - (size_t)at);
}

static void add_whole(struct text *out, int64_t value)
{
	if (value < 0)
		text_add_char(out, '-');
	add_digits(out, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 1);
}

static void add_integer(struct text *out, const char *key, int64_t value)
{
	add_key(out, key);
	add_whole(out, value);
}

/* -1 = unknown */
static void add_bytes(struct text *out, const char *key, int64_t value)
{
	if (value >= 0) {
		add_integer(out, key, value);
		return;
	}
	add_key(out, key);
	text_add(out, "null");
}

/* Milliseconds, exact to the nanosecond. */
static void add_ms(struct text *out, const char *key, uint64_t ns)
{
	add_key(out, key);
	add_digits(out, ns / 1000000, 1);
	text_add_char(out, '.');
	add_digits(out, ns % 1000000, 6);
}

/* Nine digits say which float it was: decimals by hand (a tenth of printf's time) where that keeps
 * them, else printf, whose decimal comma in some locales becomes a point. */
static void add_float(struct text *out, double value)
{
	double size = fabs(value);
	char digits[40];
	if (!isfinite(value)) {
		text_add(out, "null");
	} else if (size == 0 || (size >= 0.001 && size < 1e9)) {
		uint64_t scaled = (uint64_t)(size * 1e9 + 0.5);
		if (value < 0)
			text_add_char(out, '-');
		add_digits(out, scaled / 1000000000, 1);
		if (scaled % 1000000000) {
			text_add_char(out, '.');
			add_digits(out, scaled % 1000000000, 9);
			while (!out->failed && out->data[out->length - 1] == '0')
				out->data[--out->length] = 0;
		}
	} else {
		int n = snprintf(digits, sizeof digits, "%.9g", value);
		for (int i = 0; i < n; i++)
			if (!strchr("0123456789+-e", digits[i]))
				digits[i] = '.';
		text_append(out, digits, (size_t)n);
	}
}

static void add_number(struct text *out, const char *key, double value)
{
	add_key(out, key);
	add_float(out, value);
}

static void add_list(struct text *out, const char *key, const struct event *event)
{
	add_key(out, key);
	for (size_t i = 0; i < event->n_numbers; i++) {
		text_add_char(out, i ? ',' : '[');
		add_whole(out, event->numbers[i]);
	}
	if (event->n_numbers == 0)
		text_add_char(out, '[');
	text_add_char(out, ']');
}

static void add_text(struct text *out, const struct event *event)
{
	text_add(out, ",\"text\":");
	add_string(out, event->text ? event->text : "", event->text ? event->length : 0);
}

static void session(struct text *out, const struct event *event)
{
	const struct model *model = event->opened.model;
	char device[80], now[24];
	snprintf(device, sizeof device, "%s, %d thread%s", event->opened.rung, event->opened.n_threads,
			 event->opened.n_threads == 1 ? "" : "s");
	clock_utc(now);
	add_name(out, "version", ELASTISCOPE_VERSION);
	add_name(out, "checkpoint", model ? model->directory : NULL);
	add_name(out, "hash", model ? model->hash : NULL);
	text_add(out, ",\"budgets\":[");
	for (int i = 0; model && i < model->elastic.n_budgets; i++) {
		const char *name = model->elastic.budgets[i].name;
		text_add(out, i ? "," : "");
		add_string(out, name, strlen(name));
	}
	text_add_char(out, ']');
	add_name(out, "device", device);
	add_name(out, "time", now);
	add_name(out, "math", event->opened.math == MATH_FAST ? "fast" : "exact");
	add_name(out, "kv", kv_name(event->opened.kv_dtype));
	add_integer(out, "context", event->opened.context);
}

static void add_handoff(struct text *out, enum handoff handoff, int repair)
{
	char name[HANDOFF_TEXT_BYTES];
	handoff_write(handoff, repair, name);
	add_name(out, "handoff", name);
}

static void turn(struct text *out, const struct event *event)
{
	const struct turn_settings *settings = &event->turn.settings;
	bool policy = settings->policy;
	add_integer(out, "id", event->turn.id);
	if (event->turn.parent < 0)
		text_add(out, ",\"parent\":null");
	else
		add_integer(out, "parent", event->turn.parent);
	add_integer(out, "known", event->turn.known);
	text_format(out, ",\"seed\":%llu", (unsigned long long)settings->sampling.seed);
	add_number(out, "temperature", settings->sampling.temperature);
	add_number(out, "top_p", settings->sampling.top_p);
	add_integer(out, "top_k", settings->sampling.top_k);
	add_number(out, "min_p", settings->sampling.min_p);
	add_integer(out, "n", settings->max_tokens);
	const char *writer = !policy              ? settings->budget
						 : settings->thinking ? settings->think
											  : settings->answer;
	add_name(out, "read", *settings->read ? settings->read : writer);
	add_name(out, "think", policy ? settings->think : settings->budget);
	add_name(out, "answer", policy ? settings->answer : settings->budget);
	add_handoff(out, settings->handoff, settings->repair);
	add_integer(out, "think_limit", settings->think_limit);
	add_name(out, "policy", *settings->rule ? settings->rule : policy ? "think-answer" : "none");
	add_name(out, "math", event->turn.math == MATH_FAST ? "fast" : "exact");
	add_name(out, "rung", event->turn.rung);
	text_format(out, ",\"thinking\":%s", settings->thinking ? "true" : "false");
	if (event->turn.branched && event->turn.left < 0)
		text_add(out, ",\"left\":null");
	else if (event->turn.branched)
		add_integer(out, "left", event->turn.left);
	if (event->n_numbers > 0)
		add_list(out, "tokens", event);
}

static void token(struct text *out, const struct event *event)
{
	const struct picked *picked = &event->token.picked;
	add_integer(out, "at", event->token.at);
	add_integer(out, "id", event->token.id);
	add_text(out, event);
	add_number(out, "logprob", event->token.logprob);
	add_name(out, "budget", event->token.budget);
	add_name(out, "phase", phase_name(event->token.phase));
	add_ms(out, "took_ms", event->token.took_ns);
	text_add(out, ",\"top\":[");
	for (int i = 0; i < N_ALTERNATIVES && picked->top[i].id >= 0; i++) {
		text_add(out, i ? ",[" : "[");
		add_whole(out, picked->top[i].id);
		text_add_char(out, ',');
		add_float(out, picked->top[i].logprob);
		text_add_char(out, ']');
	}
	text_add_char(out, ']');
	if (event->token.forced)
		text_add(out, ",\"forced\":true");
	if (event->token.thinking_ends)
		text_add(out, ",\"thinking_ends\":true");
	if (event->token.given)
		text_add(out, ",\"given\":true");
}

/* "BASE,TERM,TERM" as a base and a list. */
static void mask(struct text *out, const struct event *event)
{
	const char *text = event->text ? event->text : "", *term = text;
	size_t base = strcspn(text, ",=");
	add_name(out, "budget", event->mask.budget);
	add_key(out, "base");
	if (text[base] == ',') {
		add_string(out, text, base);
		term = text + base + 1;
	} else {
		text_add(out, "null");
	}
	add_key(out, "edits");
	text_add_char(out, '[');
	for (bool first = true; *term; first = false) {
		size_t length = strcspn(term, ",");
		if (!first)
			text_add_char(out, ',');
		add_string(out, term, length);
		term += length + (term[length] == ',');
	}
	text_add_char(out, ']');
}

static void memory(struct text *out, const struct event *event)
{
	const struct memory_use *use = &event->memory;
	add_bytes(out, "weights_bytes", use->weights_bytes);
	add_bytes(out, "resident_bytes", use->resident_bytes);
	add_bytes(out, "kv_bytes", use->kv_bytes);
	add_bytes(out, "ssm_bytes", use->ssm_bytes);
	add_bytes(out, "conv_bytes", use->conv_bytes);
	add_bytes(out, "scratch_bytes", use->scratch_bytes);
	add_bytes(out, "rss_bytes", use->rss_bytes);
	add_bytes(out, "vram_bytes", use->vram_bytes);
	add_bytes(out, "snapshot_bytes", use->snapshot_bytes);
	add_bytes(out, "bytes_per_token", use->bytes_per_token);
	if (use->n_sequences > 0)
		add_integer(out, "sequences", use->n_sequences);
}

static void fields(struct text *out, const struct event *event)
{
	switch (event->type) {
	case EV_OPENED: session(out, event); break;
	case EV_TURN: turn(out, event); break;
	case EV_MESSAGE:
		add_name(out, "role", event->message.role);
		add_text(out, event);
		break;
	case EV_PREFILL:
		add_integer(out, "from", event->prefill.from);
		add_integer(out, "tokens", event->prefill.tokens);
		add_integer(out, "cached", event->prefill.cached);
		add_list(out, "cuts", event);
		add_name(out, "budget", event->prefill.budget);
		add_ms(out, "took_ms", event->prefill.took_ns);
		break;
	case EV_TOKEN: token(out, event); break;
	case EV_SWITCH:
		add_integer(out, "at", event->change.at);
		add_name(out, "from", event->change.from);
		add_name(out, "to", event->change.to);
		add_handoff(out, event->change.handoff, event->change.repair);
		if (event->change.handoff == HANDOFF_REPREFILL && event->change.repair > 0)
			add_integer(out, "repair", event->change.repair);
		add_name(out, "reason", switch_reason_name(event->change.reason));
		add_integer(out, "replayed", event->change.replayed);
		add_ms(out, "took_ms", event->change.took_ns);
		add_list(out, "stale", event);
		if (event->text)
			add_text(out, event);
		break;
	case EV_KEPT:
		if (event->kept.turn >= 0)
			add_integer(out, "turn", event->kept.turn);
		else
			add_name(out, "turn", NULL);
		break;
	case EV_MASK: mask(out, event); break;
	case EV_MEMORY: memory(out, event); break;
	case EV_STOP:
		add_name(out, "reason", stop_reason_name(event->stop.reason));
		add_integer(out, "tokens", event->stop.tokens);
		add_name(out, "phase", phase_name(event->stop.phase));
		add_ms(out, "took_ms", event->stop.took_ns);
		add_ms(out, "first_ms", event->stop.first_ns);
		break;
	case EV_ERROR:
	case EV_NOTICE: add_text(out, event); break;
	case EV_CLEARED:
	case EV_PROGRESS:
	case N_EVENT_TYPES: break;
	}
}

const char *event_type_name(enum event_type type)
{
	static const char *const names[N_EVENT_TYPES] = {
		[EV_OPENED] = "session",  [EV_TURN] = "turn",     [EV_MESSAGE] = "message",
		[EV_PREFILL] = "prefill", [EV_TOKEN] = "token",   [EV_SWITCH] = "switch",
		[EV_MASK] = "mask",       [EV_MEMORY] = "memory", [EV_STOP] = "stop",
		[EV_ERROR] = "error",     [EV_NOTICE] = "notice", [EV_KEPT] = "kept",
	};
	return (unsigned)type < N_EVENT_TYPES ? names[type] : NULL;
}

int event_json(const struct event *event, struct text *out, struct error *err)
{
	const char *name = event_type_name(event->type);
	if (!name)
		return 0;
	if (event->type == EV_OPENED && !event->opened.model && event->text && event->text[0] == '{') {
		text_append(out, event->text, event->length); // as it was recorded
		text_add_char(out, '\n');
		return text_check(out, err);
	}
	text_add(out, "{\"ev\":\"");
	text_add(out, name);
	text_add_char(out, '"');
	add_ms(out, "ms", event->at_ns);
	add_integer(out, "seq", event->seq);
	fields(out, event);
	text_add(out, "}\n");
	return text_check(out, err);
}
