/* What keys do. Keys of the table come first; the rest is text for the prompt, or the view's own.
 */
#define NCURSES_WIDECHAR 1
#include "base/clock.h"
#include "tui/state.h"
#include <ncurses.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AGAIN_NS 2000000000u // a second Ctrl-C within this asks to quit
#define ASK_NS 3000000000u   // a question lapses

static void say_error(struct app *app, const struct error *err)
{
	talk_say(&app->talk, "error: %s", err->text);
}

static void prompt_begin(struct app *app, enum prompt_mode mode, const char *text)
{
	text_clear(&app->draft);
	text_add(&app->draft, line_text());
	app->prompt_mode = mode;
	line_set(text);
	app->focus = FOCUS_PROMPT;
}

/* Back to the view; the draft stands in the prompt again. */
static void prompt_end(struct app *app)
{
	if (app->prompt_mode == PROMPT_CHAT)
		return;
	app->prompt_mode = PROMPT_CHAT;
	line_set(text_chars(&app->draft));
	app->focus = FOCUS_VIEW;
}

bool app_return(struct app *app, const char *text)
{
	if (app->prompt_mode != PROMPT_CHAT) {
		if (app->draft.length == 0)
			text_add(&app->draft, text);
		return false;
	}
	if (!line_is_empty())
		return false;
	line_set(text);
	app->returned = true;
	return true;
}

void app_run_command(struct app *app, const char *line)
{
	struct text out = {0};
	struct command_context context = {.talk = &app->talk, .app = app, .out = &out};
	struct error err = {0};
	uint64_t before = app->talk.notices;
	if (command_run(&context, line, &err))
		say_error(app, &err);
	else if (out.length > 0)
		view_overlay(app, line, text_chars(&out));
	else if (app->talk.notices == before)
		text_clear(&app->talk.notice);
	app->quit |= context.quit;
	app->dirty = true; // it may have changed anything
	text_free(&out);
}

static void search(struct app *app, const char *line)
{
	struct pane *pane = view_pane(app);
	if (app->overlay.length > 0) {
		snprintf(app->overlay_search, sizeof app->overlay_search, "%s", line);
		app->overlay_hit = -1;
		view_overlay_search(app, 1);
		return;
	}
	snprintf(pane->search, sizeof pane->search, "%s", line);
	pane->dirty = true;
	if (*line && !pane->table->action(pane, ACTION_SEARCH, 0))
		talk_say(&app->talk, "%s cannot be searched", panes[app->view].label);
}

static void send_text(struct app *app, const char *text)
{
	struct error err = {0};
	struct pane *pane = view_pane(app);
	bool own = pane->more && pane->more->send;
	if (own ? pane->more->send(pane, text, strlen(text), &err)
			: talk_send(&app->talk, text, strlen(text), &err)) {
		say_error(app, &err);
		line_set(text); // nothing is lost
		return;
	}
	if (own)
		text_clear(&app->talk.notice);
	else
		app->panes[0]->table->action(app->panes[0], ACTION_BOTTOM, 0);
}

static void ask_quit(struct app *app)
{
	app->asking = true;
	app->asked_ns = clock_ns();
}

uint64_t app_due(const struct app *app)
{
	uint64_t question = app->asking ? app->asked_ns + ASK_NS : 0;
	uint64_t offer = app->offer ? app->interrupted_ns + AGAIN_NS : 0;
	return question && (!offer || question < offer) ? question : offer;
}

void app_lapse(struct app *app, uint64_t now)
{
	if (app->asking && now >= app->asked_ns + ASK_NS) {
		app->asking = false;
		app->wanted = true;
	}
	if (!app->offer || now < app->interrupted_ns + AGAIN_NS)
		return;
	if (app->offer == app->talk.notices)
		text_clear(&app->talk.notice);
	app->offer = 0;
	app->wanted = true;
}

void app_accept(struct app *app, const char *line)
{
	if (!line) {
		ask_quit(app);
		return;
	}
	enum prompt_mode mode = app->prompt_mode;
	app->offered = -1;
	prompt_end(app);
	if (mode == PROMPT_SEARCH) {
		search(app, line);
		return;
	}
	if (!line[strspn(line, " \t\n")])
		return;
	line_remember(line);
	if (line[0] == ':' && line[1] != ':')
		app_run_command(app, line + 1);
	else {
		app->entered_ns = clock_ns();
		send_text(app, line[0] == ':' ? line + 1 : line);
	}
}

