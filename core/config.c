/*
 * Reading config.json: one table of sizes, one of flags that must be off, and the layer pattern.
 * Python writes Infinity into JSON, which is none; it is read as a number too large for any
 * (time_step_limit).
 */
#include "core/config.h"
#include "base/file.h"
#include "base/text.h"
#include "core/config_reader.h"
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_CONFIG_BYTES ((size_t)16 << 20)
#define MAX_ROWS (1 << 25)  // of any matrix: rows * columns fits in 46 bits, a row index in 26
#define MAX_STATE (1 << 30) // floats of one layer's SSM state

enum need { NEED_ALWAYS, NEED_MAMBA, NEED_ATTENTION, NEED_MOE, NEED_MLP, NEED_NEVER };

static const enum layer_kind need_kinds[] = {
	[NEED_MAMBA] = LAYER_MAMBA,
	[NEED_ATTENTION] = LAYER_ATTENTION,
	[NEED_MOE] = LAYER_MOE,
	[NEED_MLP] = LAYER_MLP,
};

/* A size: its spellings, where it goes, the largest that is believed, and which layers need it. */
static const struct size_row {
	const char *names[3];
	size_t offset;
	int least, most, absent;
	enum need need;
} sizes[] = {
#define AT(field) offsetof(struct config, field)
	{{"hidden_size"}, AT(hidden_size), 1, 1 << 20, 0, NEED_ALWAYS},
	{{"vocab_size"}, AT(vocab_size), 1, 1 << 24, 0, NEED_ALWAYS},
	{{"max_position_embeddings"}, AT(max_position_embeddings), 1, 1 << 30, 0, NEED_ALWAYS},
	{{"mamba_num_heads"}, AT(mamba_num_heads), 1, 1 << 16, 0, NEED_MAMBA},
	{{"mamba_head_dim"}, AT(mamba_head_dim), 1, 1 << 14, 0, NEED_MAMBA},
	{{"ssm_state_size", "mamba_d_state"}, AT(ssm_state_size), 1, 1 << 14, 0, NEED_MAMBA},
	{{"n_groups", "mamba_n_groups"}, AT(n_groups), 1, 1 << 14, 1, NEED_MAMBA},
	{{"conv_kernel", "mamba_d_conv"}, AT(conv_kernel), 2, 64, 0, NEED_MAMBA},
	{{"num_attention_heads"}, AT(num_attention_heads), 1, 1 << 14, 0, NEED_ATTENTION},
	{{"num_key_value_heads"}, AT(num_key_value_heads), 1, 1 << 14, 1, NEED_ATTENTION},
	{{"head_dim", "attention_head_dim"}, AT(head_dim), 1, 1 << 14, 0, NEED_ATTENTION},
	{{"n_routed_experts", "num_local_experts"}, AT(n_routed_experts), 1, 4096, 0, NEED_MOE},
	{{"num_experts_per_tok"}, AT(num_experts_per_tok), 1, 4096, 0, NEED_MOE},
	{{"moe_intermediate_size"}, AT(moe_intermediate_size), 1, 1 << 20, 0, NEED_MOE},
	{{"moe_shared_expert_intermediate_size"},
	 AT(moe_shared_expert_intermediate_size),
	 0,
	 1 << 20,
	 0,
	 NEED_MOE},
	{{"intermediate_size"}, AT(intermediate_size), 1, 1 << 20, 0, NEED_MLP},
	{{"bos_token_id"}, AT(bos_token_id), -1, (1 << 24) - 1, -1, NEED_NEVER},
	{{"pad_token_id"}, AT(pad_token_id), -1, (1 << 24) - 1, -1, NEED_NEVER},
#undef AT
};

/* Biases that no model of the family has. */
static const char *const off_flags[] = {"attention_bias", "mlp_bias", "use_bias",
										"mamba_proj_bias"};

char layer_letter(enum layer_kind kind)
{
	return "M*E-"[kind];
}

const char *layer_name(enum layer_kind kind)
{
	static const char *const names[] = {"mamba", "attention", "moe", "mlp"};
	return names[kind];
}

int config_layers_of(const struct config *config, enum layer_kind kind)
{
	int n = 0;
	for (int i = 0; i < config->n_layers; i++)
		n += config->kinds[i] == kind;
	return n;
}

