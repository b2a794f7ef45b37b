/*
 * The mask debugger of the workbench: the mask that is edited by hand, the tokens that are pinned,
 * and what the last probe said. An edit goes to the engine as a budget's text, so it reads from the
 * next token on; the probe runs in the background after every edit, the newest one wins.
 *
 * Lives in the Nesting view, which shows it; the commands :mask, :probe, :bisect and :against find
 * it there (pane_nesting_mask).
 */
#ifndef TUI_MASK_VIEW_H
#define TUI_MASK_VIEW_H

#include "core/mask.h"
#include "inspect/mask_job.h"
#include "tui/canvas.h"
#include "tui/talk.h"

struct mask_view {
	struct mask mask; // base.n_layers 0 = nothing is edited
	int32_t *pinned;  // ids that probes read; NULL = not chosen yet
	int n_pinned;
	struct probe probe;       // ours while no job has it; model NULL = not opened
	struct mask_job *waiting; // the probe of the mask
	struct mask_job *asked;   // a bisection or a comparison
	bool wanted;              // another probe when that of the mask comes back
	struct text line;         // what the last probe said
	struct text found;        // what the last bisection or comparison said, "" = nothing
	char
		found_with[BUDGET_NAME_BYTES]; // the budget that was chosen then: with another it is hidden
};

void mask_view_forget(struct mask_view *view, const struct talk *talk); // another model
void mask_view_close(struct mask_view *view);

/* Terms over the budget that writes now; the mask writes from the next token on. On -1 the last
 * good mask stays. */
int mask_view_edit(struct mask_view *view, struct talk *talk, const char *terms, struct error *err);

/* Undo goes back to edits that were left behind when another budget was chosen. */
enum mask_move { MASK_UNDO, MASK_REDO, MASK_FLIP, MASK_CLEAR };
int mask_view_move(struct mask_view *view, struct talk *talk, enum mask_move move,
				   struct error *err);
int mask_view_apart(struct mask_view *view, struct talk *talk, bool solo, int layer, int kind,
					struct error *err);
int mask_view_save(struct mask_view *view, struct talk *talk, const char *name, const char *path,
				   bool replace, struct error *err);
void mask_view_list(const struct mask_view *view, const struct talk *talk, struct text *out);

/* The tokens that probes read from now on: of a text, or of the conversation (NULL). */
int mask_view_pin(struct mask_view *view, struct talk *talk, const char *text, struct error *err);
/* good NULL: the base against the mask. */
int mask_view_bisect(struct mask_view *view, struct talk *talk, const char *good, const char *bad,
					 struct error *err);
int mask_view_against(struct mask_view *view, struct talk *talk, const char *path,
					  struct error *err);

bool mask_view_job(struct mask_view *view, const struct talk *talk, struct job *job); // it was ours
bool mask_view_stop(struct mask_view *view, const struct talk *talk); // false: nothing was running

/* The command that a key of the Nesting view stands for, on an axis of a layer (-1: the whole
 * model) of the budget that is shown (NULL = none): < > narrower and wider, d drops the layer or
 * runs it again, u r x undo, redo, flip. False: no key of the mask's. */
bool mask_view_key(const struct talk *talk, const struct budget *shown, enum axis axis, int layer,
				   int key, char *command, size_t size);

/* Lines that it would like, 0 = there is nothing to show. */
int mask_view_rows(const struct mask_view *view, const struct talk *talk, int columns);
void mask_view_draw(const struct mask_view *view, const struct talk *talk,
					const struct canvas *canvas);

#endif
