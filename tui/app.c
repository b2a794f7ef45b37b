/*
 * The loop. One poll() over the terminal, a signalfd, the engine and a timer; nothing else waits.
 * Signals are blocked before the engine's threads begin, so no handler ever runs on their stacks.
 */
#include "tui/app.h"
#include "base/clock.h"
#include "core/job.h"
#include "tui/setting.h"
#include "tui/state.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define FRAME_NS (1000000000u / 12)
#define MEMORY_NS 1000000000u
#define MAX_WATCHED 8 // descriptors of panes

static const int watched[] = {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGCONT, SIGWINCH, SIGQUIT};

struct loop {
	struct app *app;
	int signals, timer;
	uint64_t last_memory_ns;
	int number; // the signal that ended us
};

void app_suspend(struct app *app)
{
	screen_suspend(&app->screen);
	view_resize(app, app->screen.rows, app->screen.columns);
	view_redraw(app);
}

static void fail_with(struct app *app, const char *text)
{
	snprintf(app->error.text, sizeof app->error.text, "%s", text);
	app->failed = app->quit = true;
}

/* What the flags asked for, and what comes with the model. */
static void model_opened(struct app *app)
{
	const struct tui_options *options = app->options;
	struct command_context context = {.talk = &app->talk, .app = app};
	struct error err = {0};
	for (int i = 0; i < options->n_settings && app->n_opened == 0; i++)
		if (setting_set(&context, options->settings[i].name, options->settings[i].value, &err)) {
			fail_with(app, err.text);
			return;
		}
	app->n_opened++;
	showcase_close(app->showcase);
	app->showcase = showcase_open(app->talk.model->directory, &err);
	if (!app->showcase)
		talk_say(&app->talk, "error: %s", err.text);
}

static void take_events(struct app *app)
{
	const struct event *event;
	while ((event = engine_next(app->talk.engine))) {
		bool opening = app->talk.opening;
		talk_event(&app->talk, event);
		if (event->type == EV_OPENED && app->talk.model)
			model_opened(app);
		if (event->type == EV_ERROR && opening && !app->talk.model && !app->talk.replay)
			fail_with(app, event->text ? event->text : "the model can't be opened");
		for (int i = 0; i < n_panes; i++)
			app->panes[i]->table->event(app->panes[i], event);
		if (app->talk.taken_back.length > 0) {
			app_return(app, text_chars(&app->talk.taken_back));
			text_clear(&app->talk.taken_back);
		}
		app->wanted = true;
		if (event->type == EV_TOKEN && event->seq == 0 && app->entered_ns)
			app->answered = app->urgent = true; // who waits for it should not wait for a frame
	}
}

static void on_key(void *user, int key)
{
	if (!app_end_tour(user))
		app_key(user, key);
}

static void on_paste(void *user, const char *text, size_t length, bool cut)
{
	app_end_tour(user);
	app_paste(user, text, length, cut);
}

static void take_signals(struct loop *loop)
{
	struct app *app = loop->app;
	struct signalfd_siginfo info;
	while (read(loop->signals, &info, sizeof info) == sizeof info) {
		switch (info.ssi_signo) {
		case SIGINT: on_key(app, 'C' & 0x1f); break;
		case SIGTSTP: app_suspend(app); break;
		case SIGCONT:
		case SIGWINCH:
			screen_measure(&app->screen);
			view_resize(app, app->screen.rows, app->screen.columns);
			if (info.ssi_signo == SIGCONT)
				view_redraw(app);
			break;
		default:
			loop->number = (int)info.ssi_signo;
			app->quit = true;
			break;
		}
	}
}

static void ask_for_memory(struct loop *loop, uint64_t now)
{
	if (!loop->app->talk.running || now - loop->last_memory_ns < MEMORY_NS)
		return;
	loop->last_memory_ns = now;
	engine_submit(loop->app->talk.engine, &(struct request){.type = REQUEST_MEMORY}, NULL);
}

static void run_steps(struct app *app)
{
	if (!app->steps || app->quit)
		return;
	int state = steps_run(app->steps, app, &app->error);
	if (state < 0 && app->tour) { // another model, a slow machine: no reason to leave
		talk_say(&app->talk, "the tour ends here: %s", app->error.text);
		state = STEPS_DONE;
	}
	if (state < 0)
		app->failed = app->quit = true;
	if (state != STEPS_DONE || !app->steps)
		return;
	steps_close(app->steps);
	app->steps = NULL;
	app->quit |= !app->tour; // the end of a script is the end
	app->tour = false;
}

/* When something must be done even if nothing happens; 0 = never. */
static uint64_t next_due(const struct loop *loop)
{
	const struct app *app = loop->app;
	uint64_t due = 0;
	if (app->wanted)
		due = app->last_frame_ns + FRAME_NS;
	else if (app->talk.running)
		due = loop->last_memory_ns + MEMORY_NS;
	uint64_t lapse = app_due(app);
	if (lapse && (!due || lapse < due))
		due = lapse;
	uint64_t step = app->steps ? steps_due(app->steps) : 0;
	return step && (!due || step < due) ? step : due;
}

