#include "cli/run.h"
#include "tui/meter.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
	(void)number;
	interrupted = 1;
}

void run_catch_interrupt(void)
{
	struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
	sigaction(SIGINT, &action, NULL); // a second Ctrl-C ends the process at once
}

bool run_interrupted(void)
{
	return interrupted;
}

static int finish(const struct cli *cli, const struct reply *reply, struct error *err)
{
	if (reply->failed)
		return fail(err, "%s", reply->error);
	if (reply->error[0] != '\0' && !cli->quiet)
		fprintf(stderr, "elastiscope: %s\n", reply->error);
	return 0;
}

int run_request(const struct cli *cli, struct engine *engine, const struct request *request,
				struct reply *reply, struct run_eye eye, struct error *err)
{
	struct meter meter = {0};
	bool stopping = false;
	if (engine_submit(engine, request, err))
		return -1;
	for (;;) {
		const struct event *event = engine_wait(engine, LOOK_MS);
		if (interrupted && !stopping) {
			struct request stop = {.type = REQUEST_STOP, .seq = request->seq};
			stopping = engine_submit(engine, &stop, err) == 0;
		}
		if (!event)
			continue;
		if (!cli->quiet)
			meter_event(&meter, event);
		reply_event(reply, event);
		if (eye.see)
			eye.see(eye.user, event);
		if (event->type == EV_NOTICE && !cli->quiet)
			fprintf(stderr, "elastiscope: %s\n", event->text);
		if (event->type == EV_STOP)
			return finish(cli, reply, err);
	}
}

void run_note(const struct cli *cli, const struct reply *reply, uint64_t seed)
{
	if (cli->quiet)
		return;
	for (size_t i = 0; i < reply->n_segments; i++) {
		const struct segment *s = &reply->segments[i];
		fprintf(stderr, "%s %s %d tokens", phase_name(s->phase), s->budget, s->tokens);
		if (s->took_ns > 0)
			fprintf(stderr, " %.1f tok/s", s->steps * 1e9 / (double)s->took_ns);
		fprintf(stderr, " | ");
	}
	fprintf(stderr, "prompt %d (%d kept) | seed %llu\n", reply->prompt_tokens, reply->cached_tokens,
			(unsigned long long)seed);
}
