#include "tui/experiment.h"
#include "base/file.h"
#include "core/tokenizer.h"
#include "tui/pane_compare.h"
#include "tui/pane_importance.h"
#include "tui/pane_router.h"
#include "tui/state.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT_BYTES ((size_t)16 << 20)

/* Splits at blanks, in place; returns how many words there are, also beyond max. */
static int words_of(char *line, char **words, int max)
{
	int n = 0;
	for (char *at = line; *(at += strspn(at, " \t"));) {
		size_t length = strcspn(at, " \t");
		if (n < max)
			words[n] = at;
		n++;
		at += length;
		if (*at)
			*at++ = 0;
	}
	return n;
}

static struct compare *compare_of(struct command_context *context)
{
	return pane_compare_of(context->app->panes[pane_find("compare")]);
}

static int begin_compare(struct command_context *context, char *line, struct error *err)
{
	char *words[COMPARE_COLUMNS + 1];
	int n = words_of(line, words, COMPARE_COLUMNS + 1);
	bool text_only = n > 0 && strcmp(words[0], "text-only") == 0;
	n -= text_only;
	if (n < 2 || n > COMPARE_COLUMNS)
		return fail(err, "compare: 2 or %d budgets are expected, NAME or DIR#NAME, not %d",
					COMPARE_COLUMNS, n);
	struct compare_plan plan = {
		.specs = (const char *const *)words + text_only, .n = n, .text_only = text_only};
	if (compare_open(compare_of(context), context->talk, &plan, context->app->options, err))
		return -1;
	talk_say(context->talk, "%d columns; what is typed in this view goes to all of them", n);
	return view_show(context->app, "compare", err);
}

static int compare_file(struct command_context *context, const char *path, struct error *err)
{
	struct text text = {0};
	int result = file_read(path, MAX_TEXT_BYTES, &text, err);
	if (result == 0)
		result = pane_compare_text(context->app->panes[pane_find("compare")], &text, err);
	text_free(&text);
	return result ? -1 : view_show(context->app, "compare", err);
}

int run_compare(struct command_context *context, const char *arguments, bool forced,
				struct error *err)
{
	(void)forced;
	if (strcmp(arguments, "off") == 0) {
		if (compare_running(compare_of(context)))
			return fail(err, "the columns are still being written; Ctrl-C stops them");
		compare_end(compare_of(context), context->talk);
		return 0;
	}
	if (!*arguments)
		return view_show(context->app, "compare", err);
	if (strncmp(arguments, "text ", 5) == 0)
		return compare_file(context, arguments + 5 + strspn(arguments + 5, " "), err);
	char *line = strdup(arguments);
	if (!line)
		return fail(err, "no memory for a command");
	int result = begin_compare(context, line, err);
	free(line);
	return result;
}

int run_lab(struct command_context *context, const char *arguments, bool forced, struct error *err)
{
	(void)forced;
	char from[BUDGET_NAME_BYTES], to[BUDGET_NAME_BYTES];
	int at = (int)context->talk->tape.prompt, n = sscanf(arguments, "%63s %63s %d", from, to, &at);
	struct pane *pane = context->app->panes[pane_find("compare")];
	if (n == 1)
		return fail(err, "lab: FROM TO [AT] is expected, or nothing for the last change of budget");
	if (pane_compare_lab(pane, n < 2 ? NULL : from, to, at, err))
		return -1;
	return view_show(context->app, "compare", err);
}

int run_study(struct command_context *context, const char *arguments, bool forced,
			  struct error *err)
{
	(void)forced;
	struct pane *pane = context->app->panes[pane_find("compare")];
	if (pane_compare_study(pane, &context->app->options->engine, arguments, err))
		return -1;
	return view_show(context->app, "compare", err);
}

int run_target(struct command_context *context, const char *arguments, bool forced,
			   struct error *err)
{
	(void)forced;
	if (pane_router_target(context->app->panes[pane_find("router")], arguments, err))
		return -1;
	return view_show(context->app, "router", err);
}

