#include "tui/command.h"
#include "base/file.h"
#include "core/sampler.h"
#include "tui/experiment.h"
#include "tui/mask_command.h"
#include "tui/pane_compare.h"
#include "tui/recall.h"
#include "tui/setting.h"
#include "tui/state.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

static void say(struct command_context *context, const char *name, const char *value)
{
	talk_say(context->talk, "%s %s", name, value);
}

/* Who writes, and by whose word. */
static void tell_budget(struct command_context *context)
{
	struct talk *talk = context->talk;
	const struct turn_settings *turn = &talk->settings;
	const char *now = talk_budget_name(talk), *when = talk->running ? "now" : "next";
	if (*turn->rule)
		talk_say(talk, "%s writes %s, then the rule decides: %s", now, when, turn->rule);
	else if (turn->policy)
		talk_say(talk, "%s writes %s: policy on, %s thinks, %s answers (off: %s)", now, when,
				 turn->think, turn->answer, turn->budget);
	else
		talk_say(talk, "budget %s", turn->budget);
}

/* `:NAME VALUE` as short for `:set NAME VALUE`; without a value it tells the present one. */
static int set_or_tell(struct command_context *context, const char *name, const char *value,
					   struct error *err)
{
	struct text now = {0};
	if (*value && setting_set(context, name, value, err))
		return -1;
	if (!*value && strcmp(name, "budget") == 0) {
		tell_budget(context);
		return 0;
	}
	const struct setting *setting = setting_find(name);
	if (setting->get)
		setting->get(context, &now);
	say(context, name, text_chars(&now));
	text_free(&now);
	return 0;
}

static int run_budget(struct command_context *context, const char *arguments, bool forced,
					  struct error *err)
{
	(void)forced;
	struct talk *talk = context->talk;
	if (set_or_tell(context, "budget", arguments, err))
		return -1;
	const char *now = talk->settings.budget;
	if (strchr(arguments, '=') && strlen(arguments) < BUDGET_NAME_BYTES && strcmp(arguments, now))
		talk_say(talk, "budget %s: %s rounded to whole blocks of the quantisation", now, arguments);
	return 0;
}

static int run_think(struct command_context *context, const char *arguments, bool forced,
					 struct error *err)
{
	(void)forced;
	return set_or_tell(context, "think", arguments, err);
}

static int run_answer(struct command_context *context, const char *arguments, bool forced,
					  struct error *err)
{
	(void)forced;
	return set_or_tell(context, "answer", arguments, err);
}

static int run_policy(struct command_context *context, const char *arguments, bool forced,
					  struct error *err)
{
	(void)forced;
	const struct turn_settings *turn = &context->talk->settings;
	bool word = strcmp(arguments, "on") == 0 || strcmp(arguments, "off") == 0;
	char think[BUDGET_NAME_BYTES], answer[BUDGET_NAME_BYTES];
	if (sscanf(arguments, "think %63s answer %63s", think, answer) == 2) {
		if (setting_set(context, "think", think, err) ||
			setting_set(context, "answer", answer, err))
			return -1;
		arguments = "on";
	} else if (!*arguments) {
		tell_budget(context);
		return 0;
	} else if (strncmp(arguments, "think ", 6) == 0)
		return fail(err, "policy: 'think B answer B' is expected, not '%s'", arguments);
	else if (!word)
		return set_or_tell(context, "rule", arguments, err);
	if (*turn->rule && setting_set(context, "rule", "off", err))
		return -1;
	if (setting_set(context, "policy", arguments, err))
		return -1;
	if (turn->policy)
		talk_say(context->talk, "policy on: %s thinks, %s answers", turn->think, turn->answer);
	else
		talk_say(context->talk, "policy off: %s writes", turn->budget);
	return 0;
}

static int run_handoff(struct command_context *context, const char *arguments, bool forced,
					   struct error *err)
{
	(void)forced;
	if (!*arguments)
		arguments = context->talk->settings.handoff == HANDOFF_CARRY ? "reprefill" : "carry";
	return set_or_tell(context, "handoff", arguments, err);
}

