#include "tui/plain.h"
#include "base/clock.h"
#include "base/file.h"
#include "sessions/log.h"
#include "sessions/replay.h"
#include "tui/cells.h"
#include "tui/meter.h"
#include "tui/setting.h"
#include "tui/status.h"
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <readline/history.h>
#include <readline/readline.h>

#define INTERRUPT 3          // Ctrl-C as a key
#define AGAIN_NS 2000000000u // a second one within this leaves

struct plain {
	const struct tui_options *options;
	struct talk talk;
	struct session_log *log;
	struct meter meter;
	int signals; // SIGINT while a turn runs
	sigset_t interrupt;
	bool terminal;
	bool typed;              // standard input is a terminal
	uint64_t interrupted_ns; // the last Ctrl-C at the prompt
	uint64_t notices;        // shown
	int phase;               // whose label was printed, -1 = none
	bool in_line;            // the cursor is not at the beginning of one
	bool quit, failed;
	struct error error;
	size_t shown_reasoning, shown_answer; // bytes of the reply that were printed
};

static struct plain *completing; // readline's callbacks have no argument

/* Newlines and tabs stay; other controls are shown as ^X. */
static void print_harmless(const char *bytes, size_t length)
{
	for (size_t at = 0, used; at < length; at += used) {
		uint32_t code;
		cells_next(bytes + at, length - at, &used, &code);
		if (bytes[at] == '\n' || bytes[at] == '\t')
			fputc(bytes[at], stdout);
		else if (code >= CELLS_CONTROL)
			printf("^%c", (char)(code - CELLS_CONTROL));
		else if (code == 0xfffd)
			fputs("\xEF\xBF\xBD", stdout);
		else if (code != 0)
			fwrite(bytes + at, 1, used, stdout);
	}
}

static void show_notice(struct plain *plain)
{
	const struct talk *talk = &plain->talk;
	if (talk->notices == plain->notices)
		return;
	plain->notices = talk->notices;
	const char *notice = text_chars(&talk->notice);
	bool error = strncmp(notice, "error: ", 7) == 0;
	if (error && !plain->terminal) {
		fprintf(stderr, "elastiscope: %s\n", notice + 7);
		plain->error.text[0] = 0; // once
	} else if (!talk->running || plain->terminal) {
		fprintf(stderr, "%s%s\n", plain->in_line ? "\n" : "", notice);
	}
}

/* What the reply has more than was printed, under its label. */
static void show_text(struct plain *plain, int phase, const struct text *text, size_t *shown)
{
	if (text->length <= *shown)
		return;
	if (plain->phase != phase) {
		printf("%s%s: ", plain->in_line ? "\n" : "", phase == PHASE_THINK ? "Thinking" : "Answer");
		plain->phase = phase;
	}
	print_harmless(text->data + *shown, text->length - *shown);
	plain->in_line = text->data[text->length - 1] != '\n';
	*shown = text->length;
	fflush(stdout);
}

static void show_costs(const struct plain *plain)
{
	const struct reply *reply = &plain->talk.reply;
	struct text line = {0};
	for (size_t i = 0; i < reply->n_segments; i++) {
		const struct segment *segment = &reply->segments[i];
		text_format(&line, "%s%s %s %d tokens", i ? ", " : "", phase_name(segment->phase),
					segment->budget, segment->tokens);
		if (segment->took_ns > 0) {
			text_add(&line, " ");
			status_rate(segment->steps * 1e9 / (double)segment->took_ns, &line);
			text_add(&line, " tok/s");
		}
	}
	if (plain->terminal && line.length > 0)
		fprintf(stderr, "(%s)\n", text_chars(&line));
	text_free(&line);
}

static void apply_settings(struct plain *plain)
{
	const struct tui_options *options = plain->options;
	struct command_context context = {.talk = &plain->talk};
	for (int i = 0; i < options->n_settings && !plain->failed; i++)
		if (setting_set(&context, options->settings[i].name, options->settings[i].value,
						&plain->error))
			plain->failed = plain->quit = true;
}

/* What a live chat echoes as it is typed. */
static void show_message(const struct plain *plain, const struct event *event)
{
	printf("%s%c%s: ", plain->in_line ? "\n" : "", toupper((unsigned char)*event->message.role),
		   event->message.role + (*event->message.role != 0));
	print_harmless(event->text, event->length);
	fputs("\n", stdout);
	fflush(stdout);
}

