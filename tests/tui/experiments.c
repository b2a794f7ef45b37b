/*
 * Compare and Tokens with the scripted engine: exact tokens and times on several sequences, drawn
 * without a terminal and compared with tests/tui/screens/.
 */
#include "core/job.h"
#include "tests/tui/fixture.h"
#include "tests/unit/folder.h"
#include "tui/pane_compare.h"
#include "tui/pane_importance.h"
#include "tui/status.h"
#include <poll.h>
#include <unistd.h>

/* One written token of a sequence. */
struct said {
	const char *text; // "</think>" ends the thoughts
	int32_t id;
	uint64_t took_ns;
};

/* What a branch begins with, as the engine tells it. */
static void give(struct fixture *f, const struct said *said, int n)
{
	enum phase phase = PHASE_THINK;
	int at = (int)f->talk.tape.prompt;
	struct event event = {.type = EV_TURN, .seq = 0};
	event.turn.id = 1;
	event.turn.settings.thinking = true;
	script_event(f->script, &event);
	for (int i = 0; i < n; i++) {
		event = (struct event){.type = EV_TOKEN, .seq = 0, .text = said[i].text};
		event.length = strlen(event.text);
		event.token.at = at + i;
		event.token.id = said[i].id;
		event.token.phase = phase;
		event.token.given = true;
		script_event(f->script, &event);
	}
}

/* began: EV_TURN has been told. */
static void say_on(struct fixture *f, int seq, const char *budget, int at, const struct said *said,
				   int n, bool began)
{
	enum phase phase = PHASE_THINK;
	struct event event = {.type = EV_TURN, .seq = seq};
	struct turn_settings settings = f->talk.settings;
	settings.thinking = true;
	event.turn.settings = settings;
	if (!began)
		script_event(f->script, &event);
	event = (struct event){.type = EV_PREFILL, .seq = seq};
	event.prefill.tokens = at;
	event.prefill.took_ns = 4000000;
	snprintf(event.prefill.budget, sizeof event.prefill.budget, "%s", budget);
	script_event(f->script, &event);
	for (int i = 0; i < n; i++) {
		bool ends = strcmp(said[i].text, "</think>") == 0;
		event = (struct event){.type = EV_TOKEN, .seq = seq, .at_ns = (uint64_t)(i + 5) * 1000000};
		event.text = ends ? "" : said[i].text;
		event.length = strlen(event.text);
		event.token.at = at + i;
		event.token.id = event.token.picked.id = said[i].id;
		event.token.took_ns = i == 0 ? 0 : said[i].took_ns;
		event.token.phase = phase;
		event.token.thinking_ends = ends;
		event.token.picked.logprob = event.token.logprob = -0.25f;
		event.token.picked.entropy = 1.5f;
		for (int k = 0; k < N_ALTERNATIVES; k++) {
			event.token.picked.top[k].id = said[i].id + k;
			event.token.picked.top[k].logprob = -0.25f - (float)k;
		}
		snprintf(event.token.budget, sizeof event.token.budget, "%s", budget);
		script_event(f->script, &event);
		if (ends)
			phase = PHASE_ANSWER;
	}
	event = (struct event){.type = EV_STOP, .seq = seq};
	event.stop.tokens = n;
	event.stop.first_ns = 12000000;
	script_event(f->script, &event);
}

static void say(struct fixture *f, int seq, const char *budget, int at, const struct said *said,
				int n)
{
	say_on(f, seq, budget, at, said, n, false);
}

static const struct said right[] = {
	{"Swap", 310, 0},          {", negative.", 311, 4000000},  {"\n88 - 49", 312, 4000000},
	{"</think>", 13, 4000000}, {"\n49 - 88 = ", 314, 4000000}, {"-39.", 315, 4000000}};
static const struct said wrong[] = {{"Swap", 310, 0},
									{", easy.", 321, 2000000},
									{"</think>", 13, 2000000},
									{"\n49 - 88 = ", 314, 2000000},
									{"11.", 325, 2000000}};

#define N(array) ((int)(sizeof array / sizeof *array))

static const struct tui_options no_options = {0};

static void begin(struct fixture *f, struct compare *compare, int n)
{
	static const char *const specs[] = {"large", "small", "medium"};
	struct compare_plan plan = {.specs = specs, .n = n};
	OK(compare_open(compare, &f->talk, &plan, &no_options, &err));
}