int config_inner(const struct config *config)
{
	return config->mamba_num_heads * config->mamba_head_dim;
}

int config_conv_channels(const struct config *config)
{
	return config_inner(config) + 2 * config->n_groups * config->ssm_state_size;
}

/* ---- values ---- */

/* A whole number between least and most, under any of its spellings: as config_number(). */
static int read_whole(const struct config_reader *r, const struct size_row *row, int least,
					  int *value)
{
	const char *from = NULL;
	for (size_t i = 0; i < sizeof row->names / sizeof row->names[0] && row->names[i]; i++) {
		const char *key = row->names[i];
		const struct json_node *node = config_member(r, key);
		int64_t found;
		if (!node)
			continue;
		if (json_integer(r->json, node, key, &found, r->err) != 0)
			return -1;
		if (found < least || found > row->most)
			return fail(r->err, "%s is %lld, expected %d to %d", key, (long long)found, least,
						row->most);
		if (from && found != *value)
			return fail(r->err, "%s is %d, but %s is %lld", from, *value, key, (long long)found);
		from = key;
		*value = (int)found;
	}
	return from != NULL;
}

static int read_sizes(const struct config_reader *r)
{
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		const struct size_row *row = &sizes[i];
		int *field = (int *)((char *)r->config + row->offset);
		bool needed =
			row->need == NEED_ALWAYS ||
			(row->need != NEED_NEVER && config_layers_of(r->config, need_kinds[row->need]));
		bool unused = row->need != NEED_NEVER && !needed;
		int found = read_whole(r, row, unused ? 0 : row->least, field);
		if (found < 0)
			return -1;
		if (!found && needed && row->need == NEED_ALWAYS)
			return fail(r->err, "%s is missing", row->names[0]);
		if (!found && needed)
			return fail(r->err, "%s is missing, but layers of kind %s need it", row->names[0],
						layer_name(need_kinds[row->need]));
		if (!found || (unused && *field < row->absent))
			*field = row->absent;
	}
	return 0;
}

static int check_products(const struct config_reader *r)
{
	const struct config *c = r->config;
	int64_t inner = (int64_t)c->mamba_num_heads * c->mamba_head_dim;
	int64_t states = (int64_t)c->n_groups * c->ssm_state_size;
	if (2 * inner + 2 * states + c->mamba_num_heads > MAX_ROWS)
		return fail(r->err,
					"mamba_num_heads %d, mamba_head_dim %d, n_groups %d and ssm_state_size %d make "
					"an in_proj of more than %d rows",
					c->mamba_num_heads, c->mamba_head_dim, c->n_groups, c->ssm_state_size,
					MAX_ROWS);
	if (inner * c->ssm_state_size > MAX_STATE)
		return fail(r->err, "mamba_num_heads * mamba_head_dim * ssm_state_size is more than %d",
					MAX_STATE);
	if ((int64_t)c->num_attention_heads * c->head_dim > MAX_ROWS)
		return fail(r->err, "num_attention_heads %d * head_dim %d is more than %d",
					c->num_attention_heads, c->head_dim, MAX_ROWS);
	if (c->mamba_num_heads % c->n_groups)
		return fail(r->err, "mamba_num_heads %d is not a multiple of n_groups %d",
					c->mamba_num_heads, c->n_groups);
	if (c->num_attention_heads % c->num_key_value_heads)
		return fail(r->err, "num_attention_heads %d is not a multiple of num_key_value_heads %d",
					c->num_attention_heads, c->num_key_value_heads);
	if (config_layers_of(c, LAYER_MOE) && c->num_experts_per_tok > c->n_routed_experts)
		return fail(r->err, "num_experts_per_tok %d is more than n_routed_experts %d",
					c->num_experts_per_tok, c->n_routed_experts);
	if (c->bos_token_id >= c->vocab_size || c->pad_token_id >= c->vocab_size)
		return fail(r->err, "%s is outside the vocabulary of %d",
					c->bos_token_id >= c->vocab_size ? "bos_token_id" : "pad_token_id",
					c->vocab_size);
	return 0;
}

/* ---- layers ---- */

static int add_layer(const struct config_reader *r, uint8_t *kinds, int *n, int kind)
{
	if (*n == CONFIG_MAX_LAYERS)
		return fail(r->err, "more than %d layers", CONFIG_MAX_LAYERS);
	kinds[(*n)++] = (uint8_t)kind;
	return 0;
}