static void take_event(struct plain *plain, const struct event *event)
{
	struct talk *talk = &plain->talk;
	bool opening = talk->opening, first = !talk->model;
	meter_event(&plain->meter, event);
	talk_event(talk, event);
	switch (event->type) {
	case EV_MESSAGE:
		if (talk->replay)
			show_message(plain, event);
		break;
	case EV_TURN:
		plain->phase = -1;
		plain->shown_reasoning = plain->shown_answer = 0;
		break;
	case EV_OPENED:
		if (first)
			apply_settings(plain);
		break;
	case EV_TOKEN:
		show_text(plain, PHASE_THINK, &talk->reply.reasoning, &plain->shown_reasoning);
		show_text(plain, PHASE_ANSWER, &talk->reply.answer, &plain->shown_answer);
		break;
	case EV_STOP:
		if (plain->in_line)
			fputs("\n", stdout);
		plain->in_line = false;
		fflush(stdout);
		if (talk->taken_back.length > 0 && event->stop.reason == STOP_ERROR)
			fputs("the message is taken back\n", stderr);
		text_clear(&talk->taken_back);
		show_costs(plain);
		break;
	case EV_ERROR:
		plain->failed |= !plain->terminal && !talk->replay;
		if (opening && first && !talk->replay) {
			plain->failed = plain->quit = true;
			plain->notices = talk->notices; // the caller says it
		}
		snprintf(plain->error.text, sizeof plain->error.text, "%s", event->text ? event->text : "");
		break;
	default: break;
	}
	show_notice(plain);
}

/* A replay is under way until its end. */
static bool is_busy(const struct plain *plain)
{
	const struct talk *talk = &plain->talk;
	return talk->opening || talk->running ||
		   (plain->options->replay && !engine_replay_over(talk->engine));
}

/* Takes events until the model is open and no turn runs. */
static int wait_idle(struct plain *plain)
{
	struct talk *talk = &plain->talk;
	struct pollfd fds[] = {{.fd = talk->engine->table->fd(talk->engine), .events = POLLIN},
						   {.fd = plain->signals, .events = POLLIN}};
	while (is_busy(plain) && !plain->quit) {
		const struct event *event;
		while ((event = engine_next(talk->engine)))
			take_event(plain, event);
		if (!is_busy(plain) || plain->quit)
			break;
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return fail(&plain->error, "poll: %s", strerror(errno));
		struct signalfd_siginfo info;
		if (fds[1].revents && read(plain->signals, &info, sizeof info) == sizeof info) {
			if ((talk->running || talk->moving) && !talk->replay)
				talk_stop(talk, NULL);
			else
				plain->quit = true; // while the model is loading, or in a replay
			meter_clear(&plain->meter);
		}
	}
	return 0;
}

static char *complete(const char *text, int state)
{
	static int i;
	int start;
	(void)text;
	i = state ? i + 1 : 0;
	char *before = strndup(rl_line_buffer, (size_t)rl_point);
	char *match = before ? command_complete(&completing->talk, before, i, &start) : NULL;
	free(before);
	return match;
}

static char **attempt(const char *text, int start, int end)
{
	char *before = strndup(rl_line_buffer, (size_t)end);
	(void)start;
	enum path_kind path = before ? command_path(before) : PATH_NONE;
	free(before);
	rl_attempted_completion_over = path != PATH_FILE;
	rl_filename_completion_desired = path != PATH_NONE;
	return path == PATH_FILE
			   ? NULL
			   : rl_completion_matches(text, path == PATH_FOLDER ? line_next_folder : complete);
}

/* Ctrl-C at the prompt clears the line; a second one within two seconds leaves. */
static int interrupt_line(int count, int key)
{
	struct plain *plain = completing;
	uint64_t now = clock_ns();
	(void)count, (void)key;
	plain->quit = plain->interrupted_ns && now - plain->interrupted_ns < AGAIN_NS;
	plain->interrupted_ns = now;
	rl_delete_text(0, rl_end);
	rl_point = 0;
	rl_crlf();
	if (plain->quit) {
		rl_done = 1;
		return 0;
	}
	fputs("Ctrl-C again within 2 s or Ctrl-D leaves\n", stderr);
	rl_on_new_line();
	rl_redisplay();
	return 0;
}

/* A byte of the terminal, or Ctrl-C for the signal. */
static int next_byte(FILE *stream)
{
	struct plain *plain = completing;
	struct pollfd fds[] = {{.fd = fileno(stream), .events = POLLIN},
						   {.fd = plain->signals, .events = POLLIN}};
	for (;;) {
		unsigned char byte;
		struct signalfd_siginfo info;
		if (poll(fds, 2, -1) < 0) {
			if (errno != EINTR)
				return EOF;
			rl_check_signals();
			continue;
		}
		if (fds[1].revents && read(plain->signals, &info, sizeof info) == sizeof info)
			return INTERRUPT;
		if (!fds[0].revents)
			continue;
		ssize_t n = read(fds[0].fd, &byte, 1);
		if (n == 1)
			return byte;
		if (n == 0 || errno != EINTR)
			return EOF;
	}
}