int run_keep(struct command_context *context, const char *arguments, bool forced, struct error *err)
{
	(void)forced;
	char *end;
	long column = strtol(arguments, &end, 10);
	if (end == arguments || *end || column < 1 || column > COMPARE_COLUMNS)
		return fail(err, "keep: the number of a column is expected, not '%s'", arguments);
	if (compare_keep(compare_of(context), (int)column - 1, context->talk, err))
		return -1;
	return view_show(context->app, "chat", err);
}

/* The whole tree, as text. */
static int list_branches(struct command_context *context, struct error *err)
{
	const struct branches *branches = &context->talk->branches;
	size_t *order = branches_order(branches);
	if (!order)
		return fail(err, "no memory for %zu branches", branches->n);
	for (size_t i = 0; i < branches->n; i++) {
		text_add(context->out, order[i] == branches->active ? "> " : "  ");
		branches_line(branches, order[i], false, context->out);
		text_add(context->out, "\n");
	}
	free(order);
	if (branches->n == 0)
		talk_say(context->talk, "there is one way only; Enter on an alternative in Tokens, or "
								":retry, makes a branch");
	return 0;
}

static int make_branch(struct talk *talk, const char *arguments, struct error *err)
{
	char budget[BUDGET_NAME_BYTES] = "";
	int at, id, used = 0;
	if (sscanf(arguments, "%d %d %255s %n", &at, &id, budget, &used) < 2 ||
		(budget[0] && arguments[used]))
		return fail(err,
					"branch: next, previous, parent, undo, redo, a number, or AT ID [BUDGET] is "
					"expected: token AT of the last answer becomes ID");
	int vocabulary = !talk->model             ? INT_MAX
					 : talk->model->tokenizer ? tokenizer_size(talk->model->tokenizer)
											  : talk->model->config.vocab_size;
	if (id < 0 || id >= vocabulary)
		return fail(err, "branch: there is no token %d; the vocabulary has %d", id, vocabulary);
	if (talk_branch(talk, at, id, budget[0] ? budget : talk_budget_name(talk), err))
		return -1;
	talk_say(talk, "a branch: %s", talk->branches.items[talk->branches.active].note);
	return 0;
}

int run_branch(struct command_context *context, const char *arguments, bool forced,
			   struct error *err)
{
	static const char *const walks[] = {
		[WALK_NEXT] = "next", [WALK_PREVIOUS] = "previous", [WALK_PARENT] = "parent",
		[WALK_UNDO] = "undo", [WALK_REDO] = "redo",
	};
	char *end;
	(void)forced;
	if (!*arguments)
		return list_branches(context, err);
	for (size_t i = 0; i < sizeof walks / sizeof *walks; i++)
		if (strcmp(arguments, walks[i]) == 0)
			return talk_walk_branches(context->talk, (enum branch_walk)i, err);
	long number = strtol(arguments, &end, 10);
	if (end != arguments && !*end)
		return talk_show_branch(context->talk, number > INT_MAX ? INT_MAX : (int)number, err);
	return make_branch(context->talk, arguments, err);
}

static struct pane *importance_of(struct command_context *context)
{
	return context->app->panes[pane_find("importance")];
}

int run_scores(struct command_context *context, const char *arguments, bool forced,
			   struct error *err)
{
	(void)forced;
	if (pane_importance_scores(importance_of(context), arguments, err))
		return -1;
	return view_show(context->app, "importance", err);
}

int run_calibrate(struct command_context *context, const char *arguments, bool forced,
				  struct error *err)
{
	(void)forced;
	if (pane_importance_calibrate(importance_of(context), arguments, err))
		return -1;
	return view_show(context->app, "importance", err);
}

int run_agreement(struct command_context *context, const char *arguments, bool forced,
				  struct error *err)
{
	(void)forced;
	if (*arguments && pane_importance_scores(importance_of(context), arguments, err))
		return -1;
	pane_importance_agreement(importance_of(context));
	return view_show(context->app, "importance", err);
}