static int run_set(struct command_context *context, const char *arguments, bool forced,
				   struct error *err)
{
	(void)forced;
	char name[64];
	size_t length = strcspn(arguments, " \t=");
	if (length == 0) {
		setting_list(context, context->out);
		return 0;
	}
	snprintf(name, sizeof name, "%.*s", (int)length, arguments);
	const char *value = arguments + length + strspn(arguments + length, " \t=");
	if (!*value && setting_find(name) && setting_find(name)->get)
		return set_or_tell(context, name, "", err);
	return setting_set(context, name, value, err) ? -1 : set_or_tell(context, name, "", err);
}

static int run_system(struct command_context *context, const char *arguments, bool forced,
					  struct error *err)
{
	struct talk *talk = context->talk;
	if (!*arguments && !forced) {
		talk_say(talk, "system: %s",
				 talk->conversation.system ? talk->conversation.system : "none");
		return 0;
	}
	if (conversation_set_system(&talk->conversation, arguments, err))
		return -1;
	talk_say(talk, *arguments ? "the system text is set; it counts from the next turn on"
							  : "no system text");
	return 0;
}

static int run_open(struct command_context *context, const char *arguments, bool forced,
					struct error *err)
{
	(void)forced;
	if (!*arguments)
		return fail(err, "open: the folder of a checkpoint is expected");
	return talk_open(context->talk, arguments, NULL, false, err);
}

static int run_device(struct command_context *context, const char *arguments, bool forced,
					  struct error *err)
{
	(void)forced;
	return talk_device(context->talk, arguments, err);
}

/* A new file, or any with `!`. */
static int write_file(const char *what, const char *path, const struct text *text, bool forced,
					  struct error *err)
{
	if (!*path)
		return fail(err, "%s: the name of a file is expected", what);
	if (text_check(text, err))
		return -1;
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | (forced ? O_TRUNC : O_EXCL), 0644);
	if (fd < 0 && file_is_directory(path))
		return fail(err, "%s: is a directory; the name of a file is expected", path);
	if (fd < 0)
		return errno == EEXIST ? fail(err, "%s: the file exists; :%s! overwrites it", path, what)
							   : fail(err, "%s: %s", path, strerror(errno));
	for (size_t at = 0; at < text->length;) {
		ssize_t n = write(fd, text->data + at, text->length - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			fail(err, "%s: %s", path, strerror(errno));
			close(fd);
			return -1;
		}
		at += (size_t)n;
	}
	return close(fd) ? fail(err, "%s: %s", path, strerror(errno)) : 0;
}

static int run_write(struct command_context *context, const char *arguments, bool forced,
					 struct error *err)
{
	struct text text = {0};
	talk_write(context->talk, &text);
	int result = text.length == 0 ? fail(err, "write: nothing was said yet")
								  : write_file("write", arguments, &text, forced, err);
	if (result == 0)
		talk_say(context->talk, "written: %s (%zu bytes)", arguments, text.length);
	text_free(&text);
	return result;
}

static int run_save_screen(struct command_context *context, const char *arguments, bool forced,
						   struct error *err)
{
	struct text text = {0};
	view_text(context->app, &text);
	int result = write_file("save-screen", arguments, &text, forced, err);
	if (result == 0)
		talk_say(context->talk, "written: %s", arguments);
	text_free(&text);
	return result;
}

static int run_theme(struct command_context *context, const char *arguments, bool forced,
					 struct error *err)
{
	(void)forced;
	return set_or_tell(context, "theme", arguments, err);
}

static int run_pace(struct command_context *context, const char *arguments, bool forced,
					struct error *err)
{
	(void)forced;
	return set_or_tell(context, "pace", arguments, err);
}

static int run_step(struct command_context *context, const char *arguments, bool forced,
					struct error *err)
{
	(void)arguments, (void)forced;
	return talk_step(context->talk, err);
}

