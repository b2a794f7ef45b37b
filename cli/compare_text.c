/*
 * compare --text-only: checkpoints whose vocabularies differ have no probabilities to hold against
 * each other; what each answers to the same words, they have. Every side renders, reads and writes
 * with its own tokenizer.
 */
#include "cli/compare.h"
#include "cli/print.h"
#include "core/conversation.h"
#include "core/turn.h"
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER 512 // tokens, when -n says nothing else

struct written {
	struct text text; // thoughts and answer, as the model wrote them
	int n_tokens;
	bool stopped; // at a stop id
};

static int render(const struct cli *cli, const struct tokenizer *tokenizer, struct id_list *ids,
				  struct error *err)
{
	const char *words = cli->prompts.items[0];
	struct conversation conversation;
	struct prompt prompt = {0};
	int result = -1;

	conversation_init(&conversation);
	conversation.enable_thinking = !cli->no_think;
	if (!conversation_set_system(&conversation, cli->system, err) &&
		conversation_append(&conversation, CHAT_USER, (struct chat_string){words, strlen(words)},
							(struct chat_string){0}, err) >= 0 &&
		!conversation_render(&conversation, true, &prompt, err))
		result = tokenizer_encode(tokenizer, &prompt, ids, err);
	prompt_free(&prompt);
	conversation_free(&conversation);
	return result;
}

static void decode(const struct tokenizer *tokenizer, const struct answer *answer,
				   struct written *out)
{
	struct decode_state state = {0};

	out->n_tokens = answer->n;
	out->stopped = answer->stopped;
	for (int i = 0; i < answer->n - answer->stopped; i++)
		tokenizer_decode_step(tokenizer, &state, answer->ids[i], &out->text);
	tokenizer_decode_flush(&state, &out->text);
}

static int write_side(const struct comparison *c, const struct cli *cli, int side,
					  struct written *out, struct error *err)
{
	const struct model *model = c->models[side];
	struct id_list ids = {0};
	struct turn_rules rules;
	struct answers answers = {0};
	int room, result = -1;

	if (!model->tokenizer)
		return fail(err, "%s has no tokenizer.json, which --text-only needs", model->directory);
	if (!render(cli, model->tokenizer, &ids, err) &&
		!turn_rules_init(&rules, &model->config, model->tokenizer, err)) {
		room = model->config.max_position_embeddings - (int)ids.n;
		int wanted = cli->n > 0 ? (int)cli->n : ANSWER;
		struct answers_plan plan = {.sides = {&c->slices[side]},
									.n_sides = 1,
									.prompt = ids.ids,
									.n_prompt = (int)ids.n,
									.max_tokens = wanted < room ? wanted : room,
									.stop_ids = rules.stop_ids,
									.n_stop_ids = rules.n_stop_ids,
									.params = c->settings.sampling,
									.kv_dtype = DTYPE_F32};
		if (room < 1)
			result = fail(err, "-p: a prompt of %zu tokens fills the context of %s", ids.n,
						  model->directory);
		else if (!answers_write(&answers, &plan, err)) {
			decode(model->tokenizer, &answers.of[0], out);
			result = text_check(&out->text, err);
		}
	}
	answers_free(&answers);
	free(ids.ids);
	return result;
}

/* The first byte where two texts differ, -1 = they are equal. */
static long first_difference(const struct text *a, const struct text *b)
{
	size_t n = 0;

	while (n < a->length && n < b->length && a->data[n] == b->data[n])
		n++;
	return n == a->length && n == b->length ? -1 : (long)n;
}

static int print_json(const struct comparison *c, const struct written *of, struct error *err)
{
	cJSON *root = cJSON_CreateObject(), *sides = cJSON_AddArrayToObject(root, "sides");

	for (int i = 0; i < c->n_sides; i++) {
		cJSON *side = cJSON_CreateObject();
		cJSON_AddStringToObject(side, "name", c->labels[i]);
		cJSON_AddStringToObject(side, "text", text_chars(&of[i].text));
		cJSON_AddNumberToObject(side, "tokens", of[i].n_tokens);
		cJSON_AddStringToObject(side, "finish_reason", of[i].stopped ? "stop" : "length");
		long at = first_difference(&of[0].text, &of[i].text);
		if (i > 0 && at >= 0)
			cJSON_AddNumberToObject(side, "first_difference", (double)at);
		else
			cJSON_AddNullToObject(side, "first_difference");
		cJSON_AddItemToArray(sides, side);
	}
	return print_line(root, err);
}

static void print_texts(const struct comparison *c, const struct written *of)
{
	for (int i = 0; i < c->n_sides; i++) {
		long at = first_difference(&of[0].text, &of[i].text);
		printf("%s%s, %d tokens", i > 0 ? "\n" : "", c->labels[i], of[i].n_tokens);
		if (i > 0 && at < 0)
			printf(", the same text as %s", c->labels[0]);
		else if (i > 0)
			printf(", parts from %s at byte %ld", c->labels[0], at);
		printf(":\n%s\n", text_chars(&of[i].text));
	}
}

int compare_texts(const struct comparison *c, const struct cli *cli, struct error *err)
{
	struct written of[COMPARE_SIDES] = {0};
	int result = 0;

	for (int i = 0; i < c->n_sides && !result; i++)
		result = write_side(c, cli, i, &of[i], err);
	if (!result && cli->json)
		result = print_json(c, of, err);
	else if (!result)
		print_texts(c, of);
	for (int i = 0; i < COMPARE_SIDES; i++)
		text_free(&of[i].text);
	return result;
}