static void arm(int timer, uint64_t due)
{
	struct itimerspec spec = {.it_value = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)}};
	timerfd_settime(timer, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* What panes wait for themselves. */
static int watch_panes(const struct app *app, struct pollfd *fds)
{
	int watched_fds[MAX_WATCHED], n = 0;
	for (int i = 0; i < n_panes; i++)
		if (app->panes[i]->more && app->panes[i]->more->watch)
			n += app->panes[i]->more->watch(app->panes[i], watched_fds + n, MAX_WATCHED - n);
	for (int i = 0; i < n; i++)
		fds[i] = (struct pollfd){.fd = watched_fds[i], .events = POLLIN};
	return n;
}

/* Jobs that have ended go to the pane that asked for them. */
static void take_jobs(struct app *app)
{
	struct job *job;
	while ((job = jobs_next(app->talk.jobs))) {
		bool taken = false;
		for (int i = 0; i < n_panes && !taken; i++)
			if (app->panes[i]->more && app->panes[i]->more->job)
				taken = app->panes[i]->more->job(app->panes[i], job);
		if (!taken)
			job->free(job);
	}
	app->wanted = true; // progress
}

static void wake_panes(struct app *app)
{
	for (int i = 0; i < n_panes; i++) {
		struct pane *pane = app->panes[i];
		if (pane->more && pane->more->wake)
			pane->more->wake(pane);
		app->wanted |= pane->dirty && i == app->view;
	}
}

/* Waits until something is to be done; `now` = only looks. */
static int wait_for_work(struct loop *loop, bool now)
{
	struct app *app = loop->app;
	struct pollfd fds[5 + MAX_WATCHED] = {
		{.fd = loop->signals, .events = POLLIN},
		{.fd = loop->timer, .events = POLLIN},
		{.fd = app->talk.engine->table->fd(app->talk.engine), .events = POLLIN},
		{.fd = app->screen.in_fd, .events = POLLIN},
		{.fd = jobs_fd(app->talk.jobs), .events = POLLIN},
	};
	int n = 5 + watch_panes(app, fds + 5);
	arm(loop->timer, next_due(loop));
	if (poll(fds, (nfds_t)n, now ? 0 : -1) < 0 && errno != EINTR)
		return fail(&app->error, "poll: %s", strerror(errno));
	uint64_t expirations;
	ssize_t ignored = fds[1].revents ? read(loop->timer, &expirations, sizeof expirations) : 0;
	(void)ignored;
	if (fds[0].revents)
		take_signals(loop);
	if (fds[4].revents)
		take_jobs(app);
	if (fds[3].revents & POLLIN)
		input_read(&app->input, &(struct input_sink){on_key, on_paste, app});
	if (fds[3].revents & (POLLHUP | POLLERR | POLLNVAL)) { // the terminal is gone
		loop->number = SIGHUP;
		app->quit = true;
	}
	return 0;
}

static int run_loop(struct loop *loop)
{
	struct app *app = loop->app;
	while (!app->quit) {
		if (wait_for_work(loop, app->urgent))
			return -1;
		take_events(app);
		wake_panes(app);
		uint64_t now = clock_ns();
		ask_for_memory(loop, now);
		app_lapse(app, now);
		if (app->urgent || (app->wanted && now - app->last_frame_ns >= FRAME_NS))
			view_draw(app);
		run_steps(app);
	}
	return app->failed ? -1 : 0;
}

static int open_signals(struct loop *loop, sigset_t *before, struct error *err)
{
	sigset_t set;
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof watched / sizeof *watched; i++)
		sigaddset(&set, watched[i]);
	signal(SIGPIPE, SIG_IGN);
	sigprocmask(SIG_BLOCK, &set, before);
	loop->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	loop->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (loop->signals < 0 || loop->timer < 0)
		return fail(err, "signals: %s", strerror(errno));
	return 0;
}

static char *complete_line(void *user, const char *line, int i, int *start)
{
	struct app *app = user;
	return command_complete(&app->talk, line, i, start);
}

static enum path_kind path_of(void *user, const char *line)
{
	(void)user;
	return command_path(line);
}

static void accept_line(void *user, const char *line)
{
	app_accept(user, line);
}

static int open_panes(struct app *app, struct error *err)
{
	for (int i = 0; i < n_panes && i < MAX_PANES; i++) {
		app->panes[i] = panes[i].open(&app->talk, err);
		if (!app->panes[i])
			return -1;
	}
	app->split = pane_find("experts");
	if (app->split < 0)
		app->split = pane_find("nesting");
	return 0;
}

static int open_screen(struct app *app, struct error *err)
{
	const struct tui_options *options = app->options;
	struct screen_options wish = {.terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO),
								  .rows = options->rows,
								  .columns = options->columns,
								  .no_color = options->no_color};
	if (!wish.terminal && !options->script && !options->steps)
		return fail(err, "standard input and output are no terminal; --plain works without one");
	struct line_options line = {accept_line, complete_line, path_of, app,
								!options->script && !options->steps};
	if (screen_open(&app->screen, &wish, err) || input_open(&app->input, err) ||
		line_open(&line, err))
		return -1;
	theme_init(&app->theme);
	app->theme.n_colors = app->screen.n_colors;
	struct error wrong = {0};
	if (view_theme(app, options->theme ? options->theme : "default", &wrong))
		talk_say(&app->talk, "error: %s", wrong.text);
	if (app->screen.notice[0])
		talk_say(&app->talk, "%s", app->screen.notice);
	return 0;
}