static int run_pause(struct command_context *context, const char *arguments, bool forced,
					 struct error *err)
{
	(void)arguments, (void)forced;
	struct talk *talk = context->talk;
	if (talk_pause(talk, !talk->paused, err))
		return -1;
	talk_say(talk, talk->paused ? "paused: p goes on, . makes one token" : "going on");
	return 0;
}

static int run_split(struct command_context *context, const char *arguments, bool forced,
					 struct error *err)
{
	(void)forced;
	return set_or_tell(context, "split", arguments, err);
}

static int run_view(struct command_context *context, const char *arguments, bool forced,
					struct error *err)
{
	(void)forced;
	struct text names = {0};
	if (*arguments)
		return view_show(context->app, arguments, err);
	for (int i = 0; i < n_panes; i++)
		text_format(&names, "%s%s", i > 0 ? ", " : "", panes[i].name);
	talk_say(context->talk, "%s is shown; views: %s", panes[context->app->view].name,
			 text_chars(&names));
	text_free(&names);
	return 0;
}

static int run_new(struct command_context *context, const char *arguments, bool forced,
				   struct error *err)
{
	(void)arguments, (void)forced;
	if (talk_new(context->talk, err))
		return -1;
	talk_say(context->talk, "a new conversation; the log keeps the old one");
	return 0;
}

/* The columns, where Compare is shown and has some: what is said there is said to them. */
static struct compare *columns_of(const struct command_context *context)
{
	int view = context->app ? pane_find("compare") : -1;
	if (view < 0 || context->app->view != view)
		return NULL;
	struct compare *compare = pane_compare_of(context->app->panes[view]);
	return compare->n > 0 ? compare : NULL;
}

static int retry_columns(struct command_context *context, struct compare *columns,
						 struct error *err)
{
	struct talk *talk = context->talk;
	struct pane *pane = context->app->panes[context->app->view];
	struct text text = {0};
	int result = compare_undo(columns, &text, err);
	if (result == 0 && !talk->seed_fixed)
		talk->settings.sampling.seed = sampler_new_seed();
	if (result == 0)
		result = pane->more->send(pane, text_chars(&text), text.length, err);
	text_free(&text);
	return result;
}

static int run_retry(struct command_context *context, const char *arguments, bool forced,
					 struct error *err)
{
	(void)arguments, (void)forced;
	struct compare *columns = columns_of(context);
	if (columns)
		return retry_columns(context, columns, err);
	return talk_retry(context->talk, err);
}

static int run_undo(struct command_context *context, const char *arguments, bool forced,
					struct error *err)
{
	(void)arguments, (void)forced;
	struct text text = {0};
	struct compare *columns = columns_of(context);
	int result = columns ? compare_undo(columns, &text, err) : talk_undo(context->talk, &text, err);
	bool back = result == 0 && context->app && app_return(context->app, text_chars(&text));
	if (back)
		talk_say(context->talk, "taken back; its text is in the prompt");
	else if (result == 0)
		talk_say(context->talk, "taken back: %s", text_chars(&text));
	text_free(&text);
	return result;
}

static int run_redraw(struct command_context *context, const char *arguments, bool forced,
					  struct error *err)
{
	(void)arguments, (void)forced, (void)err;
	view_redraw(context->app);
	return 0;
}

static int run_help(struct command_context *context, const char *arguments, bool forced,
					struct error *err)
{
	(void)forced, (void)err;
	help_text(context->app ? &context->app->keymap : NULL, arguments, context->out);
	return 0;
}

static int run_quit(struct command_context *context, const char *arguments, bool forced,
					struct error *err)
{
	(void)arguments, (void)forced, (void)err;
	context->quit = true;
	return 0;
}

