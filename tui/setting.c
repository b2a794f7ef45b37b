#include "tui/setting.h"
#include "core/mask.h"
#include "core/rule.h"
#include "core/sampler.h"
#include "tui/app.h"
#include "tui/state.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int parse_number(const char *what, const char *value, double low, double high, double *out,
				 struct error *err)
{
	char *end;
	double number = strtod(value, &end);
	end += strspn(end, " \t");
	if (end == value || *end || !isfinite(number))
		return fail(err, "%s: '%s' is not a number; %g to %g is expected", what, value, low, high);
	if (number < low || number > high)
		return fail(err, "%s: %s is out of range; %g to %g is expected", what, value, low, high);
	*out = number;
	return 0;
}

static int parse_whole(const char *what, const char *value, double low, double high, double *out,
					   struct error *err)
{
	if (parse_number(what, value, low, high, out, err))
		return -1;
	if (*out != floor(*out))
		return fail(err, "%s: %s is not a whole number", what, value);
	return 0;
}

static int parse_switch(const char *what, const char *value, bool *out, struct error *err)
{
	if (strcmp(value, "on") == 0 || strcmp(value, "1") == 0 || strcmp(value, "yes") == 0)
		*out = true;
	else if (strcmp(value, "off") == 0 || strcmp(value, "0") == 0 || strcmp(value, "no") == 0)
		*out = false;
	else
		return fail(err, "%s: '%s': on or off is expected", what, value);
	return 0;
}

static struct turn_settings *turn(struct command_context *context)
{
	return &context->talk->settings;
}

static const struct turn_settings *turn_of(const struct command_context *context)
{
	return &context->talk->settings;
}

/* Typed widths that cut a quantisation block are made whole: then the budget's name, in the
 * parent's terms, into name. */
static int whole_widths(const struct model *model, struct budget *budget,
						char name[BUDGET_NAME_BYTES], struct error *err)
{
	const struct config *config = &model->config;
	struct text rounded = {0}, whole = {0};
	int status = 0;
	if (strcmp(budget->source, "typed") == 0)
		mask_round(budget, &model->weights, config, &rounded);
	if (rounded.length > 0) {
		status = budget_edit(budget, config, text_chars(&rounded), err);
		budget_terms(budget, &model->elastic.budgets[0], config, &whole);
		if (whole.length == 0)
			text_add(&whole, model->elastic.budgets[0].name);
		if (status == 0 && (status = text_check(&whole, err)) == 0)
			status = budget_name_of(name, text_chars(&whole), err);
	}
	text_free(&rounded);
	text_free(&whole);
	return status;
}

static int set_budget(struct command_context *context, const char *value, struct error *err)
{
	struct talk *talk = context->talk;
	struct budget budget;
	char name[BUDGET_NAME_BYTES];
	if (talk_resolve_budget(talk, value, &budget, err))
		return -1;
	snprintf(name, sizeof name, "%s", value);
	int status = whole_widths(talk->model, &budget, name, err);
	if (status == 0)
		status = talk_use_budget(talk, name, &budget, err);
	budget_free(&budget);
	return status;
}

static void get_budget(const struct command_context *context, struct text *out)
{
	text_add(out, turn_of(context)->budget);
}

static int set_phase(struct command_context *context, char to[BUDGET_NAME_BYTES], const char *value,
					 struct error *err)
{
	struct talk *talk = context->talk;
	if (talk_check_budget(talk, value, err))
		return -1;
	int index = talk_budget_index(talk, value);
	snprintf(to, BUDGET_NAME_BYTES, "%s",
			 index >= 0 ? talk->model->elastic.budgets[index].name : value);
	turn(context)->policy = true;
	return 0;
}

static int set_think(struct command_context *context, const char *value, struct error *err)
{
	return set_phase(context, turn(context)->think, value, err);
}

static void get_think(const struct command_context *context, struct text *out)
{
	text_add(out, turn_of(context)->think);
}

static int set_answer(struct command_context *context, const char *value, struct error *err)
{
	return set_phase(context, turn(context)->answer, value, err);
}

static void get_answer(const struct command_context *context, struct text *out)
{
	text_add(out, turn_of(context)->answer);
}

static int set_policy(struct command_context *context, const char *value, struct error *err)
{
	return parse_switch("policy", value, &turn(context)->policy, err);
}

static void get_policy(const struct command_context *context, struct text *out)
{
	text_add(out, turn_of(context)->policy ? "on" : "off");
}