static int read_letters(const struct config_reader *r, const struct json_node *node,
						const char *key, uint8_t *kinds, int *n)
{
	static const char letters[] = "M*E-";
	struct text text = {0};
	int result = 0;
	json_string(r->json, node, &text);
	for (size_t i = 0; i < text.length && result == 0; i++) {
		const char *at = text.data[i] ? strchr(letters, text.data[i]) : NULL;
		result =
			at ? add_layer(r, kinds, n, (int)(at - letters))
			   : fail(r->err, "%s: layer %zu has an unknown letter; known are M, *, E and -: '%c'",
					  key, i, text.data[i]);
	}
	if (result == 0)
		result = text_check(&text, r->err);
	text_free(&text);
	return result;
}

static int layer_kind_find(const struct json *json, const struct json_node *node)
{
	static const struct {
		const char *name;
		enum layer_kind kind;
	} names[] = {
		{"mamba", LAYER_MAMBA},
		{"linear_attention", LAYER_MAMBA},
		{"attention", LAYER_ATTENTION},
		{"full_attention", LAYER_ATTENTION},
		{"moe", LAYER_MOE},
		{"mlp", LAYER_MLP},
	};
	for (size_t i = 0; json_is(node, JSON_STRING) && i < sizeof names / sizeof names[0]; i++)
		if (json_equals(json, node, names[i].name))
			return names[i].kind;
	return -1;
}

static int read_names(const struct config_reader *r, const struct json_node *node, const char *key,
					  uint8_t *kinds, int *n)
{
	for (const struct json_node *e = json_first(r->json, node); e;
		 e = json_next(r->json, node, e)) {
		int kind = layer_kind_find(r->json, e);
		if (kind < 0)
			return fail(r->err,
						"%s: layer %d is %.*s; known are mamba (linear_attention), attention "
						"(full_attention), moe and mlp",
						key, *n, (int)(e->end - e->start < 40 ? e->end - e->start : 40),
						r->json->source + e->start);
		if (add_layer(r, kinds, n, kind) != 0)
			return -1;
	}
	return 0;
}

/* hybrid_override_pattern, layers_block_type or layer_types; all that are there must agree. */
static int read_layers(const struct config_reader *r)
{
	static const char *const keys[] = {"hybrid_override_pattern", "layers_block_type",
									   "layer_types"};
	struct config *c = r->config;
	const char *from = NULL;
	for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
		const struct json_node *node = config_member(r, keys[i]);
		uint8_t kinds[CONFIG_MAX_LAYERS];
		int n = 0, result;
		if (!node)
			continue;
		if (json_is(node, i == 0 ? JSON_STRING : JSON_ARRAY))
			result = i == 0 ? read_letters(r, node, keys[i], kinds, &n)
							: read_names(r, node, keys[i], kinds, &n);
		else
			result = fail(r->err, "%s is not a %s", keys[i], i == 0 ? "string" : "list");
		if (result != 0)
			return -1;
		if (n == 0)
			return fail(r->err, "%s is empty: there are no layers", keys[i]);
		if (from && (n != c->n_layers || memcmp(kinds, c->kinds, (size_t)n) != 0))
			return fail(r->err, "%s and %s describe different layers", from, keys[i]);
		from = keys[i];
		c->n_layers = n;
		memcpy(c->kinds, kinds, (size_t)n);
	}
	if (!from)
		return fail(r->err, "hybrid_override_pattern (or layers_block_type) is missing");
	static const struct size_row row = {{"num_hidden_layers"}, 0, 1,
										CONFIG_MAX_LAYERS,     0, NEED_NEVER};
	int said, found = read_whole(r, &row, row.least, &said);
	if (found > 0 && said != c->n_layers)
		return fail(r->err, "%s describes %d layers, but num_hidden_layers is %d", from,
					c->n_layers, said);
	return found < 0 ? -1 : 0;
}

/* ---- what the forward pass does not do ---- */

static int check_word(const struct config_reader *r, const char *key, const char *expected)
{
	const struct json_node *node = config_member(r, key);
	if (node && !(json_is(node, JSON_STRING) && json_equals(r->json, node, expected)))
		return fail(r->err, "%s is %.*s; this family has only \"%s\"", key,
					(int)(node->end - node->start < 60 ? node->end - node->start : 60),
					r->json->source + node->start, expected);
	return 0;
}

