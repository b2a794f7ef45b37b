#include "cli/source.h"
#include "base/file.h"
#include "core/conversation.h"
#include "core/tokenizer.h"
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT_BYTES ((size_t)1 << 30)

static int take(struct id_list *list, int32_t **ids, int *n, struct error *err)
{
	if (list->n == 0 || list->n > INT32_MAX) {
		fail(err, "%zu tokens: expected 1 to %d", list->n, INT32_MAX);
		free(list->ids);
		return -1;
	}
	*ids = list->ids;
	*n = (int)list->n;
	return 0;
}

static int encode(const struct cli *cli, const struct model *model, const struct text *text,
				  struct id_list *ids, struct error *err)
{
	if (cli->special && model->tokenizer)
		return tokenizer_encode_text(model->tokenizer, text_chars(text), text->length, TRUST_ALL,
									 ids, err);
	return model_encode(model, text_chars(text), text->length, ids, err);
}

static int read_file(const struct cli *cli, const struct model *model, struct id_list *ids,
					 struct error *err)
{
	struct text text = {0};
	int result = file_read(cli->text, MAX_TEXT_BYTES, &text, err);
	const char *zero = result ? NULL : memchr(text_chars(&text), 0, text.length);
	if (!result && text.length == 0)
		result = fail(err, "--text: %s is empty, expected a text", cli->text);
	else if (zero)
		result = fail(err, "--text: %s: byte %zu is 0: expected text", cli->text,
					  (size_t)(zero - text_chars(&text)));
	else if (!result && encode(cli, model, &text, ids, err))
		result = fail_in(err, "--text: %s", cli->text);
	text_free(&text);
	return result;
}

static int render(const struct cli *cli, const struct model *model, struct id_list *ids,
				  struct error *err)
{
	const char *words = cli->prompts.items[0];
	struct conversation conversation;
	int result = -1;
	conversation_init(&conversation);
	conversation.enable_thinking = !cli->no_think;
	if (!conversation_set_system(&conversation, cli->system, err) &&
		conversation_append(&conversation, CHAT_USER, (struct chat_string){words, strlen(words)},
							(struct chat_string){0}, err) >= 0)
		result = conversation_encode(&conversation, model, true, ids, err);
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
	struct id_list list = {0};
	if (cli->text ? read_file(cli, model, &list, err) : render(cli, model, &list, err)) {
		free(list.ids);
		return -1;
	}
	if (take(&list, ids, n, err))
		return cli->text ? fail_in(err, "--text: %s", cli->text) : -1;
	return 0;
}