static int set_read(struct command_context *context, const char *value, struct error *err)
{
	char *to = turn(context)->read;
	bool off = strcmp(value, "off") == 0;
	if (!off && talk_check_budget(context->talk, value, err))
		return -1;
	memset(to, 0, BUDGET_NAME_BYTES);
	if (!off)
		snprintf(to, BUDGET_NAME_BYTES, "%s", value);
	return 0;
}

static void get_read(const struct command_context *context, struct text *out)
{
	text_add(out, *turn_of(context)->read ? turn_of(context)->read : "off");
}

static int check_clause(struct command_context *context, const struct rule_clause *clause,
						struct error *err)
{
	if (clause->kind == RULE_NONE)
		return 0;
	if (talk_check_budget(context->talk, clause->then, err))
		return clause->kind == RULE_ALWAYS
				   ? fail(err, "policy: '%s' is no budget of this model: %s", clause->then,
						  rule_expected)
				   : -1;
	return clause->kind == RULE_ALWAYS ? 0
									   : talk_check_budget(context->talk, clause->otherwise, err);
}

static int set_rule(struct command_context *context, const char *value, struct error *err)
{
	struct rule rule;
	char *to = turn(context)->rule;
	bool off = strcmp(value, "off") == 0;
	if (!off && (rule_parse(&rule, value, err) || check_clause(context, &rule.think, err) ||
				 check_clause(context, &rule.answer, err)))
		return -1;
	memset(to, 0, RULE_BYTES);
	if (!off)
		snprintf(to, RULE_BYTES, "%s", value);
	return 0;
}

static void get_rule(const struct command_context *context, struct text *out)
{
	text_add(out, *turn_of(context)->rule ? turn_of(context)->rule : "off");
}

static int set_handoff(struct command_context *context, const char *value, struct error *err)
{
	if (handoff_parse(value, &turn(context)->handoff, &turn(context)->repair, err))
		return fail_in(err, "handoff");
	context->talk->handoff_chosen = true;
	return 0;
}

static void get_handoff(const struct command_context *context, struct text *out)
{
	char name[HANDOFF_TEXT_BYTES];
	handoff_write(turn_of(context)->handoff, turn_of(context)->repair, name);
	text_add(out, name);
}

/* Checked by the sampler's own rules; the old value stays when they refuse. */
static int set_float(struct command_context *context, float *to, const char *what,
					 const char *value, double low, double high, struct error *err)
{
	double number;
	float before = *to;
	if (parse_number(what, value, low, high, &number, err))
		return -1;
	*to = (float)number;
	if (sampler_check(&turn(context)->sampling, err)) {
		*to = before;
		return -1;
	}
	return 0;
}

static int set_temp(struct command_context *context, const char *value, struct error *err)
{
	return set_float(context, &turn(context)->sampling.temperature, "temp", value, 0, 100, err);
}

static void get_temp(const struct command_context *context, struct text *out)
{
	text_format(out, "%g", (double)turn_of(context)->sampling.temperature);
}

static int set_top_p(struct command_context *context, const char *value, struct error *err)
{
	return set_float(context, &turn(context)->sampling.top_p, "top-p", value, 0.000001, 1, err);
}

static void get_top_p(const struct command_context *context, struct text *out)
{
	text_format(out, "%g", (double)turn_of(context)->sampling.top_p);
}

static int set_min_p(struct command_context *context, const char *value, struct error *err)
{
	return set_float(context, &turn(context)->sampling.min_p, "min-p", value, 0, 0.999999, err);
}

static void get_min_p(const struct command_context *context, struct text *out)
{
	text_format(out, "%g", (double)turn_of(context)->sampling.min_p);
}

static int set_top_k(struct command_context *context, const char *value, struct error *err)
{
	double number;
	if (parse_whole("top-k", value, 0, 1 << 30, &number, err))
		return -1;
	turn(context)->sampling.top_k = (int32_t)number;
	return 0;
}

static void get_top_k(const struct command_context *context, struct text *out)
{
	text_format(out, "%d", turn_of(context)->sampling.top_k);
}

static int set_seed(struct command_context *context, const char *value, struct error *err)
{
	double number;
	if (strcmp(value, "random") == 0) {
		turn(context)->sampling.seed = sampler_new_seed();
		context->talk->seed_fixed = false;
		return 0;
	}
	if (parse_whole("seed", value, 0, 9007199254740991.0, &number, err))
		return -1;
	turn(context)->sampling.seed = (uint64_t)number;
	context->talk->seed_fixed = true;
	return 0;
}