/* clang-format off */
const struct command commands[] = {
	{"budget", "[NAME|WIDTHS]", "this budget writes from the next token on", COMPLETE_BUDGET, run_budget, false},
	{"think", "[NAME]", "this budget thinks (policy on)", COMPLETE_BUDGET, run_think, false},
	{"answer", "[NAME]", "this budget answers (policy on)", COMPLETE_BUDGET, run_answer, false},
	{"policy", "[on|off|think B answer B|RULE]", "who writes: by phase, or by a rule (entropy>2 large else small)", COMPLETE_ON_OFF, run_policy, false},
	{"handoff", "[carry|reprefill|repair:N]", "what a change of budget does with the state", COMPLETE_HANDOFF, run_handoff, false},
	{"set", "[NAME [VALUE]]", "show or change a setting", COMPLETE_SETTING, run_set, false},
	{"system", "[TEXT]", "show or set the system text (:system! removes it)", COMPLETE_NOTHING, run_system, false},
	{"open", "DIR", "open another checkpoint", COMPLETE_FOLDER, run_open, false},
	{"device", "cpu|cuda[:N] [alone]", "the open model goes on there; alone: only the budget that writes is uploaded", COMPLETE_NOTHING, run_device, false},
	{"write", "FILE", "write the conversation as Markdown (:write! overwrites)", COMPLETE_FILE, run_write, false},
	{"save-screen", "FILE", "write the screen as text", COMPLETE_FILE, run_save_screen, true},
	{"theme", "[NAME]", "colours", COMPLETE_THEME, run_theme, true},
	{"pace", "[N]", "the largest budget shows N tokens/s, 0 = as fast as it goes", COMPLETE_NOTHING, run_pace, false},
	{"step", "", "one token, then pause", COMPLETE_NOTHING, run_step, false},
	{"pause", "", "pause the model, or go on", COMPLETE_NOTHING, run_pause, false},
	{"split", "[NAME|off]", "companion pane at 110 columns or more", COMPLETE_VIEW, run_split, true},
	{"view", "[NAME]", "show a view", COMPLETE_VIEW, run_view, true},
	{"new", "", "begin a new conversation", COMPLETE_NOTHING, run_new, false},
	{"retry", "", "answer the last message again, with a new seed", COMPLETE_NOTHING, run_retry, false},
	{"undo", "", "take the last message back", COMPLETE_NOTHING, run_undo, false},
	{"compare", "[text-only] A B [C]|text FILE|off", "budgets (or DIR#BUDGET) side by side", COMPLETE_BUDGET, run_compare, true},
	{"keep", "COLUMN", "a column of Compare becomes the conversation", COMPLETE_NOTHING, run_keep, true},
	{"branch", "[NUMBER|next|previous|parent|undo|redo|AT ID [BUDGET]]", "the tree of ways the conversation went", COMPLETE_NOTHING, run_branch, false},
	{"target", "[active=2.8B|total=..|bytes=..]", "what the router chooses for a target, and the staircase of widths", COMPLETE_NOTHING, run_target, true},
	{"mask", "[TERMS|undo|redo|flip|clear|solo LAYER AXIS|all-but LAYER AXIS|save NAME [FILE]]", "edit what the writing budget keeps, from the next token on", COMPLETE_NOTHING, run_mask, true},
	{"probe", "[TEXT|pin]", "the tokens that are read again after every edit: a text, or the conversation", COMPLETE_NOTHING, run_probe, true},
	{"bisect", "[GOOD BAD]", "which difference makes the KL: of the mask, of two budgets, of GOOD and DIR#CHILD", COMPLETE_BUDGET, run_bisect, true},
	{"against", "FILE", "residuals or logits from elsewhere: the first layer and channel that differ", COMPLETE_FILE, run_against, true},
	{"lab", "[FROM TO [AT]]", "take a change of budget apart: the last one, or any", COMPLETE_BUDGET, run_lab, true},
	{"study", "[FILE [ROWS.csv] [LIMIT] [GRID]|write FILE]", "every task of FILE in every think x answer pair: accuracy against latency", COMPLETE_FILE, run_study, true},
	{"calibrate", "FILE...", "measure every importance score on these texts; Importance then shows them", COMPLETE_FILE, run_calibrate, true},
	{"scores", "FILE|cache [FILE]|off", "importance by measured scores", COMPLETE_FILE, run_scores, true},
	{"agreement", "[FILE|cache [FILE]]", "stored order, weight norms, scores and texts against each other", COMPLETE_FILE, run_agreement, true},
	{"redraw", "", "draw the screen anew", COMPLETE_NOTHING, run_redraw, true},
	{"help", "[keys|commands|settings|NAME]", "help", COMPLETE_TOPIC, run_help, false},
	{"sessions", "[TEXT]", "what was recorded; with TEXT: where it was said", COMPLETE_NOTHING, recall_sessions, false},
	{"resume", "FILE|NUMBER", "go on with a recorded session", COMPLETE_FILE, recall_resume, false},
	{"quit", "", "leave", COMPLETE_NOTHING, run_quit, false},
};
/* clang-format on */
const int n_commands = sizeof commands / sizeof *commands;