static void tell(struct fixture *f, struct pane *pane)
{
	for (const struct event *event; (event = engine_next(f->talk.engine));) {
		talk_event(&f->talk, event);
		pane->table->event(pane, event);
	}
}

static struct pane *open_compare(struct fixture *f, int n)
{
	struct pane *pane = pane_compare_open(&f->talk, NULL);
	assert_non_null(pane);
	begin(f, pane_compare_of(pane), n);
	OK(pane->more->send(pane, "Calculate 49 - 88.", 18, &err));
	assert_true(pane->more->busy(pane));
	for (int i = 0; i < n; i++)
		say(f, i + 1,
			i == 0   ? "large"
			: i == 1 ? "small"
					 : "medium",
			(int)pane_compare_of(pane)->columns[i].talk.tape.n, i == 1 ? wrong : right,
			i == 1 ? N(wrong) : N(right));
	struct event memory = {.type = EV_MEMORY};
	memory.memory = (struct memory_use){.weights_bytes = 4700000, .n_sequences = n + 1};
	for (int i = 0; i <= n; i++)
		memory.memory.sequences[i] = (struct sequence_bytes){1048576, 12288, 98304, 110592};
	script_event(f->script, &memory);
	tell(f, pane);
	assert_true(pane->more->busy(pane) == (f->talk.jobs != NULL)); // only the comparison is left
	return pane;
}

static void test_columns(void **state)
{
	(void)state;
	static const struct look looks[] = {
		{"compare-80x20", 20, 80, "default", ""},  {"compare-120x36", 36, 120, "default", "l"},
		{"compare-50x10", 10, 50, "mono", "hd"},   {"compare-40x5", 5, 40, "ascii", "d"},
		{"compare-80x12", 12, 80, "ascii", "gjj"},
	};
	struct fixture f;
	open_model(&f, "../demo", NULL, false);
	struct pane *pane = open_compare(&f, 3);
	for (int i = 0; i < N(looks); i++)
		expect_pane(&f, pane, &looks[i]);
	struct compare *compare = pane_compare_of(pane);
	struct compare_place own, base;
	assert_true(compare_divergence(compare, 1, &own, &base));
	assert_int_equal(own.token, 1);
	assert_int_equal(base.token, 1);
	assert_false(compare_divergence(compare, 2, &own, &base));
	pane->table->close(pane);
	close_model(&f);
}

/* Requests go to sequences 1.., a kept column becomes the conversation, history included. */
static void test_keep(void **state)
{
	(void)state;
	struct error wrong_column = {0};
	struct fixture f;
	open_model(&f, "../demo", NULL, false);
	struct pane *pane = open_compare(&f, 2);
	int turns = 0;
	for (size_t i = 0; i < script_n_requests(f.script); i++) {
		const struct request *request = script_request(f.script, i);
		if (request->type != REQUEST_TURN)
			continue;
		turns++;
		assert_int_equal(request->seq, turns);
		assert_string_equal(request->settings.budget, turns == 1 ? "large" : "small");
		assert_int_equal(request->conversation->n_messages, 1);
	}
	assert_int_equal(turns, 2);
	assert_int_equal(f.talk.conversation.n_messages, 0);
	assert_int_equal(compare_keep(pane_compare_of(pane), 2, &f.talk, &wrong_column), -1);
	OK(compare_keep(pane_compare_of(pane), 1, &f.talk, &err));
	const struct request *last = script_request(f.script, script_n_requests(f.script) - 4);
	assert_int_equal(last->type, REQUEST_FORK);
	assert_int_equal(last->seq, 0);
	assert_int_equal((int)last->value, 2);
	assert_string_equal(f.talk.settings.budget, "small");
	assert_int_equal(f.talk.conversation.n_messages, 2);
	assert_string_equal(f.talk.conversation.messages[1].text, "49 - 88 = 11.");
	assert_string_equal(f.talk.conversation.messages[1].reasoning, "Swap, easy.");
	assert_int_equal(f.talk.transcript.n_entries, 3);
	assert_int_equal(f.talk.tape.n, f.talk.tape.prompt + N(wrong));
	begin(&f, pane_compare_of(pane), 2); // now with a history, forked
	last = script_request(f.script, script_n_requests(f.script) - 1);
	assert_int_equal(last->type, REQUEST_FORK);
	assert_int_equal(last->seq, 2);
	assert_int_equal(pane_compare_of(pane)->columns[1].talk.conversation.n_messages, 2);
	pane->table->close(pane);
	close_model(&f);
}

