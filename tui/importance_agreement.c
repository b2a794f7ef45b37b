/* The matrix of the importance pane: Spearman between the orders of the selected axis. */
#include "tui/pane_importance.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Whether the matrix is of what is selected; computes it when everything for it is there. */
static int refresh(struct pane_importance *p, struct error *err)
{
	struct importance_query weights = {.axis = p->query.axis,
									   .layer = p->query.layer,
									   .expert = p->query.expert,
									   .metric = IMPORTANCE_WEIGHTS};
	const struct scores *measured[SCORES_MAX];
	struct importance_curve norms = {0};
	if (p->has_matrix && importance_same(&p->matrix_of, &weights))
		return 1;
	int ready = importance_want(&p->work, &weights, &norms, err);
	if (ready < 0 || (ready == 0 && !p->work.is_stopped))
		return ready;
	for (int i = 0; i < p->work.n_sources; i++)
		measured[i] = &p->work.sources[i];
	struct agreement_plan plan = {.axis = weights.axis,
								  .layer = weights.layer,
								  .expert = weights.expert,
								  .measured = measured,
								  .n_measured = p->work.n_sources,
								  .norms = ready ? &norms : NULL};
	int status = agreement_of(&p->matrix, p->pane.talk->model, &plan, err);
	importance_close(&norms);
	p->has_matrix = status == 0 && ready; // without norms it is asked for again
	p->matrix_of = weights;
	return status < 0 ? -1 : 1;
}

static enum role role_of(double rho)
{
	return isnan(rho) ? ROLE_DIM : rho >= .9 ? ROLE_GOOD : rho < .5 ? ROLE_WARN : ROLE_TEXT;
}

/* Where there is no room for all, the names are worth more than the last column. */
static void draw_matrix(const struct pane_importance *p, const struct canvas *canvas)
{
	const struct agreement *m = &p->matrix;
	int cell = canvas->columns < 100 ? 7 : 8, names = canvas->columns - cell * m->n - 9;
	bool inverted = names >= 18;
	names = inverted ? names : names + 9;
	names = names > 34 ? 34 : names < 10 ? 10 : names;
	for (int i = 0; i < m->n; i++)
		canvas_print(canvas, 0, names + cell * i, ROLE_HEADING, "%*d", cell - 1, i + 1);
	if (inverted)
		canvas_print(canvas, 0, names + cell * m->n, ROLE_HEADING, "inverted");
	for (int row = 0; row < m->n && row + 1 < canvas->rows; row++) {
		canvas_print(canvas, row + 1, 0, ROLE_TEXT, "%d %.*s", row + 1, names - 3, m->name[row]);
		for (int i = 0; i <= row; i++)
			canvas_print(canvas, row + 1, names + cell * i, role_of(m->rho[row][i]), "%*s",
						 cell - 1, number_fixed(m->rho[row][i], 3).text);
		if (inverted && row > 0)
			canvas_print(canvas, row + 1, names + cell * m->n, ROLE_DIM, "%8s",
						 number_percent(m->inverted[row]).text);
	}
}

void importance_agreement_draw(struct pane_importance *p, const struct canvas *canvas)
{
	struct error err = {0};
	if (p->query.axis == N_AXES) {
		look_say(canvas, 0, ROLE_DIM, "Layers are not stored by importance. h l: another axis.");
		return;
	}
	int ready = p->pending ? 0 : refresh(p, &err);
	if (ready <= 0) {
		look_say(canvas, 0, ready < 0 ? ROLE_ERROR : ROLE_DIM,
				 ready < 0 ? err.text : "Norms of the weights are being computed.");
		return;
	}
	draw_matrix(p, canvas);
	int row = p->matrix.n + 2;
	if (row < canvas->rows)
		look_say(
			canvas, row, ROLE_DIM,
			p->work.n_sources == SCORES_MAX
				? "Spearman between orders, 1 = the same; inverted: pairs stored against this "
				  "order. Two texts: where they disagree, the order depends on the text."
				: "Spearman between orders, 1 = the same; inverted: pairs stored against this "
				  "order. :calibrate FILE... measures on texts, :agreement FILE FILE holds two "
				  "against each other.");
}
