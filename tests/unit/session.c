/* Session logs read back: fields, trees of turns, cut and broken files, writers that are killed,
 * the list, replay and verification of a session of the demo. */
#include "sessions/session.h"
#include "base/file.h"
#include "base/memory.h"
#include "core/model.h"
#include "sessions/event_json.h"
#include "sessions/export.h"
#include "sessions/log.h"
#include "sessions/replay.h"
#include "sessions/verify.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define N_KILLS 200
#define WAIT_MS 60000

static const char head[] =
	"{\"ev\":\"session\",\"ms\":1.500000,\"seq\":0,\"version\":\"9.9\",\"checkpoint\":\"/x/model\","
	"\"hash\":\"0123456789abcdef\",\"budgets\":[\"large\",\"small\"],\"device\":\"avx2, 3 "
	"threads\","
	"\"time\":\"2026-11-22T12:00:00Z\",\"math\":\"fast\",\"kv\":\"bf16\",\"context\":4096}";

/* ---- writing logs ---- */

static struct event plain(enum event_type type, const char *text, uint64_t ms)
{
	return (struct event){
		.type = type, .at_ns = ms * 1000000, .text = text, .length = text ? strlen(text) : 0};
}

static struct event a_turn(int id, int known, uint64_t ms)
{
	struct event event = plain(EV_TURN, NULL, ms);
	event.turn.id = id;
	event.turn.parent = -1;
	event.turn.known = known;
	event.turn.settings.sampling.seed = 18446744073709551615u;
	event.turn.settings.sampling.temperature = 0.6f;
	event.turn.settings.thinking = true;
	strcpy(event.turn.settings.budget, "large");
	strcpy(event.turn.rung, "avx2");
	return event;
}

static struct event a_message(const char *role, const char *text)
{
	struct event event = plain(EV_MESSAGE, text, 3);
	strcpy(event.message.role, role);
	return event;
}

static struct event a_token(int at, enum phase phase, const char *text)
{
	struct event event = plain(EV_TOKEN, text, 4 + (uint64_t)at);
	event.token.at = at;
	event.token.id = 100 + at;
	event.token.logprob = -0.1f * (float)at;
	event.token.phase = phase;
	event.token.took_ns = 1234567;
	strcpy(event.token.budget, "large");
	event.token.picked.id = event.token.id;
	event.token.picked.logprob = event.token.logprob;
	event.token.picked.top[0].id = event.token.id;
	event.token.picked.top[0].logprob = event.token.logprob;
	event.token.picked.top[1].id = -1;
	return event;
}

static void put(struct text *out, struct event event)
{
	assert_int_equal(event_json(&event, out, NULL), 0);
}

/* One turn: question, thought, answer. */
static void put_turn(struct text *out, int id, int known, const char *user, const char *answer)
{
	put(out, a_turn(id, known, 2));
	if (user)
		put(out, a_message("user", user));
	put(out, a_token(1, PHASE_THINK, "hm"));
	struct event end = a_token(2, PHASE_THINK, "");
	end.token.thinking_ends = end.token.forced = true;
	put(out, end);
	put(out, a_token(3, PHASE_ANSWER, answer));
	put(out, plain(EV_STOP, NULL, 9));
}

static void write_file(const char *path, const char *bytes, size_t length)
{
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, length, file), length);
	assert_int_equal(fclose(file), 0);
}

static void start(struct text *out)
{
	text_add(out, head);
	text_add_char(out, '\n');
}

/* ---- reading ---- */

