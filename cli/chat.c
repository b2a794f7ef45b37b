/*
 * `chat -p TEXT [-p TEXT ...]`: one conversation, then exit. Answers go to stdout as they come,
 * thoughts do not; --json prints one object about the last turn instead. Without -p it is the line
 * chat.
 */
#include "cli/print.h"
#include "cli/run.h"
#include "sessions/reply_json.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct recorders { // every event goes to both
	struct session_log *session, *events;
	bool events_failed; // the newest write to --events; the session's own log is an extra, this is
						// asked for
	struct error events_error;
	bool session_failed;
	struct error session_error;
};

static int record(void *user, const struct event *event, struct error *err)
{
	struct recorders *to = user;
	if (to->events)
		to->events_failed = session_log_record(to->events, event, &to->events_error) != 0;
	if (!to->session || session_log_record(to->session, event, &to->session_error) == 0) {
		to->session_failed = false;
		return 0;
	}
	to->session_failed = true;
	return fail(err, "%s", to->session_error.text);
}

struct shown { // of the running turn
	bool quiet, begun, thinking;
};

static void show(void *user, const struct event *event)
{
	struct shown *shown = user;
	if (event->type == EV_TURN) {
		shown->begun = false;
		shown->thinking = event->turn.settings.thinking;
	} else if (event->type == EV_TOKEN && event->token.phase == PHASE_ANSWER && event->length > 0 &&
			   !shown->quiet) {
		// the newline behind </think> belongs to the format
		bool skip = !shown->begun && shown->thinking && event->text[0] == '\n';
		shown->begun = true;
		fwrite(event->text + skip, 1, event->length - skip, stdout);
		fflush(stdout);
	} else if (event->type == EV_STOP && event->stop.reason != STOP_ERROR && !shown->quiet) {
		putchar('\n');
		fflush(stdout);
	}
}

static int say(struct conversation *conversation, enum chat_role role, const char *text,
			   size_t length, const struct text *reasoning, struct error *err)
{
	struct chat_string thoughts = {0};
	if (reasoning && reasoning->length > 0)
		thoughts = (struct chat_string){text_chars(reasoning), reasoning->length};
	return conversation_append(conversation, role, (struct chat_string){text, length}, thoughts,
							   err) < 0
			   ? -1
			   : 0;
}

/* All turns; reply is the last one's. */
static int converse(const struct cli *cli, struct engine *engine,
					const struct turn_settings *settings, struct conversation *conversation,
					struct reply *reply, struct error *err)
{
	struct shown shown = {.quiet = cli->json};
	if (cli->system && conversation_set_system(conversation, cli->system, err))
		return -1;
	for (size_t i = 0; i < cli->prompts.n && !run_interrupted(); i++) {
		const char *text = cli->prompts.items[i];
		if (say(conversation, CHAT_USER, text, strlen(text), NULL, err))
			return -1;
		struct request request = {
			.type = REQUEST_TURN, .conversation = conversation, .settings = *settings};
		if (run_request(cli, engine, &request, reply, (struct run_eye){show, &shown}, err))
			return -1;
		run_note(cli, reply, settings->sampling.seed);
		if (say(conversation, CHAT_ASSISTANT, text_chars(&reply->answer), reply->answer.length,
				&reply->reasoning, err))
			return -1;
	}
	return cli->json ? print_line(reply_json(reply), err) : 0;
}

static int open_recorders(const struct cli *cli, struct recorders *recorders, struct error *err)
{
	recorders->session = session_log_open(NULL, err);
	if (!recorders->session && !cli->quiet)
		fprintf(stderr, "elastiscope: the session is not recorded: %s\n", err->text);
	if (!cli->events)
		return 0;
	if (strcmp(cli->events, "-") != 0) { // said now, not after the first turn
		int fd = open(cli->events, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
		if (fd < 0)
			return fail(err, "--events %s: %s", cli->events, strerror(errno));
		close(fd);
	}
	recorders->events = session_log_open_file(cli->events, err);
	return recorders->events ? 0 : -1;
}

int cli_chat(const struct cli *cli)
{
	struct recorders recorders = {0};
	struct turn_settings settings;
	struct conversation conversation;
	struct reply reply = {0};
	struct model *model = NULL;
	struct engine *engine = NULL;
	struct error err = {0};
	if (cli->prompts.n == 0) {
		struct cli plain = *cli;
		plain.plain = true;
		return cli_workbench(&plain);
	}
	conversation_init(&conversation);
	int failed = open_recorders(cli, &recorders, &err);
	if (!failed) {
		run_catch_interrupt();
		engine = cli_open_engine(cli, record, &recorders, &model, &err);
		failed = !engine || cli_settings(cli, model, &settings, &err) ||
				 converse(cli, engine, &settings, &conversation, &reply, &err);
	}
	engine_close(engine);
	model_release(model);
	if (!failed && recorders.events_failed) {
		err = recorders.events_error;
		failed = fail_in(&err, "--events");
	}
	// a write that fails behind the turn's end comes too late for its reply
	if (recorders.session_failed && !cli->quiet)
		fprintf(stderr, "elastiscope: the recorded session lacks its end: %s\n",
				recorders.session_error.text);
	session_log_close(recorders.session);
	session_log_close(recorders.events);
	conversation_free(&conversation);
	reply_free(&reply);
	int code = failed ? cli_fail(&err) : EXIT_DONE;
	return run_interrupted() ? EXIT_INTERRUPTED : code;
}
