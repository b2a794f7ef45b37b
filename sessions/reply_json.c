#include "sessions/reply_json.h"
#include <cjson/cJSON.h>
#include <string.h>

const char *reply_finish_reason(const struct reply *reply)
{
	return reply->reason == STOP_EOS ? "stop" : stop_reason_name(reply->reason);
}

static double ms(uint64_t ns)
{
	return (double)ns / 1e6;
}

static double per_second(int n, uint64_t ns)
{
	return ns > 0 ? n * 1e9 / (double)ns : 0;
}

cJSON *reply_usage_json(const struct reply *reply)
{
	cJSON *usage = cJSON_CreateObject(), *details;
	cJSON_AddNumberToObject(usage, "prompt_tokens", reply->prompt_tokens);
	cJSON_AddNumberToObject(usage, "completion_tokens", reply->completion_tokens);
	cJSON_AddNumberToObject(usage, "total_tokens", reply->prompt_tokens + reply->completion_tokens);
	details = cJSON_AddObjectToObject(usage, "prompt_tokens_details");
	cJSON_AddNumberToObject(details, "cached_tokens", reply->cached_tokens);
	details = cJSON_AddObjectToObject(usage, "completion_tokens_details");
	cJSON_AddNumberToObject(details, "reasoning_tokens", reply->reasoning_tokens);
	return usage;
}

struct part { // what segments of one phase, or of one budget, add up to
	int tokens, steps;
	uint64_t took_ns;
};

static void add_part(cJSON *object, const char *name, const struct part *part)
{
	cJSON *to = cJSON_AddObjectToObject(object, name);
	cJSON_AddNumberToObject(to, "predicted_n", part->tokens);
	cJSON_AddNumberToObject(to, "decode_steps", part->steps);
	cJSON_AddNumberToObject(to, "predicted_ms", ms(part->took_ns));
	cJSON_AddNumberToObject(to, "predicted_per_second", per_second(part->steps, part->took_ns));
}

static void join(struct part *part, const struct segment *segment)
{
	part->tokens += segment->tokens;
	part->steps += segment->steps;
	part->took_ns += segment->took_ns;
}

static void add_phases(cJSON *timings, const struct reply *reply)
{
	cJSON *phases = cJSON_AddObjectToObject(timings, "phases");
	for (int phase = PHASE_THINK; phase <= PHASE_ANSWER; phase++) {
		struct part part = {0};
		for (size_t i = 0; i < reply->n_segments; i++)
			if ((int)reply->segments[i].phase == phase)
				join(&part, &reply->segments[i]);
		if (part.tokens > 0)
			add_part(phases, phase_name((enum phase)phase), &part);
	}
}

static void add_budgets(cJSON *timings, const struct reply *reply)
{
	cJSON *budgets = cJSON_AddObjectToObject(timings, "budgets");
	for (size_t first = 0; first < reply->n_segments; first++) {
		const char *name = reply->segments[first].budget;
		struct part part = {0};
		if (cJSON_GetObjectItemCaseSensitive(budgets, name))
			continue;
		for (size_t i = first; i < reply->n_segments; i++)
			if (!strcmp(reply->segments[i].budget, name))
				join(&part, &reply->segments[i]);
		add_part(budgets, name, &part);
	}
}

cJSON *reply_timings_json(const struct reply *reply)
{
	cJSON *timings = cJSON_CreateObject();
	int read = reply->prompt_tokens - reply->cached_tokens;
	cJSON_AddNumberToObject(timings, "cache_n", reply->cached_tokens);
	cJSON_AddNumberToObject(timings, "prompt_n", read);
	cJSON_AddNumberToObject(timings, "prompt_ms", ms(reply->prefill_ns));
	cJSON_AddNumberToObject(timings, "prompt_per_second", per_second(read, reply->prefill_ns));
	cJSON_AddNumberToObject(timings, "predicted_n", reply->completion_tokens);
	cJSON_AddNumberToObject(timings, "predicted_ms", ms(reply->decode_ns));
	cJSON_AddNumberToObject(timings, "predicted_per_second",
							per_second(reply->decode_steps, reply->decode_ns));
	cJSON_AddNumberToObject(timings, "decode_steps", reply->decode_steps);
	cJSON_AddNumberToObject(timings, "first_ms", ms(reply->first_ns));
	cJSON_AddNumberToObject(timings, "total_ms", ms(reply->total_ns));
	add_phases(timings, reply);
	add_budgets(timings, reply);
	return timings;
}

static void add_segments(cJSON *object, const struct reply *reply)
{
	cJSON *list = cJSON_AddArrayToObject(object, "segments");
	for (size_t i = 0; i < reply->n_segments; i++) {
		const struct segment *segment = &reply->segments[i];
		cJSON *to = cJSON_CreateObject();
		cJSON_AddStringToObject(to, "phase", phase_name(segment->phase));
		cJSON_AddStringToObject(to, "budget", segment->budget);
		cJSON_AddNumberToObject(to, "tokens", segment->tokens);
		cJSON_AddNumberToObject(to, "ms", ms(segment->took_ns));
		cJSON_AddNumberToObject(to, "tps", per_second(segment->steps, segment->took_ns));
		cJSON_AddItemToArray(list, to);
	}
}

static void add_switches(cJSON *object, const struct reply *reply)
{
	cJSON *list = cJSON_AddArrayToObject(object, "switches");
	for (size_t i = 0; i < reply->n_switches; i++) {
		const struct reply_switch *change = &reply->switches[i];
		cJSON *to = cJSON_CreateObject();
		cJSON_AddNumberToObject(to, "at", change->at);
		cJSON_AddStringToObject(to, "from", change->from);
		cJSON_AddStringToObject(to, "to", change->to);
		char handoff[HANDOFF_TEXT_BYTES];
		handoff_write(change->handoff, change->repair, handoff);
		cJSON_AddStringToObject(to, "handoff", handoff);
		cJSON_AddStringToObject(to, "reason", switch_reason_name(change->reason));
		if (*change->why)
			cJSON_AddStringToObject(to, "text", change->why);
		cJSON_AddNumberToObject(to, "replayed", change->replayed);
		cJSON_AddNumberToObject(to, "ms", ms(change->took_ns));
		cJSON *stale = cJSON_AddArrayToObject(to, "stale");
		for (size_t k = 0; k < change->n_stale; k++)
			cJSON_AddItemToArray(stale, cJSON_CreateNumber(change->stale[k]));
		cJSON_AddItemToArray(list, to);
	}
}

cJSON *reply_json(const struct reply *reply)
{
	cJSON *object = cJSON_CreateObject();
	cJSON_AddStringToObject(object, "text", text_chars(&reply->answer));
	cJSON_AddStringToObject(object, "reasoning", text_chars(&reply->reasoning));
	cJSON_AddStringToObject(object, "finish_reason", reply_finish_reason(reply));
	cJSON_AddItemToObject(object, "usage", reply_usage_json(reply));
	cJSON_AddItemToObject(object, "timings", reply_timings_json(reply));
	add_segments(object, reply);
	add_switches(object, reply);
	return object;
}