static void every_event_comes_back(void **state)
{
	static const int32_t numbers[] = {3, -7, 2147483647};
	struct text lines = {0};
	(void)state;
	start(&lines);
	struct event change = plain(EV_SWITCH, NULL, 7), prefill = plain(EV_PREFILL, NULL, 5);
	strcpy(change.change.from, "large");
	strcpy(change.change.to, "hidden_size=96,skip=3+7");
	change.change.handoff = HANDOFF_CARRY;
	change.change.reason = SWITCH_PHASE;
	change.change.took_ns = 987654321;
	change.numbers = prefill.numbers = numbers;
	change.n_numbers = prefill.n_numbers = 3;
	struct event ruled = change;
	ruled.change.handoff = HANDOFF_REPAIR;
	ruled.change.repair = 12;
	ruled.change.replayed = 17;
	ruled.change.reason = SWITCH_POLICY;
	ruled.text = "entropy 2.31 > 2";
	ruled.length = strlen(ruled.text);
	struct event all_again = ruled; // no state was old enough
	all_again.change.handoff = HANDOFF_REPREFILL;
	struct event read_by = a_turn(1, 2, 2);
	strcpy(read_by.turn.settings.read, "medium");
	strcpy(read_by.turn.settings.rule, "entropy>2 large else small");
	read_by.turn.settings.handoff = HANDOFF_REPAIR;
	read_by.turn.settings.repair = 8;
	prefill.prefill.tokens = 28;
	strcpy(prefill.prefill.budget, "small");
	struct event memory = plain(EV_MEMORY, NULL, 5);
	memory.memory = (struct memory_use){.weights_bytes = 5000000000, .vram_bytes = -1};
	struct event odd = a_token(9, PHASE_ANSWER, "\"\\\n\x01 \xc3\xa9 \xf0\x9f\x98\x80");
	odd.token.logprob = odd.token.picked.logprob = -INFINITY;
	odd.at_ns = 18446744073709; // not a whole millisecond
	put(&lines, a_turn(0, 0, 2));
	put(&lines, a_message("user", "caf\xc3\xa9"));
	put(&lines, prefill);
	put(&lines, odd);
	put(&lines, a_token(10, PHASE_THINK, ""));
	put(&lines, change);
	put(&lines, ruled);
	put(&lines, all_again);
	put(&lines, read_by);
	put(&lines, memory);
	char wide[600] = "large", name[BUDGET_NAME_BYTES];
	while (strlen(wide) < 400)
		strcat(wide, ",4.n_routed_experts=0-3+4-10");
	struct event based = plain(EV_MASK, wide, 4), bare = plain(EV_MASK, "skip=3+7,norm=masked", 5);
	assert_int_equal(budget_name_of(name, wide, NULL), 0);
	strcpy(based.mask.budget, name);
	strcpy(bare.mask.budget, "skip=3+7,norm=masked");
	put(&lines, based);
	put(&lines, bare);
	assert_non_null(strstr(lines.data, "\"budget\":\"large~"));
	assert_non_null(strstr(lines.data, "\"base\":null,\"edits\":[\"skip=3+7\",\"norm=masked\"]"));
	put(&lines, plain(EV_NOTICE, "a notice", 8));
	put(&lines, plain(EV_ERROR, "an error", 8));
	put(&lines, plain(EV_STOP, NULL, 9));
	int n = 0;
	for (const char *line = lines.data, *end; (end = strchr(line, '\n')); line = end + 1, n++) {
		struct event event;
		struct text again = {0};
		struct error err = {0};
		if (event_read(line, (size_t)(end - line), &event, &err) != 1)
			print_error("%s in %.*s\n", err.text, (int)(end - line), line), assert_true(false);
		put(&again, event);
		assert_int_equal(again.length, end + 1 - line);
		assert_memory_equal(again.data, line, again.length);
		event_release(&event);
		text_free(&again);
	}
	assert_int_equal(n, 16);
	text_free(&lines);
}

