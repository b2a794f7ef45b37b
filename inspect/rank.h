/*
 * Orders of scores: ranks, their correlation, inversions. Channels stand in stored order; a sorted
 * checkpoint stores the most important first.
 */
#ifndef INSPECT_RANK_H
#define INSPECT_RANK_H

#include "base/error.h"
#include <stdint.h>

/* order[k] = index of the k-th largest score; equal scores keep their stored order. */
int rank_order(const float *score, int n, int *order, struct error *err);

/* Ranks 1..n, the largest score first; equal scores share the mean of theirs. -1 without memory. */
int rank_average(const float *score, int n, double *rank, struct error *err);

/* Spearman's rho of two scores of the same n channels: -1..1, NAN if n < 2 or one of them is
 * constant. */
int rank_spearman(const float *a, const float *b, int n, double *rho, struct error *err);

/* Spearman's rho between the stored order (first = best) and the scores' order. */
int rank_stored(const float *score, int n, double *rho, struct error *err);

/* Pairs i < j with score[i] < score[j]: 0 = descending, n (n - 1) / 2 = ascending. */
int64_t rank_inversions(const float *score, int n);

/* Shannon entropy in bits of counts' shares; 0 when all are 0. */
double rank_entropy(const uint64_t *counts, int n);

#endif
