#include "core/rule.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECTED                                                                                   \
	"expected RULE such as 'entropy>2.0 large else small', 'top1<0.6 large else small', "          \
	"'every 8 large else small', or a budget alone"

const char rule_expected[] = EXPECTED;

static const char *skip_spaces(const char *at)
{
	return at + strspn(at, " \t");
}

/* The word at *at, up to a space or ';', into out; "" = there is none. */
static int next_word(const char **at, char out[BUDGET_NAME_BYTES], struct error *err)
{
	const char *from = skip_spaces(*at);
	size_t length = strcspn(from, " \t;");
	if (length >= BUDGET_NAME_BYTES)
		return fail(err, "policy: '%.*s...' is longer than %d characters", 20, from,
					BUDGET_NAME_BYTES - 1);
	memcpy(out, from, length);
	out[length] = '\0';
	*at = from + length;
	return 0;
}

/* A number at *at, spaces before it; low <= it <= high. */
static int next_number(const char **at, double low, double high, double *out, struct error *err)
{
	const char *from = skip_spaces(*at);
	char *end;
	*out = strtod(from, &end);
	if (end == from || !strchr(" \t;", *end))
		return fail(err, "policy: '%.30s' does not begin with a number", from);
	if (!(*out >= low && *out <= high))
		return fail(err, "policy: %g is out of range, %g to %g is expected", *out, low, high);
	*at = end;
	return 0;
}

/* `entropy`, `top1` or `every` where *at stands, and what follows up to the budgets. */
static int parse_condition(struct rule_clause *clause, const char **at, struct error *err)
{
	static const struct {
		const char *name;
		enum rule_kind kind;
		double low, high;
	} kinds[] = {{"entropy", RULE_ENTROPY, 0, 100},
				 {"top1", RULE_TOP1, 0, 1},
				 {"every", RULE_EVERY, 1, 1e6}};
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		size_t length = strlen(kinds[i].name);
		if (strncmp(*at, kinds[i].name, length) != 0 || !strchr(" \t<>", (*at)[length]))
			continue;
		const char *sign = skip_spaces(*at + length);
		clause->kind = kinds[i].kind;
		clause->above = *sign == '>';
		if (clause->kind == RULE_EVERY) {
			if (!strchr("0123456789.+-", *sign))
				return fail(err,
							"policy: '%.30s': every needs a number of tokens behind it, as in "
							"'every 8 large else small'",
							*at);
			if (next_number(&sign, kinds[i].low, kinds[i].high, &clause->bound, err))
				return -1;
			if (clause->bound != floor(clause->bound))
				return fail(err, "policy: every %g: a whole number of tokens is expected",
							clause->bound);
		} else {
			if (*sign != '>' && *sign != '<')
				return fail(err, "policy: '%s' needs > or < and a number behind it", kinds[i].name);
			sign++;
			if (next_number(&sign, kinds[i].low, kinds[i].high, &clause->bound, err))
				return -1;
		}
		*at = sign;
		return 0;
	}
	clause->kind = RULE_ALWAYS;
	return 0;
}

/* One clause, up to ';' or the end. */
static int parse_clause(struct rule_clause *clause, const char **at, struct error *err)
{
	char word[BUDGET_NAME_BYTES];
	*at = skip_spaces(*at);
	if (clause->kind != RULE_NONE)
		return fail(err, "policy: '%.40s' is a second rule for the same phase", *at);
	if (parse_condition(clause, at, err) || next_word(at, clause->then, err))
		return -1;
	if (!*clause->then)
		return fail(err, "policy: no budget is named; " EXPECTED);
	if (clause->kind != RULE_ALWAYS) {
		if (next_word(at, word, err))
			return -1;
		if (strcmp(word, "else") != 0)
			return fail(err, "policy: '%s' where `else` is expected", word);
		if (next_word(at, clause->otherwise, err))
			return -1;
		if (!*clause->otherwise)
			return fail(err, "policy: no budget is named behind `else`");
	}
	*at = skip_spaces(*at);
	if (**at && **at != ';')
		return fail(err, "policy: '%.40s' is too much; " EXPECTED, *at);
	return 0;
}

int rule_parse(struct rule *rule, const char *text, struct error *err)
{
	static const char think[] = "think:", answer[] = "answer:";
	*rule = (struct rule){0};
	if (strlen(text) >= RULE_BYTES)
		return fail(err, "policy: %zu characters, at most %d", strlen(text), RULE_BYTES - 1);
	for (const char *at = skip_spaces(text); *at; at = skip_spaces(at + (*at == ';'))) {
		if (*at == ';')
			continue;
		struct rule_clause *clause = &rule->think;
		bool both = false;
		if (!strncmp(at, think, sizeof think - 1)) {
			at += sizeof think - 1;
		} else if (!strncmp(at, answer, sizeof answer - 1)) {
			at += sizeof answer - 1;
			clause = &rule->answer;
		} else {
			both = true;
		}
		if (both && rule->answer.kind != RULE_NONE)
			return fail(err, "policy: '%.40s' is for both phases, but one has its own rule", at);
		if (parse_clause(clause, &at, err))
			return -1;
		if (both)
			rule->answer = *clause;
	}
	return 0;
}

static double top_probability(const struct picked *picked)
{
	return exp((double)picked->top[0].logprob);
}

const char *rule_choose(const struct rule *rule, const struct rule_facts *facts,
						char reason[RULE_REASON_BYTES])
{
	const struct rule_clause *clause = facts->phase == PHASE_THINK ? &rule->think : &rule->answer;
	const char *name = clause->kind == RULE_ENTROPY ? "entropy" : "top1";
	double value = 0;
	bool holds;
	*reason = '\0';
	switch (clause->kind) {
	case RULE_NONE: return NULL;
	case RULE_ALWAYS: return clause->then;
	case RULE_EVERY:
		holds = facts->n_tokens / (int)clause->bound % 2 == 0;
		snprintf(reason, RULE_REASON_BYTES, "every %g: token %d", clause->bound, facts->n_tokens);
		return holds ? clause->then : clause->otherwise;
	case RULE_ENTROPY:
	case RULE_TOP1: break;
	}
	if (!facts->picked)
		return clause->otherwise;
	value = clause->kind == RULE_ENTROPY ? (double)facts->picked->entropy
										 : top_probability(facts->picked);
	holds = clause->above ? value > clause->bound : value < clause->bound;
	const char *sign = value > clause->bound ? ">" : value < clause->bound ? "<" : "=";
	snprintf(reason, RULE_REASON_BYTES, "%s %.3g %s %g", name, value, sign, clause->bound);
	return holds ? clause->then : clause->otherwise;
}