static void other_lines_are_told_apart(void **state)
{
	static const char *const broken[] = {
		"",
		"{}",
		"[1]",
		"{\"ev\":\"stop\",\"ms\":1,\"seq\":0,\"tokens\":3}",
		"{\"ev\":\"stop\",\"ms\":-1,\"seq\":0,\"reason\":\"eos\",\"tokens\":3}",
		"{\"ev\":\"stop\",\"ms\":1,\"seq\":0,\"reason\":\"bored\",\"tokens\":3}",
		"{\"ev\":\"error\",\"ms\":1,\"seq\":0,\"text\":7}",
		"{\"ev\":\"error\",\"ms\":1,\"seq\":99999999999,\"text\":\"x\"}",
		("{\"ev\":\"message\",\"ms\":1,\"seq\":0,\"role\":\"a role of many "
		 "letters\",\"text\":\"x\"}"),
		"{\"ev\":\"session\",\"ms\":1,\"seq\":0}",
	};
	struct event event;
	struct error err = {0};
	(void)state;
	for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
		err.text[0] = 0;
		assert_int_equal(event_read(broken[i], strlen(broken[i]), &event, &err), -1);
		assert_true(err.text[0] != 0);
	}
	static const char mask[] = "{\"ev\":\"mask\",\"ms\":1,\"seq\":0,\"edits\":[]}";
	assert_int_equal(event_read(mask, strlen(mask), &event, &err), 1);
	assert_string_equal(event.text, "");
	event_release(&event);
	static const char newer[] = "{\"ev\":\"of another version\",\"ms\":1,\"seq\":0}";
	assert_int_equal(event_read(newer, strlen(newer), &event, &err), 0);
	static const char more[] =
		"{\"ev\":\"stop\",\"new\":[{}],\"ms\":1,\"seq\":0,\"reason\":\"eos\",\"tokens\":3}";
	assert_int_equal(event_read(more, strlen(more), &event, &err), 1);
	assert_int_equal(event.stop.tokens, 3);
	event_release(&event);
}

static void a_file_may_end_anywhere(void **state)
{
	char path[] = "/tmp/elastiscope-session-XXXXXX";
	struct text lines = {0};
	struct session session;
	struct error err = {0};
	(void)state;
	close(mkstemp(path));
	start(&lines);
	put_turn(&lines, 0, 0, "One?", "\n1");
	put_turn(&lines, 1, 2, "Two?", "\n2");
	size_t n_lines = 0, begin = 0;
	for (size_t n = 0; n <= lines.length; n++) {
		if (n > 0 && lines.data[n - 1] == '\n') {
			n_lines++;
			begin = n;
		}
		write_file(path, lines.data, n);
		int result = session_read(path, &session, &err);
		assert_int_equal(result, n_lines > 0 ? 0 : -1);
		if (result) {
			assert_non_null(strstr(err.text, path));
			continue;
		}
		assert_int_equal(session.n_events, n_lines);
		assert_int_equal(session.torn_bytes, n - begin);
		assert_int_equal(session.n_broken, 0);
		session_free(&session);
	}
	assert_int_equal(n_lines, 13);
	unlink(path);
	text_free(&lines);
}

static int depth(const struct session *session)
{
	int *path,
		n = conversation_path(&session->conversation, session->conversation.active, &path, NULL);
	free(path);
	return n;
}

static void turns_are_a_tree(void **state)
{
	char path[] = "/tmp/elastiscope-session-XXXXXX";
	struct text lines = {0}, out = {0};
	struct session session;
	struct error err = {0};
	(void)state;
	close(mkstemp(path));
	start(&lines);
	put(&lines, a_turn(0, 0, 2));
	put(&lines, a_message("system", "Be brief."));
	put(&lines, a_message("user", "One?"));
	put(&lines, a_token(3, PHASE_ANSWER, "1"));
	put(&lines, plain(EV_STOP, NULL, 9));
	put_turn(&lines, 1, 2, "Two?", "\n2");
	put_turn(&lines, 2, 3, NULL, "\nzwei");  // again
	put_turn(&lines, 3, 2, "Three?", "\n3"); // "Two?" was taken back
	text_add(&lines, "nonsense\n{\"ev\":\"newer\",\"ms\":1,\"seq\":0}\n");
	put(&lines, a_turn(4, 4, 9));
	put(&lines, a_message("user", "Four?"));
	put(&lines, a_token(1, PHASE_THINK, "unfin"));
	text_add(&lines, "{\"ev\":\"tok");
	write_file(path, lines.data, lines.length);
	assert_int_equal(session_read(path, &session, &err), 0);
	const struct message *messages = session.conversation.messages;
	assert_int_equal(session.n_turns, 5);
	assert_string_equal(session.conversation.system, "Be brief.");
	assert_int_equal(session.turns[1].user, session.turns[2].user);
	assert_string_equal(messages[session.turns[2].answer].text, "zwei");
	assert_string_equal(messages[session.turns[2].answer].reasoning, "hm");
	assert_int_equal(messages[session.turns[3].user].parent, session.turns[0].answer);
	assert_int_equal(depth(&session), 6);
	assert_true(session.turns[3].over);
	assert_false(session.turns[4].over);
	assert_string_equal(messages[session.conversation.active].reasoning, "unfin");
	assert_string_equal(session.turns[4].system, "Be brief.");
	assert_int_equal(session.n_broken, 1);
	assert_int_equal(session.n_unknown, 1);
	assert_int_equal(session.torn_bytes, 10);
	assert_string_equal(session_last_origin(&session)->hash, "0123456789abcdef");
	assert_int_equal(session_check_hash(&session, "0123456789abcdef", &err), 0);
	assert_int_equal(session_check_hash(&session, "0123456789abcdee", &err), -1);
	assert_non_null(strstr(err.text, "0123456789abcdee"));
	session_markdown(&session, &out);
	assert_non_null(strstr(out.data, "seed 18446744073709551615"));
	assert_non_null(strstr(out.data, "the log ends here"));
	assert_null(strstr(out.data, "zwei"));
	cJSON *json = session_json(&session);
	char *printed = cJSON_PrintUnformatted(json);
	assert_non_null(strstr(printed, "\"seed\":18446744073709551615,"));
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "messages")), 7);
	assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "turns")), 5);
	cJSON_free(printed);
	cJSON_Delete(json);
	text_clear(&out);
	session_csv(&session, &out);
	assert_non_null(strstr(out.data, "\n3,3,7.000000,103,\"\n3\","));
	session_free(&session);
	unlink(path);
	text_free(&lines);
	text_free(&out);
}