static int open_engine(struct app *app, struct error *err)
{
	const struct tui_options *options = app->options;
	struct engine_options engine = options->engine;
	struct error wrong = {0};
	if (!options->no_log) {
		app->log = session_log_open(options->log_directory, &wrong);
		app->no_log = !app->log || session_log_check(app->log, &wrong);
		if (app->no_log)
			talk_say(&app->talk, "error: the session is not recorded: %s", wrong.text);
		if (app->no_log) {
			session_log_close(app->log);
			app->log = NULL;
		} else {
			engine.record = session_log_record;
			engine.record_user = app->log;
		}
	}
	app->talk.engine =
		options->open_engine ? options->open_engine(&engine, err) : engine_local_open(&engine, err);
	if (!app->talk.engine)
		return -1;
	if (options->system && conversation_set_system(&app->talk.conversation, options->system, err))
		return -1;
	setting_budgets(options->settings, options->n_settings, &app->talk.settings);
	return talk_open(&app->talk, options->directory, options->budgets_file, options->lenient, err);
}

static void close_all(struct app *app, struct loop *loop)
{
	line_close();
	input_close(&app->input);
	screen_close(&app->screen); // the terminal first: closing the engine may wait for a token
	jobs_close(app->talk.jobs);
	app->talk.jobs = NULL;
	engine_close(app->talk.engine);
	session_log_close(app->log);
	for (int i = 0; i < n_panes && i < MAX_PANES; i++)
		if (app->panes[i])
			app->panes[i]->table->close(app->panes[i]);
	talk_free(&app->talk);
	theme_free(&app->theme);
	showcase_close(app->showcase);
	steps_close(app->steps);
	text_free(&app->draft);
	text_free(&app->overlay);
	struct signalfd_siginfo late; // a Ctrl-C too many, while closing: it has what it wants
	while (loop->signals >= 0 && read(loop->signals, &late, sizeof late) == sizeof late)
		continue;
	if (loop->signals >= 0)
		close(loop->signals);
	if (loop->timer >= 0)
		close(loop->timer);
}

static int start(struct app *app, struct loop *loop, sigset_t *before, struct error *err)
{
	const struct tui_options *options = app->options;
	struct error wrong = {0};
	keymap_init(&app->keymap);
	if (open_signals(loop, before, err))
		return -1;
	if (options->script && !(app->steps = steps_open(options->script, err)))
		return -1;
	if (options->steps && !(app->steps = steps_from(options->steps, "steps", err)))
		return -1;
	if (options->tour && !app->steps) {
		app->steps = steps_from(tour_text, "tour", err);
		app->tour = app->steps != NULL;
	}
	if (!(app->talk.jobs = jobs_open(err)) || open_panes(app, err) || open_screen(app, err))
		return -1;
	if (keymap_load(&app->keymap, &wrong))
		talk_say(&app->talk, "error: %s", wrong.text);
	app->talk.opening = true;
	app->focus = options->replay ? FOCUS_VIEW : FOCUS_PROMPT; // nobody would answer there
	view_draw(app); // first paint, before the engine's threads begin
	app->painted_ns = app->last_frame_ns;
	return open_engine(app, err);
}

int tui_run(const struct tui_options *options, struct error *err)
{
	uint64_t began_ns = clock_ns();
	struct app app = {.options = options, .offered = -1, .split = -1, .screen.in_fd = -1};
	struct loop loop = {.app = &app, .signals = -1, .timer = -1};
	sigset_t before;
	sigemptyset(&before);
	talk_init(&app.talk, NULL);
	app.talk.replay = options->replay;
	int result = start(&app, &loop, &before, err);
	if (result == 0) {
		result = run_loop(&loop);
		if (result)
			*err = app.error;
	}
	if (options->measured)
		*options->measured = (struct tui_measured){app.n_frames,
												   app.draw_ns,
												   app.painted_ns - began_ns,
												   {app.waited_ns[0], app.waited_ns[1]}};
	close_all(&app, &loop);
	signal(SIGPIPE, SIG_DFL);
	signal(SIGINT, SIG_DFL); // ncurses left its own handlers for these
	signal(SIGTERM, SIG_DFL);
	signal(SIGTSTP, SIG_DFL);
	sigprocmask(SIG_SETMASK, &before, NULL);
	if (loop.number == SIGTERM || loop.number == SIGQUIT)
		raise(loop.number); // everything is tidy: end as we were told
	return result;
}

bool tui_possible(void)
{
	const char *term = getenv("TERM"), *accessible = getenv("ACCESSIBLE");
	if (accessible && *accessible && strcmp(accessible, "0") != 0)
		return false;
	return isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) && term && *term &&
		   strcmp(term, "dumb") != 0;
}
