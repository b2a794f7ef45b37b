/* Answers that begin inside others: what the log keeps of them, what is read back, and that the
 * same tokens come again. */
#include "base/file.h"
#include "base/memory.h"
#include "core/model.h"
#include "core/tokenizer.h"
#include "sessions/log.h"
#include "sessions/session.h"
#include "sessions/verify.h"
#include "tests/unit/folder.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define WAIT_MS 60000
#define MAX_IDS 512
#define N_TURNS 5

/* One turn as its owner saw it. */
struct way {
	int32_t ids[MAX_IDS]; // all of it
	int n, n_prompt, id;  // id: of the turn
	int32_t second[MAX_IDS];
	int n_given, answer;
	struct reply reply;
};

static struct turn_settings settings(const char *budget)
{
	struct turn_settings s = {
		.sampling = {.seed = 11, .temperature = 1.2f, .top_p = 1, .forced = -1},
		.max_tokens = 24,
		.thinking = true};
	strcpy(s.budget, budget);
	return s;
}

static struct engine *open_demo(struct session_log *log, struct model **model)
{
	struct engine_options options = {
		.backend = &backend_cpu,
		.context = 512,
		.device = {.n_threads = 1, .math = MATH_FAST, .kv_dtype = DTYPE_BF16},
		.record = log ? session_log_record : NULL,
		.record_user = log};
	char *directory = file_join(getenv("ELASTISCOPE_TESTS"), "../demo", NULL);
	struct engine *engine = engine_local_open(&options, NULL);
	struct request request = {.type = REQUEST_OPEN, .directory = directory};
	assert_int_equal(engine_submit(engine, &request, NULL), 0);
	free(directory);
	for (const struct event *event; (event = engine_wait(engine, WAIT_MS));)
		if (event->type == EV_OPENED) {
			*model = model_retain(event->opened.model);
			return engine;
		}
	assert_true(false);
	return NULL;
}

static void take(struct way *way, const struct event *event)
{
	reply_event(&way->reply, event);
	if (event->type == EV_TURN) {
		way->id = event->turn.id;
		way->n_given = 0;
	}
	if (event->type == EV_PREFILL && way->n_given == 0)
		way->n_prompt = event->prefill.from + event->prefill.tokens;
	if (event->type != EV_TOKEN)
		return;
	way->n_given += event->token.given;
	way->n = event->token.at + 1;
	way->ids[event->token.at] = event->token.id;
	way->second[event->token.at] = event->token.picked.top[1].id;
}

static void run(struct engine *engine, struct conversation *conversation, struct request request,
				struct way *way)
{
	request.type = REQUEST_TURN;
	request.conversation = conversation;
	assert_int_equal(engine_submit(engine, &request, NULL), 0);
	way->reply.done = false;
	for (const struct event *event; !way->reply.done && (event = engine_wait(engine, WAIT_MS));)
		take(way, event);
	assert_true(way->reply.done && !way->reply.failed);
	struct chat_string answer = {way->reply.answer.data, way->reply.answer.length},
					   reasoning = {way->reply.reasoning.data, way->reply.reasoning.length};
	way->answer = conversation_append(conversation, CHAT_ASSISTANT, answer, reasoning, NULL);
	assert_true(way->answer >= 0);
}

static void ask(struct engine *engine, struct conversation *conversation, const char *text,
				int left, struct way *way)
{
	conversation_append(conversation, CHAT_USER, (struct chat_string){text, strlen(text)},
						(struct chat_string){0}, NULL);
	run(engine, conversation,
		(struct request){.branched = left >= 0, .left = left, .settings = settings("large")}, way);
}

/* Leaves `from` at its token number k with another id. */
static void leave(struct engine *engine, struct conversation *conversation, const struct way *from,
				  int k, int32_t id, struct way *way)
{
	int at = from->n_prompt + k;
	assert_true(at < from->n);
	memcpy(way->ids, from->ids, (size_t)at * sizeof *way->ids);
	way->ids[at] = id;
	way->n_prompt = from->n_prompt;
	conversation_select(conversation, conversation->messages[from->answer].parent);
	run(engine, conversation,
		(struct request){.tokens = way->ids,
						 .n_tokens = at + 1,
						 .n_prompt = from->n_prompt,
						 .branched = true,
						 .left = from->id,
						 .settings = settings("small")},
		way);
	assert_int_equal(way->n_given, k + 1);
	assert_int_equal(way->n_prompt, from->n_prompt);
}

/* The prompt's ids, which events do not tell. */
static void prompt_ids(const struct model *model, const struct conversation *conversation,
					   struct way *way)
{
	struct conversation path;
	struct prompt prompt = {0};
	struct id_list list = {0};
	int user = conversation->messages[way->answer].parent;
	assert_int_equal(conversation_copy_path(conversation, user, &path, NULL), 0);
	assert_int_equal(conversation_render(&path, true, &prompt, NULL), 0);
	assert_int_equal(tokenizer_encode(model->tokenizer, &prompt, &list, NULL), 0);
	assert_int_equal(list.n, way->n_prompt);
	memcpy(way->ids, list.ids, list.n * sizeof *list.ids);
	free(list.ids);
	prompt_free(&prompt);
	conversation_free(&path);
}

/* An answer; a way that leaves it, and one that leaves that; a message behind the first; a way out
 * of its answer that ends the thoughts. */
