/* `complete --tokens 1,2,3 | --text T`: raw continuation, no chat format, no BOS. */
#include "cli/print.h"
#include "cli/run.h"
#include "sessions/reply_json.h"
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

struct completion {
	bool json, ids; // print nothing on the way; print ids, because there is no text
	cJSON *tokens, *logprobs;
};

static void show(void *user, const struct event *event)
{
	struct completion *completion = user;
	if (event->type != EV_TOKEN)
		return;
	if (!completion->json) {
		if (completion->ids)
			printf("%d\n", (int)event->token.id);
		else
			fwrite(event->text, 1, event->length, stdout);
		fflush(stdout);
		return;
	}
	cJSON *five = cJSON_CreateArray();
	for (int i = 0; i < N_ALTERNATIVES && event->token.picked.top[i].id >= 0; i++) {
		cJSON *one = cJSON_CreateObject();
		cJSON_AddNumberToObject(one, "id", event->token.picked.top[i].id);
		cJSON_AddNumberToObject(one, "logprob", event->token.picked.top[i].logprob);
		cJSON_AddItemToArray(five, one);
	}
	cJSON_AddItemToArray(completion->logprobs, five);
	cJSON_AddItemToArray(completion->tokens, cJSON_CreateNumber(event->token.id));
}

static int print_json(struct completion *completion, const struct reply *reply, struct error *err)
{
	cJSON *object = cJSON_CreateObject();
	cJSON_AddItemToObject(object, "tokens", completion->tokens);
	cJSON_AddStringToObject(object, "text", text_chars(&reply->answer));
	cJSON_AddItemToObject(object, "logprobs", completion->logprobs);
	cJSON_AddStringToObject(object, "finish_reason", reply_finish_reason(reply));
	cJSON_AddItemToObject(object, "usage", reply_usage_json(reply));
	cJSON_AddItemToObject(object, "timings", reply_timings_json(reply));
	completion->tokens = completion->logprobs = NULL;
	return print_line(object, err);
}

static int complete(const struct cli *cli, struct engine *engine, const struct model *model,
					struct error *err)
{
	struct completion completion = {.json = cli->json, .ids = !model->tokenizer};
	struct request request = {
		.type = REQUEST_COMPLETE, .text = cli->text, .stop_eos = cli->stop_eos};
	struct reply reply = {0};
	int32_t *ids = NULL;
	int failed = cli_settings(cli, model, &request.settings, err);
	if (!failed && cli->tokens)
		failed = cli_token_list(cli->tokens, &ids, &request.n_tokens, err);
	request.tokens = ids;
	if (!failed) {
		completion.tokens = cJSON_CreateArray();
		completion.logprobs = cJSON_CreateArray();
		failed =
			run_request(cli, engine, &request, &reply, (struct run_eye){show, &completion}, err);
	}
	if (!failed && cli->json)
		failed = print_json(&completion, &reply, err);
	if (!failed && !cli->json && !completion.ids)
		putchar('\n');
	if (!failed)
		run_note(cli, &reply, request.settings.sampling.seed);
	cJSON_Delete(completion.tokens);
	cJSON_Delete(completion.logprobs);
	reply_free(&reply);
	free(ids);
	return failed;
}

int cli_complete(const struct cli *cli)
{
	struct model *model = NULL;
	struct error err = {0};
	if (!cli->tokens == !cli->text) {
		fail(&err, "complete: expected one of --tokens and --text");
		return cli_usage(&err);
	}
	run_catch_interrupt();
	struct engine *engine = cli_open_engine(cli, NULL, NULL, &model, &err);
	int failed = !engine || complete(cli, engine, model, &err);
	engine_close(engine);
	model_release(model);
	int code = failed ? cli_fail(&err) : EXIT_DONE;
	return run_interrupted() ? EXIT_INTERRUPTED : code;
}
