/* compare: tables, JSON, CSV. */
#include "base/memory.h"
#include "cli/compare.h"
#include "cli/print.h"
#include "cli/run.h"
#include "core/tokenizer.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BEFORE 12 // tokens of context before a worst position

/* ---- text of tokens ---- */

/* The text of ids[from..to), whole characters. */
static void add_text(const struct comparison *c, int from, int to, struct text *out)
{
	const struct tokenizer *tokenizer = c->models[0]->tokenizer;
	struct decode_state state = {0};

	for (int i = from < 0 ? 0 : from; i < to; i++)
		if (tokenizer)
			tokenizer_decode_step(tokenizer, &state, c->ids[i], out);
		else
			text_format(out, "%s%d", i > from ? " " : "", (int)c->ids[i]);
	tokenizer_decode_flush(&state, out);
}

/* One line of it: control characters as they are written in C. */
static int32_t next_id(const struct comparison *c, int at)
{
	return at + 1 < c->n ? c->ids[at + 1] : -1;
}

/* ---- JSON ---- */

static cJSON *estimate_json(struct estimate e)
{
	cJSON *object = cJSON_CreateObject();

	print_add_number(object, "value", e.value);
	print_add_number(object, "error", e.error);
	return object;
}

static cJSON *summary_json(const struct divergence_summary *s)
{
	cJSON *rows = cJSON_CreateArray();
	struct divergence_row row;

	for (int i = 0; divergence_row(s, i, &row); i++) {
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "name", row.name);
		print_add_number(one, "value", row.value);
		if (!isnan(row.error))
			cJSON_AddNumberToObject(one, "error", row.error);
		cJSON_AddItemToArray(rows, one);
	}
	return rows;
}

static void add_percentiles(cJSON *object, const char *key, const double *values)
{
	cJSON *list = cJSON_AddObjectToObject(object, key);

	for (int i = 0; i < N_PERCENTILES; i++) {
		char name[16];
		snprintf(name, sizeof name, "%g", 100 * divergence_fraction((enum divergence_percentile)i));
		print_add_number(list, name, values[i]);
	}
}

static cJSON *lens_json(const struct fidelity_layer *layer, bool is_base)
{
	cJSON *object = cJSON_CreateObject();

	print_add_number(object, "top1", layer->lens_top);
	print_add_number(object, "kl", layer->lens_kl);
	if (!is_base) {
		print_add_number(object, "apart_top1", layer->apart_same);
		print_add_number(object, "apart_kl", layer->apart_kl);
	}
	return object;
}

static cJSON *layers_json(const struct comparison *c, int side, bool lens)
{
	const struct fidelity *f = &c->fidelity;
	const struct config *config = &c->models[0]->config;
	cJSON *layers = cJSON_CreateArray();

	for (int i = 0; f->sides[side].layers && i <= f->n_layers; i++) {
		const struct fidelity_layer *layer = &f->sides[side].layers[i];
		cJSON *one = cJSON_CreateObject();
		cJSON_AddNumberToObject(one, "layer", i);
		cJSON_AddStringToObject(one, "kind",
								i < f->n_layers ? layer_name((enum layer_kind)config->kinds[i])
												: "norm_f");
		for (int m = 0; m < N_FIDELITY_METRICS; m++)
			print_add_number(one, fidelity_metric_key((enum fidelity_metric)m), layer->mean[m]);
		cJSON *correlation = cJSON_AddObjectToObject(one, "correlation");
		for (int m = 0; m < N_FIDELITY_METRICS; m++)
			print_add_number(correlation, fidelity_metric_key((enum fidelity_metric)m),
							 layer->correlation[m]);
		if (lens) {
			cJSON_AddItemToObject(one, "lens_a", lens_json(&f->sides[0].layers[i], true));
			cJSON_AddItemToObject(one, "lens_b", lens_json(layer, false));
		}
		cJSON_AddItemToArray(layers, one);
	}
	return layers;
}