static bool stop_panes(struct app *app)
{
	bool any = false;
	for (int i = 0; i < n_panes; i++)
		if (app->panes[i]->more && app->panes[i]->more->stop)
			any |= app->panes[i]->more->stop(app->panes[i]);
	return any;
}

static void app_interrupt(struct app *app)
{
	uint64_t now = clock_ns();
	bool again = app->interrupted_ns && now - app->interrupted_ns < AGAIN_NS;
	struct error err = {0};
	app->interrupted_ns = now;
	if (app->asking) {
		app->quit = true;
	} else if (again) {
		ask_quit(app);
	} else if (app->talk.running || app->talk.progress.bytes) {
		if (talk_stop(&app->talk, &err))
			say_error(app, &err);
		else
			talk_say(&app->talk, "stopping; Ctrl-C again within 2 s asks to quit");
	} else if (stop_panes(app)) {
		talk_say(&app->talk, "stopping; Ctrl-C again within 2 s asks to quit");
	} else {
		talk_say(&app->talk, "Ctrl-C again within 2 s asks to quit");
	}
	app->offer = app->asking ? 0 : app->talk.notices;
}

static void choose_budget(struct app *app, int index)
{
	struct error err = {0};
	const struct model *model = app->talk.model;
	int n = model ? model->elastic.n_budgets : 0;
	if (index < 0 || index >= n) {
		talk_say(&app->talk, n ? "there are %d budgets" : "no model is open yet", n);
		return;
	}
	const char *name = model->elastic.budgets[index].name;
	bool policy = app->talk.settings.policy;
	if (talk_choose_budget(&app->talk, name, &err))
		say_error(app, &err);
	else
		talk_say(&app->talk, "%s writes from %s (%s)%s", name,
				 app->talk.running ? "the next token on" : "the next turn on",
				 handoff_name(app->talk.settings.handoff), policy ? "; policy off" : "");
}

static void relative_budget(struct app *app, int step)
{
	int now = talk_budget_index(&app->talk, talk_budget_name(&app->talk));
	int n = app->talk.model ? app->talk.model->elastic.n_budgets : 0;
	int wanted = (now < 0 ? 0 : now) + step;
	if (n > 0 && (wanted < 0 || wanted >= n))
		talk_say(&app->talk, "this is the %s budget", step > 0 ? "smallest" : "largest");
	else
		choose_budget(app, wanted);
}

static void set_view(struct app *app, int view)
{
	if (view < 0 || view >= n_panes)
		return;
	if (app->overlay.length > 0) {
		app->overlay_from = FOCUS_VIEW;
		view_overlay_close(app);
	}
	app->view = view;
	app->dirty = true;
}

static int view_of_digit(char digit)
{
	for (int i = 0; i < n_panes; i++)
		if (panes[i].key == digit)
			return i;
	return -1;
}

static void encode_base64(const struct text *text, struct text *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (size_t i = 0; i < text->length; i += 3) {
		size_t left = text->length - i;
		const unsigned char *b = (const unsigned char *)text->data + i;
		unsigned bits =
			(unsigned)b[0] << 16 | (left > 1 ? (unsigned)b[1] << 8 : 0) | (left > 2 ? b[2] : 0);
		char four[4] = {digits[bits >> 18], digits[bits >> 12 & 63],
						left > 1 ? digits[bits >> 6 & 63] : '=',
						left > 2 ? digits[bits & 63] : '='};
		text_append(out, four, 4);
	}
}

/* The last answer; in other views what they show. OSC 52: the terminal's clipboard, also over ssh.
 */
static void copy(struct app *app)
{
	struct text text = {0}, code = {0};
	const struct transcript *transcript = &app->talk.transcript;
	size_t i = transcript->n_entries;
	while (i > 0 && transcript->entries[i - 1].kind != ENTRY_ANSWER)
		i--;
	if (app->view == 0 && i > 0)
		text_append(&text, text_chars(&transcript->entries[i - 1].text),
					transcript->entries[i - 1].text.length);
	else
		screen_text(&app->screen, &text);
	text_add(&code, "\033]52;c;");
	encode_base64(&text, &code);
	text_add(&code, "\a");
	if (!code.failed)
		screen_write(&app->screen, code.data, code.length);
	talk_say(&app->talk, "%s copied, %zu bytes, if the terminal allows it (OSC 52)",
			 app->view == 0 && i > 0 ? "the last answer" : "the screen", text.length);
	text_free(&text);
	text_free(&code);
}

