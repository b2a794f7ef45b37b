/*
 * tokenize, detokenize: lines of stdin, one to one. They need nothing of a model but
 * tokenizer.json. What a line becomes is written before the next one is read.
 */
#include "base/file.h"
#include "base/json.h"
#include "cli/command.h"
#include "core/python_text.h"
#include "core/tokenizer.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Appends to out what a line becomes, without its newline. */
typedef int line_function(const struct cli *cli, const struct tokenizer *tokenizer,
						  const char *line, size_t length, struct text *out, struct error *err);

static struct tokenizer *open_tokenizer(const struct cli *cli, struct error *err)
{
	struct tokenizer *tokenizer = NULL;
	char *directory = cli_model_directory(cli, err), *path = NULL;
	if (directory)
		path = file_join(directory, "tokenizer.json", err);
	if (path && file_is_directory(directory) && access(path, F_OK) != 0)
		fail(err, "%s has no tokenizer.json, which %s needs", directory, cli->command->name);
	else if (path)
		tokenizer = tokenizer_open(path, err);
	free(path);
	free(directory);
	return tokenizer;
}

static int write_line(const struct text *out, struct error *err)
{
	if (text_check(out, err))
		return -1;
	if (fwrite(text_chars(out), 1, out->length, stdout) != out->length || fflush(stdout))
		return fail(err, "standard output: %s", strerror(errno));
	return 0;
}

static int each_line(const struct cli *cli, const struct tokenizer *tokenizer,
					 line_function *function, struct error *err)
{
	struct text out = {0};
	char *line = NULL;
	size_t capacity = 0;
	ssize_t length;
	int result = 0;
	errno = 0;
	for (int number = 1; result == 0 && (length = getline(&line, &capacity, stdin)) >= 0;
		 number++) {
		size_t n = (size_t)length;
		if (n && line[n - 1] == '\n')
			line[--n] = '\0';
		text_clear(&out);
		result = function(cli, tokenizer, line, n, &out, err);
		if (result) {
			fail_in(err, "line %d", number);
			break;
		}
		text_add_char(&out, '\n');
		result = write_line(&out, err);
	}
	if (result == 0 && ferror(stdin))
		result = fail(err, "standard input: %s", strerror(errno));
	free(line);
	text_free(&out);
	return result;
}

static int run(const struct cli *cli, line_function *function)
{
	struct error err = {0};
	struct tokenizer *tokenizer = open_tokenizer(cli, &err);
	int result = tokenizer ? each_line(cli, tokenizer, function, &err) : -1;
	tokenizer_close(tokenizer);
	return result ? cli_fail(&err) : EXIT_DONE;
}

/* The string that a line of JSON is. */
static int unquoted(const char *line, size_t length, struct text *out, struct error *err)
{
	struct json json = {0};
	int result = json_parse(&json, line, length, err);
	if (result == 0 && !json_is(json.nodes, JSON_STRING))
		result = fail(err, "expected a JSON string");
	if (result == 0)
		json_string(&json, json.nodes, out);
	json_free(&json);
	return result ? result : text_check(out, err);
}

static int encode_line(const struct cli *cli, const struct tokenizer *tokenizer, const char *line,
					   size_t length, struct text *out, struct error *err)
{
	struct id_list ids = {0};
	struct text text = {0};
	enum trust trust = cli->special ? TRUST_ALL : TRUST_NONE;
	int result = cli->json ? unquoted(line, length, &text, err) : 0;
	if (cli->json) {
		line = text_chars(&text);
		length = text.length;
	}
	if (result == 0)
		result = tokenizer_encode_text(tokenizer, line, length, trust, &ids, err);
	text_add(out, cli->json ? "[" : "");
	for (size_t i = 0; i < ids.n && result == 0; i++)
		text_format(out, "%s%d", i == 0 ? "" : cli->json ? ", " : " ", ids.ids[i]);
	text_add(out, cli->json ? "]" : "");
	free(ids.ids);
	text_free(&text);
	return result;
}

/* The ids of a line: a JSON array, or numbers between white space. */
static int ids_of_line(const struct cli *cli, const char *line, size_t length, struct id_list *ids,
					   struct error *err)
{
	if (strlen(line) != length)
		return fail(err, "there is a NUL byte at %zu", strlen(line));
	if (!cli->json) {
		int n = 0;
		if (line[strspn(line, " \t\r")] == '\0')
			return 0;
		int result = cli_token_list(line, &ids->ids, &n, err);
		ids->n = (size_t)n;
		return result;
	}
	struct json json = {0};
	int result = json_parse(&json, line, length, err);
	if (result == 0 && !json_is(json.nodes, JSON_ARRAY))
		result = fail(err, "expected a JSON array of token ids");
	const struct json_node *at = result ? NULL : json_first(&json, json.nodes);
	for (; at && result == 0; at = json_next(&json, json.nodes, at)) {
		int64_t id = 0;
		result = json_integer(&json, at, "a token id", &id, err);
		if (result == 0 && (id < 0 || id > INT32_MAX))
			result = fail(err, "%lld is no token id", (long long)id);
		if (result == 0)
			result = id_list_add(ids, (int32_t)id, err);
	}
	json_free(&json);
	return result;
}

/* Plain: the bytes as they are. JSON: well-formed, what is no character is U+FFFD. */
static int decode_line(const struct cli *cli, const struct tokenizer *tokenizer, const char *line,
					   size_t length, struct text *out, struct error *err)
{
	struct id_list ids = {0};
	struct text text = {0};
	struct decode_state state = {0};
	int result = ids_of_line(cli, line, length, &ids, err);
	for (size_t i = 0; i < ids.n && result == 0; i++) {
		size_t n;
		if (!tokenizer_bytes(tokenizer, ids.ids[i], &n))
			result = fail(err, "no token has the id %d; the tokenizer has %d tokens", ids.ids[i],
						  tokenizer_size(tokenizer));
		else if (cli->json)
			tokenizer_decode_step(tokenizer, &state, ids.ids[i], &text);
		else
			tokenizer_decode(tokenizer, ids.ids[i], out);
	}
	tokenizer_decode_flush(&state, &text);
	if (cli->json && result == 0)
		python_json_string(text_chars(&text), text.length, out);
	if (result == 0)
		result = text_check(&text, err);
	free(ids.ids);
	text_free(&text);
	return result;
}

int cli_tokenize(const struct cli *cli)
{
	return run(cli, encode_line);
}

int cli_detokenize(const struct cli *cli)
{
	return run(cli, decode_line);
}
