/* The importance pane's state, for its files: the pane, the curve, the map of layers x channels,
 * the matrix of orders. */
#ifndef TUI_PANE_IMPORTANCE_H
#define TUI_PANE_IMPORTANCE_H

#include "inspect/agreement.h"
#include "inspect/importance.h"
#include "inspect/rank.h"
#include "tui/importance_work.h"
#include "tui/look.h"
#include "tui/pane.h"

enum importance_mode { MODE_CURVE, MODE_MAP, MODE_TABLE, MODE_AGREEMENT, N_MODES };
enum importance_sort { SORT_STORED, SORT_MOST, SORT_LEAST, N_SORTS };

struct importance_map { // scores of one axis on all layers that have it
	bool ready;
	enum axis axis;
	enum importance_metric metric;
	const struct scores *source; // NULL = the checkpoint's
	int n_layers, n_channels,
		next;      // next: the layer to read, as many are read a frame as time allows
	int *layers;   // (n_layers) of the parent
	float *scores; // (n_layers, n_channels) over the layer's largest; NAN = unknown
	enum origin origin;
	struct error error;
};

struct pane_importance {
	struct pane pane;
	int layer;  // -1 = the whole model
	int axis;   // index among the axes of the layer
	int expert; // -1 = the mean of all
	enum importance_metric metric;
	enum importance_mode mode;
	enum importance_sort sort;
	bool cumulated;
	struct importance_work work;
	struct importance_query query; // what is loaded, or pending
	bool loaded, pending;          // pending: a job computes it
	struct importance_curve curve;
	struct agreement agreement;
	bool has_agreement;
	struct agreement matrix; // of the mode agreement
	struct importance_query matrix_of;
	bool has_matrix;
	char progress[100]; // what runs behind the screen, "" = nothing
	struct error error;
	uint32_t *kept;     // (curve.n): a bit a budget
	int *order;         // (curve.n): lines of the table
	int *place;         // (curve.n): by score, inside its group, from 1
	double *cumulative; // (curve.n)
	struct list list;
	int body_rows;
	struct importance_map map;
};

void importance_curve_draw(const struct pane_importance *p, const struct canvas *canvas);
void importance_budgets_draw(const struct pane_importance *p, const struct canvas *canvas);
void importance_map_draw(struct pane_importance *p, const struct canvas *canvas);
void importance_map_forget(struct importance_map *map); // takes {0}
void importance_agreement_draw(struct pane_importance *p, const struct canvas *canvas);

/* For commands: scores of these files, or of texts that are to be measured. */
int pane_importance_scores(struct pane *pane, const char *arguments, struct error *err);
int pane_importance_calibrate(struct pane *pane, const char *arguments, struct error *err);
void pane_importance_agreement(struct pane *pane); // shows the matrix

#endif
