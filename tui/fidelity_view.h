/*
 * The teacher-forced comparison on the screen: what the columns' budgets say, token by token, about
 * what column 1 wrote or about a file, and from which layers the difference comes. A part of the
 * Compare pane.
 */
#ifndef TUI_FIDELITY_VIEW_H
#define TUI_FIDELITY_VIEW_H

#include "inspect/fidelity_job.h"
#include "tui/canvas.h"
#include "tui/errand.h"
#include "tui/look.h"
#include "tui/talk.h"

enum worst_order { BY_KL, BY_PLACE, BY_DROP, N_WORST_ORDERS };
#define FIDELITY_WORST 256

struct fidelity_view {
	struct fidelity_job *done; // its own; NULL = none yet
	struct errand errand;
	enum worst_order order;
	int worst[FIDELITY_WORST], n_worst, side; // of this side; -1 = to be listed anew
	struct list list, layers;
	int list_rows, layer_rows;
};

/* Sides in the columns' order; ids (n) are compared from position `first` on. */
int fidelity_view_ask(struct fidelity_view *view, const struct talk *talk,
					  const struct fidelity_side_plan *sides, int n_sides, const int32_t *ids,
					  int n, int first, struct error *err);
bool fidelity_view_job(struct fidelity_view *view, struct job *job);
void fidelity_view_close(struct fidelity_view *view); // takes {0}
void fidelity_view_forget(struct fidelity_view *view, const struct talk *talk);

/* side 1 or 2: held against the first. */
void fidelity_view_draw(struct fidelity_view *view, const struct talk *talk,
						const struct canvas *canvas, int side);
void fidelity_view_draw_layers(struct fidelity_view *view, const struct talk *talk,
							   const struct canvas *canvas, int side);
bool fidelity_view_action(struct fidelity_view *view, enum action action, bool layers);

#endif