/* A turn of the conversation itself, behind a prompt as long as the rendered one. */
static void play_conversation(struct fixture *f)
{
	OK(talk_send(&f->talk, "Calculate 49 - 88.", 18, &err));
	say(f, 0, "large", (int)f->talk.tape.n, right, N(right));
	drain(f);
}

static void test_tokens(void **state)
{
	(void)state;
	static const struct look looks[] = {
		{"tokens-80x20", 20, 80, "default", "hh"},
		{"tokens-120x36", 36, 120, "default", "g"},
		{"tokens-50x12", 12, 50, "mono", "hhhj"},
		{"tokens-40x5", 5, 40, "ascii", "h"},
	};
	struct fixture f;
	open_model(&f, "../demo", NULL, false);
	struct pane *pane = pane_tokens_open(&f.talk, NULL);
	play_conversation(&f);
	assert_true(f.talk.tape.known);
	for (int i = 0; i < N(looks); i++) {
		press(pane, "G");
		expect_pane(&f, pane, &looks[i]);
	}
	pane->table->close(pane);
	close_model(&f);
}

static void finish_jobs(struct fixture *f, struct pane *pane)
{
	struct pollfd ready = {.fd = jobs_fd(f->talk.jobs), .events = POLLIN};
	while (pane->more->busy(pane)) {
		assert_int_equal(poll(&ready, 1, 30000), 1);
		for (struct job *job; (job = jobs_next(f->talk.jobs));)
			assert_true(pane->more->job(pane, job));
	}
}

/* Presses, draws and wants these words on the screen, in this order. */
static void expect_words(struct fixture *f, struct pane *pane, int rows, int columns,
						 const char *keys, const char *const *words)
{
	struct text text = {0};
	open_screen(f, rows, columns, "ascii");
	draw(f, pane);
	press(pane, keys);
	draw(f, pane);
	screen_text(&f->screen, &text);
	const char *at = text_chars(&text);
	for (; *words; words++) {
		const char *found = strstr(at, *words);
		if (!found)
			fail_msg("'%s' is not in\n%s", *words, text_chars(&text));
		at = found;
	}
	text_free(&text);
	screen_close(&f->screen);
	theme_free(&f->theme);
}

/* When the columns have answered, their budgets are compared on what the first one wrote. */
static void test_fidelity(void **state)
{
	(void)state;
	static const char *const kl[] = {
		"small against large, 6 tokens", "KL mean", "same top", "at", "context", ">", NULL};
	static const char *const layers[] = {
		"Where small differs from large", "distance", "leak", "MoE", "norm", NULL};
	static const char *const few[] = {"small against large", "at", NULL};
	struct fixture f;
	struct text file = {0};
	open_model(&f, "../demo", NULL, false);
	f.talk.jobs = jobs_open(NULL);
	struct pane *pane = open_compare(&f, 2);
	finish_jobs(&f, pane);
	expect_words(&f, pane, 20, 80, "v", kl);
	expect_words(&f, pane, 20, 80, "vjjk", layers);
	expect_words(&f, pane, 5, 40, "vvvvsjG", few);
	static const int sizes[][2] = {{1, 1}, {1, 80}, {2, 3}, {5, 9}, {10, 40}, {60, 250}};
	for (int i = 0; i < N(sizes) * 5; i++) { // every section finds its way at any size
		const int *size = sizes[i / 5];
		open_screen(&f, size[0], size[1], i % 2 ? "default" : "ascii");
		draw(&f, pane);
		press(pane, "jGgslhv");
		draw(&f, pane);
		screen_close(&f.screen);
		theme_free(&f.theme);
	}
	text_add(&file, "Calculate 49 - 88.");
	OK(pane_compare_text(pane, &file, &err));
	finish_jobs(&f, pane);
	expect_words(&f, pane, 20, 80, "", (const char *const[]){"small against large", "KL", NULL});
	text_free(&file);
	pane->table->close(pane);
	jobs_close(f.talk.jobs);
	f.talk.jobs = NULL;
	close_model(&f);
}

