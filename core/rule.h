/*
 * Who writes the next token, decided from the token before: a policy as the user types it. Pure: no
 * model, no state but what the caller hands in.
 *
 *     entropy>2.0 large else small      nats of the distribution that the last token came from
 *     top1<0.6 large else small         its largest probability
 *     every 8 large else small          8 tokens large, 8 small, ... from the phase's first token
 *     large                             always
 *
 * A rule holds for both phases, or `think: RULE; answer: RULE`; a phase without one is written by
 * whom the settings name (budget, think, answer). Before a phase's first token there is no
 * distribution: entropy and top1 then choose `else`.
 */
#ifndef CORE_RULE_H
#define CORE_RULE_H

#include "core/event.h"

enum rule_kind { RULE_NONE, RULE_ALWAYS, RULE_ENTROPY, RULE_TOP1, RULE_EVERY };

struct rule_clause {
	enum rule_kind kind;
	bool above;   // `>`, else `<`
	double bound; // nats, a probability, or tokens
	char then[BUDGET_NAME_BYTES], otherwise[BUDGET_NAME_BYTES];
};

struct rule {
	struct rule_clause think, answer;
};

/* What a rule looks at. */
struct rule_facts {
	enum phase phase;            // of the next token
	int n_tokens;                // taken in this phase
	const struct picked *picked; // the token before, NULL = none
};

extern const char rule_expected[]; // "expected RULE such as ...", for sentences

/* "" gives a rule without clauses. Budgets are not looked up. */
int rule_parse(struct rule *rule, const char *text, struct error *err);

/* The budget that reads the token before and writes the next one; NULL = the rule says nothing of
 * this phase. reason: what decided, e.g. "entropy 2.31 > 2", "every 8: token 16". */
const char *rule_choose(const struct rule *rule, const struct rule_facts *facts,
						char reason[RULE_REASON_BYTES]);

#endif
