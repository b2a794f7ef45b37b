#include "tui/mask_command.h"
#include "tui/mask_view.h"
#include "tui/pane_nesting.h"
#include "tui/state.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct mask_view *view_of(struct command_context *context)
{
	struct pane *pane = context->app->panes[pane_find("nesting")];
	pane->dirty = true;
	return pane_nesting_mask(pane);
}

/* ---- :mask ---- */

/* "4 n_routed_experts", "hidden_size", "norm". */
static int parse_unit(const char *what, const char *text, int *layer, int *kind, struct error *err)
{
	char name[64] = "";
	int used = 0;
	*layer = -1;
	if (sscanf(text, "%d %63s %n", layer, name, &used) != 2) {
		*layer = -1;
		sscanf(text, "%63s %n", name, &used);
	}
	for (*kind = 0; *kind <= MASK_FORCED; ++*kind)
		if (strcmp(name, mask_kind_name(*kind)) == 0)
			return text[used] ? fail(err, "mask %s: '%s' is left over", what, text + used) : 0;
	return fail(err, "mask %s: LAYER AXIS is expected (or hidden_size, norm, heads), not '%s'",
				what, text);
}

static int apart(struct mask_view *view, struct talk *talk, bool solo, const char *arguments,
				 struct error *err)
{
	int layer, kind;
	if (parse_unit(solo ? "solo" : "all-but", arguments, &layer, &kind, err))
		return -1;
	return mask_view_apart(view, talk, solo, layer, kind, err);
}

static int save(struct mask_view *view, struct talk *talk, const char *arguments, bool forced,
				struct error *err)
{
	char name[128] = "", path[1024] = "", rest[2] = "";
	int n = sscanf(arguments, "%127s %1023s %1s", name, path, rest);
	if (n < 1 || n > 2)
		return fail(err, "mask save: NAME [FILE] is expected");
	struct error why;
	if (mask_view_save(view, talk, name, path, forced, &why) == 0)
		return 0;
	return fail(err, "%s%s", why.text,
				strstr(why.text, "has a budget") ? "; :mask save! replaces it" : "");
}

/* Blanks between terms count as commas. */
static int edit(struct mask_view *view, struct talk *talk, const char *arguments, struct error *err)
{
	struct text terms = {0};
	for (const char *p = arguments; *p; p++) {
		bool blank = *p == ' ' || *p == '\t';
		bool between = terms.length && terms.data[terms.length - 1] == ',';
		if (!blank && !(*p == ',' && between))
			text_add_char(&terms, *p);
		else if (blank && !between)
			text_add_char(&terms, ',');
	}
	int status = text_check(&terms, err);
	if (status == 0)
		status = mask_view_edit(view, talk, text_chars(&terms), err);
	text_free(&terms);
	return status;
}

static int change(struct mask_view *view, struct talk *talk, const char *arguments, bool forced,
				  struct error *err)
{
	static const char *const moves[] = {"undo", "redo", "flip", "clear"};
	for (int i = 0; i < (int)(sizeof moves / sizeof *moves); i++)
		if (strcmp(arguments, moves[i]) == 0)
			return mask_view_move(view, talk, (enum mask_move)i, err);
	if (strncmp(arguments, "save!", 5) == 0 && strchr(" \t", arguments[5]))
		return save(view, talk, arguments + 5, true, err);
	if (strncmp(arguments, "save", 4) == 0 && strchr(" \t", arguments[4]))
		return save(view, talk, arguments + 4, forced, err);
	if (strncmp(arguments, "solo ", 5) == 0)
		return apart(view, talk, true, arguments + 5, err);
	if (strncmp(arguments, "all-but ", 8) == 0)
		return apart(view, talk, false, arguments + 8, err);
	return edit(view, talk, arguments, err);
}

int run_mask(struct command_context *context, const char *arguments, bool forced, struct error *err)
{
	struct mask_view *view = view_of(context);
	if (!*arguments) {
		mask_view_list(view, context->talk, context->out);
		return 0;
	}
	return change(view, context->talk, arguments, forced, err);
}

/* ---- what a mask does ---- */

int run_probe(struct command_context *context, const char *arguments, bool forced,
			  struct error *err)
{
	(void)forced;
	struct mask_view *view = view_of(context);
	if (!*arguments) {
		talk_say(context->talk, "%s",
				 view->waiting       ? "probe: the mask is being read; ask again, or see Nesting"
				 : view->line.length ? text_chars(&view->line)
									 : "no probe yet; :probe TEXT pins one");
		return 0;
	}
	return mask_view_pin(view, context->talk, strcmp(arguments, "pin") == 0 ? NULL : arguments,
						 err);
}

int run_bisect(struct command_context *context, const char *arguments, bool forced,
			   struct error *err)
{
	(void)forced;
	char *good = strdup(arguments), *bad = NULL;
	if (!good)
		return fail(err, "no memory for a command");
	size_t length = strcspn(good, " \t");
	int status = 0;
	if (good[length]) {
		bad = good + length + strspn(good + length, " \t");
		good[length] = '\0';
	} else if (*good) {
		status = fail(err, "bisect: GOOD BAD is expected, or nothing for the mask that is edited");
	}
	if (status == 0)
		status = mask_view_bisect(view_of(context), context->talk, bad ? good : NULL, bad, err);
	free(good);
	return status ? -1 : view_show(context->app, "nesting", err);
}

int run_against(struct command_context *context, const char *arguments, bool forced,
				struct error *err)
{
	(void)forced;
	if (!*arguments)
		return fail(err, "against: the name of a file is expected (logits --taps hidden writes "
						 "such)");
	if (mask_view_against(view_of(context), context->talk, arguments, err))
		return -1;
	return view_show(context->app, "nesting", err);
}