/* How the command begins that writes what the view shows. */
static const char *writing(const struct pane *pane, bool chat)
{
	const char *own = pane->more && pane->more->write ? pane->more->write(pane) : NULL;
	return own ? own : chat ? ":write " : ":save-screen ";
}

/* An action for the overlay, or for the pane. */
static void inside_view(struct app *app, enum action action, int key)
{
	struct pane *pane = view_pane(app);
	if (app->overlay.length > 0) {
		if (action == ACTION_SEARCH_NEXT || action == ACTION_SEARCH_PREVIOUS)
			view_overlay_search(app, action == ACTION_SEARCH_NEXT ? 1 : -1);
		else if (pane_scroll(&app->overlay_top, app->overlay_lines, app->layout.main.rows - 1,
							 action))
			app->dirty = true;
		return;
	}
	pane->dirty = true;
	if (pane->table->action(pane, action, key)) {
		if (pane->command[0]) {
			char command[sizeof pane->command];
			memcpy(command, pane->command, sizeof command);
			pane->command[0] = 0;
			app_run_command(app, command);
		}
		return;
	}
	if (action == ACTION_ENTER)
		app->focus = FOCUS_PROMPT;
	else if (action == ACTION_COPY)
		copy(app);
	else if (action == ACTION_WRITE)
		prompt_begin(app, PROMPT_COMMAND, writing(pane, app->view == 0));
}

static void back(struct app *app)
{
	if (app->overlay.length > 0)
		view_overlay_close(app);
	else if (app->maximised)
		app->maximised = false;
	else if (app->view != 0)
		set_view(app, 0);
	else
		ask_quit(app);
}

static void do_running(struct app *app, enum action action)
{
	struct error err = {0};
	int result = 0;
	switch (action) {
	case ACTION_END_THINKING:
		result = talk_end_thinking(&app->talk, &err);
		if (result == 0)
			talk_say(&app->talk, "the thinking ends here");
		break;
	case ACTION_STEP: result = talk_step(&app->talk, &err); break;
	case ACTION_PAUSE: app_run_command(app, "pause"); break;
	case ACTION_POLICY:
		app_run_command(app, app->talk.settings.policy || *app->talk.settings.rule ? "policy off"
																				   : "policy on");
		break;
	case ACTION_HANDOFF: app_run_command(app, "handoff"); break;
	default: break;
	}
	if (result)
		say_error(app, &err);
}

static void do_action(struct app *app, enum action action, int key)
{
	int n = app->talk.model ? app->talk.model->elastic.n_budgets : 0;
	switch (action) {
	case ACTION_BUDGET_1:
	case ACTION_BUDGET_2:
	case ACTION_BUDGET_3: choose_budget(app, n - 1 - (int)(action - ACTION_BUDGET_1)); break;
	case ACTION_SMALLER: relative_budget(app, 1); break;
	case ACTION_LARGER: relative_budget(app, -1); break;
	case ACTION_POLICY:
	case ACTION_END_THINKING:
	case ACTION_HANDOFF:
	case ACTION_PAUSE:
	case ACTION_STEP: do_running(app, action); break;
	case ACTION_INTERRUPT: app_interrupt(app); break;
	case ACTION_TO_VIEW:
		if (app->prompt_mode != PROMPT_CHAT)
			prompt_end(app);
		app->focus = FOCUS_VIEW;
		break;
	case ACTION_TO_PROMPT:
		if (app->overlay.length > 0)
			view_overlay_close(app);
		app->focus = FOCUS_PROMPT;
		break;
	case ACTION_COMMAND: prompt_begin(app, PROMPT_COMMAND, ":"); break;
	case ACTION_SEARCH: prompt_begin(app, PROMPT_SEARCH, ""); break;
	case ACTION_HELP:
		if (app->overlay.length > 0)
			view_overlay_close(app);
		else
			app_run_command(app, "help");
		break;
	case ACTION_NEXT_VIEW: set_view(app, (app->view + 1) % n_panes); break;
	case ACTION_PREVIOUS_VIEW: set_view(app, (app->view + n_panes - 1) % n_panes); break;
	case ACTION_VIEW_1:
	case ACTION_VIEW_2:
	case ACTION_VIEW_3:
	case ACTION_VIEW_4:
	case ACTION_VIEW_5:
	case ACTION_VIEW_6:
	case ACTION_VIEW_7:
	case ACTION_VIEW_8: set_view(app, view_of_digit((char)('1' + action - ACTION_VIEW_1))); break;
	case ACTION_MAXIMISE: app->maximised = true; break;
	case ACTION_RESTORE: app->maximised = false; break;
	case ACTION_NEWLINE: line_insert("\n", 1); break;
	case ACTION_REDRAW: view_redraw(app); break;
	case ACTION_SUSPEND: app_suspend(app); break;
	case ACTION_BACK: back(app); break;
	case ACTION_CANCEL:
		if (app->overlay.length > 0 || app->maximised)
			back(app);
		break;
	default: inside_view(app, action, key); break;
	}
}

