#include "core/turn.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int turn_rules_init(struct turn_rules *rules, const struct config *config,
					const struct tokenizer *tokenizer, struct error *err)
{
	static const char end[] = ".\n\n";
	struct id_list ids = {0};
	*rules = (struct turn_rules){.think_open = -1, .think_close = -1};
	memcpy(rules->stop_ids, config->stop_ids, sizeof rules->stop_ids);
	rules->n_stop_ids = config->n_stop_ids;
	if (!tokenizer)
		return 0;
	rules->think_open = tokenizer_special(tokenizer, "<think>");
	rules->think_close = tokenizer_special(tokenizer, "</think>");
	int32_t end_of_message = tokenizer_special(tokenizer, "<|im_end|>");
	if (rules->n_stop_ids == 0 && end_of_message >= 0)
		rules->stop_ids[rules->n_stop_ids++] = end_of_message;
	if (rules->think_close < 0)
		return 0;
	// a vocabulary without the one token ".\n\n" spells it with several
	if (tokenizer_encode_text(tokenizer, end, sizeof end - 1, TRUST_NONE, &ids, err)) {
		free(ids.ids);
		return -1;
	}
	for (size_t i = 0; i < ids.n && rules->n_forced < TURN_MAX_FORCED - 1; i++)
		rules->forced[rules->n_forced++] = ids.ids[i];
	rules->forced[rules->n_forced++] = rules->think_close;
	free(ids.ids);
	return 0;
}

/* Why another budget reads where the settings alone decide. */
static enum switch_reason reason_of(const struct turn_settings *settings)
{
	return settings->policy || *settings->rule ? SWITCH_POLICY : SWITCH_USER;
}

void turn_begin(struct turn *turn, const struct turn_rules *rules,
				const struct turn_settings *settings, bool stops)
{
	*turn = (struct turn){
		.rules = rules, .settings = *settings, .stops = stops, .phase = PHASE_ANSWER, .forced = -1};
	turn->reason = *settings->read ? SWITCH_PHASE : reason_of(settings);
}

/* <think> and at most one token (the newline) behind it. */
void turn_prompt(struct turn *turn, const int32_t *ids, size_t n)
{
	int32_t open = turn->rules->think_open;
	bool last = n > 0 && ids[n - 1] == open;
	bool second = n > 1 && ids[n - 2] == open && ids[n - 1] != turn->rules->think_close;
	turn->phase = open >= 0 && (last || second) ? PHASE_THINK : PHASE_ANSWER;
}

void turn_resume(struct turn *turn, const int32_t *ids, size_t n)
{
	const struct turn_rules *rules = turn->rules;
	size_t at = n;
	turn->phase = PHASE_ANSWER;
	if (rules->think_open < 0)
		return;
	while (at > 0 && ids[at - 1] != rules->think_open && ids[at - 1] != rules->think_close)
		at--;
	if (at == 0 || ids[at - 1] != rules->think_open)
		return;
	turn->phase = PHASE_THINK;
	turn->n_thoughts = n > at + 1 ? (int)(n - at - 1) : 0; // <think>, a newline, thoughts
	turn->n_phase = turn->n_thoughts;
}

void turn_judge(struct turn *turn, const struct picked *picked)
{
	struct rule_facts facts = {.phase = turn->phase, .n_tokens = turn->n_phase, .picked = picked};
	const char *before = turn_reader(turn);
	const char *chosen = rule_choose(&turn->rule, &facts, turn->why);
	if (chosen && turn->n_phase > 0 && strcmp(before, chosen) != 0)
		turn->reason = SWITCH_POLICY;
	snprintf(turn->ruled, sizeof turn->ruled, "%s", chosen ? chosen : "");
}

void turn_set(struct turn *turn, const struct turn_settings *settings)
{
	bool thinking = turn->settings.thinking; // the prompt has it already
	turn->settings = *settings;
	turn->settings.thinking = thinking;
	turn->reason = reason_of(settings);
	turn->rule = (struct rule){0};
	turn->ruled[0] = '\0';
	turn->why[0] = '\0';
}

bool turn_end_thinking(struct turn *turn)
{
	if (turn->phase != PHASE_THINK || turn->forced >= 0 || turn->rules->n_forced == 0)
		return false;
	turn->forced = 0;
	return true;
}

const char *turn_prompt_reader(const struct turn *turn)
{
	return *turn->settings.read ? turn->settings.read : turn_reader(turn);
}

const char *turn_reader(const struct turn *turn)
{
	if (*turn->ruled)
		return turn->ruled;
	if (!turn->settings.policy)
		return turn->settings.budget;
	return turn->phase == PHASE_THINK ? turn->settings.think : turn->settings.answer;
}

struct pick_params turn_pick(const struct turn *turn)
{
	struct pick_params params = turn->settings.sampling;
	params.forced = turn->forced >= 0 ? turn->rules->forced[turn->forced] : -1;
	return params;
}

static bool is_stop(const struct turn_rules *rules, int32_t id)
{
	for (int i = 0; i < rules->n_stop_ids; i++)
		if (rules->stop_ids[i] == id)
			return true;
	return false;
}

/* At a newline once the limit is reached, at most a tenth later without one. */
static void keep_limit(struct turn *turn, bool newline)
{
	int limit = turn->settings.think_limit;
	if (limit > 0 && turn->n_thoughts >= limit &&
		(newline || turn->n_thoughts >= limit + limit / 10))
		turn_end_thinking(turn);
}

struct turn_step turn_take(struct turn *turn, int32_t id, bool newline, int room)
{
	struct turn_step step = {.phase = turn->phase};
	turn->n_tokens++;
	turn->n_phase++;
	if (turn->forced >= 0)
		turn->forced++;
	if (turn->stops && is_stop(turn->rules, id)) {
		step.hidden = step.over = true;
		step.reason = STOP_EOS;
		return step;
	}
	if (turn->phase == PHASE_THINK) {
		turn->n_thoughts++;
		if (id == turn->rules->think_close) {
			step.thinking_ends = step.hidden = true;
			turn->phase = PHASE_ANSWER;
			turn->n_phase = 0;
			turn->forced = -1;
			turn->reason = SWITCH_PHASE;
		} else {
			keep_limit(turn, newline);
		}
	}
	bool enough = turn->settings.max_tokens > 0 && turn->n_tokens >= turn->settings.max_tokens;
	step.full = !enough && room <= 0;
	step.over = enough || step.full;
	step.reason = STOP_LENGTH;
	return step;
}