static void put_in(struct text *out, int seq, int parent, struct event event)
{
	event.seq = seq;
	if (event.type == EV_TURN)
		event.turn.parent = parent;
	put(out, event);
}

static void a_kept_column_is_the_conversation(void **state)
{
	char path[] = "/tmp/elastiscope-session-XXXXXX";
	struct text lines = {0};
	struct session session;
	(void)state;
	close(mkstemp(path));
	start(&lines);
	for (int id = 0; id < 4; id++) {
		put_in(&lines, 1 + id % 2, id - 2, a_turn(id, id / 2 * 2, 2));
		put_in(&lines, 1 + id % 2, -1, a_message("user", "Beside?"));
		for (int seq = 2; id % 2 && seq >= 1; seq--) {
			put_in(&lines, seq, -1, a_token(3, PHASE_ANSWER, seq == 1 ? "left" : "right"));
			put_in(&lines, seq, -1, plain(EV_STOP, NULL, 9));
		}
	}
	size_t before = lines.length;
	for (int way = 0; way < 3; way++) { // its event; a turn that goes on from it; both
		lines.length = before;
		if (way != 1)
			put(&lines, (struct event){.type = EV_KEPT, .kept.turn = 3});
		if (way != 0)
			put_in(&lines, 0, 3, a_turn(5, 4, 9));
		if (way != 0)
			put(&lines, a_message("user", "On?"));
		write_file(path, lines.data, lines.length);
		assert_int_equal(session_read(path, &session, NULL), 0);
		assert_int_equal(session.n_turns, way ? 3 : 2);
		assert_int_equal(depth(&session), way ? 5 : 4);
		for (int i = 0; i < 2; i++)
			assert_string_equal(session.conversation.messages[session.turns[i].answer].text,
								"right");
		session_free(&session);
	}
	unlink(path);
	text_free(&lines);
}

/* ---- durability ---- */

static uint32_t draw(uint32_t *seed)
{
	*seed = *seed * 1664525u + 1013904223u;
	return *seed >> 8;
}

/* The i-th event of a long session; its time says i. */
static struct event event_number(int i)
{
	struct event event = i % 300 == 0     ? a_turn(i / 300, 0, 0)
						 : i % 300 == 1   ? a_message("user", "a question")
						 : i % 300 == 299 ? plain(EV_STOP, NULL, 0)
										  : a_token(i, PHASE_ANSWER, " word");
	event.at_ns = (uint64_t)i * 1000000;
	return event;
}

static bool is_written_at_once(int i)
{
	return i % 300 < 2 || i % 300 == 299;
}

