/*
 * Inside core/config.c and core/generation_config.c: what both files are read with. A sentence
 * names the key; who opened the file adds its name.
 */
#ifndef CORE_CONFIG_READER_H
#define CORE_CONFIG_READER_H

#include "base/json.h"
#include "core/config.h"

struct config_reader {
	struct config *config; // being filled
	const struct json *json;
	const struct json_node *root; // an object, once its reader has looked
	struct error *err;
};

/* A member that is there and not null; else NULL. */
const struct json_node *config_member(const struct config_reader *r, const char *key);

/* *value = absent where there is none. */
int config_bool(const struct config_reader *r, const char *key, bool absent, bool *value);

/* The member under any of its spellings (keys end at n_keys or NULL); two that disagree are an
 * error. -1, 0 (absent, *value as it was), 1. */
int config_number(const struct config_reader *r, const char *const *keys, int n_keys,
				  double *value);

/* eos_token_id, one id or a list, replaces the stop ids; absent, they stay. */
int config_stops(const struct config_reader *r);

/* generation_config.json: temperature, top_p, do_sample, stop ids. */
int generation_config_read(const struct config_reader *r);

#endif
