/*
 * The state machine of one turn: which phase the next token belongs to, which budget reads next,
 * which id is forced, and when it is over. It sees ids only; who computes and who shows them is not
 * its business, so that it can be tested with scripted picks.
 *
 * The token that ends a phase is sampled by the old budget and read by the new one: once </think>
 * has been taken, turn_reader() names the answer's budget, which reads that token first.
 */
#ifndef CORE_TURN_H
#define CORE_TURN_H

#include "core/config.h"
#include "core/event.h"
#include "core/rule.h"
#include "core/tokenizer.h"

#define TURN_MAX_FORCED 16

/* What a checkpoint's tokens mean; resolved once a model. */
struct turn_rules {
	int32_t think_open, think_close; // -1 = the vocabulary has none
	int32_t stop_ids[CONFIG_MAX_STOP_IDS];
	int n_stop_ids;
	/* What ends the thoughts by force (spec nemotron-h.md 8.7, recipe A): ".\n\n", then </think>; 0
	 * ids without a tokenizer. */
	int32_t forced[TURN_MAX_FORCED];
	int n_forced;
};

/* tokenizer may be NULL. Stop ids: the config's, else <|im_end|>. */
int turn_rules_init(struct turn_rules *rules, const struct config *config,
					const struct tokenizer *tokenizer, struct error *err);

struct turn {
	const struct turn_rules *rules;
	struct turn_settings settings;
	bool stops;                    // at stop ids
	enum phase phase;              // of the next token
	int n_tokens, n_thoughts;      // taken; of them inside the thoughts
	int forced;                    // the next one of rules->forced, -1 = the model chooses
	enum switch_reason reason;     // why turn_reader() may differ from who read before
	struct rule rule;              // the settings' rule with the file's names, set by the owner
	int n_phase;                   // tokens taken in this phase
	char ruled[BUDGET_NAME_BYTES]; // who the rule chose; "" = the settings say it
	char why[RULE_REASON_BYTES];   // the rule's reason, "" = none
};

/* rules are borrowed. stops false: stop ids are tokens like others. */
void turn_begin(struct turn *turn, const struct turn_rules *rules,
				const struct turn_settings *settings, bool stops);

/* The prompt decides the phase: it ends inside <think> or not. Without: an answer (raw completion).
 */
void turn_prompt(struct turn *turn, const int32_t *ids, size_t n);

/* The ids so far, an unfinished answer among them, decide the phase and how much was thought. */
void turn_resume(struct turn *turn, const int32_t *ids, size_t n);

/* Lets the rule choose who reads next; picked: the last token, NULL = none yet. After
 * turn_prompt(), turn_resume(), turn_set() and each turn_take(). */
void turn_judge(struct turn *turn, const struct picked *picked);

/* Other settings from the next token on: budgets, policy, handoff, limit, sampling, max_tokens. The
 * rule is gone until the owner sets it. */
void turn_set(struct turn *turn, const struct turn_settings *settings);

/* Ends the thoughts from the next token on. False: not thinking, already ending, or no way to. */
bool turn_end_thinking(struct turn *turn);

/* The budget that reads the prompt. */
const char *turn_prompt_reader(const struct turn *turn);

/* The budget that reads next and samples the token after. */
const char *turn_reader(const struct turn *turn);

/* How the next token is to be chosen. */
struct pick_params turn_pick(const struct turn *turn);

struct turn_step {
	enum phase phase;   // of this token
	bool thinking_ends; // it is </think>
	bool hidden;        // no text of it is shown: </think> or the stop id
	bool over, full;    // no token follows; because the context is full
	enum stop_reason reason;
};

/* A token was chosen. newline: its text has one. room: how many more tokens the sequence can read.
 */
struct turn_step turn_take(struct turn *turn, int32_t id, bool newline, int room);

#endif