/* A process that records and says so, an event a byte, until it is killed. */
static pid_t start_writer(const char *path, int *reports)
{
	int ends[2];
	assert_int_equal(pipe(ends), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct session_log *log = session_log_open_file(path, NULL);
		for (int i = 0; log; i++) {
			struct event event = event_number(i);
			if (session_log_record(log, &event, NULL) || write(ends[1], "", 1) != 1)
				break;
		}
		_exit(1);
	}
	close(ends[1]);
	*reports = ends[0];
	return pid;
}

struct whole {
	int n;
};

/* Lines come in order and none is missing. */
static int see_line(void *user, const char *line, size_t length)
{
	struct whole *whole = user;
	struct event event;
	assert_int_equal(event_read(line, length, &event, NULL), 1);
	assert_true(event.at_ns == (uint64_t)whole->n * 1000000);
	whole->n++;
	event_release(&event);
	return 0;
}

static void a_killed_writer_loses_one_batch_at_most(void **state)
{
	char folder[] = "/tmp/elastiscope-session-XXXXXX", path[64];
	uint32_t seed = 4;
	int torn_files = 0, lost = 0;
	(void)state;
	assert_non_null(mkdtemp(folder));
	for (int run = 0; run < N_KILLS; run++) {
		char byte;
		int reports, status, n_reported = 1 + (int)(draw(&seed) % 700);
		struct whole whole = {0};
		size_t torn;
		snprintf(path, sizeof path, "%s/%d", folder, run);
		pid_t pid = start_writer(path, &reports);
		for (int i = 0; i < n_reported; i++)
			assert_int_equal(read(reports, &byte, 1), 1);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		close(reports);
		assert_true(session_log_read(path, see_line, &whole, &torn, NULL) >= 0);
		int certain = n_reported;
		while (certain > 0 && !is_written_at_once(certain - 1))
			certain--;
		assert_true(whole.n >= certain);
		torn_files += torn > 0;
		lost += whole.n < n_reported ? n_reported - whole.n : 0;
		unlink(path);
	}
	rmdir(folder);
	print_message("%d kills: %d torn last lines, %.1f tokens lost a kill\n", N_KILLS, torn_files,
				  (double)lost / N_KILLS);
}

/* The file may not grow: as on a full disk, in the middle of a line, for good. */
static void a_full_disk_keeps_whole_lines(void **state)
{
	uint32_t seed = 9;
	struct rlimit before;
	(void)state;
	getrlimit(RLIMIT_FSIZE, &before);
	signal(SIGXFSZ, SIG_IGN);
	for (int run = 0; run < 50; run++) {
		char path[] = "/tmp/elastiscope-session-XXXXXX";
		struct rlimit small = before;
		struct whole whole = {0};
		size_t torn;
		bool failed = false;
		close(mkstemp(path));
		struct session_log *log = session_log_open_file(path, NULL);
		small.rlim_cur = 1 + draw(&seed) % 40000;
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
		for (int i = 0; i < 400; i++) {
			struct event event = event_number(i);
			failed |= session_log_record(log, &event, NULL) != 0;
		}
		session_log_close(log);
		setrlimit(RLIMIT_FSIZE, &before);
		assert_true(failed);
		assert_true(session_log_read(path, see_line, &whole, &torn, NULL) >= 0);
		unlink(path);
	}
}

/* ---- a session of the demo ---- */

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
	for (const struct event *event; (event = engine_wait(engine, WAIT_MS));) {
		assert_int_not_equal(event->type, EV_ERROR);
		if (event->type == EV_OPENED) {
			*model = model_retain(event->opened.model);
			return engine;
		}
	}
	assert_true(false);
	return NULL;
}