/* One end of time_step_limit: a number, or transformers v5's {"__float__": "Infinity"}. */
static double limit_value(const struct config_reader *r, const struct json_node *node)
{
	double value = NAN;
	const struct json_node *spelled = json_member(r->json, node, "__float__");
	if (json_is(spelled, JSON_STRING) && json_equals(r->json, spelled, "Infinity"))
		return INFINITY;
	if (json_is(node, JSON_NUMBER))
		value = strtod(r->json->source + node->start, NULL); // a number ends before , or ]
	return value;
}

/* dt is never clamped here (spec 4.3), so that a file which asks for it would give wrong answers.
 */
static int check_time_step_limit(const struct config_reader *r)
{
	static const char *const keys[] = {"time_step_limit", "mamba_dt_limit"};
	for (size_t i = 0; i < 2; i++) {
		const struct json_node *node = config_member(r, keys[i]);
		if (!node)
			continue;
		if (!json_is(node, JSON_ARRAY) || node->n_children != 2)
			return fail(r->err, "%s is not a list of two numbers", keys[i]);
		const struct json_node *low = json_first(r->json, node);
		const struct json_node *high = json_next(r->json, node, low);
		if (!(limit_value(r, low) <= 0) || !(limit_value(r, high) >= 1e30))
			return fail(
				r->err,
				"%s is %.*s: the time step of this model is clamped, which is not supported "
				"(expected 0 to infinity)",
				keys[i], (int)(node->end - node->start < 60 ? node->end - node->start : 60),
				r->json->source + node->start);
	}
	return 0;
}

static int check_family(const struct config_reader *r)
{
	static const struct size_row groups[] = {{{"n_group"}, 0, 0, 1 << 20, 0, NEED_NEVER},
											 {{"topk_group"}, 0, 0, 1 << 20, 0, NEED_NEVER}};
	if (check_word(r, "model_type", "nemotron_h") != 0 ||
		check_word(r, "mlp_hidden_act", "relu2") != 0 ||
		check_word(r, "mamba_hidden_act", "silu") != 0)
		return -1;
	for (size_t i = 0; i < sizeof off_flags / sizeof off_flags[0]; i++) {
		bool on;
		if (config_bool(r, off_flags[i], false, &on) != 0)
			return -1;
		if (on)
			return fail(r->err,
						"%s is true: models of this family have no such bias, it is not supported",
						off_flags[i]);
	}
	for (size_t i = 0; i < 2; i++) {
		int value = 1;
		if (read_whole(r, &groups[i], 0, &value) < 0)
			return -1;
		if (value != 1)
			return fail(r->err,
						"%s is %d: groups of experts in the router are not supported (expected 1)",
						groups[i].names[0], value);
	}
	if (config_member(r, "sliding_window"))
		return fail(
			r->err,
			"sliding_window is set: attention in a window is not supported (expected null)");
	if (config_member(r, "moe_latent_size"))
		return fail(r->err,
					"moe_latent_size is set: latent experts are not supported (expected null)");
	return check_time_step_limit(r);
}

/* ---- the rest ---- */

static int read_plain(const struct config_reader *r)
{
	static const char *const eps[] = {"layer_norm_epsilon", "norm_eps", "rms_norm_eps"};
	static const char *const scale[] = {"routed_scaling_factor"};
	struct config *c = r->config;
	double value = 0;
	int found = config_number(r, eps, 3, &value);
	if (found < 0)
		return -1;
	if (!found)
		return fail(r->err, "layer_norm_epsilon (or norm_eps) is missing");
	if (!(value > 1e-30 && value < 1))
		return fail(r->err, "layer_norm_epsilon is %g, expected more than 0 and less than 1",
					value);
	c->norm_eps = (float)value;
	value = 1;
	if (config_number(r, scale, 1, &value) < 0)
		return -1;
	if (!(value > 0 && value <= 1e6))
		return fail(r->err, "routed_scaling_factor is %g, expected more than 0 and at most 1e6",
					value);
	c->routed_scaling_factor = (float)value;
	if (config_bool(r, "tie_word_embeddings", false, &c->tie_word_embeddings) != 0 ||
		config_bool(r, "norm_topk_prob", true, &c->norm_topk_prob) != 0)
		return -1;
	return config_bool(r, config_member(r, "use_conv_bias") ? "use_conv_bias" : "mamba_conv_bias",
					   true, &c->use_conv_bias);
}