static cJSON *per_token_json(const struct comparison *c, int side)
{
	const struct fidelity *f = &c->fidelity;
	cJSON *rows = cJSON_CreateArray();
	struct text text = {0};

	for (int i = 0; i < f->n; i++) {
		const struct divergence_position *a = &f->sides[0].positions[i];
		const struct divergence_position *b = &f->sides[side].positions[i];
		int at = f->first + i;
		cJSON *one = cJSON_CreateObject();
		cJSON_AddNumberToObject(one, "at", at);
		cJSON_AddNumberToObject(one, "token_at", at + 1);
		cJSON_AddNumberToObject(one, "id", c->ids[at]);
		print_add_number(one, "next", next_id(c, at) < 0 ? NAN : next_id(c, at));
		if (c->models[0]->tokenizer && next_id(c, at) >= 0) {
			text_clear(&text);
			add_text(c, at + 1, at + 2, &text);
			cJSON_AddStringToObject(one, "text", text_chars(&text));
		}
		cJSON_AddNumberToObject(one, "kl", b->kl);
		cJSON_AddBoolToObject(one, "same_top", a->top == b->top);
		cJSON_AddNumberToObject(one, "top_a", a->top);
		cJSON_AddNumberToObject(one, "top_b", b->top);
		print_add_number(one, "p_a", exp(a->logprob));
		print_add_number(one, "p_b", exp(b->logprob));
		cJSON_AddNumberToObject(one, "entropy_a", a->entropy);
		cJSON_AddNumberToObject(one, "entropy_b", b->entropy);
		if (!isnan(b->routed_kl))
			cJSON_AddNumberToObject(one, "kl_routed", b->routed_kl);
		cJSON_AddItemToArray(rows, one);
	}
	text_free(&text);
	return rows;
}

static int add_worst(const struct comparison *c, int side, cJSON *object, struct error *err)
{
	const struct fidelity *f = &c->fidelity;
	int *worst = mem_new((size_t)(c->worst < f->n ? c->worst : f->n), sizeof *worst, err);
	int n = worst ? fidelity_worst(f, side, c->worst, worst, err) : -1;
	cJSON *list = cJSON_AddArrayToObject(object, "worst");
	struct text text = {0};

	for (int i = 0; i < n; i++) {
		int at = f->first + worst[i];
		cJSON *one = cJSON_CreateObject();
		text_clear(&text);
		add_text(c, at + 1 - BEFORE, at + 1, &text);
		cJSON_AddNumberToObject(one, "at", at);
		cJSON_AddNumberToObject(one, "token_at", at + 1);
		cJSON_AddNumberToObject(one, "kl", f->sides[side].positions[worst[i]].kl);
		cJSON_AddStringToObject(one, "before", text_chars(&text));
		cJSON_AddItemToArray(list, one);
	}
	text_free(&text);
	free(worst);
	return n < 0 ? -1 : 0;
}

static void add_routed(const struct comparison *c, int side, cJSON *object)
{
	const struct fidelity_side *s = &c->fidelity.sides[side];
	int from = c->plan.route_from;

	if (from < 0 || from == side)
		return;
	cJSON *routed = cJSON_AddObjectToObject(object, "routed");
	cJSON_AddStringToObject(routed, "from", c->labels[from]);
	print_add_number(routed, "kl_mean", s->routed_kl.value);
	print_add_number(routed, "kl_error", s->routed_kl.error);
	print_add_number(routed, "share", s->routed_share);
	print_add_number(routed, "dropped", s->routed_dropped);
}

static void add_answer(const struct comparison *c, int side, const char *key, cJSON *object)
{
	const struct answer *answer = &c->answers.of[side];
	struct comparison shown = *c; // the same tokenizer, other ids
	struct text text = {0};
	cJSON *one = cJSON_AddObjectToObject(object, key);

	shown.ids = answer->ids;
	add_text(&shown, 0, answer->n, &text);
	cJSON_AddNumberToObject(one, "tokens", answer->n);
	cJSON_AddStringToObject(one, "text", text_chars(&text));
	cJSON_AddStringToObject(one, "finish_reason", answer->stopped ? "stop" : "length");
	text_free(&text);
}