/* Asks, and at the given token of the answer does what a user would do between two tokens. */
static void converse(struct engine *engine, struct conversation *conversation, const char *text,
					 struct turn_settings settings, int at_token, const struct request *deed)
{
	struct reply reply = {0};
	struct request step = {.type = REQUEST_STEP}, pause = {.type = REQUEST_PAUSE, .value = 1};
	int n = 0;
	if (text)
		assert_true(conversation_append(conversation, CHAT_USER,
										(struct chat_string){text, strlen(text)},
										(struct chat_string){0}, NULL) >= 0);
	struct request request = {
		.type = REQUEST_TURN, .conversation = conversation, .settings = settings};
	assert_int_equal(engine_submit(engine, &pause, NULL), 0);
	assert_int_equal(engine_submit(engine, &request, NULL), 0);
	assert_int_equal(engine_submit(engine, &step, NULL), 0);
	for (const struct event *event; !reply.done && (event = engine_wait(engine, WAIT_MS));) {
		reply_event(&reply, event);
		if (event->type != EV_TOKEN)
			continue;
		if (++n == at_token)
			assert_int_equal(engine_submit(engine, deed, NULL), 0);
		assert_int_equal(engine_submit(engine, &step, NULL), 0);
	}
	assert_true(reply.done && !reply.failed);
	assert_true(conversation_append(
					conversation, CHAT_ASSISTANT,
					(struct chat_string){reply.answer.data, reply.answer.length},
					(struct chat_string){reply.reasoning.data, reply.reasoning.length}, NULL) >= 0);
	reply_free(&reply);
}

/* Sampled, think-small answer-large, budgets changed by hand, thoughts ended, a limit, a stop, a
 * retry. */
static void record_demo(const char *path)
{
	struct turn_settings settings = {
		.sampling = {.seed = 11, .temperature = 1.5f, .top_p = 1, .forced = -1},
		.budget = "large",
		.think = "small",
		.answer = "large",
		.policy = true,
		.thinking = true};
	struct session_log *log = session_log_open_file(path, NULL);
	struct conversation conversation;
	struct model *model;
	struct engine *engine = open_demo(log, &model);
	conversation_init(&conversation);
	assert_int_equal(conversation_set_system(&conversation, "Be brief.", NULL), 0);
	converse(engine, &conversation, "What is 4827 + 396?", settings, 0, NULL);
	settings.policy = false;
	struct turn_settings other = settings;
	strcpy(other.budget, "medium");
	other.handoff = HANDOFF_CARRY;
	converse(engine, &conversation, "And 12 + 30?", settings, 5,
			 &(struct request){.type = REQUEST_SETTINGS, .settings = other});
	conversation_undo(&conversation);
	conversation_select(&conversation, 2); // the same question again
	settings.sampling.seed = 12;
	converse(engine, &conversation, NULL, settings, 6,
			 &(struct request){.type = REQUEST_END_THINKING});
	settings.think_limit = 4;
	converse(engine, &conversation, "Sort: d a c b", settings, 9,
			 &(struct request){.type = REQUEST_STOP});
	engine_close(engine);
	model_release(model);
	session_log_close(log);
	conversation_free(&conversation);
}

static void replayed_events_are_the_recorded_ones(const struct session *session,
												  const struct text *file)
{
	struct replay_options wanted = {.session = session, .speed = 0};
	struct engine_options options = {.record_user = &wanted};
	struct text again = {0};
	struct error err = {0};
	struct engine *engine = engine_replay_open(&options, &err);
	assert_non_null(engine);
	assert_null(engine_wait(engine, 0));
	assert_int_equal(engine_submit(engine, &(struct request){.type = REQUEST_TURN}, &err), -1);
	assert_int_equal(engine_submit(engine, &(struct request){.type = REQUEST_OPEN}, &err), 0);
	for (size_t i = 0; i < session->n_events; i++) {
		const struct event *event = engine_wait(engine, WAIT_MS);
		assert_non_null(event);
		put(&again, *event);
		if (event->type == EV_TOKEN) {
			struct gauges gauges;
			engine->table->gauges(engine, &gauges);
			assert_string_equal(gauges.budget, event->token.budget);
		}
	}
	assert_int_equal(again.length, file->length);
	assert_memory_equal(again.data, file->data, file->length);
	const struct event *over = engine_wait(engine, WAIT_MS);
	assert_int_equal(over->type, EV_NOTICE);
	assert_true(engine_replay_over(engine));
	assert_null(engine_wait(engine, 0));
	engine_close(engine);
	text_free(&again);
}

