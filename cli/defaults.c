/*
 * Defaults from $XDG_CONFIG_HOME/elastiscope/config.json: {"theme": "light", "budget": "small",
 * "pace": 0, "no-think": true}. Keys are the names of options about the model, the device, who
 * writes, sampling and the terminal; what a command does not take is left out there. A flag beats
 * the environment, which beats this file.
 */
#include "cli/command.h"

#include "base/file.h"
#include "base/json.h"
#include "base/text.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_BYTES (1u << 20)

static int take(struct cli *cli, const struct json *json, const struct json_node *key,
				struct error *err)
{
	const struct json_node *value = json_value(key);
	struct text name = {0}, typed = {0};
	json_string(json, key, &name);
	json_string(json, value, &typed);
	int status = text_check(&name, err) < 0 || text_check(&typed, err) < 0 ? -1 : 0;
	bool plain = json_is(value, JSON_STRING) || json_is(value, JSON_NUMBER) ||
				 json_is(value, JSON_TRUE) || json_is(value, JSON_FALSE);
	if (status == 0 && !plain)
		status = fail(err, "\"%s\": expected a string, a number, true or false", text_chars(&name));
	if (status == 0)
		status = cli_default(cli, text_chars(&name), text_chars(&typed), err);
	text_free(&name);
	text_free(&typed);
	return status;
}

static int take_all(struct cli *cli, const struct text *text, struct error *err)
{
	struct json json = {0};
	int status = json_parse(&json, text_chars(text), text->length, err);
	if (status == 0 && !json_is(json.nodes, JSON_OBJECT))
		status = fail(err, "expected an object");
	for (const struct json_node *key = status == 0 ? json_first(&json, json.nodes) : NULL;
		 key && status == 0; key = json_next(&json, json.nodes, key))
		status = take(cli, &json, key, err);
	json_free(&json);
	return status;
}

int cli_read_defaults(struct cli *cli, struct error *err)
{
	struct text text = {0};
	struct error none = {0};
	char *path = file_place(PLACE_CONFIG, "config.json", &none); // without $HOME there is none
	int status = 0;
	if (path && access(path, F_OK) == 0) {
		status = file_read(path, MAX_BYTES, &text, err);
		if (status == 0 && take_all(cli, &text, err) < 0)
			status = fail_in(err, "%s", path);
	}
	text_free(&text);
	free(path);
	return status;
}