/* Draws, and takes what jobs have done, until nothing is left to do. */
static void settle(struct fixture *f, struct pane *pane)
{
	struct pollfd ready = {.fd = jobs_fd(f->talk.jobs), .events = POLLIN};
	open_screen(f, 20, 80, "ascii");
	for (draw(f, pane); pane->more->busy(pane); draw(f, pane)) {
		assert_int_equal(poll(&ready, 1, 30000), 1);
		for (struct job *job; (job = jobs_next(f->talk.jobs));)
			if (!pane->more->job(pane, job)) // one that was stopped is nobody's
				job->free(job);
	}
	screen_close(&f->screen);
	theme_free(&f->theme);
}

/* Norms of weights in a job: the same curve as at once; stopped, it waits for Enter. */
static void test_norms(void **state)
{
	(void)state;
	struct fixture f;
	static const char *const stopped[] = {"Stopped.", NULL};
	static const char *const map[] = {"0 M", "6 M", "of the layer's largest (derived)", NULL};
	static const char *const matrix[] = {"1 stored", "2 weights", "inverted", NULL};
	static const char *const there[] = {"L2 norm of weights (derived)", "Spearman", NULL};
	open_model(&f, "golden/nest-tiny", NULL, false);
	f.talk.jobs = jobs_open(NULL);
	struct pane *pane = pane_importance_open(&f.talk, NULL);
	((struct pane_importance *)pane)->work.at_once_bytes = 0;
	open_screen(&f, 20, 80, "ascii");
	draw(&f, pane);
	screen_close(&f.screen);
	theme_free(&f.theme);
	assert_true(pane->more->busy(pane));
	assert_true(pane->more->stop(pane));
	assert_false(pane->more->busy(pane));
	expect_words(&f, pane, 20, 80, "", stopped);
	press(pane, "\r");
	settle(&f, pane);
	expect_words(&f, pane, 20, 80, "", there);
	press(pane, "jv"); // a map has a job a layer
	settle(&f, pane);
	expect_words(&f, pane, 20, 80, "", map);
	press(pane, "a");
	settle(&f, pane);
	expect_words(&f, pane, 20, 80, "", matrix);
	pane->table->close(pane);
	jobs_close(f.talk.jobs);
	f.talk.jobs = NULL;
	close_model(&f);
}

/* A text is measured behind the screen; then it is the source, and an order of the matrix. */
static void test_measured(void **state)
{
	(void)state;
	static const char *const curve[] = {"mean abs (measured: a.txt)", "NOT in order", "medium",
										NULL};
	static const char *const matrix[] = {"1 stored", "2 weights", "3 file",
										 "4 a.txt",  "1.000",     NULL};
	static const char *const own[] = {"mean abs (file)", "in order", NULL};
	static const char text[] = "What is 4827 + 396? Sort 3, 1 and 2.\n";
	struct folder folder;
	struct error none = {0};
	struct fixture f;
	folder_make(&folder);
	folder_write(&folder, "a.txt", text, strlen(text));
	setenv("XDG_CACHE_HOME", folder.path, 1);
	open_model(&f, "../demo", NULL, false);
	f.talk.jobs = jobs_open(NULL);
	struct pane *pane = pane_importance_open(&f.talk, NULL);
	struct pane_importance *p = (struct pane_importance *)pane;
	assert_int_equal(pane_importance_calibrate(pane, "", &none), -1);
	assert_int_equal(pane_importance_scores(pane, "cache", &none), -1);
	assert_non_null(strstr(none.text, "nothing was measured on demo"));
	OK(pane_importance_calibrate(pane, folder_file(&folder, "none.txt"), &err));
	finish_jobs(&f, pane);
	assert_non_null(strstr(pane->message, "none.txt: No such file"));
	OK(pane_importance_calibrate(pane, folder_file(&folder, "a.txt"), &err));
	finish_jobs(&f, pane);
	assert_non_null(strstr(pane->message, "measured on a.txt"));
	expect_words(&f, pane, 20, 80, "", curve);
	expect_words(&f, pane, 20, 80, "a", matrix);
	expect_words(&f, pane, 20, 80, "ao", own);
	OK(pane_importance_scores(pane, "off", &err));
	OK(pane_importance_scores(pane, "cache", &err));
	OK(pane_importance_scores(pane, "cache cache", &err));
	assert_int_equal(p->work.n_sources, 2);
	expect_words(&f, pane, 24, 120, "ja", (const char *const[]){"5 a.txt", "1.000", NULL});
	assert_int_equal(pane_importance_scores(pane, folder_file(&folder, "a.txt"), &none), -1);
	assert_int_equal(p->work.n_sources, 2); // those before stay
	pane->table->close(pane);
	jobs_close(f.talk.jobs);
	f.talk.jobs = NULL;
	close_model(&f);
	struct folder inside = folder;
	strncat(inside.path, "/elastiscope/importance", sizeof inside.path - strlen(inside.path) - 1);
	folder_remove(&inside);
	*strrchr(inside.path, '/') = '\0';
	folder_remove(&inside);
	folder_remove(&folder);
}