/* Another id in the n-th token of the file. */
static void doctor(struct text *file, int n)
{
	char *at = file->data;
	for (int i = 0; i <= n; i++) {
		at = strstr(at, "{\"ev\":\"token\"");
		assert_non_null(at);
		at++;
	}
	at = strstr(at, "\"id\":") + 5;
	*at = *at == '1' ? '2' : '1';
}

static void a_demo_session_is_replayed_and_verified(void **state)
{
	char path[] = "/tmp/elastiscope-session-XXXXXX";
	struct session session;
	struct verify_result result;
	struct error err = {0};
	struct text file = {0};
	struct model *model;
	(void)state;
	close(mkstemp(path));
	record_demo(path);
	assert_int_equal(file_read(path, 1 << 24, &file, &err), 0);
	assert_int_equal(session_read(path, &session, &err), 0);
	assert_int_equal(session.n_turns, 4);
	assert_int_equal(session.n_broken + session.n_unknown, 0);
	assert_int_equal(session.turns[1].user, session.turns[2].user);
	assert_int_equal(session.turns[3].reply.reason, STOP_STOPPED);
	replayed_events_are_the_recorded_ones(&session, &file);
	struct engine *engine = open_demo(NULL, &model);
	if (session_verify(&session, engine, model->hash, NULL, NULL, &result, &err))
		print_error("%s\n", err.text), assert_true(false);
	if (result.differs)
		print_error("turn %d at %d: %d %s, now %d %s\n", result.turn, result.at, result.recorded.id,
					result.recorded.budget, result.now.id, result.now.budget);
	assert_false(result.differs);
	assert_int_equal(result.n_turns, 4);
	int n_tokens = result.n_tokens, wanted = 0;
	for (size_t i = 0; i < session.n_events; i++)
		wanted += session.events[i].type == EV_TOKEN;
	assert_int_equal(n_tokens, wanted);
	assert_true(result.largest_change < 1e-6);
	assert_string_equal(result.rung, result.recorded_rung);
	verify_free(&result);
	assert_int_equal(session_verify(&session, engine, "another hash", NULL, NULL, &result, &err),
					 0);
	assert_int_equal(result.n_left_out, 4);
	assert_int_equal(result.n_turns, 0);
	verify_free(&result);
	session_free(&session);

	struct text branch = {0}; // its first turn began from more than its messages
	text_append(&branch, file.data, file.length);
	char *tokens = strstr(strstr(branch.data, "\"ev\":\"prefill\""), "\"tokens\":") + 9;
	*tokens = *tokens == '9' ? '8' : (char)(*tokens + 1);
	write_file(path, branch.data, branch.length);
	assert_int_equal(session_read(path, &session, &err), 0);
	assert_int_equal(session_verify(&session, engine, model->hash, NULL, NULL, &result, &err), 0);
	assert_false(result.differs);
	assert_int_equal(result.n_left_out, 1);
	assert_int_equal(result.n_turns, 3);
	verify_free(&result);
	session_free(&session);
	text_free(&branch);

	for (int nth = 0; nth < n_tokens; nth += n_tokens / 3) {
		struct text doctored = {0};
		text_append(&doctored, file.data, file.length);
		doctor(&doctored, nth);
		write_file(path, doctored.data, doctored.length);
		assert_int_equal(session_read(path, &session, &err), 0);
		assert_int_equal(session_verify(&session, engine, model->hash, NULL, NULL, &result, &err),
						 0);
		assert_true(result.differs);
		assert_int_equal(result.n_tokens, nth);
		assert_int_not_equal(result.recorded.id, result.now.id);
		verify_free(&result);
		session_free(&session);
		text_free(&doctored);
	}
	engine_close(engine);
	model_release(model);
	text_free(&file);
	unlink(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_event_comes_back),
		cmocka_unit_test(other_lines_are_told_apart),
		cmocka_unit_test(a_file_may_end_anywhere),
		cmocka_unit_test(turns_are_a_tree),
		cmocka_unit_test(a_kept_column_is_the_conversation),
		cmocka_unit_test(a_killed_writer_loses_one_batch_at_most),
		cmocka_unit_test(a_full_disk_keeps_whole_lines),
		cmocka_unit_test(a_demo_session_is_replayed_and_verified),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