static void record(const char *path, struct way ways[N_TURNS])
{
	struct session_log *log = session_log_open_file(path, NULL);
	struct conversation conversation;
	struct model *model;
	struct engine *engine = open_demo(log, &model);
	conversation_init(&conversation);
	ask(engine, &conversation, "What is 4827 + 396?", -1, &ways[0]);
	prompt_ids(model, &conversation, &ways[0]);
	leave(engine, &conversation, &ways[0], 5, ways[0].second[ways[0].n_prompt + 5], &ways[1]);
	leave(engine, &conversation, &ways[1], 9, ways[1].second[ways[1].n_prompt + 9], &ways[2]);
	conversation_select(&conversation, ways[0].answer);
	ask(engine, &conversation, "And 12 + 30?", ways[0].id, &ways[3]);
	prompt_ids(model, &conversation, &ways[3]);
	int32_t ends = tokenizer_special(model->tokenizer, "</think>");
	leave(engine, &conversation, &ways[3], 3, ends, &ways[4]);
	engine_close(engine);
	model_release(model);
	session_log_close(log);
	conversation_free(&conversation);
}

static void check_read(const struct session *session, const struct way ways[N_TURNS])
{
	static const int lefts[N_TURNS] = {-1, 0, 1, 0, 3}, parents[N_TURNS] = {-1, -1, -1, 0, 0};
	const struct session_turn *turns = session->turns;
	assert_int_equal(session->n_turns, N_TURNS);
	assert_int_equal(session->n_broken + session->n_unknown, 0);
	for (int i = 0; i < N_TURNS; i++) {
		const struct event *begin = &session->events[turns[i].first];
		assert_int_equal(turns[i].left, lefts[i]);
		assert_int_equal(begin->turn.parent, parents[i]);
		assert_string_equal(text_chars(&turns[i].reply.answer), text_chars(&ways[i].reply.answer));
		assert_string_equal(text_chars(&turns[i].reply.reasoning),
							text_chars(&ways[i].reply.reasoning));
		assert_int_equal(turns[i].reply.completion_tokens, ways[i].reply.completion_tokens);
		assert_int_equal(begin->n_numbers > 0, ways[i].n_given > 0);
		if (begin->n_numbers > 0)
			assert_memory_equal(begin->numbers, ways[i].ids, begin->n_numbers * sizeof(int32_t));
	}
	assert_int_equal(turns[1].user, turns[0].user);
	assert_int_equal(turns[2].user, turns[0].user);
	assert_int_equal(session->conversation.messages[turns[3].user].parent, turns[0].answer);
	assert_int_equal(turns[4].user, turns[3].user);
	assert_true(ways[4].reply.answer.length > 0);
	int n = 0;
	for (size_t i = turns[2].first; i < turns[2].end; i++) { // who wrote what it began with
		const struct event *event = &session->events[i];
		if (event->type != EV_TOKEN || !event->token.given)
			continue;
		assert_string_equal(event->token.budget, n < 5 ? "large" : "small");
		n++;
	}
	assert_int_equal(n, 10);
}

/* The log as a version wrote it that did not know branches: no ids, no tokens given. */
static void forget(struct text *file)
{
	char *out = file->data;
	for (char *line = file->data, *next; *line; line = next) {
		next = strchr(line, '\n') + 1;
		char *left = strstr(line, ",\"left\":");
		size_t n = (size_t)(next - line);
		if (strncmp(line, "{\"ev\":\"turn\"", 12) == 0 && left && left < next) {
			n = (size_t)(left - line);
			memmove(out, line, n);
			memcpy(out + n, "}\n", 2);
			out += n + 2;
		} else if (!memmem(line, n, "\"given\":true", 12)) {
			memmove(out, line, n);
			out += n;
		}
	}
	*out = 0;
	file->length = (size_t)(out - file->data);
}

static void verify(const char *path, struct engine *engine, const char *hash,
				   struct verify_result *result)
{
	struct session session;
	struct error err = {0};
	if (session_read(path, &session, &err) ||
		session_verify(&session, engine, hash, NULL, NULL, result, &err))
		print_error("%s\n", err.text), assert_true(false);
	session_free(&session);
}

static void a_branch_inside_an_answer_comes_again(void **state)
{
	static struct way ways[N_TURNS];
	struct folder folder;
	struct session session;
	struct verify_result result;
	struct model *model;
	struct text file = {0};
	int n_tokens = 0;
	(void)state;
	folder_make(&folder);
	const char *path = folder_file(&folder, "log.jsonl");
	record(path, ways);
	assert_int_equal(session_read(path, &session, NULL), 0);
	check_read(&session, ways);
	session_free(&session);
	for (int i = 0; i < N_TURNS; i++)
		n_tokens += ways[i].reply.completion_tokens;

	struct engine *engine = open_demo(NULL, &model);
	verify(path, engine, model->hash, &result);
	assert_int_equal(result.n_left_out, 0);
	assert_int_equal(result.n_turns, N_TURNS);
	assert_false(result.differs);
	assert_int_equal(result.n_tokens, n_tokens);
	assert_true(result.largest_change < 1e-6);
	verify_free(&result);

	assert_int_equal(file_read(path, 1 << 24, &file, NULL), 0);
	forget(&file);
	folder_write(&folder, "log.jsonl", file.data, file.length);
	verify(path, engine, model->hash, &result);
	assert_true(result.n_left_out >= 3);
	assert_non_null(strstr(text_chars(&result.left_out), "the log lacks its ids"));
	verify_free(&result);

	engine_close(engine);
	model_release(model);
	for (int i = 0; i < N_TURNS; i++)
		reply_free(&ways[i].reply);
	text_free(&file);
	folder_remove(&folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(a_branch_inside_an_answer_comes_again)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