static void test_lab(void **state)
{
	(void)state;
	static const char *const words[] = {
		"Handoff small > large before token 5", "carry", "reprefill", "cosine", "repair:N", NULL};
	static const char *const wide[] = {"Handoff", "Cosine of the two states", "Mamba", NULL};
	struct error none = {0};
	struct fixture f;
	open_model(&f, "../demo", NULL, false);
	f.talk.jobs = jobs_open(NULL);
	struct pane *pane = pane_compare_open(&f.talk, NULL);
	assert_int_equal(pane_compare_lab(pane, NULL, NULL, 0, &none), -1);
	play_conversation(&f);
	assert_int_equal(pane_compare_lab(pane, NULL, NULL, 0, &none), -1);
	assert_non_null(strstr(none.text, "no budget has changed"));
	assert_int_equal(pane_compare_lab(pane, "small", "huge", 5, &none), -1);
	assert_int_equal(pane_compare_lab(pane, "small", "large", 500, &none), -1);
	OK(pane_compare_lab(pane, "small", "large", 5, &err));
	finish_jobs(&f, pane);
	expect_words(&f, pane, 20, 80, "", words);
	expect_words(&f, pane, 30, 120, "jjkg", wide);
	f.talk.lab = true; // a change of budget asks by itself
	struct event event = {.type = EV_SWITCH};
	strcpy(event.change.from, "large");
	strcpy(event.change.to, "medium");
	event.change.at = (int)f.talk.tape.n - 1;
	pane->table->event(pane, &event);
	assert_true(pane->more->busy(pane));
	assert_true(pane->more->stop(pane));
	assert_false(pane->more->busy(pane));
	pane->table->close(pane);
	jobs_close(f.talk.jobs);
	f.talk.jobs = NULL;
	close_model(&f);
}

/* What every budget says: computed in the background, the same numbers on every machine up to what
 * is printed. */
/* A job before all others, that runs until a byte comes: what waits behind it stays at 0 %. */
struct gate {
	struct job job;
	int fds[2];
};

static int run_gate(struct job *job, struct error *err)
{
	char byte;
	(void)err;
	return read(((struct gate *)job)->fds[0], &byte, 1) == 1 ? 0 : -1;
}

static void free_gate(struct job *job)
{
	close(((struct gate *)job)->fds[0]);
	close(((struct gate *)job)->fds[1]);
}

static void test_outlook(void **state)
{
	(void)state;
	struct gate gate = {.job = {.name = "gate", .run = run_gate, .free = free_gate}};
	static const struct look before = {"tokens-waiting", 16, 80, "default", ""};
	struct fixture f;
	open_model(&f, "../demo", NULL, false);
	f.talk.jobs = jobs_open(NULL);
	assert_non_null(f.talk.jobs);
	assert_int_equal(pipe(gate.fds), 0);
	jobs_submit(f.talk.jobs, &gate.job);
	struct pane *pane = pane_tokens_open(&f.talk, NULL);
	play_conversation(&f);
	expect_pane(&f, pane, &before); // asks
	assert_true(pane->more->busy(pane));
	assert_int_equal(write(gate.fds[1], "", 1), 1);
	settle(&f, pane);
	expect_words(&f, pane, 16, 120, "", (const char *const[]){"every budget", "s small #", NULL});
	pane->table->close(pane);
	jobs_close(f.talk.jobs);
	f.talk.jobs = NULL;
	close_model(&f);
}

/* Enter on an alternative: the ids go to the engine, the text before it stays, both ways can be
 * walked. */