/* What A and one other side have to say about each other. */
static int add_pair(const struct comparison *c, int side, cJSON *object, const struct cli *cli,
					struct error *err)
{
	const struct fidelity *f = &c->fidelity;
	const struct divergence_summary *s = &f->sides[side].summary;

	cJSON_AddStringToObject(object, "a", c->labels[0]);
	cJSON_AddStringToObject(object, "b", c->labels[side]);
	cJSON_AddNumberToObject(object, "tokens", s->n);
	print_add_number(object, "kl_mean", s->kl.value);
	print_add_number(object, "kl_max", s->kl_max);
	print_add_number(object, "kl_p99", s->kl_percentile[PERCENTILE_99]);
	print_add_number(object, "top1", s->same_top.value);
	print_add_number(object, "ppl_a", s->ppl_base.value);
	print_add_number(object, "ppl_b", s->ppl.value);
	print_add_number(object, "first_divergence",
					 s->first_divergence < 0 ? NAN : f->first + s->first_divergence);
	cJSON *errors = cJSON_AddObjectToObject(object, "uncertainties");
	print_add_number(errors, "kl_mean", s->kl.error);
	print_add_number(errors, "top1", s->same_top.error);
	print_add_number(errors, "ppl_a", s->ppl_base.error);
	print_add_number(errors, "ppl_b", s->ppl.error);
	cJSON *percentiles = cJSON_AddObjectToObject(object, "percentiles");
	add_percentiles(percentiles, "kl", s->kl_percentile);
	add_percentiles(percentiles, "dp", s->dp_percentile);
	cJSON_AddItemToObject(object, "rms_dp", estimate_json(s->rms_dp));
	cJSON_AddItemToObject(object, "summary", summary_json(s));
	add_routed(c, side, object);
	if (c->n_prompt) {
		int part = answers_part(&c->answers.of[0], &c->answers.of[side]);
		cJSON *writing = cJSON_AddObjectToObject(object, "free_running");
		print_add_number(writing, "first_difference", part < 0 ? NAN : part);
		add_answer(c, 0, "answer_a", writing);
		add_answer(c, side, "answer_b", writing);
	}
	cJSON_AddItemToObject(object, "layers", layers_json(c, side, cli->lens));
	if (add_worst(c, side, object, err))
		return -1;
	cJSON_AddItemToObject(object, "per_token", per_token_json(c, side));
	return 0;
}

/* Windows that the text was read in, each from an empty state; 0 = one piece, an answer. */
static int windows(const struct comparison *c)
{
	int window = c->plan.window;
	return window > 0 ? c->n / window + (c->n % window > 0) : 0;
}

int compare_print_json(const struct comparison *c, const struct cli *cli, struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	int result = add_pair(c, 1, root, cli, err);

	cJSON_AddStringToObject(root, "source", cli->tokens ? "tokens" : cli->text ? "text" : "prompt");
	cJSON_AddNumberToObject(root, "prompt_tokens", c->n_prompt);
	if (windows(c) > 0) { // side by side: the stride is the window
		cJSON_AddNumberToObject(root, "window", c->plan.window);
		cJSON_AddNumberToObject(root, "stride", c->plan.window);
		cJSON_AddNumberToObject(root, "windows", windows(c));
	}
	if (c->n_prompt && c->settings.sampling.temperature > 0)
		cJSON_AddNumberToObject(root, "seed", (double)c->settings.sampling.seed);
	if (!result && c->n_sides > 2) {
		cJSON *also = cJSON_AddObjectToObject(root, "also");
		result = add_pair(c, 2, also, cli, err);
	}
	if (result) {
		cJSON_Delete(root);
		return -1;
	}
	return print_line(root, err);
}

/* ---- CSV: a row a position ---- */

static void print_number(double value)
{
	if (isnan(value))
		putchar(',');
	else
		printf(",%.9g", value);
}

