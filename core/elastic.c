#include "core/elastic.h"

#include "base/file.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define MAX_ELASTIC_BYTES ((size_t)16 << 20)

void elastic_init(struct elastic *elastic)
{
	*elastic = (struct elastic){.think = -1,
								.answer = -1,
								.temperature = -1,
								.top_p = -1,
								.router_tau = 0.05f,
								.router_scaler = 10,
								.importance_sorted = -1};
}

void elastic_free(struct elastic *elastic)
{
	for (int i = 0; i < elastic->n_budgets; i++)
		budget_free(&elastic->budgets[i]);
	for (int i = 0; i < elastic->n_router_axes; i++)
		free(elastic->router_axes[i].choices);
	free(elastic->router_file);
	free(elastic->importance_file);
	free(elastic->provenance);
	text_free(&elastic->notices);
	*elastic = (struct elastic){0};
}

/* The 30B of the Star Elastic family: its children are told by hidden_size and
 * moe_intermediate_size only. */
static const struct {
	const char *name;
	int hidden, expert_ffn;
	enum origin origin;
	const char *source;
} nano_30b[] = {
	{"30b", 2688, 1856, ORIGIN_FILE, "config.json"},
	{"23b", 2304, 1600, ORIGIN_ESTIMATED, "fits the published sizes"},
	{"12b", 1920, 960, ORIGIN_PUBLISHED, "Megatron-LM teacher_model_config_12b"},
};

static bool is_nano_30b(const struct config *c)
{
	return c->n_layers == 52 && c->hidden_size == 2688 && c->moe_intermediate_size == 1856 &&
		   c->n_routed_experts == 128 && c->num_experts_per_tok == 6 &&
		   c->moe_shared_expert_intermediate_size == 3712 && c->mamba_num_heads == 64 &&
		   c->mamba_head_dim == 64 && c->n_groups == 8 && c->ssm_state_size == 128 &&
		   c->num_attention_heads == 32 && c->num_key_value_heads == 2 && c->head_dim == 128 &&
		   config_layers_of(c, LAYER_MAMBA) == 23 && config_layers_of(c, LAYER_MOE) == 23;
}

static int built_in(struct elastic *elastic, const struct config *config, struct error *err)
{
	elastic_init(elastic);
	int n = is_nano_30b(config) ? (int)(sizeof nano_30b / sizeof *nano_30b) : 1;
	for (int i = 0; i < n; i++) {
		struct budget *budget = &elastic->budgets[i];
		if (budget_init(budget, config, n == 1 ? "parent" : nano_30b[i].name, err) < 0)
			return -1;
		elastic->n_budgets++;
		if (n > 1) {
			budget_set_width(budget, AXIS_HIDDEN, nano_30b[i].hidden);
			budget_set_width(budget, AXIS_EXPERT_FFN, nano_30b[i].expert_ffn);
			budget->origin = nano_30b[i].origin;
			snprintf(budget->source, sizeof budget->source, "%s", nano_30b[i].source);
		}
	}
	return 0;
}

int elastic_read(struct elastic *elastic, const struct config *config, const char *directory,
				 const char *budgets_file, bool lenient, struct error *err)
{
	*elastic = (struct elastic){0};
	char *path = budgets_file ? strdup(budgets_file) : file_join(directory, "elastic.json", err);
	if (!path)
		return budgets_file ? fail(err, "no memory for a path") : -1;
	if (!budgets_file && access(path, F_OK) != 0) {
		free(path);
		return built_in(elastic, config, err);
	}
	struct text text = {0};
	int status = file_read(path, MAX_ELASTIC_BYTES, &text, err);
	if (status == 0) {
		const char *slash = strrchr(path, '/');
		status = elastic_parse(elastic, config, &text, slash ? slash + 1 : path, lenient, err);
	}
	text_free(&text);
	free(path);
	return status;
}

int elastic_find(const struct elastic *elastic, const char *name)
{
	int found = -1, n = 0;
	for (int i = 0; i < elastic->n_budgets; i++) {
		if (strcmp(elastic->budgets[i].name, name) == 0)
			return i;
		if (strcasecmp(elastic->budgets[i].name, name) == 0) {
			found = i;
			n++;
		}
	}
	return n == 1 ? found : -1;
}

const char *elastic_default(const struct elastic *elastic)
{
	bool one = elastic->think >= 0 && elastic->think == elastic->answer;
	return elastic->budgets[one ? elastic->think : 0].name;
}

char elastic_mark(const struct elastic *elastic, int budget)
{
	bool ranks = false;
	for (int i = 0; i < elastic->n_budgets; i++) {
		char first = elastic->budgets[i].name[0];
		ranks |= !isalpha((unsigned char)first);
		for (int j = 0; j < i; j++)
			ranks |= elastic->budgets[j].name[0] == first;
	}
	if (!ranks)
		return elastic->budgets[budget].name[0];
	return "123456789abcdefghijklmnopqrstuvwxyz"[budget];
}