/* n_shared_experts 0 means none; any other number says nothing, the width counts them all. */
static int read_shared(const struct config_reader *r)
{
	static const struct size_row row = {{"n_shared_experts"}, 0, 0, 4096, 0, NEED_NEVER};
	int n = 1;
	if (read_whole(r, &row, 0, &n) < 0)
		return -1;
	if (n == 0)
		r->config->moe_shared_expert_intermediate_size = 0;
	return 0;
}

static void read_dtype(const struct config_reader *r)
{
	const struct json_node *node = config_member(r, "torch_dtype");
	if (!node)
		node = config_member(r, "dtype");
	struct text text = {0};
	if (json_is(node, JSON_STRING))
		json_string(r->json, node, &text);
	for (size_t i = 0; i < text.length && i + 1 < sizeof r->config->torch_dtype; i++)
		r->config->torch_dtype[i] = text.data[i] >= ' ' && text.data[i] < 127 ? text.data[i] : '?';
	text_free(&text);
}

static int read_config(const struct config_reader *r)
{
	if (!json_is(r->root, JSON_OBJECT))
		return fail(r->err, "is not a JSON object");
	if (check_family(r) != 0 || read_layers(r) != 0 || read_sizes(r) != 0 || read_shared(r) != 0 ||
		check_products(r) != 0 || read_plain(r) != 0 || config_stops(r) != 0)
		return -1;
	r->config->eos_token_id = r->config->n_stop_ids ? r->config->stop_ids[0] : -1;
	read_dtype(r);
	return 0;
}

void config_spell_infinity(char *text, size_t length)
{
	bool inside = false;
	for (size_t i = 0; i < length; i++)
		if (inside && text[i] == '\\')
			i++;
		else if (text[i] == '"')
			inside = !inside;
		else if (!inside && length - i >= 8 && memcmp(text + i, "Infinity", 8) == 0)
			memcpy(text + i, "1e999999", 8);
}

static int parse(struct config *config, const char *text, size_t length,
				 int (*read)(const struct config_reader *r), struct error *err)
{
	struct text copy = {0};
	struct json json = {0};
	text_append(&copy, text, length);
	int result = text_check(&copy, err);
	if (result == 0 && copy.data)
		config_spell_infinity(copy.data, copy.length);
	if (result == 0)
		result = json_parse(&json, text_chars(&copy), copy.length, err);
	if (result == 0)
		result = read(&(struct config_reader){config, &json, &json.nodes[0], err});
	json_free(&json);
	text_free(&copy);
	return result;
}

static void init(struct config *config)
{
	*config = (struct config){.temperature = -1, .top_p = -1, .do_sample = -1};
}

int config_parse(struct config *config, const char *text, const char *generation, struct error *err)
{
	init(config);
	if (parse(config, text, strlen(text), read_config, err) != 0)
		return fail_in(err, "config.json");
	if (generation &&
		parse(config, generation, strlen(generation), generation_config_read, err) != 0)
		return fail_in(err, "generation_config.json");
	return 0;
}

static int read_file(struct config *config, const char *directory, const char *name,
					 int (*read)(const struct config_reader *r), struct error *err)
{
	char *path = file_join(directory, name, err);
	struct text text = {0};
	int result = path ? file_read(path, MAX_CONFIG_BYTES, &text, err) : -1;
	if (result == 0 && parse(config, text_chars(&text), text.length, read, err) != 0)
		result = fail_in(err, "%s", path);
	text_free(&text);
	free(path);
	return result;
}

int config_read(struct config *config, const char *directory, struct error *err)
{
	static const char generation[] = "generation_config.json";
	init(config);
	if (read_file(config, directory, "config.json", read_config, err) != 0)
		return -1;
	char *path = file_join(directory, generation, err);
	if (!path)
		return -1;
	int result = access(path, F_OK) == 0
					 ? read_file(config, directory, generation, generation_config_read, err)
					 : 0;
	free(path);
	return result;
}