void compare_print_csv(const struct comparison *c)
{
	static const char *const columns[] = {"kl", "same_top", "top", "p", "entropy"};
	const struct fidelity *f = &c->fidelity;
	struct text text = {0};

	fputs("at,id,next,text,top_a,p_a,entropy_a", stdout);
	for (int k = 1; k < f->n_sides; k++)
		for (size_t i = 0; i < sizeof columns / sizeof *columns; i++)
			printf(",%s_%c", columns[i], 'a' + k);
	for (int k = 0; k < f->n_sides && c->plan.route_from >= 0; k++)
		if (k != c->plan.route_from)
			printf(",kl_routed_%c", 'a' + k);
	putchar('\n');
	for (int i = 0; i < f->n; i++) {
		int at = f->first + i;
		const struct divergence_position *a = &f->sides[0].positions[i];
		printf("%d,%d,", at, (int)c->ids[at]);
		if (next_id(c, at) >= 0) {
			text_clear(&text);
			if (c->models[0]->tokenizer)
				add_text(c, at + 1, at + 2, &text);
			printf("%d,", (int)next_id(c, at));
			print_field(text_chars(&text));
		} else {
			putchar(',');
		}
		printf(",%d", (int)a->top);
		print_number(exp(a->logprob));
		print_number(a->entropy);
		for (int k = 1; k < f->n_sides; k++) {
			const struct divergence_position *b = &f->sides[k].positions[i];
			print_number(b->kl);
			printf(",%d,%d", a->top == b->top, (int)b->top);
			print_number(exp(b->logprob));
			print_number(b->entropy);
		}
		for (int k = 0; k < f->n_sides && c->plan.route_from >= 0; k++)
			if (k != c->plan.route_from)
				print_number(f->sides[k].positions[i].routed_kl);
		putchar('\n');
	}
	text_free(&text);
}

/* ---- tables ---- */

static void print_summary(const struct divergence_summary *s)
{
	struct divergence_row row;

	for (int i = 0; divergence_row(s, i, &row); i++) {
		const char *unit = row.percent ? " %" : "";
		double times = row.percent ? 100 : 1;
		// "Δ" is two bytes and one column
		int wide = 30 + (strstr(row.name, "Δ") != NULL);
		if (row.section)
			printf("\n%s\n", row.section);
		if (isnan(row.value))
			printf("%-*s: N/A\n", wide, row.name);
		else if (isnan(row.error))
			printf("%-*s: %11.6f%s\n", wide, row.name, row.value * times, unit);
		else
			printf("%-*s: %11.6f ± %10.6f%s\n", wide, row.name, row.value * times,
				   row.error * times, unit);
	}
}

static void print_cell(double value, int digits)
{
	if (isnan(value))
		printf(" %8s", "");
	else
		printf(" %8.*f", digits, value);
}

static void print_layers(const struct comparison *c, int side, bool lens)
{
	const struct fidelity *f = &c->fidelity;
	const struct fidelity_layer *layers = f->sides[side].layers;
	const struct config *config = &c->models[0]->config;

	if (!layers)
		return;
	printf("\nBefore each layer: means over the positions, and their correlation with KL\n"
		   "%5s %-9s %8s %8s %8s %8s %8s %8s %8s %8s",
		   "layer", "kind", "distance", "r", "leak", "r", "orphans", "r", "overlap", "r");
	printf(lens ? " | %8s %8s %8s %8s %8s %8s\n" : "\n", "top A", "KL A", "top", "KL", "same A",
		   "KL from A");
	for (int i = 0; i <= f->n_layers; i++) {
		if (i < f->n_layers)
			printf("%5d %-9s", i, layer_name((enum layer_kind)config->kinds[i]));
		else
			printf("%5s %-9s", "", "norm_f");
		for (int m = 0; m < N_FIDELITY_METRICS; m++) {
			print_cell(layers[i].mean[m], 4);
			print_cell(layers[i].correlation[m], 2);
		}
		if (lens) {
			fputs(" |", stdout);
			print_cell(f->sides[0].layers[i].lens_top, 3);
			print_cell(f->sides[0].layers[i].lens_kl, 4);
			print_cell(layers[i].lens_top, 3);
			print_cell(layers[i].lens_kl, 4);
			print_cell(layers[i].apart_same, 3);
			print_cell(layers[i].apart_kl, 4);
		}
		putchar('\n');
	}
}