/* The next line without its newline, NULL at the end. */
static char *read_line(struct plain *plain)
{
	if (plain->terminal) {
		char *line = readline("User: ");
		if (line && line[strspn(line, " \t")])
			add_history(line);
		return line;
	}
	if (plain->typed) // and standard output is read by something else
		fputs("User: ", stderr);
	char *line = NULL;
	size_t size = 0;
	ssize_t length = getline(&line, &size, stdin);
	if (length < 0) {
		free(line);
		return NULL;
	}
	while (length > 0 && (line[length - 1] == '\n' || line[length - 1] == '\r'))
		line[--length] = 0;
	return line;
}

static void take_line(struct plain *plain, const char *line)
{
	struct error err = {0};
	struct text out = {0};
	int result;
	if (!line[strspn(line, " \t")])
		return;
	if (line[0] == ':' && line[1] != ':') {
		struct command_context context = {.talk = &plain->talk, .out = &out};
		result = command_run(&context, line + 1, &err);
		plain->quit |= context.quit;
		fputs(text_chars(&out), stdout);
	} else {
		line += line[0] == ':';
		if (!plain->terminal) {
			fputs("User: ", stdout);
			print_harmless(line, strlen(line));
			fputs("\n", stdout);
		}
		fflush(stdout);
		result = talk_send(&plain->talk, line, strlen(line), &err);
	}
	if (result) {
		talk_say(&plain->talk, "error: %s", err.text);
		plain->failed |= !plain->terminal;
		plain->error = err;
	}
	fflush(stdout);
	show_notice(plain);
	text_free(&out);
}

static int open_all(struct plain *plain, struct error *err)
{
	const struct tui_options *options = plain->options;
	struct engine_options engine = options->engine;
	struct error wrong = {0};
	sigemptyset(&plain->interrupt);
	sigaddset(&plain->interrupt, SIGINT);
	sigprocmask(SIG_BLOCK, &plain->interrupt, NULL); // before the engine's threads
	signal(SIGPIPE, SIG_IGN);
	plain->signals = signalfd(-1, &plain->interrupt, SFD_CLOEXEC | SFD_NONBLOCK);
	if (plain->signals < 0)
		return fail(err, "signals: %s", strerror(errno));
	if (!options->no_log && !(plain->log = session_log_open(options->log_directory, &wrong)))
		fprintf(stderr, "the session is not recorded: %s\n", wrong.text);
	if (plain->log && session_log_check(plain->log, &wrong)) {
		fprintf(stderr, "the session is not recorded: %s\n", wrong.text);
		session_log_close(plain->log);
		plain->log = NULL;
	}
	if (plain->log) {
		engine.record = session_log_record;
		engine.record_user = plain->log;
	}
	plain->talk.pace_chosen = true; // unpaced unless asked
	plain->talk.engine =
		options->open_engine ? options->open_engine(&engine, err) : engine_local_open(&engine, err);
	if (!plain->talk.engine)
		return -1;
	if (options->system && conversation_set_system(&plain->talk.conversation, options->system, err))
		return -1;
	setting_budgets(options->settings, options->n_settings, &plain->talk.settings);
	return talk_open(&plain->talk, options->directory, options->budgets_file, options->lenient,
					 err);
}

static int chat(struct plain *plain)
{
	if (wait_idle(plain))
		return -1;
	while (!plain->quit && !plain->options->replay) {
		char *line = read_line(plain);
		if (!line)
			break;
		take_line(plain, line);
		free(line);
		if (wait_idle(plain))
			return -1;
		if (ferror(stdout)) // nobody reads any more
			return fail(&plain->error, "standard output: %s", strerror(errno));
	}
	if (plain->terminal && !plain->quit)
		fputs("\n", stdout);
	return plain->failed ? -1 : 0;
}

int plain_run(const struct tui_options *options, struct error *err)
{
	struct plain plain = {.options = options, .signals = -1, .phase = -1};
	plain.terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
	plain.typed = isatty(STDIN_FILENO);
	talk_init(&plain.talk, NULL);
	plain.talk.replay = options->replay;
	completing = &plain;
	rl_readline_name = "elastiscope";
	rl_attempted_completion_function = attempt;
	rl_getc_function = next_byte;
	rl_bind_key_in_map(INTERRUPT, interrupt_line, emacs_standard_keymap);
	rl_bind_key_in_map(INTERRUPT, interrupt_line, vi_insertion_keymap);
	rl_bind_key_in_map(INTERRUPT, interrupt_line, vi_movement_keymap);
	rl_completer_word_break_characters = " \t\n";
	int result = open_all(&plain, err);
	if (result == 0) {
		result = chat(&plain);
		if (result)
			*err = plain.error;
	}
	engine_close(plain.talk.engine);
	session_log_close(plain.log);
	talk_free(&plain.talk);
	clear_history();
	if (plain.signals >= 0)
		close(plain.signals);
	sigprocmask(SIG_UNBLOCK, &plain.interrupt, NULL);
	return result;
}