static void test_branch(void **state)
{
	(void)state;
	static const struct look look = {"tokens-branches", 20, 80, "default", ""};
	static const struct said rest[] = {{", so.", 330, 0}, {"</think>", 13, 0}, {"\n-39", 331, 0}};
	struct error wrong_place = {0};
	struct fixture f;
	open_model(&f, "../demo", NULL, false);
	struct pane *pane = pane_tokens_open(&f.talk, NULL);
	play_conversation(&f);
	int at = (int)f.talk.tape.prompt + 1;
	open_screen(&f, 20, 80, "default");
	draw(&f, pane);
	press(pane, "hhhhj\r");
	char wanted[64];
	snprintf(wanted, sizeof wanted, "branch %d 312 large", at);
	assert_string_equal(pane->command, wanted);
	pane->command[0] = 0;
	screen_close(&f.screen);
	theme_free(&f.theme);
	assert_int_equal(talk_branch(&f.talk, 0, 312, "large", &wrong_place), -1);
	assert_int_equal(talk_walk_branches(&f.talk, WALK_NEXT, &wrong_place), -1);
	OK(talk_branch(&f.talk, at, 312, "small", &err));
	const struct request *request = script_request(f.script, script_n_requests(f.script) - 1);
	assert_int_equal(request->type, REQUEST_TURN);
	assert_int_equal(request->n_tokens, at + 1);
	assert_int_equal(request->tokens[at - 1], 310);
	assert_int_equal(request->tokens[at], 312);
	assert_string_equal(request->settings.budget, "small");
	assert_int_equal(request->n_prompt, at - 1);
	assert_true(request->branched);
	assert_int_equal(request->left, 0);
	static const struct said given[] = {{"Swap", 310, 0}, {", is", 312, 0}};
	give(&f, given, N(given));
	say_on(&f, 0, "small", at + 1, rest, N(rest), true);
	drain(&f);
	assert_int_equal(f.talk.tape.tokens[at - 1].writer, 0); // it stays large's
	assert_int_equal(f.talk.tape.tokens[at].writer, 2);
	assert_int_equal(f.talk.conversation.n_messages, 3); // the two answers are siblings
	assert_int_equal(f.talk.conversation.messages[2].parent, 0);
	assert_string_equal(f.talk.conversation.messages[2].text, "-39");
	assert_string_equal(f.talk.conversation.messages[2].reasoning, "Swap, is, so.");
	expect_pane(&f, pane, &look);
	OK(talk_walk_branches(&f.talk, WALK_PARENT, &err));
	assert_int_equal(f.talk.conversation.active, 1);
	assert_int_equal(f.talk.tape.tokens[at].id, 311);
	OK(talk_walk_branches(&f.talk, WALK_NEXT, &err));
	assert_int_equal(f.talk.conversation.active, 2);
	assert_int_equal(f.talk.tape.tokens[at].id, 312);
	pane->table->close(pane);
	close_model(&f);
}

/* Every way of the conversation, a line each, the shown one with a mark. */
static void expect_tree(const struct talk *talk, const char *wanted)
{
	const struct branches *branches = &talk->branches;
	struct text text = {0};
	size_t *order = branches_order(branches);
	assert_non_null(order);
	for (size_t i = 0; i < branches->n; i++) {
		text_add(&text, order[i] == branches->active ? ">" : " ");
		branches_line(branches, order[i], true, &text);
		text_add(&text, "\n");
	}
	if (strcmp(text_chars(&text), wanted) != 0)
		fail_msg("the tree is\n%s", text_chars(&text));
	text_free(&text);
	free(order);
}

static void answer(struct fixture *f)
{
	say(f, 0, "large", (int)f->talk.tape.n, right, N(right));
	drain(f);
}

/* :retry, :undo and what follows are ways of one tree; walking goes through it, undo and redo
 * through what was shown. */