static void get_seed(const struct command_context *context, struct text *out)
{
	text_format(out, "%llu", (unsigned long long)turn_of(context)->sampling.seed);
}

static int set_n(struct command_context *context, const char *value, struct error *err)
{
	double number;
	if (parse_whole("n", value, 0, 1 << 24, &number, err))
		return -1;
	turn(context)->max_tokens = (int)number;
	return 0;
}

static void get_n(const struct command_context *context, struct text *out)
{
	text_format(out, "%d", turn_of(context)->max_tokens);
}

static int set_think_limit(struct command_context *context, const char *value, struct error *err)
{
	double number;
	if (parse_whole("think-limit", value, 0, 1 << 24, &number, err))
		return -1;
	turn(context)->think_limit = (int)number;
	return 0;
}

static void get_think_limit(const struct command_context *context, struct text *out)
{
	text_format(out, "%d", turn_of(context)->think_limit);
}

static int set_thinking(struct command_context *context, const char *value, struct error *err)
{
	return parse_switch("thinking", value, &turn(context)->thinking, err);
}

static void get_thinking(const struct command_context *context, struct text *out)
{
	text_add(out, turn_of(context)->thinking ? "on" : "off");
}

static int set_pace(struct command_context *context, const char *value, struct error *err)
{
	double number = 0;
	if (strcmp(value, "off") != 0 && parse_number("pace", value, 0, 100000, &number, err))
		return -1;
	if (talk_pace(context->talk, number, err))
		return -1;
	context->talk->pace_chosen = true;
	return 0;
}

static void get_pace(const struct command_context *context, struct text *out)
{
	text_format(out, "%g", context->talk->pace);
}

static int need_screen(const struct command_context *context, const char *what, struct error *err)
{
	return context->app ? 0 : fail(err, "%s belongs to the workbench; this is the line chat", what);
}

static int set_theme(struct command_context *context, const char *value, struct error *err)
{
	return need_screen(context, "theme", err) ? -1 : view_theme(context->app, value, err);
}

static void get_theme(const struct command_context *context, struct text *out)
{
	text_add(out, context->app ? context->app->theme.name : "none");
}

static int set_split(struct command_context *context, const char *value, struct error *err)
{
	return need_screen(context, "split", err) ? -1 : view_split(context->app, value, err);
}

static void get_split(const struct command_context *context, struct text *out)
{
	int split = context->app ? context->app->split : -1;
	text_add(out, split >= 0 ? panes[split].name : "off");
}

static int set_mouse(struct command_context *context, const char *value, struct error *err)
{
	bool on = false;
	if (need_screen(context, "mouse", err) || parse_switch("mouse", value, &on, err))
		return -1;
	screen_mouse(&context->app->screen, on);
	return 0;
}

static void get_mouse(const struct command_context *context, struct text *out)
{
	text_add(out, context->app && context->app->screen.mouse ? "on" : "off");
}

static int set_lab(struct command_context *context, const char *value, struct error *err)
{
	return parse_switch("lab", value, &context->talk->lab, err);
}

static void get_lab(const struct command_context *context, struct text *out)
{
	text_add(out, context->talk->lab ? "on" : "off");
}

static int set_fixed(struct command_context *context, const char *value, struct error *err)
{
	(void)context, (void)value;
	return fail(err,
				"this is chosen when the program starts: -t N, --ctx N, --math exact|fast, --kv "
				"f32|bf16|fp8, --device");
}

