#include "cli/source.h"
#include "base/file.h"
#include "core/conversation.h"
#include "core/tokenizer.h"
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT_BYTES ((size_t)1 << 30)

static int encode(const struct model *model, const struct prompt *prompt, int32_t **ids, int *n,
				  struct error *err)
{
	struct id_list list = {0};
	if (tokenizer_encode(model->tokenizer, prompt, &list, err)) {
		free(list.ids);
		return -1;
	}
	*ids = list.ids;
	*n = (int)list.n;
	return list.n > 0 && list.n <= INT32_MAX
			   ? 0
			   : fail(err, "%zu tokens: expected 1 to %d", list.n, INT32_MAX);
}

static int read_file(const struct cli *cli, const struct model *model, int32_t **ids, int *n,
					 struct error *err)
{
	struct text text = {0};
	struct prompt prompt = {0};
	int result = file_read(cli->text, MAX_TEXT_BYTES, &text, err);
	const char *zero = result ? NULL : memchr(text_chars(&text), 0, text.length);
	if (zero)
		result = fail(err, "--text: %s: byte %zu is 0: expected text", cli->text,
					  (size_t)(zero - text_chars(&text)));
	if (!result) {
		prompt_append(&prompt, text_chars(&text), text.length, TRUST_NONE);
		result = prompt_check(&prompt, err) || encode(model, &prompt, ids, n, err) ? -1 : 0;
		if (result)
			fail_in(err, "--text: %s", cli->text);
	}
	text_free(&text);
	prompt_free(&prompt);
	return result;
}

static int render(const struct cli *cli, const struct model *model, int32_t **ids, int *n,
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
		result = encode(model, &prompt, ids, n, err);
	prompt_free(&prompt);
	conversation_free(&conversation);
	return result;
}

int source_check(const struct cli *cli, struct error *err)
{
	int inputs = (cli->prompts.n > 0) + (cli->text != NULL) + (cli->tokens != NULL);
	if (inputs != 1 || cli->prompts.n > 1)
		return fail(err, "%s: expected one of -p TEXT, --text FILE and --tokens",
					cli->command->name);
	if (cli->json && cli->csv)
		return fail(err, "%s: expected one of --json and --csv", cli->command->name);
	return 0;
}

int source_ids(const struct cli *cli, const struct model *model, int32_t **ids, int *n,
			   struct error *err)
{
	*ids = NULL;
	*n = 0;
	if (cli->tokens)
		return cli_token_list(cli->tokens, ids, n, err);
	if (!model->tokenizer)
		return fail(err, "%s has no tokenizer.json, which -p and --text need; --tokens",
					model->directory);
	return cli->text ? read_file(cli, model, ids, n, err) : render(cli, model, ids, n, err);
}