static int print_worst(const struct comparison *c, int side, struct error *err)
{
	const struct fidelity *f = &c->fidelity;
	int *worst = mem_new((size_t)(c->worst < f->n ? c->worst : f->n), sizeof *worst, err);
	int n = worst ? fidelity_worst(f, side, c->worst, worst, err) : -1;
	struct text text = {0};

	if (n > 0)
		printf("\nWorst positions (of token at + 1, which is predicted there)\n%6s %10s %8s %8s  "
			   "text, and what follows\n",
			   "at", "KL", "p A", "p");
	for (int i = 0; i < n; i++) {
		int at = f->first + worst[i];
		printf("%6d %10.6f", at, f->sides[side].positions[worst[i]].kl);
		print_cell(exp(f->sides[0].positions[worst[i]].logprob), 4);
		print_cell(exp(f->sides[side].positions[worst[i]].logprob), 4);
		text_clear(&text);
		add_text(c, at + 1 - BEFORE, at + 1, &text);
		fputs("  ", stdout);
		print_escaped(text_chars(&text));
		fputs(" [", stdout);
		text_clear(&text);
		add_text(c, at + 1, at + 2 < c->n ? at + 2 : c->n, &text);
		print_escaped(text_chars(&text));
		puts("]");
	}
	text_free(&text);
	free(worst);
	return n < 0 ? -1 : 0;
}

static void print_first(const struct comparison *c, int side)
{
	const struct divergence_summary *s = &c->fidelity.sides[side].summary;

	if (s->first_divergence < 0)
		puts("the most probable token is the same everywhere");
	else
		printf("the most probable tokens first differ at position %d\n",
			   c->fidelity.first + s->first_divergence);
	if (!c->n_prompt)
		return;
	int part = answers_part(&c->answers.of[0], &c->answers.of[side]);
	if (part < 0)
		printf("writing by itself, %s gives the same %d tokens\n", c->labels[side],
			   c->answers.of[0].n);
	else
		printf("writing by itself, %s first differs at token %d of its answer (%d and %d tokens)\n",
			   c->labels[side], part + 1, c->answers.of[0].n, c->answers.of[side].n);
}

static void print_routed(const struct comparison *c, int side)
{
	const struct fidelity_side *s = &c->fidelity.sides[side];
	int from = c->plan.route_from;

	if (from < 0 || from == side)
		return;
	printf("\nWith %s's experts: mean KLD %.6f ± %.6f", c->labels[from], s->routed_kl.value,
		   s->routed_kl.error);
	if (s->routed_share >= 0)
		printf(", so routing is %.1f %% of the difference", 100 * s->routed_share);
	else if (!isnan(s->routed_share))
		printf(", more than with its own: they do not fit its widths");
	if (!isnan(s->routed_dropped))
		printf("; %.1f %% of the choices dropped, %s lacks them", 100 * s->routed_dropped,
			   c->labels[side]);
	putchar('\n');
}

int compare_print_tables(const struct comparison *c, struct error *err)
{
	const struct fidelity *f = &c->fidelity;

	for (int side = 1; side < f->n_sides; side++) {
		if (side > 1)
			putchar('\n');
		printf("%s (base) and %s (Q) on %d positions", c->labels[0], c->labels[side], f->n);
		if (c->n_prompt && c->settings.sampling.temperature > 0)
			printf(" of an answer with seed %llu", (unsigned long long)c->settings.sampling.seed);
		else if (c->n_prompt)
			printf(" of %s's answer", c->labels[0]);
		else
			printf(", %d window%s of %d tokens, each from an empty state, stride %d", windows(c),
				   windows(c) == 1 ? "" : "s", c->plan.window, c->plan.window);
		putchar('\n');
		print_first(c, side);
		print_summary(&f->sides[side].summary);
		print_routed(c, side);
		print_layers(c, side, c->plan.lens);
		if (print_worst(c, side, err))
			return -1;
	}
	return 0;
}
