/*
 * Points in a frame of characters, for terminals and files. Points have letters; those of the
 * front are joined by dots, so that what is worse on both axes lies below and right of them. The
 * axes end at, and are labelled with, round numbers.
 */
#ifndef INSPECT_SCATTER_H
#define INSPECT_SCATTER_H

#include "base/text.h"
#include <stdbool.h>
#include <stddef.h>

struct scatter_point {
	double x, y;
	char letter;
	bool front; // no other point is left of and above it
};

struct scatter {
	const struct scatter_point *points; // borrowed
	size_t n;
	int width, height; // of the inside, at least 10 x 4
	const char *x_label, *y_label;
	bool ascii;
	bool plain; // curves: no dots
};

/* Appends height + 4 lines. Points with NAN are left out. */
void scatter_draw(const struct scatter *scatter, struct text *out);

#endif
