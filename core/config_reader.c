#include "core/config_reader.h"

const struct json_node *config_member(const struct config_reader *r, const char *key)
{
	const struct json_node *node = json_member(r->json, r->root, key);
	return json_is(node, JSON_NULL) ? NULL : node;
}

int config_bool(const struct config_reader *r, const char *key, bool absent, bool *value)
{
	const struct json_node *node = config_member(r, key);
	*value = node ? json_is(node, JSON_TRUE) : absent;
	if (node && !json_is(node, JSON_TRUE) && !json_is(node, JSON_FALSE))
		return fail(r->err, "%s is neither true nor false", key);
	return 0;
}

int config_number(const struct config_reader *r, const char *const *keys, int n_keys, double *value)
{
	const char *from = NULL;
	for (int i = 0; i < n_keys && keys[i]; i++) {
		const struct json_node *node = config_member(r, keys[i]);
		double found;
		if (!node)
			continue;
		if (json_number(r->json, node, keys[i], &found, r->err) != 0)
			return -1;
		if (from && found != *value)
			return fail(r->err, "%s is %g, but %s is %g", from, *value, keys[i], found);
		from = keys[i];
		*value = found;
	}
	return from != NULL;
}

static int add_stop(const struct config_reader *r, const struct json_node *node)
{
	struct config *c = r->config;
	int64_t id;
	if (json_integer(r->json, node, "eos_token_id", &id, r->err) != 0)
		return -1;
	if (id < 0 || id >= c->vocab_size)
		return fail(r->err, "eos_token_id %lld is outside the vocabulary of %d", (long long)id,
					c->vocab_size);
	for (int i = 0; i < c->n_stop_ids; i++)
		if (c->stop_ids[i] == id)
			return 0;
	if (c->n_stop_ids == CONFIG_MAX_STOP_IDS)
		return fail(r->err, "eos_token_id lists more than %d ids", CONFIG_MAX_STOP_IDS);
	c->stop_ids[c->n_stop_ids++] = (int32_t)id;
	return 0;
}

int config_stops(const struct config_reader *r)
{
	const struct json_node *node = config_member(r, "eos_token_id");
	if (!node)
		return 0;
	r->config->n_stop_ids = 0;
	if (!json_is(node, JSON_ARRAY))
		return add_stop(r, node);
	for (const struct json_node *e = json_first(r->json, node); e; e = json_next(r->json, node, e))
		if (add_stop(r, e) != 0)
			return -1;
	return 0;
}