/* Tab on an empty prompt, and again while an offered one stands there. */
static bool offer_showcase(struct app *app)
{
	const struct showcase *showcase = app->showcase;
	if (!showcase || showcase->n_prompts == 0 || app->prompt_mode != PROMPT_CHAT)
		return false;
	bool again =
		app->offered >= 0 && strcmp(line_text(), showcase->prompts[app->offered].prompt) == 0;
	if (!again && !line_is_empty())
		return false;
	app->offered = again ? (app->offered + 1) % showcase->n_prompts : 0;
	const struct showcase_prompt *prompt = &showcase->prompts[app->offered];
	line_set(prompt->prompt);
	talk_say(&app->talk, "%d/%d %s; Tab: next, Enter sends", app->offered + 1, showcase->n_prompts,
			 prompt->note);
	return true;
}

static void prompt_key(struct app *app, int key)
{
	if (key == '\t' && offer_showcase(app))
		return;
	if (key == KEY_BACKSPACE && app->prompt_mode != PROMPT_CHAT && strlen(line_text()) <= 1 &&
		(app->prompt_mode == PROMPT_COMMAND || line_is_empty())) {
		prompt_end(app); // the colon goes, and the command line with it
		return;
	}
	if (app->returned && key == ':')
		line_set(""); // a command, not a tail of the text that came back
	app->returned = false;
	char *matches = key == '\t' ? strdup(line_matches()) : NULL;
	line_key(key);
	bool same = matches && *matches && strcmp(matches, line_matches()) == 0;
	app->matches_page = same ? app->matches_page + 1 : 0;
	free(matches);
}

/* Whether the key was an answer to a question; what can be typed goes on to the prompt. */
static bool answered(struct app *app, int key)
{
	if (!app->asking || key == ('C' & 0x1f))
		return false;
	app->asking = false;
	text_clear(&app->talk.notice);
	app->quit |= key == 'y' || key == 'Y' || key == '\r';
	bool typed = key > ' ' && key < 256 && key != 127 && key != 'n' && key != 'N';
	return app->quit || !typed;
}

static bool mouse(struct app *app, int key)
{
	MEVENT event;
	if (key != KEY_MOUSE || getmouse(&event) == ERR)
		return key == KEY_MOUSE;
	enum action action = event.bstate & BUTTON4_PRESSED ? ACTION_UP : ACTION_DOWN;
	for (int i = 0; i < 3; i++)
		inside_view(app, action, 0);
	return true;
}

void app_key(struct app *app, int key)
{
	app->wanted = app->urgent = true;
	if (answered(app, key) || mouse(app, key))
		return;
	bool prompt = app->focus == FOCUS_PROMPT;
	if (prompt && key == 27 && line_in_vi_insert()) {
		line_key(key);
		return;
	}
	enum action action = keymap_find(&app->keymap, key, prompt ? IN_PROMPT : IN_VIEW);
	if (action != ACTION_NONE)
		do_action(app, action, key);
	else if ((key & KEY_WITH_ALT) && !(prompt && line_knows(key))) {
		app_key(app, 27); // `ESC :` in one write
		app_key(app, key & ~KEY_WITH_ALT);
	} else if (prompt)
		prompt_key(app, key);
	else
		inside_view(app, ACTION_NONE, key);
}

bool app_end_tour(struct app *app)
{
	if (!app->tour || !app->steps)
		return false;
	steps_close(app->steps);
	app->steps = NULL;
	app->tour = false;
	app->wanted = app->urgent = true;
	talk_say(&app->talk, "the tour is over; type, or press Tab for prompts, F1 for help");
	return true;
}

void app_paste(struct app *app, const char *text, size_t length, bool cut)
{
	app->wanted = app->urgent = true;
	answered(app, 0);
	if (app->overlay.length > 0)
		view_overlay_close(app);
	app->focus = FOCUS_PROMPT;
	app->returned = false;
	line_insert(text, length);
	if (cut)
		talk_say(&app->talk, "the paste was longer than %u MiB; the rest is missing",
				 MAX_PASTE_BYTES >> 20);
}