static void test_tree(void **state)
{
	(void)state;
	struct fixture f;
	struct error nothing = {0};
	open_model(&f, "../demo", NULL, false);
	play_conversation(&f);
	f.talk.settings.sampling.seed = 5;
	f.talk.seed_fixed = true;
	OK(talk_retry(&f.talk, &err));
	answer(&f);
	OK(talk_send(&f.talk, "Go on.", 6, &err));
	answer(&f);
	OK(talk_undo(&f.talk, NULL, &err));
	assert_true(f.talk.branches.apart);
	expect_tree(&f.talk, " 1 the first way: Calculate 49 - 88.\n"
						 ">2 `- again, seed 5: Swap, negative. 88 - 49 49 - 88 = -39.\n");
	OK(talk_walk_branches(&f.talk, WALK_UNDO, &err)); // what :undo took back is there again
	assert_int_equal(f.talk.transcript.entries[f.talk.transcript.n_entries - 3].kind, ENTRY_USER);
	assert_false(f.talk.branches.apart);
	OK(talk_undo(&f.talk, NULL, &err));
	OK(talk_send(&f.talk, "Why\nis that?", 12, &err));
	answer(&f);
	OK(talk_show_branch(&f.talk, 1, &err));
	OK(talk_retry(&f.talk, &err));
	answer(&f);
	expect_tree(&f.talk, " 1 the first way: Calculate 49 - 88.\n"
						 " 2 |- again, seed 5: Swap, negative. 88 - 49 49 - 88 = -39.\n"
						 " 3 | `- another message: Why is that?\n"
						 ">4 `- again, seed 5: Swap, negative. 88 - 49 49 - 88 = -39.\n");
	static const struct {
		enum branch_walk walk;
		size_t to;
	} walks[] = {{WALK_PREVIOUS, 2}, {WALK_PREVIOUS, 1}, {WALK_PARENT, 0}, {WALK_PREVIOUS, 3},
				 {WALK_NEXT, 0},     {WALK_UNDO, 3},     {WALK_UNDO, 0},   {WALK_UNDO, 1},
				 {WALK_REDO, 0},     {WALK_REDO, 3},     {WALK_REDO, 0},   {WALK_NEXT, 1}};
	for (int i = 0; i < N(walks); i++) {
		OK(talk_walk_branches(&f.talk, walks[i].walk, &err));
		assert_int_equal(f.talk.branches.active, walks[i].to);
	}
	assert_int_equal(talk_walk_branches(&f.talk, WALK_REDO, &nothing), -1);
	assert_int_equal(talk_show_branch(&f.talk, 5, &nothing), -1);
	assert_string_equal(nothing.text, "branch 5: there are 1 to 4");
	assert_int_equal(talk_show_branch(&f.talk, 0, &nothing), -1);
	assert_int_equal(talk_branch(&f.talk, (int)f.talk.tape.prompt, 312, "huge", &nothing), -1);
	assert_int_equal(f.talk.branches.n, 4);

	// a turn after another way was shown says which one it follows
	OK(talk_show_branch(&f.talk, 3, &err));
	OK(talk_send(&f.talk, "Go on.", 6, &err));
	const struct request *request = script_request(f.script, script_n_requests(f.script) - 1);
	assert_true(request->branched);
	answer(&f);
	OK(talk_send(&f.talk, "Go on.", 6, &err));
	assert_false(script_request(f.script, script_n_requests(f.script) - 1)->branched);
	answer(&f);
	assert_int_equal(f.talk.branches.n, 4); // the way has grown

	// a way of which nothing comes goes again, and the answer before it stays
	OK(talk_retry(&f.talk, &err));
	assert_int_equal(f.talk.branches.n, 5);
	assert_int_equal(talk_walk_branches(&f.talk, WALK_NEXT, &nothing), -1); // it is being written
	struct event event = {.type = EV_TURN};
	script_event(f.script, &event);
	event = (struct event){.type = EV_STOP, .stop.reason = STOP_STOPPED};
	script_event(f.script, &event);
	drain(&f);
	assert_int_equal(f.talk.branches.n, 4);
	assert_int_equal(f.talk.branches.active, 2);
	assert_int_equal(f.talk.conversation.active, f.talk.branches.items[2].leaf);
	assert_string_equal(text_chars(&f.talk.notice),
						"stopped before the first token; the answer before stays");
	OK(talk_new(&f.talk, &err));
	assert_int_equal(f.talk.branches.n, 0);
	close_model(&f);
}