/* clang-format off */
const struct setting settings[] = {
	{"budget", "NAME", "who writes; turns the policy off", COMPLETE_BUDGET, set_budget, get_budget, true},
	{"think", "NAME", "who thinks; turns the policy on", COMPLETE_BUDGET, set_think, get_think, true},
	{"answer", "NAME", "who answers; turns the policy on", COMPLETE_BUDGET, set_answer, get_answer, true},
	{"policy", "on|off", "think and answer with their own budgets", COMPLETE_ON_OFF, set_policy, get_policy, true},
	{"read", "NAME|off", "who reads the prompt; off: who writes", COMPLETE_BUDGET, set_read, get_read, true},
	{"rule", "RULE|off", "entropy>2.0 large else small; top1<0.6 ..; every N ..; think: RULE; answer: RULE", COMPLETE_NOTHING, set_rule, get_rule, true},
	{"handoff", "carry|reprefill|repair:N", "how a change of budget treats the state", COMPLETE_HANDOFF, set_handoff, get_handoff, true},
	{"temp", "0..100", "temperature, 0 = greedy", COMPLETE_NOTHING, set_temp, get_temp, true},
	{"top-p", "0..1", "smallest set of tokens with this probability, 1 = off", COMPLETE_NOTHING, set_top_p, get_top_p, true},
	{"top-k", "N", "the N most probable tokens, 0 = off", COMPLETE_NOTHING, set_top_k, get_top_k, true},
	{"min-p", "0..1", "at least this share of the best one's probability, 0 = off", COMPLETE_NOTHING, set_min_p, get_min_p, true},
	{"seed", "N|random", "of the sampling", COMPLETE_NOTHING, set_seed, get_seed, true},
	{"n", "N", "most tokens of a turn, 0 = until the context is full", COMPLETE_NOTHING, set_n, get_n, true},
	{"think-limit", "N", "end the thinking after N tokens, 0 = never", COMPLETE_NOTHING, set_think_limit, get_think_limit, true},
	{"thinking", "on|off", "think before answering", COMPLETE_ON_OFF, set_thinking, get_thinking, true},
	{"pace", "N", "slow down so that the largest budget shows N tokens/s, 0 = off", COMPLETE_NOTHING, set_pace, get_pace, true},
	{"theme", "NAME", "colours: default, light, mono, ascii or your own", COMPLETE_THEME, set_theme, get_theme, false},
	{"split", "NAME|off", "companion pane at 110 columns or more", COMPLETE_VIEW, set_split, get_split, false},
	{"mouse", "on|off", "the wheel scrolls; off leaves the mouse to the terminal", COMPLETE_ON_OFF, set_mouse, get_mouse, false},
	{"lab", "on|off", "take every change of budget apart in the background (:lab)", COMPLETE_ON_OFF, set_lab, get_lab, false},
	{"threads", "", "fixed at the start: -t N", COMPLETE_NOTHING, set_fixed, NULL, false},
	{"ctx", "", "fixed at the start: --ctx N", COMPLETE_NOTHING, set_fixed, NULL, false},
	{"math", "", "fixed at the start: --math exact|fast", COMPLETE_NOTHING, set_fixed, NULL, false},
};
/* clang-format on */
const int n_settings = sizeof settings / sizeof *settings;

static const char *name_at(int i)
{
	return i < n_settings ? settings[i].name : NULL;
}

const struct setting *setting_find(const char *name)
{
	for (int i = 0; i < n_settings; i++)
		if (strcmp(settings[i].name, name) == 0)
			return &settings[i];
	return NULL;
}

int setting_set(struct command_context *context, const char *name, const char *value,
				struct error *err)
{
	const struct setting *setting = setting_find(name);
	if (!setting) {
		const char *near = nearest_name(name, name_at);
		return fail(err, "there is no setting %s%s%s%s", name, near ? "; did you mean " : "",
					near ? near : "", near ? "?" : "; :set lists them");
	}
	if (!*value && setting->set != set_fixed)
		return fail(err, "set %s: a value is expected: %s", name, setting->values);
	if (setting->needs_model && !context->talk->model)
		return fail(err, "%s: the model is not open yet", name);
	struct turn_settings before = *turn(context);
	if (setting->set(context, value, err))
		return -1;
	if (memcmp(&before, turn(context), sizeof before) != 0 &&
		talk_settings_changed(context->talk, err)) {
		*turn(context) = before;
		return -1;
	}
	return 0;
}

void setting_list(const struct command_context *context, struct text *out)
{
	for (int i = 0; i < n_settings; i++) {
		struct text value = {0};
		if (settings[i].get)
			settings[i].get(context, &value);
		text_format(out, "  %-12s %-12s %s\n", settings[i].name, text_chars(&value),
					settings[i].help);
		text_free(&value);
	}
}

void setting_budgets(const struct tui_setting *list, int n, struct turn_settings *out)
{
	const struct {
		const char *name;
		char *to;
	} names[] = {{"budget", out->budget}, {"think", out->think}, {"answer", out->answer}};
	for (int i = 0; i < n; i++)
		for (int k = 0; k < 3; k++)
			if (strcmp(list[i].name, names[k].name) == 0) {
				snprintf(names[k].to, BUDGET_NAME_BYTES, "%s", list[i].value);
				out->policy |= k > 0;
			}
}