static const char *name_at(int i)
{
	return i < n_commands ? commands[i].name : NULL;
}

static int distance(const char *a, const char *b)
{
	int row[64], n = (int)strlen(b);
	if (n > 62)
		return 99;
	for (int j = 0; j <= n; j++)
		row[j] = j;
	for (int i = 1; a[i - 1]; i++) {
		int diagonal = row[0];
		row[0] = i;
		for (int j = 1; j <= n; j++) {
			int up = row[j], best = diagonal + (a[i - 1] != b[j - 1]);
			best = up + 1 < best ? up + 1 : best;
			best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
			diagonal = up;
			row[j] = best;
		}
	}
	return row[n];
}

const char *nearest_name(const char *name, const char *(*next)(int i))
{
	const char *best = NULL, *candidate;
	int best_distance = 3;
	for (int i = 0; (candidate = next(i)); i++) {
		int d = distance(name, candidate);
		if (strncmp(name, candidate, strlen(name)) == 0 && *name)
			d = 1;
		if (d < best_distance) {
			best_distance = d;
			best = candidate;
		}
	}
	return best;
}

/* By name, or by a beginning that only one has. */
static const struct command *find(const char *name, size_t length)
{
	const struct command *found = NULL;
	for (int i = 0; i < n_commands; i++) {
		if (strncmp(commands[i].name, name, length) != 0)
			continue;
		if (commands[i].name[length] == 0)
			return &commands[i];
		if (found)
			return NULL;
		found = &commands[i];
	}
	return length > 0 ? found : NULL;
}

int command_run(struct command_context *context, const char *line, struct error *err)
{
	char name[64];
	line += strspn(line, " \t");
	size_t length = strcspn(line, " \t!");
	snprintf(name, sizeof name, "%.*s", (int)length, line);
	bool forced = line[length] == '!';
	if (!*name)
		return 0;
	const struct command *command = strlen(name) == length ? find(line, length) : NULL;
	if (!command && strcmp(name, "q") == 0)
		command = find("quit", 4);
	if (!command) {
		if (setting_find(name))
			return fail(err, "there is no command :%s; did you mean :set %s?", name, name);
		const char *near = nearest_name(name, name_at);
		return near ? fail(err, "there is no command :%s; did you mean :%s?", name, near)
					: fail(err, "there is no command :%s; :help lists them", name);
	}
	if (command->needs_screen && !context->app)
		return fail(err, ":%s belongs to the workbench; this is the line chat", command->name);
	line += length + forced;
	line += strspn(line, " \t");
	char *arguments = strdup(line);
	if (!arguments)
		return fail(err, "no memory for a command");
	size_t end = strlen(arguments);
	while (end > 0 && strchr(" \t\r\n", arguments[end - 1]))
		arguments[--end] = 0;
	int result = command->run(context, arguments, forced, err);
	free(arguments);
	return result;
}