/* Typed widths have letters of their own wherever writers and readers stand, and a column. */
static void test_typed(void **state)
{
	(void)state;
	static const char *const names[] = {"hidden_size=96", "hidden_size=80,n_routed_experts=12"};
	struct fixture f;
	struct text text = {0};
	char name[32];
	open_model(&f, "../demo", NULL, false);
	struct pane *pane = pane_tokens_open(&f.talk, NULL);
	OK(talk_send(&f.talk, "Calculate 49 - 88.", 18, &err));
	say(&f, 0, names[0], (int)f.talk.tape.prompt, right, N(right));
	drain(&f);
	OK(talk_send(&f.talk, "Again.", 6, &err));
	say(&f, 0, names[1], (int)f.talk.tape.prompt, right, N(right));
	drain(&f);
	assert_int_equal(f.talk.tape.tokens[0].reader, 4); // say() reads the prompt from 0 on
	int last = f.talk.tape.tokens[f.talk.tape.n - 1].writer;
	assert_int_equal(last, 4);
	assert_string_equal(talk_writer_name(&f.talk, last), names[1]);
	assert_int_equal(talk_mark(&f.talk, 2), 's');
	assert_int_equal(talk_mark(&f.talk, 3), 't');
	assert_int_equal(talk_mark(&f.talk, 4), 'u');
	assert_int_equal(talk_writer_index(&f.talk, names[0]), 3);
	open_screen(&f, 5, 140, "ascii");
	struct canvas canvas = canvas_of(&f);
	struct canvas strip = canvas_part(&canvas, 0, 0, 3, 140),
				  gauges = canvas_part(&canvas, 3, 0, 2, 140);
	status_strip(&f.talk, &strip);
	status_gauges(&f.talk, &gauges);
	screen_text(&f.screen, &text);
	static const char *const wanted[] = {"uuuu|uu", "read; prompt u", "t hidden_siz",
										 "u hidden_siz"};
	for (int i = 0; i < N(wanted); i++)
		if (!strstr(text_chars(&text), wanted[i]))
			fail_msg("no '%s' in\n%s", wanted[i], text_chars(&text));
	assert_null(strchr(text_chars(&text), '?'));
	screen_close(&f.screen);
	theme_free(&f.theme);
	text_free(&text);
	expect_words(&f, pane, 16, 120, ">>>",
				 (const char *const[]){"by hidden_size=80,", "u hidden_siz", ">*", NULL});
	for (int i = 5; i < 9; i++) { // six have letters, a seventh has not
		snprintf(name, sizeof name, "hidden_size=%d", 96 - i);
		assert_int_equal(talk_writer_index(&f.talk, name), i);
	}
	assert_int_equal(talk_writer_index(&f.talk, "hidden_size=40"), -1);
	assert_int_equal(talk_mark(&f.talk, -1), '~');
	pane->table->close(pane);
	close_model(&f);
}

static void test_refused(void **state)
{
	(void)state;
	static const char *const unknown[] = {"large", "huge"};
	struct error err = {0};
	struct fixture f;
	open_model(&f, "../demo", NULL, false);
	struct pane *pane = pane_compare_open(&f.talk, &err);
	assert_int_equal(pane->more->send(pane, "a", 1, &err), -1);
	assert_non_null(strstr(err.text, ":compare A B"));
	assert_int_equal(compare_open(pane_compare_of(pane), &f.talk,
								  &(struct compare_plan){.specs = unknown, .n = 2}, &no_options,
								  &err),
					 -1);
	assert_non_null(strstr(err.text, "huge"));
	assert_int_equal(pane_compare_of(pane)->n, 0);
	begin(&f, pane_compare_of(pane), 3);
	size_t n_requests = script_n_requests(f.script);
	assert_int_equal(compare_open(pane_compare_of(pane), &f.talk,
								  &(struct compare_plan){.specs = unknown, .n = 2}, &no_options,
								  &err),
					 -1);
	assert_int_equal(pane_compare_of(pane)->n, 3); // what was open stays
	assert_int_equal(script_n_requests(f.script), n_requests);
	char spec[4200];
	snprintf(spec, sizeof spec, "%s/golden/nest-tiny#large", getenv("ELASTISCOPE_TESTS"));
	assert_int_equal(
		compare_open(pane_compare_of(pane), &f.talk,
					 &(struct compare_plan){.specs = (const char *const[]){"large", spec}, .n = 2},
					 &no_options, &err),
		-1);
	assert_non_null(strstr(err.text, "has 512 tokens"));
	pane->table->close(pane);
	close_model(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_columns),  cmocka_unit_test(test_keep),
		cmocka_unit_test(test_tokens),   cmocka_unit_test(test_outlook),
		cmocka_unit_test(test_fidelity), cmocka_unit_test(test_lab),
		cmocka_unit_test(test_branch),   cmocka_unit_test(test_typed),
		cmocka_unit_test(test_refused),  cmocka_unit_test(test_norms),
		cmocka_unit_test(test_measured), cmocka_unit_test(test_tree),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
